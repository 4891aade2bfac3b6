"""What a bundle is once it is open, and what its tensors must look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.anchors import AnchorRule, anchor_count, make_anchors
from hybridnets.bundle.form import LOWRES_FACTOR, UNFUSED, GraphForm
from hybridnets.config import ModelConfig, SegMode
from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import sha256_file
from hybridnets.onnx_header import TensorSpec, read_onnx_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hybridnets.postprocess import Postprocessor
    from hybridnets.preprocess import Preprocessor

__all__ = ["ROLES", "Bundle", "Variant", "bundle_name", "check_tensors"]

# what an output can be; which of them a graph has follows from its form
ROLES = ("regression", "classification", "boxes", "detections", "segmentation")


@dataclass(frozen=True)
class Variant:
    """One form of the network inside a bundle.

    Attributes:
        precision: of its weights and arithmetic as stored, for example `fp32`.
        file: ONNX file, relative to the bundle.
        runtimes: names of the runtimes it is made for; empty means all.
    """

    precision: str
    file: str
    runtimes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Everything is checked when it is made: see `open_bundle`.

    Attributes:
        path: the folder.
        input: the image input, float32 (N, 3, H, W) unless `form` says otherwise.
        outputs: role (one of `ROLES`, possibly `anchors`) to tensor.
        classes, seg_classes: names; the background is not listed.
        model: configuration of the network, None for files made by others.
        weights: safetensors file of the PyTorch runtime, relative to the folder, None when absent.
        manifest: the whole manifest, {} for files made by others.
        notes: what the user should know about it, in sentences.
        form: which steps around the network its graph does.
        digests: file to SHA-256, of files that were compared with them when the bundle was opened.
    """

    path: Path
    input: TensorSpec
    outputs: Mapping[str, TensorSpec]
    classes: tuple[str, ...]
    seg_classes: tuple[str, ...]
    seg_mode: SegMode
    mean: tuple[float, ...]
    std: tuple[float, ...]
    variants: tuple[Variant, ...]
    anchors_file: str | None
    anchor_rule: AnchorRule
    model: ModelConfig | None = None
    weights: str | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    form: GraphForm = UNFUSED
    digests: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def name(self) -> str:
        """Folder name, or file name for a bare ONNX."""
        return self.path.name

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.form.size(self.input.shape)

    @property
    def detects(self) -> bool:
        """It has a detection head, in whatever form its outputs are."""
        return any(role in self.outputs for role in ("regression", "boxes", "detections"))

    @property
    def segments(self) -> bool:
        """It has a segmentation head."""
        return "segmentation" in self.outputs

    @property
    def untrained(self) -> bool:
        """The weights are the seeded untrained default: results mean nothing, speeds do."""
        return bool(self.manifest.get("model", {}).get("untrained", False))

    def variant(self, precision: str, runtime: str) -> Variant:
        """The stored form that serves a precision on a runtime.

        Raises:
            HnxError: the bundle has none.
        """
        for variant in self.variants:
            if variant.precision == precision and (not variant.runtimes or runtime in variant.runtimes):
                return variant
        stored = ", ".join(sorted({v.precision for v in self.variants}))
        raise HnxError(
            f"Bundle {self.name} has no {precision} variant for {runtime}",
            why=f"it stores: {stored}",
            fix=_made_by(self.path, precision, runtime),
            code=ExitCode.NOTHING_RAN,
        )

    def file(self, relative: str) -> Path:
        """Absolute place of a file of the bundle."""
        return self.path / relative if self.path.is_dir() else self.path.parent / relative

    def network_digests(self, relative: str) -> dict[str, str]:
        """SHA-256 of a network's file and of the files its weights lie in, by name relative to the bundle.

        What was compared when the bundle was opened is not read again.

        Raises:
            HnxError: a file cannot be read.
        """
        path = self.file(relative)
        names = [relative, *(str(Path(relative).parent / name) for name in read_onnx_header(path).external)]
        return {name: self.digests.get(name) or sha256_file(self.file(name)) for name in names}

    def anchors(self) -> NDArray[np.float32] | None:
        """float32 (1, A, 4) y1, x1, y2, x2 in input pixels; None when there is no detection head.

        Raises:
            HnxError: the file is corrupt or does not fit the network.
        """
        import numpy as np

        if not self.detects:
            return None
        height, width = self.target
        if self.anchors_file is None:
            return make_anchors(width, height, self.anchor_rule)
        path = self.file(self.anchors_file)
        try:
            anchors = np.load(path, allow_pickle=False)
        except OSError as error:
            if error.errno is None:  # numpy's own word for a file it cannot parse
                raise _bad_anchors(path, str(error)) from error
            raise from_os_error(f"Cannot read anchors {path}", error) from error
        except (ValueError, EOFError, MemoryError) as error:
            raise _bad_anchors(path, str(error)) from error
        expected = (1, anchor_count(width, height), 4)
        if not isinstance(anchors, np.ndarray) or anchors.dtype.kind != "f" or anchors.shape != expected:
            found = f"{getattr(anchors, 'dtype', type(anchors).__name__)} {getattr(anchors, 'shape', '')}"
            raise _bad_anchors(path, f"it holds {found}, the network needs floats of shape {expected}")
        if not (np.abs(anchors) < 1e9).all():  # NaN too; boxes of larger ones would leave the range of float32
            raise _bad_anchors(path, "it holds values that are not finite")
        return np.ascontiguousarray(anchors, np.float32)

    def preprocessor(self) -> Preprocessor:
        """A new preprocessor for this bundle's input, which may be the canvas itself."""
        from hybridnets.preprocess import Preprocessor

        return Preprocessor(self.target, self.mean, self.std, form=self.form.input)

    def postprocessor(self, *, conf: float | None = None, iou: float | None = None) -> Postprocessor:
        """A new postprocessor for this bundle's outputs; thresholds left out are the graph's, else 0.25 and 0.3.

        Raises:
            HnxError: the anchors cannot be read, or the graph suppresses boxes with other thresholds.
        """
        from hybridnets.postprocess import Postprocessor

        return Postprocessor(
            self.anchors(),
            self.target,
            self.seg_mode,
            conf=conf,
            iou=iou,
            form=self.form,
            seg_classes=len(self.seg_classes),
        )


def _made_by(path: Path, precision: str, runtime: str) -> str:
    """What adds a stored network to a bundle; only the exporter writes float32."""
    if precision not in ("int8", "fp16"):
        return "export the bundle again"
    target = "fp16" if precision == "fp16" else "tensorrt" if runtime.startswith("tensorrt") else runtime
    return f"hnx quantize {path} --for {target}"


def _bad_anchors(path: Path, why: str) -> HnxError:
    return HnxError(f"Cannot use anchors {path}", why=why, fix="export the bundle again")


def bundle_name(
    compound_coef: int, width: int, height: int, backbone: str | None = None, form: GraphForm = UNFUSED
) -> str:
    """Folder name of a bundle. Another form of the graph has a name of its own: one must not replace the other.

    >>> bundle_name(3, 640, 384)
    'hybridnets_c3_384x640'
    >>> bundle_name(3, 640, 384, "repvgg_b0")
    'hybridnets_c3_repvgg_b0_384x640'
    >>> bundle_name(3, 640, 384, form=GraphForm(input="uint8", detection="decoded"))
    'hybridnets_c3_384x640_uint8_decoded'
    """
    network = f"c{compound_coef}" if backbone is None else f"c{compound_coef}_{backbone}"
    words = [
        word
        for word, plain in (
            (form.input, UNFUSED.input),
            (form.segmentation, UNFUSED.segmentation),
            (form.detection, UNFUSED.detection),
        )
        if word != plain
    ]
    return "_".join([f"hybridnets_{network}_{height}x{width}", *words])


def check_tensors(bundle: Bundle) -> Bundle:
    """Refuse a network that pre- and postprocessing cannot serve; sizes that are free may be anything.

    Raises:
        HnxError: says which tensor is wrong.
    """
    expected = _expected(bundle)
    image = expected.pop("input")
    for role, spec in (("input", bundle.input), *bundle.outputs.items()):
        dtype, shape = image if role == "input" else expected[role]
        # a shape that is left out entirely is allowed: runtimes infer it
        fits = not spec.shape or (
            len(spec.shape) == len(shape)
            and all(isinstance(v, str) or v == want for v, want in zip(spec.shape, shape, strict=True))
        )
        if not fits or spec.dtype != dtype:
            raise HnxError(
                f"Its tensor {spec} does not fit",
                why=f"with {len(bundle.classes)} detection and {len(bundle.seg_classes)} segmentation class(es) "
                f"({bundle.seg_mode}) it would be {dtype} {'x'.join(map(str, shape))}",
            )
    wanted = set(bundle.form.detection_roles) if bundle.detects else set()
    wanted |= {"segmentation"} if bundle.segments else set()
    if wrong := wanted ^ (bundle.outputs.keys() - {"anchors"}):
        raise HnxError(
            f"Its outputs are {', '.join(bundle.outputs)}",
            why=f"with detection in the form {bundle.form.detection!r} "
            f"{'there is no' if wrong - wanted else 'there has to be'} {', '.join(sorted(wrong))}",
        )
    return bundle


def _expected(bundle: Bundle) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of the input and of each role's output, in the bundle's form."""
    height, width = bundle.target
    form = bundle.form
    channels = 1 if bundle.seg_mode == "binary" else len(bundle.seg_classes) + 1
    count = anchor_count(width, height)
    maps: tuple[str, tuple[int, ...]] = ("float32", (1, channels, height, width))
    if form.segmentation == "lowres":
        maps = ("float32", (1, channels, height // LOWRES_FACTOR, width // LOWRES_FACTOR))
    elif form.segmentation == "classmap":
        maps = ("uint8", (1, channels, height, width) if bundle.seg_mode == "multilabel" else (1, height, width))
    return {
        "input": ("uint8", (1, height, width, 3)) if form.input == "uint8" else ("float32", (1, 3, height, width)),
        "regression": ("float32", (1, count, 4)),
        "boxes": ("float32", (1, count, 4)),
        "classification": ("float32", (1, count, len(bundle.classes))),
        "detections": ("float32", (1, form.nms.boxes if form.nms else 0, 6)),
        "segmentation": maps,
        "anchors": ("float32", (1, count, 4)),
    }
