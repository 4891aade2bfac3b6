"""Which precision each layer of a plan really got, from what TensorRT itself says about the finished plan.

Two sources with the same content: the engine inspector's JSON, where the plan can be loaded, and the list the builder
logs at the end of a build, where it cannot (TensorRT for RTX on a machine without a GPU).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Layer", "executed_precision", "from_inspector", "from_log", "summarise"]

# what TensorRT calls a type: `Float`, `FP32`, `Half`, ... in formats such as "Row major linear FP32"
_TYPES = (
    ("int8", r"int8"),
    ("fp16", r"half|fp16|float16"),
    ("bf16", r"bf16|bfloat16"),
    ("fp8", r"fp8|e4m3"),
    ("fp32", r"float|fp32|float32"),
    ("int32", r"int32"),
    ("int64", r"int64"),
    ("bool", r"bool"),
)
# matrix arithmetic: the layers whose precision decides speed and accuracy
_MATRIX = re.compile(r"conv|corr|gemm|matmul|matrixmultiply|deconv", re.IGNORECASE)
_MOST_LAYERS, _MOST_TEXT = 20_000, 160


@dataclass(frozen=True)
class Layer:
    """One layer of a plan.

    Attributes:
        name: TensorRT's own name.
        kind: `correlation`, `kgen`, `CaskConvolution`, ...
        precision: of its arithmetic: of what it multiplies, which is the type of its first input.
        inputs, outputs, weights: types, in order.
    """

    name: str
    kind: str
    precision: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()

    @property
    def matrix(self) -> bool:
        """It multiplies matrices: a convolution in some form."""
        return bool(_MATRIX.search(self.kind))

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "name": self.name,
            "kind": self.kind,
            "precision": self.precision,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "weights": list(self.weights),
        }


def _type(text: str) -> str:
    """`Row major linear FP16 format` to `fp16`; unknown texts as they are."""
    words = text.lower()
    for name, pattern in _TYPES:
        if re.search(rf"(?<![a-z0-9])(?:{pattern})(?![a-z0-9])", words):
            return name
    return text[:_MOST_TEXT]


def _layer(name: str, kind: str, inputs: Iterable[str], outputs: Iterable[str], weights: Iterable[str]) -> Layer:
    read, written, fixed = (tuple(map(_type, types)) for types in (inputs, outputs, weights))
    precision = read[0] if read else written[0] if written else "none"
    return Layer(name[:_MOST_TEXT], kind[:_MOST_TEXT], precision, read, written, fixed)


def from_inspector(text: str) -> list[Layer]:
    """Layers of `EngineInspector.get_engine_information(JSON)`; [] for text that is none.

    Up to 10.x a tensor has "Format/Datatype"; 11 splits it into "Format" and "DataType". Layers are plain names when
    the plan was not built with detailed verbosity: nothing can be said about those.
    """
    try:
        layers = json.loads(text).get("Layers", [])
    except (ValueError, AttributeError, RecursionError):
        return []
    found = []
    for layer in layers[:_MOST_LAYERS] if isinstance(layers, list) else []:
        if not isinstance(layer, dict):
            continue
        types = [[_tensor_type(t) for t in _dicts(layer.get(key))] for key in ("Inputs", "Outputs", "Constants")]
        weights = layer.get("Weights")
        if isinstance(weights, dict) and "Type" in weights:
            types[2].append(str(weights["Type"]))
        kind = str(layer.get("LayerType", layer.get("ParameterType", "?")))
        found.append(_layer(str(layer.get("Name", "?")), kind, *types))
    return found


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _tensor_type(tensor: dict[str, Any]) -> str:
    for key in ("DataType", "Datatype", "Format/Datatype", "Format"):
        if key in tensor:
            return str(tensor[key])
    return "?"


def from_log(text: str) -> list[Layer]:
    """Layers of the list the builder logs ("Name: ..., LayerType: ..., Inputs: [ {...} ], ..."), one on each line."""
    found = []
    for line in text.splitlines()[:_MOST_LAYERS]:
        if not line.startswith("Name: ") or ", LayerType: " not in line:
            continue
        name, rest = line[len("Name: ") :].split(", LayerType: ", 1)
        kind = rest.split(",", 1)[0]
        types = [_listed(rest, key) for key in ("Inputs", "Outputs", "Constants")]
        found.append(_layer(name, kind, *types))
    return found


def _listed(text: str, key: str) -> list[str]:
    """Types of the tensors in `key: [ { ..., Datatype: Int8, Format: ... }, ... ]`."""
    start = text.find(f", {key}: [")
    if start < 0:
        return []
    begin = text.index("[", start)
    depth = 0
    for end in range(begin, len(text)):
        depth += {"[": 1, "]": -1}.get(text[end], 0)
        if not depth:
            return re.findall(r"(?:Datatype|DataType|Format/Datatype): ([^,}]*)", text[begin:end])
    return []


def summarise(layers: Iterable[Layer]) -> dict[str, dict[str, int]]:
    """Kind of layer to number of layers in each precision."""
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        if layer.precision != "none":
            counts.setdefault(layer.kind, Counter())[layer.precision] += 1
    return {kind: dict(counter.most_common()) for kind, counter in sorted(counts.items())}


def executed_precision(layers: Iterable[Layer], asked: str) -> str:
    """What a plan as a whole runs: the precision of most of its matrix layers; "" when nothing is known.

    A plan asked for as int8 is one as long as any of them runs int8: how many of them do is the user's choice (blocks
    that lose accuracy are left out), and the summary gives the number.
    """
    counts = Counter(layer.precision for layer in layers if layer.matrix)
    if asked == "int8" and counts["int8"]:
        return asked
    return counts.most_common(1)[0][0] if counts else ""
