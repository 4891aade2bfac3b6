"""Where ONNX Runtime put the nodes of a network and in which types they compute: its own profile of one run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Placement", "read_profile"]

# types as the profile names them
_PRECISIONS = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}
_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "QLinearConv", "ConvTranspose")


@dataclass(frozen=True)
class Placement:
    """What became of a network's nodes.

    Attributes:
        nodes: execution provider to number of nodes, copies between devices left out.
        convolutions: precision to number of convolutions that read it; empty where a provider compiled them all.
        first: execution provider to the first of its nodes, `name (operator)`.
    """

    nodes: Mapping[str, int]
    convolutions: Mapping[str, int]
    first: Mapping[str, str] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Of most convolutions; empty where none can be seen."""
        return max(self.convolutions, key=lambda name: self.convolutions[name], default="")


def read_profile(path: Path) -> Placement:
    """Read what `InferenceSession.end_profiling` wrote.

    Raises:
        ValueError: it is not a profile.
        OSError: it cannot be read.
    """
    events = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(events, list):
        raise ValueError(f"{path.name} is no profile of ONNX Runtime")
    # of several runs every node counts once
    seen = {str(event.get("name")): event.get("args") or {} for event in events if _is_kernel(event)}
    nodes: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    first: dict[str, str] = {}
    for name, facts in seen.items():
        operator, provider = str(facts.get("op_name", "")), str(facts.get("provider", ""))
        if operator.startswith("Memcpy"):
            continue
        nodes[provider] += 1
        first.setdefault(provider, f"{name.removesuffix('_kernel_time')} ({operator})")
        if operator in _CONVOLUTIONS:
            convolutions[_type(facts.get("input_type_shape") or ())] += 1
    return Placement(dict(nodes), dict(convolutions), first)


def _is_kernel(event: Any) -> bool:
    return isinstance(event, dict) and event.get("cat") == "Node" and str(event.get("name")).endswith("_kernel_time")


def _type(inputs: Iterable[Mapping[str, Any]]) -> str:
    """Precision of the first input."""
    for entry in inputs:
        for name in entry:
            return _PRECISIONS.get(name, name)
    return ""
