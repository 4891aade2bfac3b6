"""Power, temperatures and the GPU's clock from the lines that `tegrastats` prints, on any Jetson from Nano to Thor.

Its lines differ by board and release: an optional date before everything; rails as `POM_5V_IN 1750/1628`,
`VDD_IN 5080mW/5112mW` or with three numbers; sensors as `CPU@40C` or `cpu@52.9C/52.9C`, `-256C` where a sensor is off;
the GPU as `GR3D_FREQ 35%`, `10%@1300`, `12%@[1300,1300]` or `@[1000,1000,1000]`. The first number of a rail is what it
draws now, in milliwatts; the second is an average since tegrastats began, which says nothing about a measurement.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.power.reading import Reading, Unit, Unreadable, total_rails
from runtimes.sysfs import Tree

__all__ = ["Tegrastats", "TegrastatsLine", "parse_line"]

INTERVAL_MS = 100
# A line should come every 100 ms; the first one took longer than a second on slow boards.
TIMEOUT_S = 5.0

# A unit other than mW rules a pair out: `RAM 1923/3964MB`, `IRAM 0/252kB(lfb 252kB)`.
_RAIL = re.compile(r"(?<!\S)([A-Za-z]\w*) (-?\d+)(?:mW)?/-?\d+(?:mW)?(?:/-?\d+(?:mW)?)?(?!\S)")
_SENSOR = re.compile(r"(?<!\S)([A-Za-z][\w.-]*)@(-?\d+(?:\.\d+)?)C(?:/-?\d+(?:\.\d+)?C)?(?!\S)")
_GPU = re.compile(r"(?<!\S)GR3D(?:_FREQ)? (?:(\d+)%)?(?:@\[?(\d+(?:,\d+)*)\]?)?(?!\S)")
# of the chip that makes the voltages; a constant on most boards
_CONSTANT = re.compile("pmic", re.IGNORECASE)
# sensors that are switched off print -256
OFF_C = -200.0


@dataclass(frozen=True)
class TegrastatsLine:
    """What one line says.

    Attributes:
        rails: name to watts now; unused channels (`NC`) left out.
        celsius: sensor to degrees; those that are off, and constants, left out.
        gpu_percent: load of the GPU; None where the line does not say.
        gpu_mhz: its clock, the lowest where each of its clusters has one; None where the line does not say.
    """

    rails: Mapping[str, float] = field(default_factory=dict)
    celsius: Mapping[str, float] = field(default_factory=dict)
    gpu_percent: int | None = None
    gpu_mhz: int | None = None


def parse_line(line: str) -> TegrastatsLine:
    """Take a line of tegrastats apart; what it does not hold stays empty. Never fails.

    >>> parse_line("RAM 1/2MB GR3D_FREQ 5%@1300 tj@40.5C VDD_IN 5080mW/5112mW").rails
    {'VDD_IN': 5.08}
    """
    gpu = _GPU.search(line)
    percent, clocks = (gpu[1], gpu[2]) if gpu else (None, None)
    return TegrastatsLine(
        rails={name: int(now) / 1e3 for name, now in _RAIL.findall(line) if name != "NC"},
        celsius={
            name: float(degrees)
            for name, degrees in _SENSOR.findall(line)
            if float(degrees) > OFF_C and not _CONSTANT.search(name)
        },
        gpu_percent=int(percent) if percent else None,
        gpu_mhz=min(map(int, clocks.split(","))) if clocks else None,
    )


class Tegrastats:
    """A `tegrastats` of our own, started anew for each measurement.

    Raises:
        Unreadable: it is not there, cannot be started, says nothing or no power.
    """

    name = "tegrastats"
    unit: Unit = "W"
    interval_s = 0.0

    def __init__(self, tree: Tree) -> None:
        program = tree.which("tegrastats")
        if program is None:
            raise Unreadable("there is no program tegrastats")
        command = [program, "--interval", str(INTERVAL_MS)]
        self.details: Mapping[str, Any] = {"command": " ".join(command)}
        self._rest = b""
        try:
            # out of the terminal's group: Ctrl-C reaches the parent alone
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise Unreadable(f"tegrastats cannot be started: {error}") from error
        try:
            rails = self._parsed().rails
            if not rails:
                raise Unreadable("tegrastats prints no power rails for this user", "run hnx bench as root")
        except Unreadable:
            self.close()
            raise
        self._names = frozenset(rails)
        self.total = total_rails(rails)

    def _line(self) -> str:
        stream = self._process.stdout
        assert stream is not None
        end = time.monotonic() + TIMEOUT_S
        while b"\n" not in self._rest:
            try:
                ready = select.select([stream], [], [], max(0.0, end - time.monotonic()))[0]
                data = os.read(stream.fileno(), 65536) if ready else None
            except (OSError, ValueError) as error:  # closed under our hands
                raise Unreadable(f"tegrastats cannot be read: {error}") from error
            if data is None:
                raise Unreadable(f"tegrastats said nothing for {TIMEOUT_S:.0f} s")
            if not data:
                raise Unreadable(f"tegrastats ended with exit status {self._process.wait()}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace")

    def _parsed(self) -> TegrastatsLine:
        return parse_line(self._line())

    def read(self) -> Reading:
        """See `Source.read`: waits for the next line."""
        line = self._parsed()
        if not self._names <= line.rails.keys():
            lost = ", ".join(sorted(self._names - line.rails.keys()))
            raise Unreadable(f"a line of tegrastats lacks {lost}")
        return Reading(time.monotonic_ns(), {name: line.rails[name] for name in self._names}, line.celsius)

    def close(self) -> None:
        """See `Source.close`."""
        with contextlib.suppress(OSError):
            self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
