"""What `hnx eval` measures, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.accuracy.protocols import PROTOCOLS, Protocol
from benchmarks.config import parse_row, planned_rows
from hybridnets.bundle import Bundle
from hybridnets.dataset import Split
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from hybridnets.project import Project
from runtimes.base import RuntimeOptions, available_threads
from runtimes.registry import parse_runtimes

__all__ = ["DEFAULT_STORE", "EvalConfig", "Shard", "check_project", "required_rows"]

DEFAULT_STORE = Path("results") / "eval"
# a reader takes 10 ms for a 1280x720 sample: four keep up with 400 images/s; with few cores a thread is enough,
# because the network takes them all (200 ms an image and runtime on two)
READERS = 4
FEW_CORES = 4


@dataclass(frozen=True)
class Shard:
    """A part of the data set: every `count`-th image from the `index`-th on, counted from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise _usage(
                f"There is no shard {self.index}/{self.count}",
                "they count from 1",
                f"for example 1/{max(1, self.count)}",
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`I/N` as it is typed.

        Raises:
            HnxError: not two whole numbers, or no such shard (exit code 2).

        >>> Shard.parse("2/4")
        Shard(index=2, count=4)
        """
        index, _, count = text.partition("/")
        if not (index.strip().isdecimal() and count.strip().isdecimal()):
            raise _usage(f"--shard {text}", "a shard is I/N: the I-th of N parts", "for example --shard 1/4")
        return cls(int(index), int(count))


@dataclass(frozen=True)
class EvalConfig:
    """What to measure.

    Attributes:
        bundle: the network.
        split: the labelled images; its project must fit the bundle.
        runtimes: `all` or `runtime[:precision],...`; a runtime without precision means all of its precisions.
        protocol: name in `PROTOCOLS`; `conf` and `iou` override its thresholds.
        limit: only the first so many images.
        shard: only this part of them.
        threads: CPU threads of the network; None is all this process may use.
        workers: processes that read images ahead; 0 reads in a thread; None chooses by the number of cores.
        baseline: `runtime:precision` that drops refer to; None is torch:fp32 where it ran, else the first fp32 row.
        draws: resamplings of the intervals; 0 for none.
        store: folder of what an interrupted run goes on from.
        fresh: start anew whatever lies there.
    """

    bundle: Bundle
    split: Split
    runtimes: str = "all"
    protocol: str = "paper"
    conf: float | None = None
    iou: float | None = None
    limit: int | None = None
    shard: Shard | None = None
    threads: int | None = None
    workers: int | None = None
    baseline: str | None = None
    draws: int = 200
    store: Path = DEFAULT_STORE
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise _usage(
                f"Unknown protocol {self.protocol!r}", did_you_mean(self.protocol, PROTOCOLS), "choose one of these"
            )
        for name in ("conf", "iou"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value <= 1.0:
                raise _usage(f"--{name} {value}", "thresholds lie between 0 and 1", f"for example --{name} 0.25")
        for name, least in (("limit", 1), ("workers", 0), ("draws", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise _usage(f"--{name} {value}", f"it counts from {least}", f"for example --{name} 8")
        RuntimeOptions(threads=self.threads)  # its own checks
        if not self.names:
            raise _usage(
                f"Shard {self.shard} holds no image",
                f"there are {len(self.all_names)} images",
                "use fewer shards",
            )
        check_project(self.bundle, self.split.project)
        _check_thresholds(self.bundle, self.effective)
        rows = planned_rows(self.runtimes, self.bundle)
        if self.baseline is not None and self.baseline_row not in rows:
            raise _usage(
                f"Baseline {self.baseline!r} is not evaluated",
                did_you_mean(":".join(self.baseline_row or ()), [":".join(row) for row in rows]),
                "name one of the rows",
            )

    @property
    def all_names(self) -> tuple[str, ...]:
        """Of the images before they are shared out."""
        return self.split.names if self.limit is None else self.split.names[: self.limit]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the images that are evaluated."""
        names = self.all_names
        return names if self.shard is None else names[self.shard.index - 1 :: self.shard.count]

    @property
    def effective(self) -> Protocol:
        """The protocol with this configuration's own thresholds in it."""
        protocol = PROTOCOLS[self.protocol]
        return replace(
            protocol,
            conf=protocol.conf if self.conf is None else self.conf,
            iou=protocol.iou if self.iou is None else self.iou,
        )

    @property
    def thread_count(self) -> int:
        """CPU threads, the default resolved."""
        return self.threads or available_threads()

    @property
    def worker_count(self) -> int:
        """Processes that read ahead, the default resolved."""
        if self.workers is not None:
            return self.workers
        return READERS if available_threads() > FEW_CORES else 0

    @property
    def baseline_row(self) -> tuple[str, str] | None:
        """Runtime and precision of the baseline asked for, aliases resolved."""
        return None if self.baseline is None else parse_row(self.baseline)


def required_rows(runtimes: str, baseline: str | None = None) -> set[tuple[str, str]]:
    """Rows that were asked for by name, so that a gate may not pass without them.

    A runtime with a precision; of a runtime without one its first, fp32; of `all` none. And the baseline.
    """
    chosen = [] if runtimes.strip().lower() == "all" else parse_runtimes(runtimes)
    rows = {(row.name, precision or row.precisions[0]) for row, precision in chosen}
    return rows if baseline is None else rows | {parse_row(baseline)}


def check_project(bundle: Bundle, project: Project) -> None:
    """Refuse labels that mean something else than the network's outputs.

    Files of other exporters carry no names: their numbers of classes are compared.

    Raises:
        HnxError: classes, segmentation classes or the way they overlap differ (exit code 2).
    """
    named = bool(bundle.manifest)
    pairs: list[tuple[str, str, Sequence[str], Sequence[str]]] = []
    if bundle.detects:
        pairs.append(("detection classes", "obj_list", bundle.classes, project.classes))
    if bundle.segments:
        pairs.append(("segmentation classes", "seg_list", bundle.seg_classes, project.seg_list))
    for words, key, ours, theirs in pairs:
        if tuple(ours) != tuple(theirs) if named else len(ours) != len(theirs):
            raise _usage(
                f"Project {project.name} does not fit bundle {bundle.name}",
                f"the network's {words} are {_listing(ours)}, the project's ({key}) {_listing(theirs)}",
                "name the project that the network was trained with: -p PROJECT.yml",
            )
    if bundle.segments and bundle.seg_mode != project.seg_mode:
        raise _usage(
            f"Project {project.name} does not fit bundle {bundle.name}",
            f"the network's segmentation is {bundle.seg_mode}, the project's {project.seg_mode}",
            "name the project that the network was trained with: -p PROJECT.yml",
        )


def _check_thresholds(bundle: Bundle, protocol: Protocol) -> None:
    """Refuse a protocol that wants other boxes than a graph with suppression gives."""
    form = bundle.form
    if form.nms is None:
        return
    try:
        form.thresholds(protocol.conf, protocol.iou)
    except HnxError as error:
        own = f"--conf {form.nms.conf:g} --iou {form.nms.iou:g}"
        raise _usage(
            f"Protocol {protocol.name} cannot be scored with bundle {bundle.name}",
            f"it takes boxes above {protocol.conf:g} with an IoU of {protocol.iou:g}; {error.why}",
            f"evaluate an export without --nms, or these boxes: --protocol deploy {own}",
        ) from error


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown or "none"


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
