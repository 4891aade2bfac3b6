"""`python -m benchmarks.power [SECONDS]`: what every source of power says of this machine while nothing runs on it.

Sources that measure the same must agree: this is how a board's parsers, rails and files are checked.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.power.account import Record
from benchmarks.power.conditions import Conditions, hottest
from benchmarks.power.energy import Slice
from benchmarks.power.reading import Source, Unreadable
from benchmarks.power.registry import SOURCES, open_sources
from benchmarks.power.sampler import Sampler
from runtimes.sysfs import Tree

__all__ = ["look", "main"]


def look(tree: Tree, seconds: float) -> list[dict[str, Any]]:
    """Every source for some seconds, one after another, so that none warms the other.

    Returns:
        {"name", "problem"} or {"name", "watts", "rails", "total", "readings", "cpu_percent"} for each.
    """
    found: list[dict[str, Any]] = []
    for row in SOURCES:
        opened = open_sources(row.name, tree)
        if opened.sources:
            found.append({"name": row.name, **_rest(opened.sources[0], seconds)})
        else:
            found.append({"name": row.name, "problem": opened.missing[row.name]})
    return found


def _rest(source: Source, seconds: float) -> dict[str, Any]:
    with contextlib.closing(source):
        sampler = Sampler(source.read, source.interval_s)
        sampler.start()
        time.sleep(seconds)
        sampler.stop()
    taken = sampler.taken
    if len(taken) < 2:
        return {"problem": sampler.problem or f"{len(taken)} readings, too few"}
    record = Record(source.name, source.unit, source.interval_s, source.total, taken, sampler.problem)
    span = [Slice(taken[0].time_ns, taken[-1].time_ns, 0)]
    try:
        rails = {name: record.watts([name], span) for name in record.rails}
        watts = record.watts(record.total, span)
    except Unreadable as error:
        return {"problem": error.reason}
    return {
        "watts": watts,
        "rails": rails,
        "total": list(source.total),
        "readings": len(taken),
        "cpu_percent": 100 * sampler.cpu_s / seconds,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each source, and the temperature."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("seconds", nargs="?", type=float, default=5.0, help="for each source (default 5)")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where sys and proc lie (default /)")
    options = parser.parse_args(arguments)
    tree = Tree(options.root)
    for row in look(tree, options.seconds):
        if "problem" in row:
            print(f"{row['name']}: no, {row['problem']}")
            continue
        rails = ", ".join(f"{name} {watts:.3f}" for name, watts in row["rails"].items())
        print(
            f"{row['name']}: {row['watts']:.3f} W ({' + '.join(row['total'])}); rails {rails}; "
            f"{row['readings']} readings, {row['cpu_percent']:.1f} % of a core"
        )
    state = Conditions(tree).read()
    zone = hottest(state.celsius)
    print(f"temperature: {f'{zone[1]:.1f} C, {zone[0]}' if zone else 'none can be read'}")
    print(f"throttled: {'; '.join(state.throttled) or 'no'}")


if __name__ == "__main__":
    main()
