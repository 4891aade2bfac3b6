"""What an evaluation becomes: JSON. It is the truth; `views.py` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.forms import all_objects, is_number, numbers
from hybridnets.errors import HnxError
from hybridnets.files import read_json

__all__ = ["SCHEMA_VERSION", "EvalReport", "Row", "figures", "read_report", "thin", "watched"]

SCHEMA_VERSION = 1
# upstream's README and most papers give IoU and accuracy of thin things, and the mean IoU of areas
THIN = ("lane", "line", "marking", "ll")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class EvalReport:
    """One evaluation.

    Attributes:
        rows: one object for each runtime and precision, skipped ones too.
        data: which images: path, split, digest, number, broken ones with their reasons, shard.
        protocol: name, conf, iou and `at`: where masks are compared.
        inputs: whether all rows saw the same bytes, and their digest.
        bundle, environment, settings: what ran, on what, and how.
        created: UTC time, ISO 8601.
    """

    rows: Sequence[Row]
    data: Mapping[str, Any]
    protocol: Mapping[str, Any]
    inputs: Mapping[str, Any]
    bundle: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def measured(self) -> list[Row]:
        """Rows that ran."""
        return [row for row in self.rows if "skipped" not in row]

    @property
    def skipped(self) -> list[Row]:
        """Rows that did not run."""
        return [row for row in self.rows if "skipped" in row]

    @property
    def baseline(self) -> str | None:
        """Name of the row that drops refer to; None when there is none."""
        name = self.settings.get("baseline")
        return None if name is None else str(name)

    def to_json(self) -> dict[str, Any]:
        """The whole report; plain JSON values without NaN."""
        return {
            "schema_version": self.schema_version,
            "kind": "eval",
            "created": self.created,
            "rows": list(self.rows),
            "data": dict(self.data),
            "protocol": dict(self.protocol),
            "inputs": dict(self.inputs),
            "bundle": dict(self.bundle),
            "environment": dict(self.environment),
            "settings": dict(self.settings),
        }


def read_report(path: Path) -> EvalReport:
    """An earlier report.

    Raises:
        HnxError: missing, no report of an evaluation, or written by a newer hnx.
    """
    value = read_json(path, limit=1 << 30)
    version = value.get("schema_version") if isinstance(value, dict) else None
    rows = value.get("rows") if isinstance(value, dict) and value.get("kind") == "eval" else None
    good = isinstance(rows, list) and all(isinstance(row, dict) and _complete(row) for row in rows)
    if not isinstance(version, int) or not isinstance(rows, list) or not good:
        raise HnxError(
            f"{path} is not a report of `hnx eval`",
            why="it lacks schema_version, kind or rows",
            fix="write one with `hnx eval --json FILE`",
        )
    if version > SCHEMA_VERSION:
        raise HnxError(
            f"Cannot use {path}",
            why=f"its schema version is {version}, this hnx reads {SCHEMA_VERSION}",
            fix="update hnx",
        )
    parts = {key: value.get(key) for key in ("data", "protocol", "inputs", "bundle", "environment", "settings")}
    for key, part in parts.items():
        if not isinstance(part, dict):
            raise HnxError(f"Cannot use {path}", why=f"its {key!r} is no object", fix="evaluate again")
    return EvalReport(rows=rows, created=str(value.get("created", "")), schema_version=version, **parts)


def _complete(row: Row) -> bool:
    if not all(isinstance(row.get(key), str) for key in ("runtime", "precision")):
        return False
    if "skipped" in row:
        return isinstance(row["skipped"], dict)
    metrics, drop = row.get("metrics"), row.get("drop")
    if not isinstance(metrics, dict) or not all_objects(row.get("network"), drop, metrics.get("seg")):
        return False
    return all_objects(*(metrics.get("seg") or {}).values()) and (drop is None or _complete_drop(drop))


def _complete_drop(drop: Row) -> bool:
    found = drop.get("metrics")
    return isinstance(found, dict) and all(
        numbers(value, ("points",)) and (value.get("interval") is None or _is_interval(value["interval"]))
        for value in found.values()
    )


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


# -- figures -------------------------------------------------------------------------------------------------


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Name to fraction of a row's `metrics`, segmentation classes as "road mIoU"; those that have no value are absent.

    >>> figures({"P": 0.5, "seg": {"road": {"mIoU": 0.9, "IoU": None}}})
    {'P': 0.5, 'road mIoU': 0.9}
    """
    heads = ("mAP50", "mAP50-95", "R", "P", "F1", "mIoU", "mAcc")
    found = {key: metrics.get(key) for key in heads}
    for name, values in (metrics.get("seg") or {}).items():
        found.update({f"{name} {key}": values.get(key) for key in ("mIoU", "IoU", "Acc")})
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def watched(seg_classes: Sequence[str], *, boxes: bool = True) -> list[str]:
    """The figures that a drop is looked for in: mAP, mean IoU of areas, IoU of thin things.

    >>> watched(["road", "lane"])
    ['mAP50', 'mAP50-95', 'road mIoU', 'lane IoU']
    """
    return [
        *(("mAP50", "mAP50-95") if boxes else ()),
        *(f"{name} {'IoU' if thin(name) else 'mIoU'}" for name in seg_classes),
    ]


def thin(name: str) -> bool:
    return any(word in THIN or word.rstrip("s") in THIN for word in name.lower().replace("_", " ").split())
