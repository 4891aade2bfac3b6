"""What every source of power gives: readings of its rails, with the time they were taken at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

__all__ = ["TOTAL_RAILS", "Reading", "Source", "Unit", "Unreadable", "total_rails"]

Unit = Literal["W", "J"]

# Rails that hold all others: Orin Nano and NX, Xavier NX, TX2; Nano and TX1; Thor (its carrier board included).
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN")


class Unreadable(Exception):  # noqa: N818  not an error of the program: most machines lack most sensors
    """A source that cannot be read, or no longer.

    Args:
        reason: why, in a few words.
        fix: what a user can do; empty where nothing can be done.
    """

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.reason, self.fix = reason, fix


@dataclass(frozen=True)
class Reading:
    """One look at a source.

    Attributes:
        time_ns: of `time.monotonic_ns`, which all processes of a machine share.
        rails: name to watts, or to joules counted since the source was opened (`Source.unit` says which).
        celsius: sensor to degrees, where the source tells them along.
        throttled: what slows the device at this moment, in words.
    """

    time_ns: int
    rails: Mapping[str, float]
    celsius: Mapping[str, float] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()


class Source(Protocol):
    """Something that tells power or energy. Opening one takes a first reading, so an open source has been read.

    Attributes:
        name: as in the registry.
        unit: `W` for power at an instant, `J` for energy counted.
        interval_s: from one reading to the next; 0 where `read` waits for the next one and may find several waiting.
        total: rails that add up to the whole: the others are parts of them.
        details: what is read, for the report.
    """

    name: str
    unit: Unit
    interval_s: float
    total: tuple[str, ...]
    details: Mapping[str, Any]

    def read(self) -> Reading:
        """The next reading, with every rail of the first one.

        Raises:
            Unreadable: a file is gone, a program has ended.
        """
        ...

    def close(self) -> None:
        """End it; never fails."""
        ...


def total_rails(names: Iterable[str]) -> tuple[str, ...]:
    """The rails that add up to the whole of a Jetson: one that holds all others, or all of them.

    AGX Xavier and AGX Orin have no rail that holds the others.

    >>> total_rails(["VDD_IN", "VDD_SOC"])
    ('VDD_IN',)
    >>> total_rails(["GPU", "CPU"])
    ('CPU', 'GPU')
    """
    found = set(names)
    return next(((name,) for name in TOTAL_RAILS if name in found), tuple(sorted(found)))
