"""`hnx eval`: accuracy of all three tasks for every runtime and precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hnx.finite import FiniteRange
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from benchmarks.accuracy.config import EvalConfig
    from benchmarks.accuracy.report import EvalReport
    from benchmarks.accuracy.summary import EvalResult

__all__ = ["command"]

# sections of the help, in the order in which they matter
_GROUPS = {
    "Network and data": ("runtime", "data", "split", "project", "limit", "threads", "workers"),
    "Measuring": ("protocol", "conf", "iou", "draws", "baseline"),
    "Report and gate": ("json_path", "reports", "pictures", "max_drop", "verbose"),
    "Long runs": ("fresh", "store", "shard", "merge"),
}
_OF_ONE_RUN = (
    "data", "split", "project", "limit", "threads", "workers", "conf", "iou", "pictures", "shard", "store",
)  # fmt: skip


class _GroupedCommand(click.Command):
    """Options in sections instead of one long list."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [option for option in self.get_params(ctx) if isinstance(option, click.Option)]
        known = {name for names in _GROUPS.values() for name in names}
        groups = {**_GROUPS, "Help": {option.name for option in options} - known}
        for title, names in groups.items():
            records = [option.get_help_record(ctx) for option in options if option.name in names]
            with formatter.section(title):
                formatter.write_dl([record for record in records if record is not None])


@click.command(
    cls=_GroupedCommand,
    epilog="""\b
Examples:
  hnx eval exports/hybridnets_c3_384x640 --data datasets --json accuracy.json
  hnx eval --runtime torch,openvino:bf16 --baseline torch:fp32 --max-drop 0.5
  hnx eval --data datasets --shard 1/2 --json a.json      here, and --shard 2/2 --json b.json elsewhere
  hnx eval --merge a.json b.json --json whole.json        the same figures as in one run

Protocol paper scores as upstream's val.py does (boxes above 0.001, masks at the network's size with their padding);
deploy scores what `hnx infer` delivers (boxes above 0.25, masks at the frame's size). A run that was stopped goes on
when the same command is given again. Exit codes: 0 measured, 1 no image could be read, 3 a row lost more than
--max-drop allows or did not run, 4 nothing could run here.""",
)
@click.argument("arguments", nargs=-1, metavar="[BUNDLE]")
@click.option(
    "--runtime",
    default="all",
    show_default=True,
    metavar="R[:PRECISION],...",
    help="Runtimes, each with all of its precisions unless one is named: openvino:fp32,torch. openvino:tuned is what "
    "hnx tune kept.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Data set in upstream's layout.  [default: datasets/ if it is there, else 64 generated scenes]",
)
@click.option("--split", metavar="NAME", help="Part of the data set.  [default: val]")
@click.option("-p", "--project", default="bdd100k", show_default=True, help="Project: a name or a .yml file.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N images.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the network.  [default: all available]")
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that read images ahead; 0 reads in a thread.  [default: 4 with more than 4 cores, else 0]",
)
@click.option(
    "--protocol",
    type=click.Choice(["paper", "deploy"]),
    default="paper",
    show_default=True,
    help="How it is scored; see below.",
)
@click.option("--conf", type=float, metavar="X", help="Boxes need a score above it.  [default: the protocol's]")
@click.option("--iou", type=float, metavar="X", help="Overlap above which the weaker box is dropped.")
@click.option(
    "--draws",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    help="Resamplings of the 95 % intervals; 0 computes none.",
)
@click.option(
    "--baseline",
    metavar="R:PRECISION",
    help="Row that drops refer to.  [default: torch:fp32 if it ran, else the first fp32 row]",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write everything.")
@click.option(
    "--report",
    "reports",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Write the table as .md or .csv; may be repeated.",
)
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    metavar="N",
    help="Draw the N worst and the N most changed frames of every row, and precision-recall curves.",
)
@click.option(
    "--max-drop",
    type=FiniteRange(min=0),
    metavar="POINTS",
    help="End with 3 when mAP, drivable mIoU or lane IoU of a row lies more percent points below the baseline.",
)
@click.option("-v", "verbose", is_flag=True, help="Also per class, over all pixels, and COCO's own mAP.")
@click.option(
    "--fresh/--resume", "fresh", default=False, help="Start anew, or go on where an earlier run ended (default)."
)
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results") / "eval",
    show_default=True,
    metavar="FOLDER",
    help="What a stopped run goes on from, and the pictures; may be deleted at any time.",
)
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts of the images, to be merged later.")
@click.option("--merge", is_flag=True, help="Put the --json files of all shards together; name them instead of BUNDLE.")
def command(arguments: tuple[str, ...], **options: Any) -> None:
    """Measure accuracy per runtime and precision: boxes, drivable area and lane lines, with the drop and its interval.

    BUNDLE is a folder written by `hnx export` or an ONNX file; without it the newest of exports/ is used. Every row
    runs in a process of its own and gets byte-identical inputs.
    """
    from benchmarks.accuracy.views import print_report
    from benchmarks.report import REPORT_SUFFIXES, check_output
    from hnx.console import stdout

    # everything that can be refused is refused before the first network is loaded
    for path in options["reports"]:
        check_output(path, REPORT_SUFFIXES)
    if options["json_path"] is not None:
        check_output(options["json_path"])
    result = _merge(arguments, options) if options["merge"] else _run(arguments, options)
    report = result.report
    print_report(report, stdout(), verbose=options["verbose"])
    if not report.measured:
        raise HnxError(
            "None of the rows could run here",
            why="every one was skipped, for the reasons above",
            fix="`hnx doctor` says what is missing",
            code=ExitCode.NOTHING_RAN,
        )
    _warn(report)
    if options["max_drop"] is not None:
        _check_drop(report, options)


def _run(arguments: tuple[str, ...], options: Mapping[str, Any]) -> EvalResult:
    """Evaluate, and write everything that was asked for."""
    from benchmarks.accuracy.merge import records_folder, write_shard
    from benchmarks.accuracy.pictures import check_folder
    from hnx.evaluation import draw, evaluate

    config = _configure(arguments, options)
    folder = config.store / "pictures"
    if options["pictures"] is not None:
        check_folder(folder)
    result = evaluate(config)
    # files first: they outlive a terminal that closes
    _write(result.report, options)
    if config.shard is not None and options["json_path"] is not None:
        write_shard(result, options["json_path"])
        _note(
            f"keep {records_folder(options['json_path'])} beside {options['json_path']}: "
            "`hnx eval --merge` needs both, of every shard"
        )
    if options["pictures"] is not None and result.report.measured:
        draw(config, result, folder, options["pictures"])
    return result


def _configure(arguments: tuple[str, ...], options: Mapping[str, Any]) -> EvalConfig:
    from benchmarks.accuracy.config import EvalConfig, Shard
    from benchmarks.config import planned_rows
    from hnx.defaults import resolve_bundle, resolve_split
    from hybridnets.project import load_project

    if len(arguments) > 1:
        raise HnxError(
            f"{len(arguments)} bundles are named",
            why="one is evaluated at a time",
            fix="name one; --merge takes several reports",
            code=ExitCode.USAGE,
        )
    shard = None if options["shard"] is None else Shard.parse(options["shard"])
    rows = planned_rows(options["runtime"])
    if options["max_drop"] is not None and len(rows) < 2:
        raise HnxError(
            "--max-drop with a single row",
            why="there is nothing to compare with",
            fix="add the baseline to --runtime, for example --runtime torch:fp32,openvino",
            code=ExitCode.USAGE,
        )
    project = load_project(options["project"])
    for sentence in project.warnings:
        _note(sentence)
    bundle = resolve_bundle(arguments[0] if arguments else None)
    return EvalConfig(
        bundle,
        resolve_split(project, options["data"], options["split"], limit=options["limit"]),
        runtimes=options["runtime"],
        protocol=options["protocol"],
        conf=options["conf"],
        iou=options["iou"],
        limit=options["limit"],
        shard=shard,
        threads=options["threads"],
        workers=options["workers"],
        baseline=options["baseline"],
        draws=options["draws"],
        store=options["store"],
        fresh=options["fresh"],
    )


def _merge(arguments: tuple[str, ...], options: Mapping[str, Any]) -> EvalResult:
    """Put shards together, and write the reports."""
    from benchmarks.accuracy.merge import merge_shards
    from benchmarks.config import parse_row

    context = click.get_current_context()
    typed = [
        option
        for option in context.command.params
        if option.name in _OF_ONE_RUN and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    ]
    if typed:
        raise HnxError(
            f"--merge with {', '.join(option.opts[-1] for option in typed)}",
            why="the shards were evaluated already",
            fix="leave it out; --json, --report, --baseline, --draws, --max-drop and -v can be given",
            code=ExitCode.USAGE,
        )
    if not arguments:
        raise HnxError(
            "--merge without files",
            fix="name the --json files of all shards: hnx eval --merge a.json b.json",
            code=ExitCode.USAGE,
        )
    baseline = None if options["baseline"] is None else parse_row(options["baseline"])
    result = merge_shards([Path(name) for name in arguments], baseline=baseline, draws=options["draws"])
    _write(result.report, options)
    return result


def _write(report: EvalReport, options: Mapping[str, Any]) -> None:
    from benchmarks.accuracy.views import write_report
    from hybridnets.files import write_json

    if options["json_path"] is not None:
        write_json(options["json_path"], report.to_json())
    for path in options["reports"]:
        write_report(report, path)


def _warn(report: EvalReport) -> None:
    """What must not be overlooked, once more on stderr."""
    count = report.data["broken"]["count"]
    if count:
        _note(f"WARNING: {count} of {report.data['images']} images could not be read; the figures are of the others")
    if not report.inputs["identical"]:
        _note("WARNING: the rows did not get the same inputs, so they cannot be compared")


def _check_drop(report: EvalReport, options: Mapping[str, Any]) -> None:
    from benchmarks.accuracy.config import required_rows
    from benchmarks.accuracy.gate import lost, not_compared

    # rows of a merge were chosen when the shards were evaluated
    runtimes = str(report.settings["runtimes"])
    missing = not_compared(report, required_rows(runtimes, options["baseline"]))
    losses = lost(report, options["max_drop"])
    if report.bundle.get("untrained"):
        _note("--max-drop compares an untrained network with itself: that the rows agree is all it can show")
    if losses:
        raise HnxError(
            "A row lost more accuracy than --max-drop allows",
            why="; ".join([*missing, *losses]),
            fix="`hnx eval --pictures 8` shows where; keep the parts that lose most at a higher precision",
            code=ExitCode.GATE_FAILED,
        )
    if missing:
        raise HnxError(
            "--max-drop has nothing to let pass",
            why="; ".join(missing),
            fix="leave out of --runtime and --baseline what does not run here; `hnx doctor` says what does",
            code=ExitCode.GATE_FAILED,
        )


def _note(text: str) -> None:
    from hnx.console import note

    note(text)
