"""What a user asks of the power measurement, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from benchmarks.power.registry import AUTO, OFF, parse_sources
from hybridnets.errors import ExitCode, HnxError

__all__ = ["COOL_DOWN_LIMIT_S", "PowerConfig"]

# A passively cooled board that has not cooled down after five minutes will not.
COOL_DOWN_LIMIT_S = 300.0


@dataclass(frozen=True)
class PowerConfig:
    """How power is measured.

    Attributes:
        source: `off`, `auto`, or names of `benchmarks.power.registry` to be added up, with commas between them.
        idle_s: seconds at rest before anything is loaded, and again at the end; 0 subtracts nothing.
        cool_down_c: degrees below which the hottest zone must be before each round; None waits for nothing.
        cool_down_limit_s: seconds after which a round begins all the same.
        root: where `sys` and `proc` lie.
    """

    source: str = OFF
    idle_s: float = 5.0
    cool_down_c: float | None = None
    cool_down_limit_s: float = COOL_DOWN_LIMIT_S
    root: Path = Path("/")

    def __post_init__(self) -> None:
        parse_sources(self.source)
        if not (math.isfinite(self.idle_s) and self.idle_s >= 0):
            raise _usage(f"--idle {self.idle_s}", "it is a time in seconds, or 0", "for example --idle 5")
        if self.cool_down_c is not None and not (math.isfinite(self.cool_down_c) and self.cool_down_c > 0):
            raise _usage(
                f"--cool-down {self.cool_down_c}", "it is a temperature in Celsius", "for example --cool-down 50"
            )

    @property
    def off(self) -> bool:
        """No power is asked for."""
        return self.source.strip().lower() == OFF

    @property
    def by_name(self) -> bool:
        """Certain sources are asked for: it matters where they cannot be read."""
        return self.source.strip().lower() not in (AUTO, OFF)


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
