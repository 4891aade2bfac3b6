"""`hnx tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hnx.finite import FiniteRange

if TYPE_CHECKING:
    from benchmarks.tuning.config import TuneConfig
    from hybridnets.bundle import Bundle
    from hybridnets.bundle.tuning import Tuning

__all__ = ["command"]


@click.command(
    short_help="Find the fastest setting of a bundle inside an accuracy budget, and keep it.",
    epilog="""\b
Examples:
  hnx quantize --for openvino && hnx tune --data datasets --max-drop 0.5
  hnx tune exports/hybridnets_c3_384x640 --frames drive.mp4      without labels
  hnx tune --rewrites --data datasets                            other graphs of the network, too
  hnx tune exports/hybridnets_c3_384x640 --show

The setting is kept in the bundle's manifest with the machine, the version of the runtime and the network it was found
on, and is used only where all three are the same: by `hnx infer` unless --precision says otherwise, and as the row
openvino:tuned by `hnx bench` and `hnx eval`.""",
)
@click.argument("bundle", required=False)
@click.option("-r", "--runtime", default="openvino", show_default=True, help="Runtime to tune for.")
@click.option(
    "--goal",
    type=click.Choice(["latency", "throughput"]),
    default="latency",
    show_default=True,
    help="The time of one frame, or the time between frames with several under way (streams).",
)
@click.option(
    "--max-drop",
    type=FiniteRange(min=0.0),
    metavar="POINTS",
    help="Every task may lose as much against fp32.  [default: 0.5 with labels, 3 in agreement without]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Labelled images.  [default: datasets/ if it is there, else generated scenes]",
)
@click.option("-p", "--project", metavar="NAME", help="Of that data set: a name or a .yml file.  [default: bdd100k]")
@click.option(
    "--frames",
    metavar="PATH",
    help="Frames without labels instead: losses are then points of disagreement with fp32.",
)
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Images or frames at most.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads at most.  [default: all available]")
@click.option("--rounds", type=click.IntRange(min=3), default=10, show_default=True, help="Of timing, in turns.")
@click.option(
    "--rewrites",
    is_flag=True,
    help="Also try graphs with other exact rewrites: none, all, all but each one. They are exported from the bundle's "
    "weights, which needs torch.",
)
@click.option("--show", is_flag=True, help="Print what is kept, and measure nothing.")
@click.option("--reset", is_flag=True, help="Remove what is kept for this runtime.")
@click.option("--dry-run", is_flag=True, help="Measure, and keep nothing.")
def command(
    bundle: str | None,
    runtime: str,
    goal: str,
    max_drop: float | None,
    data: Path | None,
    project: str | None,
    frames: str | None,
    limit: int,
    threads: int | None,
    rounds: int,
    rewrites: bool,
    show: bool,
    reset: bool,
    dry_run: bool,
) -> None:
    """Find the fastest setting of a bundle on this machine that loses no more than a budget allows.

    Precisions are timed in turns; those that are faster than fp32 are evaluated; then graphs (with --rewrites), threads
    and streams of the best one are timed in turns. Where two settings cannot be told apart, the more careful one is
    taken.
    """
    from hnx.defaults import resolve_bundle
    from hnx.graphs import check_graphs
    from runtimes.registry import entry

    if show + reset + dry_run > 1:
        raise click.UsageError("--show, --reset and --dry-run exclude each other.")
    if rewrites and (show or reset):
        raise click.UsageError("--rewrites is for measuring: leave out --show and --reset.")
    if frames is not None and (data is not None or project is not None):
        raise click.UsageError("--frames takes no labels: leave out --data and -p, or --frames.")
    name = entry(runtime).name
    opened = resolve_bundle(bundle)
    if show:
        _show(opened, name)
    elif reset:
        _reset(opened, name)
    else:
        if rewrites:
            check_graphs(opened, name)
        config = _configure(opened, name, goal, max_drop, data, project, frames, limit, threads, rounds, dry_run)
        _tune(config, rewrites, dry_run)


def _configure(
    bundle: Bundle,
    runtime: str,
    goal: str,
    max_drop: float | None,
    data: Path | None,
    project: str | None,
    frames: str | None,
    limit: int,
    threads: int | None,
    rounds: int,
    dry_run: bool,
) -> TuneConfig:
    from benchmarks.accuracy.config import check_project
    from benchmarks.tuning.config import TuneConfig
    from hnx.console import note
    from hnx.defaults import resolve_split
    from hybridnets.bundle.tuning import check_storable
    from hybridnets.data import demo_frame
    from hybridnets.errors import HnxError
    from hybridnets.project import DEFAULT_PROJECT, load_project
    from hybridnets.sources import open_source

    if not dry_run:
        check_storable(bundle)
    split = None
    if frames is None:
        labels = load_project(project or DEFAULT_PROJECT)
        try:
            check_project(bundle, labels)
            split = resolve_split(labels, data, None, limit=limit)
        except HnxError as error:
            # labels that were asked for are an error; those that nobody has are not
            if data is not None or project is not None:
                raise
            note(f"no labels for this network: {error.what} ({error.why})")
            note(
                "measuring agreement with fp32 on the frame that ships with hnx; yours: --frames PATH, or --data and -p"
            )
            frames = str(demo_frame())
    if frames is not None:
        with open_source(frames):  # a typing error shows before minutes of timing, not after
            pass
    return TuneConfig(
        bundle,
        runtime,
        goal=goal,
        split=split,
        frames=frames,
        limit=limit,
        max_drop=max_drop,
        threads=threads,
        rounds=rounds,
    )


def _tune(config: TuneConfig, rewrites: bool, dry_run: bool) -> None:
    from contextlib import nullcontext
    from functools import partial

    from benchmarks.tuning.engine import tune
    from hnx.console import note, progress, status, success
    from hnx.graphs import make_graphs
    from hybridnets.bundle.tuning import store_tuning
    from hybridnets.files import temporary_directory

    with temporary_directory("hnx-tune-") if rewrites else nullcontext() as folder:
        with status(f"tuning {config.bundle.name} for {config.runtime}") as step, progress() as bar:
            task = bar.add_task("inferences", total=None, extra="")

            def show(done: int, total: int, text: str) -> None:
                bar.update(task, completed=done, total=total, extra=text)

            graphs = None if folder is None else partial(make_graphs, config.bundle, folder, note)
            result = tune(config, step, show, note, graphs)
        _print(result.tuning)
        for precision, reason in result.left_out.items():
            note(f"{precision} was not tried: {reason}")
        for text in result.notes:
            note(text)
        if not rewrites:
            _rewrites(config.bundle)
        if dry_run:
            print("nothing was kept (--dry-run)")
            return
        store_tuning(config.bundle, config.runtime, result.tuning, result.graph)
    success(f"kept in {config.bundle.path}: hnx infer --runtime {config.runtime} runs it from now on, on this machine")
    streams = result.tuning.streams
    several = f" --scenario multi --streams {streams}" if streams > 1 else ""
    print(f"Next: hnx bench {config.bundle.path} --runtime {config.runtime}:fp32,{config.runtime}:tuned{several}")


def _print(tuning: Tuning) -> None:
    """The table of everything that was measured, and the choice in a sentence."""
    from rich.markup import escape

    from hnx.console import plain_table, stdout
    from hybridnets.errors import printable

    tasks = list(dict.fromkeys(task for row in tuning.rows for task in row.lost or {}))
    word = "lost" if tuning.measure == "labels" else "differs"
    table = plain_table("precision")
    graphs = any(row.rewrites for row in tuning.rows)
    if graphs:
        table.add_column("rewrites")
    losses = (f"{escape(printable(task))} {word}" for task in tasks)
    for title in ("threads", "streams", "ms", "share of fp32", *losses):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in tuning.rows:
        low, middle, high = row.ratio
        form = "+.2f" if tuning.measure == "labels" else ".2f"
        lost = [format(row.lost[task], form) if row.lost is not None and task in row.lost else "-" for task in tasks]
        share = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        name = [row.precision, row.rewrites or "as it is"] if graphs else [row.precision]
        cells = [*name, str(row.threads), str(row.streams), f"{row.p50_ms:.2f}", share, *lost, row.verdict]
        table.add_row(*(escape(printable(cell)) for cell in cells))
    stdout().print(table)
    low, middle, high = tuning.chosen.ratio
    graph = f", rewrites: {printable(tuning.rewrites)}" if tuning.rewrites else ""
    source = printable(tuning.source)
    print(
        f"{tuning.precision}, {tuning.threads} thread(s), {tuning.streams} stream(s){graph}: {middle:.2f} of fp32's "
        f"time ({low:.2f} to {high:.2f} over the rounds), {tuning.goal}"
    )
    if not tuning.images:
        return
    if tuning.measure == "labels":
        print(f"lost: points against fp32 on {tuning.images} labelled image(s) of {source}; ", end="")
    else:
        print(f"differs: points of disagreement with fp32 on {tuning.images} frame(s) of {source}; ", end="")
    print(f"at most {tuning.max_drop:g} were allowed")
    if tuning.measure != "labels":
        print("without labels nobody knows which of the two is right: agreement is not accuracy")


def _rewrites(bundle: Bundle) -> None:
    """What an export with more rewrites would add; without --rewrites tuning takes the networks as they are."""
    from export.rewrites import REWRITES
    from hnx.console import note
    from hnx.graphs import rewrites_of

    done = rewrites_of(bundle)
    missing = [name for name in REWRITES if name not in done]
    if missing:
        note(
            f"this bundle was exported without the exact rewrites {', '.join(missing)}; `hnx export --rewrite all` "
            "with its weights makes one that has them, to be quantised and tuned anew"
        )


def _show(bundle: Bundle, runtime: str) -> None:
    from hnx.console import note
    from hybridnets.bundle.tuning import read_tuning
    from hybridnets.errors import HnxError, printable
    from runtimes.tuned import look_up

    try:
        tuning = read_tuning(bundle, runtime)
    except ValueError as error:
        raise HnxError(
            f"The setting kept in {bundle.path} for {runtime} cannot be read",
            why=str(error),
            fix=f"hnx tune {bundle.path} --runtime {runtime} --reset",
        ) from error
    if tuning is None:
        print(f"{bundle.name} is not tuned for {runtime}: hnx tune {bundle.path} --runtime {runtime}")
        return
    place = tuning.place
    _print(tuning)
    print(printable(f"found {tuning.created} on {place.cpu}, {place.cores} core(s), {runtime} {place.library}"))
    if problem := look_up(bundle, runtime).problem:
        note(f"it is not used here: {problem}")


def _reset(bundle: Bundle, runtime: str) -> None:
    from hnx.console import success
    from hybridnets.bundle.tuning import store_tuning

    if store_tuning(bundle, runtime, None):
        success(f"{bundle.name} is no longer tuned for {runtime}")
    else:
        print(f"{bundle.name} was not tuned for {runtime}")
