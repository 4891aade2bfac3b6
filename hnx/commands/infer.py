"""`hnx infer`: a bundle on pictures, videos, cameras and streams."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hnx.finite import FiniteRange
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle
    from hybridnets.sources import Source
    from runtimes.base import RuntimeOptions
    from runtimes.predictor import Predictor
    from runtimes.stream import Result, StreamSummary

__all__ = ["Writer", "command"]


class Writer:
    """Draws and stores results, and opens each output file when its first frame comes.

    Args:
        folder: of all outputs; made when needed.
        images: write pictures or a video.
        records: write JSON lines.
    """

    def __init__(self, source: Source, bundle: Bundle, folder: Path, *, images: bool, records: bool) -> None:
        from hybridnets.sinks import JsonLinesSink, OutputNames, VideoSink

        self._source, self._bundle, self._images = source, bundle, images
        self._names = OutputNames(folder)
        self._origin = source.files[0] if source.files else None
        self._stack = contextlib.ExitStack()
        self._video: VideoSink | None = None
        self._records: JsonLinesSink | None = None
        self.written: list[Path] = []
        self.found: Counter[str] = Counter()
        if records:
            # opened before the first frame: a folder that cannot be written shows at once
            self._records = JsonLinesSink(self._names(source.name, ".jsonl", self._origin))
            self._stack.enter_context(self._records)

    def __call__(self, result: Result) -> None:
        """Store one result."""
        from hybridnets.draw import draw_overlay
        from hybridnets.sinks import VideoSink, frame_record, write_image

        frame, prediction, bundle = result.frame, result.prediction, self._bundle
        if self._records is not None:
            self._records.write(frame_record(frame, prediction, bundle.classes, bundle.seg_classes))
        for label in prediction.detections.classes.tolist():
            self.found[bundle.classes[label] if label < len(bundle.classes) else f"class {label}"] += 1
        if not self._images:
            return
        picture = draw_overlay(frame.image, prediction, bundle.classes, bundle.seg_classes, copy=False)
        if self._source.is_video:
            if self._video is None:
                height, width = picture.shape[:2]
                path = self._names(self._source.name, ".mp4", self._origin)
                self._video = VideoSink(path, self._source.fps, (height, width))
                self._stack.enter_context(self._video)
            self._video.write(picture)
        else:
            origin = Path(frame.name)
            path = self._names(origin.stem, ".jpg", origin)
            write_image(path, picture)
            self.written.append(path)

    def close(self) -> None:
        """Give the open files their names, whatever happened: what is in them is whole up to here."""
        for sink in (self._video, self._records):
            if sink is not None and not sink.count:
                sink.discard()
            elif sink is not None and sink.path not in self.written:
                self.written.append(sink.path)
        self._stack.close()

    def discard(self) -> None:
        """Remove the open files."""
        for sink in (self._video, self._records):
            if sink is not None:
                sink.discard()


# upstream's spellings and others that users try; they are not shown in the help
_ALIASES = {"conf_thresh": "conf", "iou_thresh": "iou", "no-images": "no-draw"}


@click.command(
    "infer",
    context_settings={"token_normalize_func": lambda token: _ALIASES.get(token, token)},
    short_help="Run a bundle on images, videos, cameras or streams.",
    epilog="""\b
Examples:
  hnx infer drive.mp4 --save-json
  hnx infer 'frames/*.jpg' -b exports/hybridnets_c3_384x640 --runtime openvino -o out""",
)
@click.argument("source", required=False)
@click.option("--source", "source_option", hidden=True)
@click.option("-b", "--bundle", help="Bundle folder or ONNX file.  [default: the newest in exports/]")
@click.option("-r", "--runtime", default="auto", show_default=True, help="Runtime, or auto for the fastest here.")
@click.option(
    "--precision", help="fp32, bf16, fp16 or int8.  [default: what hnx tune kept for this machine, else fp32]"
)
@click.option(
    "--conf",
    type=FiniteRange(0, 1),
    help="Boxes need a score above it.  [default: 0.25, or what the graph suppresses with]",
)
@click.option(
    "--iou",
    type=FiniteRange(0, 1),
    help="The weaker of two boxes that overlap more is dropped.  [default: 0.3, or the graph's]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of one inference.  [default: all]")
@click.option(
    "--workers",
    type=click.IntRange(1, 16),
    help="Inferences side by side; 2 can fill the gaps of an accelerator.  [default: what hnx tune kept, else 1]",
)
@click.option("--compile", "compiled", is_flag=True, help="torch only: compile first (minutes), run faster after.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for the results.",
)
@click.option("--save-json", is_flag=True, help="Write boxes and masks as JSON lines too.")
@click.option("--no-draw", is_flag=True, help="Write no pictures or video: JSON lines only.")
def command(
    source: str | None,
    source_option: str | None,
    bundle: str | None,
    runtime: str,
    precision: str | None,
    conf: float | None,
    iou: float | None,
    threads: int | None,
    workers: int | None,
    compiled: bool,
    output: Path,
    save_json: bool,
    no_draw: bool,
) -> int:
    """Draw what a bundle sees: drivable area, lanes and vehicles.

    SOURCE is an image, a folder of images, a pattern, a video, the number of a camera (0) or an rtsp:// or http://
    address; without it, the road frame that ships with hnx. Results: NAME.jpg, NAME.mp4 and NAME.jsonl; Ctrl-C
    stops and keeps what was written.
    """
    from hnx.console import note
    from hnx.defaults import resolve_bundle
    from hybridnets.data import demo_frame
    from hybridnets.sources import open_source

    if source is not None and source_option is not None:
        raise click.UsageError("SOURCE is given twice, as argument and as --source.")
    named = source if source is not None else source_option
    with open_source(demo_frame() if named is None else named) as opened:
        for sentence in opened.notes:
            note(sentence)
        shown = len(opened.notes)
        chosen = resolve_bundle(bundle, weights=False)
        runtime, options = _options(chosen, runtime, precision, threads, workers, compiled)
        with _predictor(chosen, runtime, options, conf, iou) as predictor:
            writer = Writer(opened, chosen, output, images=not no_draw, records=save_json or no_draw)
            summary = _run(predictor, opened, writer, options.streams)
            execution = predictor.runtime.execution
            label = f"{predictor.runtime.name} {execution.precision}"
        for sentence in opened.notes[shown:]:
            note(sentence)
        return _report(opened, writer, summary, label, output)


def _options(
    bundle: Bundle, runtime: str, precision: str | None, threads: int | None, workers: int | None, compiled: bool
) -> tuple[str, RuntimeOptions]:
    """Runtime and options: what was asked for, and for the rest what hnx tune kept, as far as it holds here."""
    from dataclasses import replace

    from hnx.console import note
    from runtimes.base import TUNED, RuntimeOptions
    from runtimes.opening import first_runnable
    from runtimes.predictor import user_cache
    from runtimes.registry import entry
    from runtimes.tuned import look_up

    options = RuntimeOptions(precision or "fp32", threads, workers or 1, compile=compiled, cache_dir=user_cache())
    if precision is not None or compiled:
        return runtime, options
    name = first_runnable(bundle, "fp32").name if runtime == "auto" else entry(runtime).name
    found = look_up(bundle, name)
    if found.problem:
        note(f"what hnx tune kept for {name} is not used here: {found.problem}")
    if found.tuning is None:
        return name, options
    threads = min(found.tuning.threads, options.thread_count)
    streams = workers or found.tuning.streams
    several = f", {streams} streams" if streams > 1 else ""
    graph = f", rewrites: {found.tuning.rewrites}" if found.tuning.rewrites else ""
    note(f"{name} as hnx tune found it fastest: {found.tuning.precision}, {threads} thread(s){several}{graph}")
    return name, replace(options, precision=TUNED, streams=streams)


def _predictor(
    bundle: Bundle, runtime: str, options: RuntimeOptions, conf: float | None, iou: float | None
) -> Predictor:
    from hnx.console import status
    from runtimes.opening import open_runtime
    from runtimes.predictor import Predictor

    with status(f"loading {bundle.name}"):
        return Predictor(open_runtime(runtime, bundle, options), conf=conf, iou=iou)


def _run(predictor: Any, source: Source, writer: Writer, workers: int) -> StreamSummary:
    from hnx.console import note, progress
    from runtimes.stream import StreamInterrupted, run_stream

    unit = "frames" if source.is_video else "images"
    with progress() as bar:
        task = bar.add_task(f"infer {source.name}", total=source.length, extra=unit)

        def consume(result: Result) -> None:
            writer(result)
            bar.advance(task)

        try:
            summary = run_stream(predictor, source, consume, workers=workers)
        except StreamInterrupted as stopped:
            summary = stopped.summary
        except Exception:
            # a failing camera or network does not make the frames before it worthless; a failing disk does, but
            # then closing says so itself, and the first error is the one to show
            with contextlib.suppress(HnxError):
                writer.close()
                if writer.written:
                    note(f"kept what was written before the error: {', '.join(map(str, writer.written[:5]))}")
            raise
        except BaseException:
            writer.discard()
            raise
    writer.close()
    return summary


def _report(source: Source, writer: Writer, summary: StreamSummary, label: str, output: Path) -> int:
    from hnx.console import note, note_problems, success

    unit = "frame" if source.is_video else "image"
    amount = f"{summary.frames} {unit}{'' if summary.frames == 1 else 's'}"
    if len(writer.written) == 1:
        where = str(writer.written[0])
    elif source.is_video:
        where = " and ".join(map(str, writer.written)) or "nothing"
    else:
        where = f"{len(writer.written)} files in {output}"
    found = ", ".join(f"{count} × {name}" for name, count in writer.found.most_common(5)) or "no boxes"
    network = summary.stage_ms["network"]
    if summary.frames:
        success(f"{amount} ({found}) -> {where}")
        print(f"  {label}: {summary.fps:.1f} frames/s, network {network:.1f} ms")
    problems = source.problems
    note_problems(problems)
    if summary.interrupted:
        note(f"stopped by Ctrl-C after {amount}; what was written is complete up to there")
        return ExitCode.INTERRUPTED
    if problems and not source.is_video:
        note(f"{len(problems)} of {len(source.files)} images could not be read")
    return ExitCode.FAILED if problems else ExitCode.OK
