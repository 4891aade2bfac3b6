"""The conversion: frames over worker processes, the journal, the manifest, and a look at what was written."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hybridnets.dataset.workers import ordered_map
from hybridnets.errors import HnxError
from hybridnets.files import read_json, write_json
from hybridnets.version import __version__
from tools.convert.config import ConvertConfig
from tools.convert.drivable import read_grey
from tools.convert.frame import FrameTask, Outcome, Recipe, convert_frame, output_files
from tools.convert.journal import MANIFEST, Journal
from tools.convert.pictures import image_size
from tools.convert.plan import CONVERTER_VERSION, Plan, SplitPlan
from tools.convert.report import REASONS, SplitReport

__all__ = ["SCHEMA_VERSION", "convert", "read_back"]

SCHEMA_VERSION = 1
_BATCH = 16  # frames a task: 0.3 s of work, so that Ctrl-C is quick and 1 ms of pickling does not count
_GRACE_S = 10.0  # for a batch to be finished after Ctrl-C
_READ_BACK = 20  # frames of a split that are looked at again
OnProgress = Callable[[str, int, int], None]


def convert(config: ConvertConfig, plan: Plan, on_progress: OnProgress | None = None) -> list[SplitReport]:
    """Write the data set of a plan; go on where an earlier run was stopped.

    Args:
        config: what the plan was made from.
        plan: from `make_plan`.
        on_progress: told the split, the frames done and all frames of the split after every batch.

    Returns:
        A report for each split; the same is in the manifest conversion.json of the target.

    Raises:
        HnxError: the target cannot be written or holds something else, or no frame at all was written.
    """
    target = config.target.absolute()
    wanted = {split.recipe.split: (split.key, split.names) for split in plan.splits}
    journal = Journal(target, wanted, overwrite=config.overwrite)
    try:
        for split in plan.splits:
            _convert_split(config, split, journal, on_progress)
        reports = [split.report for split in plan.splits]
        for split in plan.splits:
            _check_split(split, journal)
        write_json(target / MANIFEST, _manifest(config, plan))
    finally:
        journal.close()
    return reports


def _convert_split(config: ConvertConfig, split: SplitPlan, journal: Journal, on_progress: OnProgress | None) -> None:
    name, report = split.recipe.split, split.report
    done, total = len(journal.done[name]), len(split.names)
    report.kept = done
    with contextlib.closing(_outcomes(split.recipe, split.tasks(journal.done[name]), config.workers)) as batches:
        for batch in batches:
            journal.add(name, [outcome for outcome in batch if not outcome.reason])
            for outcome in batch:
                if outcome.reason:
                    report.drop(outcome.reason, outcome.name, outcome.detail)
            done += len(batch)
            if on_progress is not None:
                on_progress(name, done, total)
    report.frames, report.counts = journal.frames[name], journal.totals[name]


class _Batch(list[FrameTask]):
    """Frames that go to a worker together."""

    def __str__(self) -> str:
        return f"{self[0].name} to {self[-1].name}"


def _outcomes(recipe: Recipe, tasks: Iterator[FrameTask], workers: int) -> Generator[list[Outcome], None, None]:
    """Outcomes of one batch after the other; memory is bounded by a few batches a worker."""
    batches = iter(lambda: _Batch(islice(tasks, _BATCH)), [])
    work = functools.partial(_work, recipe)
    return ordered_map(work, batches, workers=workers, prefetch=4 * workers, grace_s=_GRACE_S)


def _work(recipe: Recipe, batch: list[FrameTask]) -> list[Outcome]:
    return [convert_frame(recipe, task) for task in batch]


def _check_split(split: SplitPlan, journal: Journal) -> None:
    report = split.report
    if not report.frames:
        reasons = {reason: len(names) for reason, names in report.dropped.items()}
        reason = max(reasons, key=lambda key: reasons[key])
        name, detail = next(iter(report.dropped[reason].items()))
        raise HnxError(
            f"No frame of the {report.split} split could be converted",
            why=f"{reasons[reason]} were left out: {REASONS[reason]}, such as {name}: {detail}",
            fix="unpack the downloads again, or check the options",
        )
    left_out = {name for names in report.dropped.values() for name in names}
    written = [name for name in split.names if name not in left_out]
    step = max(1, len(written) // _READ_BACK)
    for name in written[::step]:
        read_back(split.recipe.target, split.recipe.split, name)


def read_back(target: Path, split: str, name: str) -> dict[str, Any]:
    """Read a frame of the output as upstream does.

    Returns:
        Its label.

    Raises:
        HnxError: the label is not in the form of v0, or image and masks do not fit.
    """
    image, label_file, *masks = output_files(target, split, name)
    label = read_json(label_file)
    try:
        objects = label["frames"][0]["objects"]
        good = label["name"] == name and all(
            entry["box2d"]["x1"] < entry["box2d"]["x2"] and entry["box2d"]["y1"] < entry["box2d"]["y2"]
            for entry in objects
        )
    except (KeyError, IndexError, TypeError):
        good = False
    size = image_size(image)
    for path in masks:
        mask = read_grey(path)
        good = good and mask.shape == size and set(np.unique(mask).tolist()) <= {0, 255}
    if not good:
        raise HnxError(
            f"What was written for {name} cannot be read back",
            why="its label or one of its masks is not as upstream needs it",
            fix=f"check the disk, remove {label_file} and run the same command again",
        )
    return dict(label)


def _manifest(config: ConvertConfig, plan: Plan) -> dict[str, Any]:
    options = json.loads(json.dumps(config.options()))
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": "hnx data convert",
        "version": __version__,
        "converter": CONVERTER_VERSION,
        "options": options,
        "root": str(config.root),
        "splits": {split.recipe.split: {**split.report.to_json(), "key": split.key} for split in plan.splits},
    }
