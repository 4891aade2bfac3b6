"""Proof that an exported file computes what the PyTorch network computes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.difference import Difference, difference
from hybridnets.errors import HnxError
from hybridnets.preprocess import Preprocessor

if TYPE_CHECKING:
    from hybridnets.network.model import HybridNets

__all__ = ["Proof", "prove"]


@dataclass(frozen=True)
class Proof:
    """The worst difference of each output over all inputs."""

    outputs: dict[str, Difference]
    inputs: tuple[str, ...]
    tolerance: float

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
        }


def proof_inputs(preprocess: Preprocessor, dynamic_batch: bool) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Two seeded tensors and one real frame (and a batch of two where the batch is free)."""
    from hybridnets.data import demo_frame, read_demo_frame

    height, width = preprocess.target
    for seed in (1, 2):
        generator = np.random.default_rng(seed)
        yield f"normal noise, seed {seed}", generator.standard_normal((1, 3, height, width), np.float32)
    frame, _ = preprocess(read_demo_frame())
    yield f"real frame {demo_frame().name}", frame.copy()
    if dynamic_batch:
        generator = np.random.default_rng(3)
        yield "batch of 2", np.concatenate([frame, generator.standard_normal(frame.shape, np.float32)])


def prove(
    path: Path, model: HybridNets, preprocess: Preprocessor, *, tolerance: float, dynamic_batch: bool = False
) -> Proof:
    """Run the file and the network on the same inputs.

    Raises:
        HnxError: an output differs by more than `tolerance` (relative L2), or the file does not run.
    """
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [spec.name for spec in session.get_outputs() if spec.name != "anchors"]
        worst: dict[str, Difference] = {}
        described = []
        for text, tensor in proof_inputs(preprocess, dynamic_batch):
            described.append(text)
            found = session.run(names, {"input": tensor})
            with torch.inference_mode():
                reference = model(torch.from_numpy(tensor))._asdict()
            for name, array in zip(names, found, strict=True):
                value = difference(array, reference[name].numpy())
                if name not in worst or value.rel_l2 > worst[name].rel_l2:
                    worst[name] = value
    except HnxError:
        raise
    except Exception as error:
        raise HnxError(
            f"The exported {path.name} does not run in ONNX Runtime",
            why=str(error).strip().splitlines()[0][:300],
            fix="try another --opset, and report this",
        ) from error
    proof = Proof(worst, tuple(described), tolerance)
    name, value = proof.worst
    if not value.rel_l2 <= tolerance:
        raise HnxError(
            f"The exported network is not the PyTorch network: output {name!r} differs",
            why=f"relative L2 {value.rel_l2:.2e}, largest difference {value.max_abs:.2e}; the limit is {tolerance:.0e}",
            fix="nothing was written; try another --opset, or a larger --tolerance if these weights are chaotic",
        )
    return proof
