"""Rows of latency reports and of accuracy reports that are of the same network, runtime and precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.accuracy import report as accuracy
from benchmarks.accuracy.report import EvalReport, figures
from benchmarks.report import Report, read_report, row_name
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import read_json

__all__ = ["SCHEMA_VERSION", "JoinedReport", "JoinedRow", "Kind", "join", "read_reports"]

SCHEMA_VERSION = 1
KIND = "joined"
Kind = Literal["forward", "end_to_end"]
# a drop that is smaller by less than this many points is the same drop: single boxes move mAP50 by as much
SAME_POINTS = 0.2
SHOWN_REASONS = 2
# what of an accuracy report's data must be the same before two stand in one table -> in words
_SAME_DATA = {
    "names_sha256": "list of images",
    "digest": "data",
    "limit": "number of images",
    "shard": "shard",
    "truth": "project",
}


@dataclass(frozen=True)
class JoinedRow:
    """One runtime and precision of one network.

    Attributes:
        network: name of the bundle.
        name: `runtime:precision`.
        executed: precision that most convolutions ran in.
        p50_ms, p99_ms: latency; of the kind that the report names.
        ratio: to the baseline of its latency report; None without one.
        joules: per frame, idle included; None where no meter was read.
        figures: name to fraction: mAP50, "road mIoU", "lane IoU" and the like.
        drops: name to percent points below the baseline of its accuracy report; empty for that baseline itself, and
            where nothing was compared.
        baseline: it is what the others are compared with.
        intervals: name to the interval of the drop.
        valid: whether the latency report calls its times so.
        pareto: no faster row (p99) of its network loses as little in its worst task, give or take `SAME_POINTS`.
    """

    network: str
    name: str
    executed: str
    p50_ms: float
    p99_ms: float
    ratio: float | None
    joules: float | None
    figures: dict[str, float]
    drops: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    valid: bool = True
    pareto: bool = False
    baseline: bool = False

    @property
    def worst(self) -> float | None:
        """Largest drop of all tasks, in points; negative when every task gained, 0 for a baseline, None where nothing
        was compared."""
        return max(self.drops.values(), default=0.0 if self.baseline else None)


@dataclass(frozen=True)
class JoinedReport:
    """Everything that has both figures.

    Attributes:
        rows: fastest first.
        kind: whose latency stands in it: of the network alone, or from frame to result.
        tasks: names of the figures, in the order of the table.
        remarks: sentences that a reader needs.
        sources: what was joined: file, kind, time of creation, CPU.
    """

    rows: tuple[JoinedRow, ...]
    kind: Kind
    tasks: tuple[str, ...]
    remarks: tuple[str, ...]
    sources: tuple[dict[str, str], ...]

    def fastest(self, max_drop: float) -> JoinedRow | None:
        """The row of lowest p99 that loses at most so many points on every task; None when there is none. Rows that
        were not compared with anything are none."""
        return next((row for row in self.rows if row.worst is not None and row.worst <= max_drop), None)

    def to_json(self) -> dict[str, Any]:
        """The whole report; plain JSON values."""
        rows = [asdict(row) | {"worst_drop": row.worst} for row in self.rows]
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "latency": self.kind,
            "tasks": list(self.tasks),
            "rows": rows,
            "remarks": list(self.remarks),
            "sources": list(self.sources),
        }


def read_reports(
    paths: Sequence[Path], on_note: Callable[[str], None] = lambda _: None
) -> tuple[dict[Path, Report], dict[Path, EvalReport]]:
    """Reports of `hnx bench` and of `hnx eval`, told apart by what they say of themselves. A table that `hnx report`
    wrote before is passed over: `*.json` finds it as well.

    Args:
        on_note: told of such tables.

    Raises:
        HnxError: a file is neither, or one of the two kinds is missing.
    """
    latency: dict[Path, Report] = {}
    scored: dict[Path, EvalReport] = {}
    for path in dict.fromkeys(paths):
        value = read_json(path, limit=1 << 30)
        if isinstance(value, dict) and value.get("kind") == "eval":
            scored[path] = accuracy.read_report(path)
        elif isinstance(value, dict) and value.get("kind") == KIND:
            on_note(f"{path} is a table of `hnx report`, and left out")
        else:
            latency[path] = read_report(path)
    for kind, found, command in (("latency", latency, "bench"), ("accuracy", scored, "eval")):
        if not found:
            raise HnxError(
                f"There is no {kind} in it",
                why=f"none of the files is a report of `hnx {command}`",
                fix=f"write one with `hnx {command} --json FILE`, of the same bundle",
            )
    return latency, scored


def join(latency: Mapping[Path, Report], scored: Mapping[Path, EvalReport], kind: Kind = "forward") -> JoinedReport:
    """Put together what belongs together.

    A latency report and an accuracy report belong together when the networks' SHA-256 are the same: the name of a
    folder says nothing.

    Raises:
        HnxError: no two of the reports are of the same networks, or these have no row in common.
    """
    rows: list[JoinedRow] = []
    remarks: list[str] = []
    used: set[Path] = set()
    tasks: dict[str, None] = {}
    names = _names(latency)
    for speed_path, speed in latency.items():
        partners = {path: other for path, other in scored.items() if _same_networks(speed.bundle, other.bundle)}
        _check_alike(partners)
        for path, other in partners.items():
            used |= {speed_path, path}
            watched = [str(name) for name in other.settings.get("watched") or () if name != "mAP50-95"]
            tasks.update(dict.fromkeys(watched))
            joined = _rows(speed, other, watched, kind, names[speed_path])
            known = {(row.network, row.name) for row in rows}
            twice = [row.name for row in joined if (row.network, row.name) in known]
            if twice:
                remarks.append(
                    f"{path}: {', '.join(twice)} of {names[speed_path]} stood in an earlier file, which counts"
                )
            rows += [row for row in joined if row.name not in twice]
            remarks += _remarks(speed, other, names[speed_path])
            remarks += _left_out(speed, other)
    unused = [path for path in (*latency, *scored) if path not in used]
    if not used:
        raise HnxError(
            "The reports are of different networks",
            why="the SHA-256 of their network files are not the same",
            fix="give both commands the same bundle, and measure again after it was exported or quantised anew",
        )
    if not rows:
        raise HnxError(
            "The reports have no row in common",
            why="no runtime and precision ran in both",
            fix="give both commands the same --runtime",
        )
    remarks += [f"{path} has no counterpart and is left out" for path in unused]
    found: list[tuple[Path, Report | EvalReport]] = [*latency.items(), *scored.items()]
    rows.sort(key=lambda row: (row.p99_ms, math.inf if row.worst is None else row.worst))
    return JoinedReport(
        tuple(_marked(rows)),
        kind,
        tuple(tasks),
        tuple(dict.fromkeys(remarks)),
        tuple(_source(path, report) for path, report in found if path in used),
    )


def _same_networks(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Files of one name have one hash, and there is at least one."""
    hashes, others = (dict(bundle.get("files_sha256") or {}) for bundle in (one, other))
    shared = hashes.keys() & others.keys()
    return bool(shared) and all(hashes[name] and hashes[name] == others[name] for name in shared)


def _other_network(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Rows of `hnx tune` whose network was found anew between the two commands; other rows name none."""
    here, there = ((found.get("network") or {}).get("sha256") for found in (row, other))
    return bool(here and there and here != there)


def _left_out(speed: Report, other: EvalReport) -> list[str]:
    scored = {row_name(row): row for row in other.measured}
    return [
        f"{name} is left out: its latency is of another network than its accuracy, the bundle was tuned between them"
        for row in speed.measured
        if (name := row_name(row)) in scored and _other_network(row, scored[name])
    ]


def _check_alike(partners: Mapping[Path, EvalReport]) -> None:
    """Refuse accuracy reports of one network whose figures mean different things.

    Raises:
        HnxError: another protocol, other images or another truth (exit code 2).
    """
    first = next(iter(partners), None)
    for path, other in partners.items():
        one = partners[first or path]
        for words, here, there in (
            ("protocol", one.protocol, other.protocol),
            *((words, one.data.get(key), other.data.get(key)) for key, words in _SAME_DATA.items()),
        ):
            if here != there:
                raise HnxError(
                    f"{first} and {path} cannot stand in one table",
                    why=f"they are of one network, and the {words} is not the same",
                    fix="join them one by one; shards are put together by `hnx eval --merge`",
                    code=ExitCode.USAGE,
                )


def _names(latency: Mapping[Path, Report]) -> dict[Path, str]:
    """What each report's network is called; those of one name, such as twins, are called like their reports, with as
    much of the path as tells them apart."""
    found = {path: str(report.bundle.get("name", "bundle")) for path, report in latency.items()}
    twice = [path for path, name in found.items() if list(found.values()).count(name) > 1]
    parts = {path: path.absolute().with_suffix("").parts for path in twice}
    for path, mine in parts.items():
        others = [theirs for other, theirs in parts.items() if other != path]
        enough = (n for n in range(1, len(mine) + 1) if all(mine[-n:] != theirs[-n:] for theirs in others))
        found[path] = "/".join(mine[-next(enough, len(mine)) :])
    return found


def _rows(speed: Report, other: EvalReport, watched: Sequence[str], kind: Kind, network: str) -> list[JoinedRow]:
    scored = {row_name(row): row for row in other.measured}
    found = []
    for row in speed.measured:
        partner = scored.get(row_name(row))
        if partner is None or _other_network(row, partner):
            continue
        drops = (partner.get("drop") or {}).get("metrics") or {}
        known = {name: drops[name] for name in watched if name in drops}
        intervals = {name: drop["interval"] for name, drop in known.items() if drop.get("interval")}
        values = figures(partner["metrics"])
        power = (row.get("power") or {}).get(kind) or {}
        found.append(
            JoinedRow(
                network=network,
                name=row_name(row),
                executed=str(row.get("executed", row["precision"])),
                p50_ms=float(row[f"{kind}_ms"]["p50"]),
                p99_ms=float(row[f"{kind}_ms"]["p99"]),
                ratio=(row.get("ratio") or {}).get(kind),
                joules=power.get("joules_per_frame"),
                figures={name: values[name] for name in watched if name in values},
                drops={name: float(drop["points"]) for name, drop in known.items()},
                intervals={name: (float(low), float(high)) for name, (low, high) in intervals.items()},
                valid=bool(row.get("valid")),
                baseline=row_name(row) == other.baseline,
            )
        )
    return found


def _marked(rows: Sequence[JoinedRow]) -> list[JoinedRow]:
    """The same rows, those of each network marked that no other beats in both respects; rows come fastest first."""
    found: list[JoinedRow] = []
    best: dict[str, float] = {}
    for row in rows:
        if row.worst is None:
            found.append(row)
            continue
        loss = max(row.worst, 0.0)
        least = best.get(row.network)
        found.append(replace(row, pareto=least is None or loss < least - SAME_POINTS))
        best[row.network] = loss if least is None else min(least, loss)
    return found


def _remarks(speed: Report, other: EvalReport, name: str) -> list[str]:
    lines = []
    here, there = ((report.environment.get("cpu") or {}).get("model") for report in (speed, other))
    if here and there and here != there:
        lines.append(f"latency was measured on {here}, accuracy on {there}: a precision may run differently there")
    threads = speed.settings.get("threads")
    data = other.data
    bundle = speed.bundle.get("name", "bundle")
    title = name if name == bundle else f"{name}: {bundle}"
    lines.append(
        f"{title}: {speed.settings.get('streams', 1)} stream(s), {threads} thread(s) on {here or 'this machine'}; "
        f"{data.get('images', '?')} images of {Path(str(data.get('path', '?'))).name}, protocol "
        f"{other.protocol.get('name')}; drops against {other.baseline or 'nothing: no baseline ran'}"
    )
    if other.inputs.get("identical") is False:
        lines.append(f"{name}: rows did not get the same inputs, their accuracy cannot be compared")
    if speed.bundle.get("untrained") or other.bundle.get("untrained"):
        lines.append(f"{name}: the weights are untrained, its accuracy means nothing")
    shaky = [row for row in speed.measured if not row.get("valid")]
    if shaky:
        reasons = dict.fromkeys(reason for row in shaky for reason in (row.get("reasons") or ())[:1])
        lines.append(
            f"{name}: times of {', '.join(row_name(row) for row in shaky)} are not valid "
            f"({'; '.join([*reasons][:SHOWN_REASONS])}): measure again on a quiet machine"
        )
    return lines


def _source(path: Path, report: Report | EvalReport) -> dict[str, str]:
    return {
        "file": path.name,
        "kind": "accuracy" if isinstance(report, EvalReport) else "latency",
        "created": report.created,
        "cpu": str((report.environment.get("cpu") or {}).get("model", "")),
    }
