"""`hnx bench`: latency of every runtime and precision on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hnx.finite import FiniteRange
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from benchmarks.config import BenchConfig
    from benchmarks.power.config import PowerConfig
    from benchmarks.report import Report

__all__ = ["command"]

# a rest that suits the length of the run
_IDLE_S = {"fast": 2.0, "rigorous": 10.0}
# sections of the help, in the order in which they matter
_GROUPS = {
    "Model and input": ("runtime", "source", "threads", "compiled"),
    "Measuring": ("preset", "iterations", "duration", "max_time", "scenario", "streams", "baseline"),
    "Power and temperature": ("power", "idle", "cool_down"),
    "Report and gate": ("json_path", "reports", "against", "max_regression"),
}


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
  hnx bench exports/hybridnets_c3_384x640 --runtime openvino,onnxruntime --json now.json
  hnx bench --fast --runtime openvino --against now.json --max-regression 5
  hnx bench --runtime tensorrt --power ina3221 --cool-down 50

A row is valid when nothing speaks against its numbers; otherwise the table says what, and what to do about it.
Rows that cannot run here are listed with the reason. Exit codes: 0 measured, 3 slower than --against allows,
4 nothing could run here.""",
)
@click.argument("bundle", required=False)
@click.option(
    "--runtime",
    default="all",
    show_default=True,
    metavar="R[:PRECISION],...",
    help="Runtimes, each with all of its precisions unless one is named: openvino:fp32,torch. openvino:tuned is what "
    "hnx tune kept.",
)
@click.option(
    "--source",
    help="Image, folder, pattern or video for the end-to-end times.  [default: the frame that ships with hnx]",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all available]")
@click.option(
    "--compile", "compiled", is_flag=True, help="torch and torch-cuda: compile first (minutes), run faster after."
)
@click.option("--fast", "preset", flag_value="fast", help="A glance: 20 samples, 1 s, at most 20 s a row.")
@click.option("--rigorous", "preset", flag_value="rigorous", help="300 samples, 30 s, at most 15 min a row.")
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    help="Samples of each row and kind, at least; up to 3 times as many while a median is not fixed to 2 %."
    "  [default: 50]",
)
@click.option("--duration", type=float, metavar="SECONDS", help="Time of each row and kind, at least.  [default: 5]")
@click.option(
    "--max-time",
    type=float,
    metavar="SECONDS",
    help="A row ends after this time even below both minima.  [default: 180]",
)
@click.option(
    "--scenario",
    type=click.Choice(["single", "multi", "offline"]),
    default="single",
    show_default=True,
    help="One request at a time; --streams at a time; or as many as there are cores.",
)
@click.option(
    "--streams", type=click.IntRange(min=1), help="Requests side by side with --scenario multi.  [default: 2]"
)
@click.option("--baseline", metavar="R:PRECISION", help="Row that ratios refer to.  [default: the first valid one]")
@click.option(
    "--power",
    default="auto",
    show_default=True,
    metavar="auto|off|NAME",
    help="Read power meanwhile, for J per frame: ina3221, tegrastats or jtop on a Jetson, nvml for a card, rapl for a "
    "CPU; nvml,rapl adds both up. auto takes what is there, and says nothing where nothing is.",
)
@click.option(
    "--idle",
    type=float,
    metavar="SECONDS",
    help="Rest before and after the run, where power is read: J per frame above idle has its power subtracted; 0 "
    "subtracts nothing.  [default: 5; 2 with --fast, 10 with --rigorous]",
)
@click.option(
    "--cool-down",
    type=float,
    metavar="CELSIUS",
    help="Wait before each round until the hottest zone is no warmer, at most 5 minutes.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write everything, raw samples too."
)
@click.option(
    "--report",
    "reports",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Write the table as .md or .csv; may be repeated.",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="JSON of an earlier run to hold this one against.",
)
@click.option(
    "--max-regression",
    type=FiniteRange(min=0),
    metavar="PERCENT",
    help="How much slower than --against a p50 may be.  [default: 5]",
)
def command(bundle: str | None, **options: Any) -> None:
    """Measure latency per runtime and precision: forward only and end to end, side by side.

    BUNDLE is a folder written by `hnx export` or an ONNX file; without it the default network is used. Every row runs
    in a process of its own; rows take turns, so that a busy machine hits all of them alike.
    """
    from benchmarks.config import BenchConfig, planned_rows
    from benchmarks.gate import check_comparable, gate
    from benchmarks.report import REPORT_SUFFIXES, check_output, print_report, read_report, write_report
    from hnx.console import stdout
    from hnx.defaults import resolve_bundle

    # everything that can be refused is refused before the first network is loaded
    limit = options["max_regression"]
    if limit is not None and options["against"] is None:
        raise HnxError(
            "--max-regression without --against",
            why="there is nothing to compare with",
            fix="add --against FILE, the --json of an earlier run",
            code=ExitCode.USAGE,
        )
    reports: tuple[Path, ...] = options["reports"]
    for path in reports:
        check_output(path, REPORT_SUFFIXES)
    if options["json_path"] is not None:
        check_output(options["json_path"])
    earlier = None if options["against"] is None else read_report(options["against"])
    config = BenchConfig(
        resolve_bundle(bundle),
        runtimes=options["runtime"],
        preset=options["preset"] or "default",
        iterations=options["iterations"],
        duration_s=options["duration"],
        max_time_s=options["max_time"],
        scenario=options["scenario"],
        streams=options["streams"],
        threads=options["threads"],
        source=options["source"],
        baseline=options["baseline"],
        compiled=options["compiled"],
        power=_power(options),
    )
    if earlier is not None:
        known = {"scenario": config.scenario, "streams": config.stream_count, "threads": config.thread_count}
        check_comparable(known, [":".join(row) for row in planned_rows(config.runtimes, config.bundle)], earlier)

    report = _measure(config)

    # files first: they outlive a terminal that closes
    if options["json_path"] is not None:
        _write_json(report, options["json_path"])
    for path in reports:
        write_report(report, path)
    print_report(report, stdout())
    if not report.measured:
        raise HnxError(
            "None of the rows could run here",
            why="every one was skipped, for the reasons above",
            fix="`hnx doctor` says what is missing",
            code=ExitCode.NOTHING_RAN,
        )
    if earlier is not None:
        failures = gate(report, earlier, 5.0 if limit is None else limit)
        if failures:
            raise HnxError(
                "Slower than the earlier report allows",
                why="; ".join(failures),
                fix="find the change that did it, or measure again when the machine is quiet",
                code=ExitCode.GATE_FAILED,
            )


def _power(options: Mapping[str, Any]) -> PowerConfig:
    from benchmarks.power.config import PowerConfig

    config = PowerConfig(options["power"], cool_down_c=options["cool_down"])
    idle_s = options["idle"]
    if idle_s is None:
        return replace(config, idle_s=_IDLE_S.get(options["preset"], config.idle_s))
    if config.off:
        raise HnxError(
            "--idle with --power off",
            why="at rest there is nothing to measure, either",
            fix="leave one of them out",
            code=ExitCode.USAGE,
        )
    return replace(config, idle_s=idle_s)


def _measure(config: BenchConfig) -> Report:
    from benchmarks.latency import Progress, run_bench
    from hnx.console import progress

    with progress() as bar:
        task = bar.add_task("measuring", total=None, extra="")

        def show(state: Progress) -> None:
            bar.update(task, completed=state.done, total=state.total, extra=state.text)

        return run_bench(config, show)


def _write_json(report: Report, path: Path) -> None:
    from hybridnets.files import write_json

    write_json(path, report.to_json())
