"""What every comparison that is run by hand, `python -m benchmarks.NAME`, does alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.statistics import FOREIGN_LIMIT
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import write_json
from runtimes.base import available_threads

__all__ = ["exit_code", "foreign_cores", "is_busy", "write_figures"]


def exit_code(run: Callable[[], int]) -> int:
    """What a script returns: errors of users are printed and have their own code, Ctrl-C has 130."""
    try:
        return run()
    except HnxError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)


def foreign_cores(wall: float, others: float | None) -> float | None:
    """Cores that other programs kept busy; None when the system does not say.

    Args:
        wall, others: elapsed time, and CPU time of other programs, in s, as `Stopwatch.stop` gives them.
    """
    return None if others is None else max(0.0, others / wall)


def is_busy(foreign: float | None) -> bool:
    """Whether others kept so many cores busy that times say little."""
    return foreign is not None and foreign > FOREIGN_LIMIT * available_threads()


def write_figures(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON; tuples become lists, NaN is refused.

    Raises:
        HnxError: the file cannot be written.
    """
    write_json(path, json.loads(json.dumps(report, allow_nan=False)))
