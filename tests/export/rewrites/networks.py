"""Networks whose every number is random, as graphs: what a rewrite does to them shows in the outputs."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.graph import simplify, trace
from export.rewrites import apply_rewrites
from hybridnets.config import Activation, ModelConfig, SegMode
from hybridnets.difference import difference
from hybridnets.network.model import HybridNets
from hybridnets.network.weights import create_model

OUTPUTS = ("regression", "classification", "segmentation")
Case = tuple[int, int, int, SegMode, Activation]
CASES: tuple[Case, ...] = (
    (0, 256, 128, "multiclass", "swish"),
    (0, 128, 384, "binary", "hardswish"),
    (0, 384, 256, "multilabel", "relu"),
    (3, 256, 256, "binary", "swish"),
)
SMALL = CASES[0]
PUBLISHED: Case = (3, 640, 384, "multiclass", "swish")


def random_network(case: Case, seed: int = 0) -> HybridNets:
    """A network with random batch norms and fusion weights, one of each of them negative."""
    coefficient, _, _, mode, activation = case
    classes = 1 if mode == "binary" else 2
    model = create_model(
        ModelConfig(compound_coef=coefficient, seg_classes=classes, seg_mode=mode, activation=activation), seed
    ).eval()
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                uniform(module.weight, 0.7, 1.3)
                uniform(module.bias, -0.2, 0.2)
                uniform(module.running_mean, -0.2, 0.2)
                uniform(module.running_var, 0.5, 1.5)
            elif isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                module.bias.add_(torch.empty_like(module.bias).uniform_(-0.3, 0.3, generator=generator))
        for cell in model.bifpn:
            for weight in cell.parameters(recurse=False):
                uniform(weight, 0.2, 1.5)
                weight[0] *= -1 if len(weight) == 3 else 1  # relu makes it 0
    return model


@lru_cache(maxsize=12)  # c0 has 18 MB, c3 54
def graph(case: Case, opset: int = 17) -> onnx.ModelProto:
    """A random network as `hnx export` simplifies it, before any rewrite. Copy it before changing it."""
    model = random_network(case)
    return simplify(trace(model, case[1:3], opset=opset, outputs=OUTPUTS, dynamic_batch=False))


def run(model: onnx.ModelProto, seed: int = 0, optimise: bool = True) -> dict[str, NDArray[np.float32]]:
    """Outputs for normal noise, in ONNX Runtime; a free size is 1."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(seed)
    inputs = {
        spec.name: generator.standard_normal([d if isinstance(d, int) else 1 for d in spec.shape], np.float32)
        for spec in session.get_inputs()
    }
    names = [spec.name for spec in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def distance(first: onnx.ModelProto, second: onnx.ModelProto, seed: int = 0) -> float:
    """Largest relative L2 over the outputs of two models for the same input."""
    found, reference = run(first, seed), run(second, seed)
    assert list(found) == list(reference)
    return max(difference(found[name], reference[name]).rel_l2 for name in found)


def changed_by(model: onnx.ModelProto, name: str) -> tuple[onnx.ModelProto, float]:
    """The model after one rewrite that must find something to do, and how far that moved the outputs."""
    rewritten, (report,) = apply_rewrites(model, [name])
    assert report.places > 0
    moved = distance(rewritten, model)
    print(f"{name}: outputs move by {moved:.1e} relative L2")  # for pytest -rP
    return rewritten, moved


def assert_idempotent(rewritten: onnx.ModelProto, name: str) -> None:
    """A second run changes not one byte."""
    again, (report,) = apply_rewrites(rewritten, [name])
    assert report.places == 0
    assert report.before == report.after
    assert again.SerializeToString(deterministic=True) == rewritten.SerializeToString(deterministic=True)


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    """How many nodes of each kind."""
    found: dict[str, int] = {}
    for node in model.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found
