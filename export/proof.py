"""Proof that an exported file computes what the PyTorch network computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.difference import Difference, difference
from hybridnets.errors import HnxError, first_line
from hybridnets.preprocess import Preprocessor

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets

__all__ = ["Proof", "Reference", "Worst", "open_session", "proof_inputs", "prove", "readable_errors", "within"]


@dataclass(frozen=True)
class Proof:
    """The worst difference of each of the network's outputs over all inputs.

    Attributes:
        outputs: of the network itself, also where the graph delivers something made of them.
        inputs: what was fed.
        tolerance: largest accepted relative L2.
        fused: output that was put into the graph to how far it is from the same computed outside; see
            `export.fused.proof`.
    """

    outputs: dict[str, Difference]
    inputs: tuple[str, ...]
    tolerance: float
    fused: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def worst(self) -> tuple[str, Difference]:
        """The output that differs most, by relative L2."""
        return max(self.outputs.items(), key=lambda item: item[1].rel_l2)

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "against": "PyTorch float32",
            "with": "onnxruntime CPUExecutionProvider",
            "inputs": list(self.inputs),
            "tolerance_rel_l2": self.tolerance,
            "outputs": {name: asdict(value) for name, value in self.outputs.items()},
            **({"fused": self.fused} if self.fused else {}),
        }


def proof_inputs(preprocess: Preprocessor, dynamic_batch: bool) -> Iterator[tuple[str, NDArray[Any]]]:
    """Two seeded tensors and one real frame (and a batch of two where the batch is free), as the graph takes them."""
    from hybridnets.data import demo_frame, read_demo_frame

    def noise(seed: int) -> NDArray[Any]:
        height, width = preprocess.target
        generator = np.random.default_rng(seed)
        if preprocess.form == "uint8":
            return generator.integers(0, 256, (1, height, width, 3), np.uint8)
        return generator.standard_normal((1, 3, height, width), np.float32)

    kind = "random pixels" if preprocess.form == "uint8" else "normal noise"
    for seed in (1, 2):
        yield f"{kind}, seed {seed}", noise(seed)
    frame = preprocess(read_demo_frame())[0].copy()
    yield f"real frame {demo_frame().name}", frame
    if dynamic_batch:
        yield "batch of 2", np.concatenate([frame, noise(3)])


class Reference:
    """The PyTorch network, and its inputs for those of a graph.

    Args:
        model: in float32.
        preprocess: makes the graph's inputs.
    """

    def __init__(self, model: HybridNets, preprocess: Preprocessor) -> None:
        self._model, self._form = model, preprocess.form
        self._normalise = Preprocessor(preprocess.target, preprocess.mean, preprocess.std).normalise

    def __call__(self, given: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Raw outputs by role, for what the graph was given."""
        import torch

        tensor = given
        if self._form == "uint8":
            tensor = np.concatenate([self._normalise(canvas).copy() for canvas in given])
        with torch.inference_mode():
            return {name: value.numpy() for name, value in self._model(torch.from_numpy(tensor))._asdict().items()}


class Worst:
    """Keeps the worst difference of each output."""

    def __init__(self) -> None:
        self.outputs: dict[str, Difference] = {}

    def add(self, name: str, found: NDArray[Any], reference: NDArray[Any]) -> None:
        """Compare two arrays of one output."""
        value = difference(found, reference)
        if name not in self.outputs or value.rel_l2 > self.outputs[name].rel_l2:
            self.outputs[name] = value


@contextlib.contextmanager
def readable_errors(name: str) -> Iterator[None]:
    """Whatever ONNX Runtime raises, as an error that says what to do."""
    try:
        yield
    except (HnxError, MemoryError):
        raise
    except Exception as error:
        raise HnxError(
            f"The exported {name} does not run in ONNX Runtime",
            why=first_line(error),
            fix="try another --opset, and report this",
        ) from error


def open_session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU, without its warnings."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def prove(
    path: Path, model: HybridNets, preprocess: Preprocessor, *, tolerance: float, dynamic_batch: bool = False
) -> Proof:
    """Run the file and the network on the same inputs.

    Raises:
        HnxError: an output differs by more than `tolerance` (relative L2), or the file does not run.
    """
    reference, worst, described = Reference(model, preprocess), Worst(), []
    with readable_errors(path.name):
        session = open_session(path)
        names = [spec.name for spec in session.get_outputs() if spec.name != "anchors"]
        for text, tensor in proof_inputs(preprocess, dynamic_batch):
            described.append(text)
            expected = reference(tensor)
            for name, array in zip(names, session.run(names, {"input": tensor}), strict=True):
                worst.add(name, array, expected[name])
    return within(Proof(worst.outputs, tuple(described), tolerance))


def within(proof: Proof) -> Proof:
    """The proof, if no output differs by more than its tolerance.

    Raises:
        HnxError: one does.
    """
    name, value = proof.worst
    if not value.rel_l2 <= proof.tolerance:
        raise HnxError(
            f"The exported network is not the PyTorch network: output {name!r} differs",
            why=f"relative L2 {value.rel_l2:.2e}, largest difference {value.max_abs:.2e}; the limit is "
            f"{proof.tolerance:.0e}",
            fix="nothing was written; try another --opset, or a larger --tolerance if these weights are chaotic",
        )
    return proof
