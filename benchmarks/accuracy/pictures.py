"""The pictures of `hnx eval --pictures N`: what a drop in a figure looks like.

A folder with one sheet for each chosen frame (label | baseline | candidate; label | prediction for a row on its own)
and an `index.html` that lists them with their figures. `choose.py` says which frames, `panels.py` and `sheet.py` draw
one, `page.py` writes the page.

How the command calls it, after the report is written (a failure here must not cost the figures)::

    check_folder(folder)                      # before the run: refuses a folder that holds something else
    summary = write_pictures(
        folder,
        [PictureRow("openvino:fp32", records, predict), ...],
        reader,                               # SampleReader(split, target, frame_target=True)
        classes=bundle.classes,               # () without a detection head
        seg_classes=bundle.seg_classes,       # () without a segmentation head
        baseline="openvino:fp32",             # None: every row on its own
        count=16,
        curves=lambda inside: write_curves(inside, accumulators, bundle.classes).pictures,   # or None
        on_progress=lambda done, total: ...,
    )

`PictureRow.predict` gets the names of the frames that are shown and yields one `Prediction` (frame pixels) for each,
in the same order; a generator is best, because predictions are packed one by one. Rows are asked one after the
other and each is asked once, so a worker process may be started in `predict` and ended with its last frame.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.accuracy.choose import VISIBLE, Choice, FrameFigures, choose, frame_figures
from benchmarks.accuracy.names import safe_name
from benchmarks.accuracy.page import MARKER, Section, page
from benchmarks.accuracy.panels import label_panel, prediction_panel
from benchmarks.accuracy.sheet import Panel, sheet
from benchmarks.accuracy.shown import Packed, Truth, pack, truth
from hybridnets.dataset import SampleReader
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import atomic_directory, write_bytes
from hybridnets.postprocess import Prediction
from hybridnets.sinks import OutputNames, write_image

if TYPE_CHECKING:
    from benchmarks.accuracy.records import ImageRecord

__all__ = ["PictureRow", "PictureSummary", "check_folder", "write_pictures"]

INDEX = "index.html"


@dataclass(frozen=True)
class PictureRow:
    """One row of the report.

    Attributes:
        name: of the row, such as "openvino:fp32".
        records: of all its images.
        predict: names of frames to their predictions in frame pixels, in that order.
    """

    name: str
    records: Iterable[ImageRecord]
    predict: Callable[[Sequence[str]], Iterable[Prediction]]


@dataclass(frozen=True)
class PictureSummary:
    """What was written.

    Attributes:
        index: the page to open.
        sheets: number of pictures.
    """

    index: Path
    sheets: int


@dataclass(frozen=True)
class _Job:
    """One sheet to be drawn."""

    candidate: str
    baseline: str | None
    choice: Choice
    file: Path


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not ours: what lies in it is replaced as a whole.

    Raises:
        HnxError: it holds something, but not the page of an earlier run (exit code 2), or it cannot be read.
    """
    try:
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return
        if folder.is_dir() and (folder / INDEX).is_file() and MARKER.encode() in (folder / INDEX).read_bytes()[:4096]:
            return
    except OSError as error:
        raise from_os_error(f"Cannot read {folder}", error) from error
    raise HnxError(
        f"Cannot write pictures to {folder}",
        why="it holds something else than pictures of an earlier evaluation, and would be replaced",
        fix="name a new folder, or empty this one",
        code=ExitCode.USAGE,
    )


def write_pictures(
    folder: Path,
    rows: Sequence[PictureRow],
    reader: SampleReader,
    *,
    classes: Sequence[str],
    seg_classes: Sequence[str],
    baseline: str | None,
    count: int,
    curves: Callable[[Path], Sequence[Path]] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PictureSummary:
    """Draw the worst and the most changed frames of every row; the folder appears whole or not at all.

    Args:
        folder: replaced if it holds pictures of an earlier run.
        classes, seg_classes: of the bundle; empty without that head.
        baseline: name of the row that the others are held against, None for none.
        count: frames of each kind and row, from 1 on.
        curves: writes pictures into the folder it is given and returns their paths; shown on top of the page.
        on_progress: sheets drawn, sheets in all.

    Raises:
        HnxError: see `check_folder`; a frame cannot be read again, a row gives too few predictions, or the disk is
            full.
    """
    check_folder(folder)
    figures = {
        row.name: [frame_figures(record, boxes=bool(classes), seg_classes=seg_classes) for record in row.records]
        for row in rows
    }
    held = baseline if baseline in figures and len(figures) > 1 else None
    chosen = {
        name: choose(frames, None if held is None else figures[held], count)
        for name, frames in figures.items()
        if name != held
    }
    with atomic_directory(folder) as inside:
        jobs = _plan(chosen, held, inside)
        packed = _predictions(rows, jobs)
        _draw(jobs, packed, reader, classes, seg_classes, on_progress)
        shown = [] if curves is None else [path.relative_to(inside) for path in curves(inside)]
        sections = [
            Section(
                name,
                len(figures[name]),
                _mean(figures[name]),
                None if held is None else _mean(figures[held]),
                tuple((job.choice, job.file.name) for job in jobs if job.candidate == name),
            )
            for name in chosen
        ]
        text = page(sections, held, [path.as_posix() for path in shown])
        # file names that are no UTF-8 reach Python as lone surrogates
        write_bytes(inside / INDEX, text.encode("utf-8", "backslashreplace"))
    return PictureSummary(folder / INDEX, len(jobs))


def _mean(frames: Sequence[FrameFigures]) -> dict[str, float]:
    """Mean of every part over the frames."""
    parts = frames[0].parts if frames else {}
    return {part: sum(figures.parts[part] for figures in frames) / len(frames) for part in parts}


def _plan(chosen: Mapping[str, Sequence[Choice]], baseline: str | None, folder: Path) -> list[_Job]:
    """Files sort by row, kind and rank."""
    names = OutputNames(folder)
    jobs = []
    for row, choices in chosen.items():
        for choice in choices:
            digits = max(2, len(str(len(choices))))
            stem = f"{safe_name(row)}_{choice.kind}_{choice.rank:0{digits}d}_{safe_name(choice.name)}"
            jobs.append(_Job(row, None if choice.baseline is None else baseline, choice, names(stem, ".jpg")))
    return jobs


def _predictions(rows: Sequence[PictureRow], jobs: Sequence[_Job]) -> dict[tuple[str, str], Packed]:
    """(row, frame) to its prediction; every row is asked once, for all of its frames."""
    packed: dict[tuple[str, str], Packed] = {}
    for row in rows:
        names = sorted({job.choice.name for job in jobs if row.name in (job.candidate, job.baseline)})
        if not names:
            continue
        count = 0
        # a generator may hold a process: it must end when packing fails, too
        with contextlib.closing(_generated(row.predict(names))) as predictions:
            for name, prediction in zip(names, predictions, strict=False):
                packed[row.name, name] = pack(prediction)
                count += 1
        if count < len(names):
            raise HnxError(
                f"No pictures: {row.name} gave {count} of {len(names)} predictions",
                why="its process ended early",
                fix="run the command again; the figures are written already",
            )
    return packed


def _generated(predictions: Iterable[Prediction]) -> Generator[Prediction, None, None]:
    yield from predictions


def _draw(
    jobs: Sequence[_Job],
    packed: Mapping[tuple[str, str], Packed],
    reader: SampleReader,
    classes: Sequence[str],
    seg_classes: Sequence[str],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Every frame is read once, and one at a time is in memory."""
    done = 0
    for name in sorted({job.choice.name for job in jobs}):
        label = truth(reader.read(name), segmentation=bool(seg_classes))
        for job in (job for job in jobs if job.choice.name == name):
            sides = [(job.candidate, job.choice.candidate)]
            if job.baseline is not None and job.choice.baseline is not None:
                sides.insert(0, (job.baseline, job.choice.baseline))
            panels = [Panel("label", _label_figures(label, bool(classes)), label_panel(label, seg_classes))]
            for row, figures in sides:
                image = prediction_panel(label, _fitting(packed[row, name], label, name), classes, seg_classes)
                compared = job.choice.baseline if row == job.candidate else None
                role = "" if len(sides) == 1 else "candidate " if row == job.candidate else "baseline "
                panels.append(Panel(role + row, _figures(figures, compared, bool(classes)), image))
            title = f"{job.choice.kind} {job.choice.rank} of {job.candidate}:  {name}"
            picture = sheet(title, job.choice.reason, panels, boxes=bool(classes), seg_classes=seg_classes)
            write_image(job.file, picture)
            done += 1
            if on_progress is not None:
                on_progress(done, len(jobs))


def _fitting(prediction: Packed, label: Truth, name: str) -> Packed:
    if prediction.size != label.frame.shape[:2]:
        raise HnxError(
            f"Frame {name} is not the one that was evaluated",
            why=f"it had {prediction.size[1]}x{prediction.size[0]} pixels, now it has "
            f"{label.frame.shape[1]}x{label.frame.shape[0]}",
            fix="leave the data set alone while `hnx eval` runs",
        )
    return prediction


def _label_figures(label: Truth, boxes: bool) -> tuple[str, ...]:
    count = len(label.boxes)
    return (f"{count} box{'' if count == 1 else 'es'}",) if boxes else ()


def _figures(figures: FrameFigures, baseline: FrameFigures | None, boxes: bool) -> tuple[str, ...]:
    """The caption of a panel; what changed against the baseline in brackets."""
    words = [f"{figures.found} found, {figures.missed} missed, {figures.false} false"] if boxes else []
    for part, value in figures.parts.items():
        step = 0.0 if baseline is None else value - baseline.parts[part]
        words.append(f"{part} {value:.2f}" + (f" ({step:+.2f})" if abs(step) >= VISIBLE else ""))
    return tuple(words)
