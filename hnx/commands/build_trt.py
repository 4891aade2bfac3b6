"""`hnx build-trt`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from hybridnets.bundle import Bundle
    from runtimes.tensorrt.launch import BuildProgress
    from runtimes.tensorrt.plan import Sidecar

__all__ = ["command"]

_HEARTBEAT_S = 15.0  # between lines where there is no terminal


@click.command(
    short_help="Build a TensorRT plan of a bundle for this machine's GPU.",
    epilog="Examples:  hnx build-trt --fp16   |   hnx build-trt exports/hybridnets_c3_384x640 --int8 --workspace 2GiB"
    "   |   hnx build-trt --flavor rtx   (without a GPU)",
)
@click.argument("network", metavar="[BUNDLE|ONNX]", required=False)
@click.option("--fp16", "--half", is_flag=True, help="Half precision.")
@click.option("--int8", is_flag=True, help="INT8 from explicit quantisation: the Q/DQ variant of the bundle, or file.")
@click.option("--fp32", is_flag=True, help="Single precision, without TF32; with --int8: the rest.  [default]")
@click.option(
    "--flavor",
    type=click.Choice(["auto", "trt", "rtx"]),
    default="auto",
    show_default=True,
    help="TensorRT, or TensorRT for RTX, which builds without a GPU.",
)
@click.option("--workspace", metavar="SIZE", help="Scratch memory, such as 2GiB.  [default: from what is free]")
@click.option(
    "--timing-cache", type=click.Path(path_type=Path, dir_okay=False), help="File.  [default: one per GPU and version]"
)
@click.option("--opt-level", type=click.IntRange(0, 5), help="Builder effort.  [default: TensorRT's own, 3]")
@click.option("--device", default="cuda:0", show_default=True, metavar="cuda:N|dla:N", help="Where the plan will run.")
@click.option("--allow-gpu-fallback", is_flag=True, help="With dla:N: the GPU runs what the DLA core cannot.")
@click.option("--min-batch", type=click.IntRange(min=1), help="For bundles with a free batch.  [default: 1]")
@click.option("--opt-batch", type=click.IntRange(min=1), help="Batch to be fastest at.  [default: --min-batch]")
@click.option("--max-batch", type=click.IntRange(min=1), help="Largest batch.  [default: --opt-batch]")
@click.option("--version-compatible", is_flag=True, help="The plan also runs on later versions (8.6 and later).")
@click.option(
    "--hardware-compat",
    type=click.Choice(["none", "ampere+", "same-cc"]),
    default="none",
    show_default=True,
    help="Other GPUs the plan shall run on; slower.",
)
@click.option("--verbose-layers", is_flag=True, help="List every layer with the precision it got.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder, or file ending in .plan.  [default: the bundle's]"
)
def command(network: str | None, **options: Any) -> None:
    """Build a plan: the network compiled by TensorRT for one version and GPU.

    The plan lies in the bundle, with a sidecar that says what it was built from and for, and which precision each layer
    got. One command for every TensorRT from 8.5 (JetPack 5) to 11, and for TensorRT for RTX.
    """
    from hnx.console import note, status, success
    from runtimes.tensorrt.builder import check_options
    from runtimes.tensorrt.config import PlanConfig, parse_bytes
    from runtimes.tensorrt.driver import probe
    from runtimes.tensorrt.launch import build_plan
    from runtimes.tensorrt.library import load

    low = options["min_batch"] or 1
    usual = options["opt_batch"] or low
    config = PlanConfig(
        Path(),
        fp16=options["fp16"],
        int8=options["int8"],
        fp32=options["fp32"],
        flavor=options["flavor"],
        workspace=None if options["workspace"] is None else parse_bytes(options["workspace"]),
        timing_cache=options["timing_cache"],
        opt_level=options["opt_level"],
        device=options["device"],
        gpu_fallback=options["allow_gpu_fallback"],
        batch=(low, usual, options["max_batch"] or max(low, usual)),
        version_compatible=options["version_compatible"],
        compat=options["hardware_compat"],
    )
    library = load(config.flavor)
    library.guard(probe(), building=True)
    check_options(config, library)
    target, onnx, folder = _network(network, config.precision, library.typing)
    output = options["output"] or folder

    start = time.monotonic()
    with status(f"building {onnx.name} with {library.name} {library.version} ({config.precision})") as say:
        path, sidecar, notes = build_plan(config.of(onnx), target, output, _teller(say))
    for sentence in notes:
        note(sentence)
    if options["verbose_layers"]:
        _print_layers(sidecar)
    _print_summary(sidecar)
    success(f"built {path} ({sidecar.bytes / 1e6:.1f} MB) in {time.monotonic() - start:.1f} s")
    where = f"on {sidecar.gpu}" if sidecar.gpu else "on a machine with an RTX card"
    bundle = path.parent if (path.parent / "manifest.json").is_file() else target
    print(f"Next, {where}: hnx bench {bundle} --runtime tensorrt:{config.precision}")


def _network(argument: str | None, precision: str, typing: str) -> tuple[str, Path, Path]:
    """What to build from: the name to type again, the ONNX file, and the folder for the plan."""
    from hnx.defaults import resolve_bundle
    from hybridnets.onnx_header import read_onnx_header
    from runtimes.tensorrt.choose import network_file

    if argument is not None and Path(argument).suffix.lower() == ".onnx":
        path = Path(argument)
        read_onnx_header(path)
        return argument, path, path.parent
    bundle: Bundle = resolve_bundle(argument)
    folder = bundle.path if bundle.path.is_dir() else bundle.path.parent
    return str(bundle.path), network_file(bundle, precision, typing), folder


def _teller(say: Callable[[str], None]) -> Callable[[BuildProgress], None]:
    """Every report on a terminal; one line in fifteen seconds elsewhere, so that logs stay short."""
    terminal = sys.stderr.isatty()
    last = time.monotonic()

    def show(state: BuildProgress) -> None:
        nonlocal last
        if terminal or time.monotonic() - last >= _HEARTBEAT_S:
            last = time.monotonic()
            say(f"building: {state}")

    return show


def _print_summary(sidecar: Sidecar) -> None:
    from rich.markup import escape

    from hnx.console import plain_table, stdout

    if not sidecar.summary:
        print("TensorRT does not say which precision its layers got")
        return
    table = plain_table("layers", "precision: number")
    for kind, counts in sidecar.summary.items():
        table.add_row(escape(kind), escape(", ".join(f"{name}: {count}" for name, count in counts.items())))
    stdout().print(table)
    print(f"convolutions run {sidecar.executed or '?'} ({sidecar.layers_from})")


def _print_layers(sidecar: Sidecar) -> None:
    from rich.markup import escape

    from hnx.console import plain_table, stdout

    table = plain_table("precision", "reads", "writes", "kind", "layer")
    for layer in sidecar.layers:
        if layer["precision"] != "none":
            reads, writes = ", ".join(layer["inputs"]), ", ".join(layer["outputs"])
            table.add_row(*map(escape, (layer["precision"], reads, writes, layer["kind"], layer["name"])))
    stdout().print(table)
