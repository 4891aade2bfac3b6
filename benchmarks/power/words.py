"""The power table and its sentences, out of a report's JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["COLUMNS", "csv_fields", "has_figures", "remarks"]

Row = Mapping[str, Any]
KINDS = {"forward": "forward only", "end_to_end": "end to end"}
# A rest that draws this much more at the end than at the start is no longer the same rest.
IDLE_DRIFT = 0.10


def _value(row: Row, kind: str, key: str) -> float | None:
    return ((row.get("power") or {}).get(kind) or {}).get(key)


def _cell(kind: str, key: str, digits: int) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        value = _value(row, kind, key)
        # a row that draws what a rest draws: 0, not -0
        return "" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"

    return cell


def _hottest(row: Row) -> str:
    celsius = ((row.get("power") or {}).get("temperature_c") or {}).get("max")
    return "" if celsius is None else f"{celsius:.0f}"


def _readings(row: Row) -> str:
    counts = [value for kind in KINDS if (value := _value(row, kind, "readings")) is not None]
    return str(int(min(counts))) if counts else ""


# heading (two lines in the table), right-aligned, cell; the first column, the row's name, is the report's own
COLUMNS: tuple[tuple[str, bool, Callable[[Row], str]], ...] = (
    ("forward\nW", True, _cell("forward", "watts", 2)),
    ("J per\nframe", True, _cell("forward", "joules_per_frame", 4)),
    ("above\nidle", True, _cell("forward", "joules_per_frame_above_idle", 4)),
    ("end to end\nW", True, _cell("end_to_end", "watts", 2)),
    ("J per\nframe", True, _cell("end_to_end", "joules_per_frame", 4)),
    ("above\nidle", True, _cell("end_to_end", "joules_per_frame_above_idle", 4)),
    ("max\nC", True, _hottest),
    ("readings", True, _readings),
)


def has_figures(rows: Sequence[Row]) -> bool:
    """Some row has a figure of power: without one there is no table."""
    return any(_value(row, kind, "watts") is not None for row in rows for kind in KINDS)


def remarks(power: Mapping[str, Any], rows: Sequence[Row], name: Callable[[Row], str]) -> list[str]:
    """Sentences below the table: what was read, what idle is, why figures are missing, what the cool-down did.

    Args:
        power: of the report; empty where nothing was asked for.
        rows: those that were measured.
        name: of a row.
    """
    lines = [*_sources(power), *_idle(power)]
    for row in rows:
        reasons = {
            kind: found["missing"] for kind in KINDS if "missing" in (found := (row.get("power") or {}).get(kind) or {})
        }
        for reason in dict.fromkeys(reasons.values()):
            which = [KINDS[kind] for kind, said in reasons.items() if said == reason]
            where = "" if len(which) == len(KINDS) else f" ({which[0]})"
            lines.append(f"no power figure for {name(row)}{where}: {reason}")
    cooling = power.get("cool_down") or {}
    failed = [step for step in cooling.get("rounds", ()) if not step["reached"]]
    if failed and failed[0]["to_c"] is None:
        lines.append("cool-down: no temperature can be read here, so no round waited")
    elif failed:
        lines.append(
            f"cool-down: {len(failed)} rounds began above {cooling['limit_c']:g} C, "
            f"after {cooling['limit_s']:g} s of waiting"
        )
    return lines


def _sources(power: Mapping[str, Any]) -> list[str]:
    lines = [
        f"power: {source['name']}, {' + '.join(source['total'])}; J per frame is the energy of a row's own turns"
        for source in power.get("sources", ())
    ]
    # nobody asked for a certain source with `auto`: what is not there is no news
    if power.get("asked", "auto") not in ("auto", "off"):
        for name, reason in (power.get("missing") or {}).items():
            fix = (power.get("fixes") or {}).get(name)
            lines.append(f"no power from {name}: {reason}{f' (fix: {fix})' if fix else ''}")
    return lines


def _idle(power: Mapping[str, Any]) -> list[str]:
    idle = power.get("idle")
    if not idle:
        return []
    start, end = idle["watts"], idle.get("watts_at_the_end")
    lines = [
        f"idle: {start:.2f} W over {idle['seconds']:.1f} s before anything was loaded"
        + ("" if end is None else f", {end:.2f} W at the end")
        + "; `above idle` has the first subtracted"
    ]
    if end is not None and abs(end - start) > IDLE_DRIFT * abs(start):
        lines.append(
            "advice: idle power changed during the run; let the machine come to rest first, with a larger --idle"
        )
    return lines


def csv_fields(row: Row) -> dict[str, float | str]:
    """Columns of the CSV report; none where a row has no power at all."""
    power = row.get("power")
    if not power:
        return {}
    fields: dict[str, float | str] = {}
    for kind in KINDS:
        for key in ("watts", "joules_per_frame", "joules_per_frame_above_idle"):
            value = _value(row, kind, key)
            fields[f"{kind}_{key}"] = "" if value is None else value
    temperature = power.get("temperature_c") or {}
    fields["max_celsius"] = temperature.get("max", "")
    return fields
