"""`hnx export`."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hnx.finite import FiniteRange

if TYPE_CHECKING:
    from hybridnets.bundle import GraphForm

__all__ = ["command"]


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on, not before
    """WIDTHxHEIGHT."""

    name = "WxH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """`640x384` to (640, 384)."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})[xX×](\d{1,6})", str(value))
        if match is None:
            self.fail(f"{value!r} is not a size such as 640x384", param, ctx)
        return int(match[1]), int(match[2])


@click.command(
    short_help="Turn a checkpoint into a proved deployment bundle.",
    epilog="Examples:  hnx export --width 640 --height 384   |   hnx export -w best.pth -p my.yml --size 640x384 "
    "--size 512x256 --opset 13",
)
@click.option(
    "-w",
    "--weights",
    "--load_weights",
    metavar="FILE|NAME",
    help="Checkpoint (.pth or .safetensors), a name of hnx weights list, or `untrained`.  [default: "
    "weights/hybridnets.pth, else weights that came with this installation and fit, else untrained]",
)
@click.option(
    "-c", "--compound-coef", "--compound_coef", type=int, help="Coefficient 0-7.  [default: the checkpoint's]"
)
@click.option(
    "-bb",
    "--backbone",
    metavar="NAME",
    help="timm model that is the encoder, such as repvgg_b0.  [default: the checkpoint's, else EfficientNet]",
)
@click.option("-p", "--project", help="Project name or .yml file.  [default: the checkpoint's, else bdd100k]")
@click.option("--width", type=int, help="Input width, a multiple of 128.  [default: the weights', else 640]")
@click.option("--height", type=int, help="Input height, a multiple of 128.  [default: the weights', else 384]")
@click.option("--size", "sizes", type=Size(), multiple=True, help="WxH instead of --width and --height; repeatable.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("exports"),
    show_default=True,
    help="Folder of bundles.",
)
@click.option("--opset", type=int, default=17, show_default=True, help="ONNX opset, 11 to 20.")
@click.option("--dynamic-batch", is_flag=True, help="Leave the batch size free (static shapes run faster).")
@click.option("--heads", default="det,seg", show_default=True, help="Tasks to keep; the rest is cut out of the graph.")
@click.option(
    "--layout",
    multiple=True,
    metavar="NAME",
    help="For other consumers, repeatable: reg,cls,seg (default) or cls,reg,seg (output order), "
    "anchors-cxcywh, anchors-bin, anchors-output.",
)
@click.option(
    "--rewrite",
    default="all",
    show_default=True,
    metavar="all|none|LIST",
    help="Exact rewrites of the graph, such as segmentation-head,max-pool; hnx inspect shows what each does.",
)
@click.option(
    "--input",
    "image",
    type=click.Choice(["float32", "uint8"]),
    default="float32",
    show_default=True,
    help="What the graph takes: the normalised image, or the letterboxed canvas (NHWC, BGR), normalised in the graph.",
)
@click.option(
    "--seg",
    type=click.Choice(["logits", "classmap", "lowres"]),
    default="logits",
    show_default=True,
    help="What the graph gives: logits, the uint8 map of classes, or logits before their last enlargement by 4.",
)
@click.option("--decode", is_flag=True, help="The graph gives boxes in input pixels.")
@click.option("--nms", is_flag=True, help="The graph gives the best boxes after suppression; --decode is part of it.")
@click.option("--nms-conf", type=FiniteRange(0, 1, max_open=True), help="With --nms: score threshold.  [default: 0.25]")
@click.option("--nms-iou", type=FiniteRange(0, 1), help="With --nms: overlap limit.  [default: 0.3]")
@click.option("--nms-boxes", type=click.IntRange(min=1), help="With --nms: rows of the output.  [default: 300]")
@click.option(
    "--activation",
    type=click.Choice(["swish", "hardswish", "relu"]),
    help="Of the whole network; the last two make the squeeze-excite gate piecewise linear, too. A checkpoint must "
    "have been trained with it.  [default: the checkpoint's, else swish]",
)
@click.option("--external-data", is_flag=True, help="Weights in a file of their own beside the ONNX file.")
@click.option("--no-weights", is_flag=True, help="Leave out weights.safetensors (the torch runtime then cannot run).")
@click.option(
    "--tolerance", type=float, default=1e-4, show_default=True, help="Largest relative L2 difference to PyTorch."
)
def command(
    weights: str | None,
    compound_coef: int | None,
    backbone: str | None,
    project: str | None,
    width: int | None,
    height: int | None,
    sizes: tuple[tuple[int, int], ...],
    output: Path,
    opset: int,
    dynamic_batch: bool,
    heads: str,
    layout: tuple[str, ...],
    rewrite: str,
    image: str,
    seg: str,
    decode: bool,
    nms: bool,
    nms_conf: float | None,
    nms_iou: float | None,
    nms_boxes: int | None,
    activation: str | None,
    external_data: bool,
    no_weights: bool,
    tolerance: float,
) -> None:
    """Turn a checkpoint into a deployment bundle: ONNX file, anchors and manifest.

    Steps of pre- and postprocessing can go into the graph (--input, --seg, --decode, --nms); all commands read from the
    bundle what it does already. Every export is proved: the ONNX file runs on two seeded inputs and a real frame
    against PyTorch, and nothing is written when an output differs.
    """
    from export.config import ExportConfig
    from export.exporter import export_bundles
    from export.rewrites import parse_rewrites
    from hnx.console import note, status, success
    from hnx.defaults import DEFAULT_SIZE, choose_weights
    from hybridnets.config import check_backbone, check_coefficient
    from hybridnets.project import load_project

    if sizes and (width or height):
        raise click.UsageError("give --size, or --width and --height, not both")
    rewrites = parse_rewrites(rewrite)
    form = _form(image, seg, decode, nms, {"conf": nms_conf, "iou": nms_iou, "boxes": nms_boxes})
    if width or height:
        sizes = ((width or DEFAULT_SIZE[0], height or DEFAULT_SIZE[1]),)
    # the weights come last: of a .pth file torch reads the size, and importing it takes seconds
    check_backbone(backbone)
    if compound_coef is not None:
        check_coefficient(compound_coef)
    if project is not None:
        load_project(project)
    chosen = choose_weights(
        weights,
        compound_coef=compound_coef,
        size=sizes[0] if sizes else None,
        activation=activation,  # type: ignore[arg-type]  # click.Choice has checked it
        backbone=backbone,
        project=project,
    )
    config = ExportConfig(
        sizes=tuple(dict.fromkeys(sizes)) or (chosen.size or DEFAULT_SIZE,),
        output=output,
        weights=chosen.path,
        compound_coef=compound_coef,
        backbone=backbone,
        project=project,
        activation=activation,  # type: ignore[arg-type]  # click.Choice has checked it
        opset=opset,
        heads=tuple(part.strip() for part in heads.split(",") if part.strip()),  # type: ignore[misc]  # checked there
        layout=layout or ("reg,cls,seg",),
        form=form,
        rewrites=rewrites,
        dynamic_batch=dynamic_batch,
        external_data=external_data,
        include_weights=not no_weights,
        tolerance=tolerance,
    )
    if chosen.remark:
        note(chosen.remark)
    start = time.perf_counter_ns()
    with status("exporting") as step:
        results = export_bundles(config, step)
    for result in results:
        name, worst = result.proof.worst
        success(
            f"exported {result.bundle.path} ({result.bytes / 1e6:.1f} MB), proved: largest difference to PyTorch "
            f"{worst.rel_l2:.1e} relative L2, {worst.max_abs:.1e} absolute ({name})"
        )
        if result.replaced:
            note(f"it replaced another bundle, of which these are gone: {'; '.join(result.replaced)}")
        if result.rewrites:
            before, after = result.rewrites[0].before, result.rewrites[-1].after
            note(
                f"rewritten: {before.nodes} to {after.nodes} nodes, {before.macs / 1e9:.2f} to {after.macs / 1e9:.2f} "
                f"GMAC, {before.activation_bytes / 1e6:.0f} to {after.activation_bytes / 1e6:.0f} MB of activations"
            )
        if form.fused:
            note(f"in the graph: {_describe(form, config.heads)}")
    print(f"{(time.perf_counter_ns() - start) / 1e9:.1f} s. Next: hnx bench {results[-1].bundle.path} --runtime all")


def _form(image: str, seg: str, decode: bool, nms: bool, settings: dict[str, float | int | None]) -> GraphForm:
    """What the options ask for; thresholds without --nms are a mistake."""
    from hybridnets.bundle import GraphForm, NmsForm

    given = {name: value for name, value in settings.items() if value is not None}
    if given and not nms:
        raise click.UsageError(f"--nms-{next(iter(given))} needs --nms")
    candidates = max(NmsForm().candidates, int(given.get("boxes", 0)))
    return GraphForm(
        image,  # type: ignore[arg-type]  # click.Choice has checked it
        seg,  # type: ignore[arg-type]  # likewise
        "nms" if nms else "decoded" if decode else "raw",
        NmsForm(candidates=candidates, **given) if nms else None,  # type: ignore[arg-type]  # boxes is an int
    )


def _describe(form: GraphForm, heads: tuple[str, ...]) -> str:
    """One line on what is fused."""
    parts = ["normalisation of a uint8 canvas"] if form.input == "uint8" else []
    if "seg" in heads:
        parts += {"classmap": ["the map of classes"], "lowres": ["logits at a quarter of the size"]}.get(
            form.segmentation, []
        )
    if "det" in heads and form.detection == "decoded":
        parts.append("boxes in input pixels")
    if form.nms is not None:
        parts.append(
            f"suppression of boxes (score above {form.nms.conf:g}, IoU {form.nms.iou:g}, the best "
            f"{form.nms.candidates} anchors, at most {form.nms.boxes} boxes)"
        )
    return ", ".join(parts)
