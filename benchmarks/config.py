"""What `hnx bench` measures: presets, scenarios and rows, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from benchmarks.power.config import PowerConfig
from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from runtimes.base import TUNED, available_threads, parse_precision
from runtimes.registry import entry, parse_runtimes
from runtimes.tuned import is_kept

__all__ = ["EXTENSION", "PRESETS", "BenchConfig", "Preset", "Scenario", "parse_row", "planned_rows"]

Scenario = Literal["single", "multi", "offline"]
# rows whose median is not fixed well enough go on, up to this many times the rounds and with them the iterations:
# the interval of a median is then 1.7 times narrower; what still misses the limit needs a quieter machine
EXTENSION = 3


@dataclass(frozen=True)
class Preset:
    """How much is measured.

    Attributes:
        iterations: forward-only and end-to-end samples of each row, at least; up to three times as many are taken
            while a median is not fixed well enough.
        duration_s: seconds of each of the two, at least.
        max_time_s: seconds of one row altogether (warm-up and measuring, not loading), after which it ends anyway.
        rounds: turns of every row.
        warmup_s: seconds after which a warm-up is given up.
    """

    iterations: int
    duration_s: float
    max_time_s: float
    rounds: int
    warmup_s: float


PRESETS: Mapping[str, Preset] = {
    "fast": Preset(20, 1.0, 20.0, 4, 3.0),
    "default": Preset(50, 5.0, 180.0, 10, 10.0),
    "rigorous": Preset(300, 30.0, 900.0, 20, 30.0),
}


@dataclass(frozen=True)
class BenchConfig:
    """What to measure. Checked when it is made, before anything is loaded.

    Attributes:
        bundle: the network.
        runtimes: `all` or `runtime[:precision],...`; a runtime without precision means all of its precisions.
        preset: name in `PRESETS`; the four values below override its own.
        scenario: `single` one request at a time; `multi` as many as `streams`; `offline` one stream for each core.
        streams: requests side by side, for `multi` only.
        threads: CPU threads; None is all this process may use.
        source: image, folder, pattern, video or camera; None is the frame that ships with the package.
        baseline: `runtime:precision` that ratios refer to; None is the first valid row.
        conf, iou: thresholds of the postprocessing; None is what the graph suppresses with, else 0.25 and 0.3.
        compiled: rows that can are compiled first (torch.compile).
        power: what is read of power and temperature meanwhile; nothing by default.
    """

    bundle: Bundle
    runtimes: str = "all"
    preset: str = "default"
    iterations: int | None = None
    duration_s: float | None = None
    max_time_s: float | None = None
    rounds: int | None = None
    scenario: Scenario = "single"
    streams: int | None = None
    threads: int | None = None
    source: str | Path | None = None
    baseline: str | None = None
    conf: float | None = None
    iou: float | None = None
    compiled: bool = False
    power: PowerConfig = PowerConfig()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        _check_choice("preset", self.preset, tuple(PRESETS))
        _check_choice("scenario", self.scenario, get_args(Scenario))
        for name in ("iterations", "rounds", "threads", "streams"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise _usage(f"--{name} {value}", "it counts from 1", f"for example --{name} 2")
        for name in ("duration_s", "max_time_s"):
            value = getattr(self, name)
            option = name.removesuffix("_s").replace("_", "-")
            if value is not None and not (math.isfinite(value) and value > 0):
                raise _usage(f"--{option} {value}", "it is a time in seconds above 0", f"for example --{option} 5")
        if self.streams is not None and self.scenario != "multi":
            raise _usage("--streams without --scenario multi", "other scenarios choose it", "add --scenario multi")
        _ = self.thresholds  # its own checks
        rows = planned_rows(self.runtimes, self.bundle)
        if self.baseline is not None and self.baseline_row not in rows:
            raise _usage(
                f"Baseline {self.baseline!r} is not measured",
                did_you_mean(":".join(self.baseline_row or ()), [":".join(row) for row in rows]),
                "name one of the rows",
            )

    @property
    def effective(self) -> Preset:
        """The preset with this configuration's own values in it."""
        base = PRESETS[self.preset]
        return Preset(
            self.iterations or base.iterations,
            self.duration_s or base.duration_s,
            self.max_time_s or base.max_time_s,
            self.rounds or base.rounds,
            base.warmup_s,
        )

    @property
    def thresholds(self) -> tuple[float, float]:
        """Of scores and overlaps, the defaults resolved."""
        return self.bundle.form.thresholds(self.conf, self.iou)

    @property
    def stream_count(self) -> int:
        """Requests side by side."""
        if self.scenario == "offline":
            return available_threads()
        return (self.streams or 2) if self.scenario == "multi" else 1

    @property
    def thread_count(self) -> int:
        """CPU threads, the default resolved."""
        return self.threads or available_threads()

    @property
    def baseline_row(self) -> tuple[str, str] | None:
        """Runtime and precision of the baseline, aliases resolved."""
        if self.baseline is None:
            return None
        return parse_row(self.baseline)


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise _usage(f"Unknown {name} {value!r}", did_you_mean(value, known), "choose one of these")


def parse_row(text: str) -> tuple[str, str]:
    """(runtime, precision) of one row written as `runtime[:precision]`, aliases resolved.

    Raises:
        HnxError: an unknown runtime or precision (exit code 2).

    >>> parse_row("ov:half")
    ('openvino', 'fp16')
    """
    name, _, precision = text.partition(":")
    return entry(name).name, parse_precision(precision or "fp32")


def planned_rows(runtimes: str, bundle: Bundle | None = None) -> list[tuple[str, str]]:
    """(runtime, precision) of every row, in the order of the table.

    Args:
        bundle: a runtime without precision has a row `tuned`, too, where `hnx tune` kept a setting for it in there.

    Raises:
        HnxError: an unknown runtime or precision (exit code 2).
    """
    rows: list[tuple[str, str]] = []
    for row, precision in parse_runtimes(runtimes):
        kept = (TUNED,) if bundle is not None and is_kept(bundle, row.name) else ()
        for name in (*row.precisions, *kept) if precision is None else (precision,):
            if (row.name, name) not in rows:
                rows.append((row.name, name))
    return rows
