"""What `hnx export` is asked to do, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from hybridnets.bundle import DEFAULT_FOLDER, UNFUSED, GraphForm
from hybridnets.config import Activation, check_backbone, check_coefficient, check_size
from hybridnets.errors import ExitCode, HnxError, did_you_mean

__all__ = ["LAYOUTS", "OPSETS", "ExportConfig", "Head"]

Head = Literal["det", "seg"]
_HEADS = {"det": "detection", "seg": "segmentation"}
OPSETS = range(11, 21)  # JetPack 4.6 (TensorRT 8.2) parses up to 13, TensorRT 10 up to 20

# Dresses for other consumers; upstream's is the default.
LAYOUTS: dict[str, str] = {
    "reg,cls,seg": "outputs in upstream's order (default)",
    "cls,reg,seg": "outputs in the order of the OpenCV-DNN ports",
    "anchors-cxcywh": "also anchors_cxcywh_{H}_{W}.npy: cx, cy, w, h",
    "anchors-bin": "also anchors_{A*4}.bin: cx, cy, w, h as raw little-endian float32",
    "anchors-output": "the anchors as a fourth graph output",
}


@dataclass(frozen=True)
class ExportConfig:
    """One call of the exporter.

    Attributes:
        sizes: (width, height) of each bundle.
        weights: checkpoint; None exports the seeded untrained network.
        compound_coef: None takes it from the checkpoint, or 3.
        backbone: name of a timm model; None takes the checkpoint's, or the EfficientNet of the coefficient.
        project: name or file; None takes the checkpoint's metadata, or `bdd100k`.
        activation: None takes the checkpoint's metadata, or swish.
        layout: keys of `LAYOUTS`.
        form: steps of pre- and postprocessing that go into the graph.
        rewrites: names of the exact rewrites to apply, keys of `export.rewrites.REWRITES`; None means all.
        include_weights: put weights.safetensors into the bundle, which the torch runtime needs.
        tolerance: largest accepted relative L2 difference to PyTorch; float32 runtimes stay near 1e-6.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    sizes: tuple[tuple[int, int], ...]
    output: Path = DEFAULT_FOLDER
    weights: Path | None = None
    compound_coef: int | None = None
    backbone: str | None = None
    project: str | None = None
    activation: Activation | None = None
    opset: int = 17
    heads: tuple[Head, ...] = ("det", "seg")
    layout: tuple[str, ...] = ("reg,cls,seg",)
    form: GraphForm = UNFUSED
    rewrites: tuple[str, ...] | None = None
    dynamic_batch: bool = False
    external_data: bool = False
    include_weights: bool = True
    tolerance: float = 1e-4
    seed: int = field(default=0)

    def __post_init__(self) -> None:
        if not self.sizes:
            raise HnxError("No input size is given", fix="for example --size 640x384", code=ExitCode.USAGE)
        for width, height in self.sizes:
            check_size(width, height)
        check_backbone(self.backbone)
        if self.compound_coef is not None:
            check_coefficient(self.compound_coef)
        if self.opset not in OPSETS:
            raise HnxError(
                f"ONNX opset {self.opset} is not supported",
                why=f"opsets {OPSETS.start} to {OPSETS.stop - 1} are proved",
                fix="17 suits TensorRT 8.5 and newer, 13 JetPack 4.6",
                code=ExitCode.USAGE,
            )
        for kind, words, allowed in (("head", self.heads, get_args(Head)), ("layout", self.layout, tuple(LAYOUTS))):
            for word in words:
                if word not in allowed:
                    raise HnxError(
                        f"Unknown {kind} {word!r}",
                        why=did_you_mean(word, allowed),
                        fix="choose one of these",
                        code=ExitCode.USAGE,
                    )
        if not self.heads:
            raise HnxError("No head is left to export", fix="use --heads det,seg", code=ExitCode.USAGE)
        if "det" not in self.heads and any(word.startswith("anchors") for word in self.layout):
            raise HnxError(
                "Anchors were asked for without the detection head", fix="add det to --heads", code=ExitCode.USAGE
            )
        self._check_form()
        if not 0 < self.tolerance < 1:
            raise HnxError(
                f"A tolerance of {self.tolerance}",
                why="it is a relative difference between 0 and 1",
                fix="use the default, 1e-4",
                code=ExitCode.USAGE,
            )

    def _check_form(self) -> None:
        for head, unfused, form, option in (
            ("det", "raw", self.form.detection, {"decoded": "--decode", "nms": "--nms"}),
            ("seg", "logits", self.form.segmentation, {"classmap": "--seg classmap", "lowres": "--seg lowres"}),
        ):
            if form != unfused and head not in self.heads:
                raise HnxError(
                    f"{option[form]} was asked for without the {_HEADS[head]} head",
                    why=f"the heads are {','.join(self.heads)}",
                    fix=f"add {head} to --heads, or leave it out",
                    code=ExitCode.USAGE,
                )
        if self.form.nms is not None and self.dynamic_batch:
            raise HnxError(
                "--nms and --dynamic-batch do not go together",
                why="suppression in the graph is made for one image",
                fix="use --decode, or leave --dynamic-batch out",
                code=ExitCode.USAGE,
            )

    @property
    def output_order(self) -> tuple[str, ...]:
        """Roles in the order of the graph's outputs."""
        first = ("classification", "regression") if "cls,reg,seg" in self.layout else ("regression", "classification")
        detection = first if "det" in self.heads else ()
        return (*detection, *(("segmentation",) if "seg" in self.heads else ()))
