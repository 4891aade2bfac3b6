"""All sources of power, as data. To add one: write a module with one class, add one row here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.power.reading import Source, Unreadable
from hybridnets.errors import ExitCode, HnxError, did_you_mean, first_line
from runtimes.sysfs import Tree

__all__ = ["AUTO", "OFF", "SOURCES", "Opened", "SourceEntry", "Survey", "open_sources", "parse_sources", "survey"]

AUTO, OFF = "auto", "off"


@dataclass(frozen=True)
class SourceEntry:
    """One row.

    Attributes:
        name: as typed by users.
        module, attribute: where its class is; imported only when chosen.
        covers: `board` holds everything on a Jetson; `gpu` and `cpu` are added up.
        measures: what, in words.
    """

    name: str
    module: str
    attribute: str
    covers: Literal["board", "gpu", "cpu"]
    measures: str


# In order of preference among those that cover the same.
SOURCES: tuple[SourceEntry, ...] = (
    SourceEntry("ina3221", "benchmarks.power.ina3221", "Ina3221", "board", "rails of a Jetson, from /sys"),
    SourceEntry("tegrastats", "benchmarks.power.tegrastats", "Tegrastats", "board", "rails of a Jetson, printed"),
    SourceEntry("jtop", "benchmarks.power.jtop", "Jtop", "board", "rails of a Jetson, by jtop's service"),
    SourceEntry("nvml", "benchmarks.power.nvml", "Nvml", "gpu", "an NVIDIA card with its memory"),
    SourceEntry("rapl", "benchmarks.power.rapl", "Rapl", "cpu", "packages and memory of an x86 processor"),
)  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """What `open_sources` found.

    Attributes:
        sources: open, to be added up.
        missing: those looked for in vain, name to reason.
        fixes: name to what would help, where something would.
    """

    sources: list[Source]
    missing: dict[str, str]
    fixes: dict[str, str]


@dataclass(frozen=True)
class Survey:
    """One source on this machine; `reason` is empty where it can be read."""

    name: str
    measures: str
    reason: str
    fix: str


def parse_sources(text: str) -> list[SourceEntry]:
    """Rows named `name,...`; none for `auto` and `off`.

    Raises:
        HnxError: an unknown name, or two that hold each other (exit code 2).
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if words in ([AUTO], [OFF]):
        return []
    known = {row.name: row for row in SOURCES}
    for word in words or [text]:
        if word not in known:
            raise HnxError(
                f"Unknown source of power {word!r}",
                why=did_you_mean(word, [AUTO, OFF, *known]),
                fix="choose one of these",
                code=ExitCode.USAGE,
            )
    rows = [known[word] for word in dict.fromkeys(words)]
    if len({row.covers for row in rows}) != len(rows) or (len(rows) > 1 and any(r.covers == "board" for r in rows)):
        raise HnxError(
            f"Sources of power that measure the same: {text}",
            why="their watts are added up, so nothing may be in two of them",
            fix="name one of them, or nvml,rapl",
            code=ExitCode.USAGE,
        )
    return rows


def _open(row: SourceEntry, tree: Tree) -> Source:
    try:
        make: Callable[[Tree], Source] = getattr(importlib.import_module(row.module), row.attribute)
        return make(tree)
    except Unreadable:
        raise
    except Exception as error:  # a vendor's library may raise anything
        raise Unreadable(first_line(error)) from error


def open_sources(text: str, tree: Tree) -> Opened:
    """Open the sources named; for `auto` the first that covers a whole board, else those of GPU and CPU that are here.

    Raises:
        HnxError: an unknown name (exit code 2). Sources that cannot be read are in the result instead.
    """
    opened = Opened([], {}, {})
    named = parse_sources(text)
    covered: set[str] = set()
    for row in () if text.strip().lower() == OFF else named or SOURCES:
        if not named and ({"board", row.covers} & covered):
            continue
        try:
            opened.sources.append(_open(row, tree))
            covered.add(row.covers)
        except Unreadable as error:
            opened.missing[row.name] = error.reason
            if error.fix:
                opened.fixes[row.name] = error.fix
    return opened


def survey(tree: Tree, *, board: bool) -> list[Survey]:
    """Every source made for this machine, whether it can be read.

    Args:
        board: it is a Jetson.
    """
    found = []
    for row in SOURCES:
        if (row.covers == "board") != board:
            continue
        reason = fix = ""
        try:
            _open(row, tree).close()
        except Unreadable as error:
            reason, fix = error.reason, error.fix
        found.append(Survey(row.name, row.measures, reason, fix))
    return found
