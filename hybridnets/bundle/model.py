"""What a bundle is once it is open, and what its tensors must look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.anchors import AnchorRule, anchor_count, make_anchors
from hybridnets.config import ModelConfig, SegMode
from hybridnets.errors import HnxError, from_os_error
from hybridnets.onnx_header import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hybridnets.preprocess import Preprocessor

__all__ = ["ROLES", "Bundle", "Variant", "bundle_name", "check_tensors"]

ROLES = ("regression", "classification", "segmentation")


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
        input: the image input, float32 (N, 3, H, W).
        outputs: role (`regression`, `classification`, `segmentation`, possibly `anchors`) to tensor.
        classes, seg_classes: names; the background is not listed.
        model: configuration of the network, None for files made by others.
        weights: safetensors file of the PyTorch runtime, relative to the folder, None when absent.
        manifest: the whole manifest, {} for files made by others.
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

    @property
    def name(self) -> str:
        """Folder name, or file name for a bare ONNX."""
        return self.path.name

    @property
    def target(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return int(self.input.shape[2]), int(self.input.shape[3])

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
            fix="export a bundle with that variant",
        )

    def file(self, relative: str) -> Path:
        """Absolute place of a file of the bundle."""
        return self.path / relative if self.path.is_dir() else self.path.parent / relative

    def anchors(self) -> NDArray[np.float32] | None:
        """float32 (1, A, 4) y1, x1, y2, x2 in input pixels; None when there is no detection output.

        Raises:
            HnxError: the file is corrupt or does not fit the network.
        """
        import numpy as np

        if "regression" not in self.outputs:
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
        """A new preprocessor for this bundle's input."""
        from hybridnets.preprocess import Preprocessor

        return Preprocessor(self.target, self.mean, self.std)


def _bad_anchors(path: Path, why: str) -> HnxError:
    return HnxError(f"Cannot use anchors {path}", why=why, fix="export the bundle again")


def bundle_name(compound_coef: int, width: int, height: int, backbone: str | None = None) -> str:
    """Folder name of a bundle.

    >>> bundle_name(3, 640, 384)
    'hybridnets_c3_384x640'
    >>> bundle_name(3, 640, 384, "repvgg_b0")
    'hybridnets_c3_repvgg_b0_384x640'
    """
    network = f"c{compound_coef}" if backbone is None else f"c{compound_coef}_{backbone}"
    return f"hybridnets_{network}_{height}x{width}"


def check_tensors(bundle: Bundle) -> Bundle:
    """Refuse a network that pre- and postprocessing cannot serve; sizes that are free may be anything.

    Raises:
        HnxError: says which tensor is wrong.
    """
    height, width = bundle.target
    channels = 1 if bundle.seg_mode == "binary" else len(bundle.seg_classes) + 1
    count = anchor_count(width, height)
    expected: dict[str, tuple[int, ...]] = {
        "regression": (1, count, 4),
        "classification": (1, count, len(bundle.classes)),
        "segmentation": (1, channels, height, width),
        "anchors": (1, count, 4),
    }
    checked = [(bundle.input, (1, 3, height, width)), *((s, expected[r]) for r, s in bundle.outputs.items())]
    for spec, shape in checked:
        # a shape that is left out entirely is allowed: runtimes infer it
        fits = not spec.shape or (
            len(spec.shape) == len(shape)
            and all(isinstance(v, str) or v == want for v, want in zip(spec.shape, shape, strict=True))
        )
        if not fits or spec.dtype != "float32":
            raise HnxError(
                f"Its tensor {spec} does not fit",
                why=f"with {len(bundle.classes)} detection and {len(bundle.seg_classes)} segmentation class(es) "
                f"({bundle.seg_mode}) it would be float32 {'x'.join(map(str, shape))}",
            )
    return bundle
