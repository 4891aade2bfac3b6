"""A small network as a stand-in for TensorRT should describe it, in a form that both kinds of stand-ins understand.

`answers` maps the name of a call to what it returns; the argument is the first index or name the call was given.
Enumerations are told by member name, because their numbers differ between versions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SHAPE = (1, 3, 8, 8)
INSPECTED = (
    '{"Layers": [{"Name": "conv", "LayerType": "CaskConvolution", '
    '"Inputs": [{"Name": "a", "Format/Datatype": "Channel major FP16 format"}], '
    '"Outputs": [{"Name": "b", "Format/Datatype": "Channel major FP16 format"}]}]}'
)


@dataclass(frozen=True)
class Member:
    """An enumeration's value by name."""

    enumeration: str
    name: str


@dataclass
class World:
    """What the stand-in believes.

    Attributes:
        layers: kinds of layers of the parsed network.
        dtype: of all tensors.
        accepts: the parser takes the network.
        free_batch: the input's first size is -1.
        layer, tensor: what was asked for last.
    """

    layers: list[str] = field(default_factory=lambda: ["CONVOLUTION", "ACTIVATION"])
    dtype: str = "HALF"
    accepts: bool = True
    free_batch: bool = False
    layer: int = 0
    tensor: str = "images"

    def quantise(self, on: bool) -> None:
        """With or without Q/DQ nodes."""
        self.layers = ["QUANTIZE", "DEQUANTIZE", "CONVOLUTION"] if on else ["CONVOLUTION", "ACTIVATION"]

    def look(self, label: str, argument: Any) -> None:
        """Told of every call, before it is answered."""
        if label == "INetworkDefinition.get_layer":
            self.layer = int(argument)
        elif label == "INetworkDefinition.get_input":
            self.tensor = "images"
        elif label == "INetworkDefinition.get_output":
            self.tensor = "boxes"

    def answers(self) -> dict[str, Callable[[Any], Any]]:
        """Name of a call to its result."""
        names = ("images", "boxes")

        def mode(name: Any) -> Member:
            return Member("TensorIOMode", "INPUT" if name == "images" else "OUTPUT")

        def shape(_: Any) -> tuple[int, ...]:
            return (-1 if self.free_batch else 1, *SHAPE[1:])

        return {
            "Builder.num_DLA_cores": lambda _: 2,
            "OnnxParser.parse_from_file": lambda _: self.accepts,
            "OnnxParser.num_errors": lambda _: 0 if self.accepts else 1,
            "ParserError.node": lambda _: 12,
            "ParserError.node_name": lambda _: "conv1_quant",
            "ParserError.node_operator": lambda _: "QuantizeLinear",
            "ParserError.desc": lambda _: "Assertion failed: shiftIsAllZeros",
            "INetworkDefinition.num_layers": lambda _: len(self.layers),
            "INetworkDefinition.num_inputs": lambda _: 1,
            "INetworkDefinition.num_outputs": lambda _: 1,
            "ILayer.type": lambda _: Member("LayerType", self.layers[self.layer]),
            "ITensor.name": lambda _: self.tensor,
            "ITensor.dtype": lambda _: Member("DataType", self.dtype),
            "ITensor.shape": shape,
            "ICudaEngine.num_io_tensors": lambda _: 2,
            "ICudaEngine.get_tensor_name": lambda index: names[int(index)],
            "ICudaEngine.get_tensor_mode": mode,
            "ICudaEngine.get_tensor_dtype": lambda _: Member("DataType", self.dtype),
            "ICudaEngine.get_tensor_location": lambda _: Member("TensorLocation", "DEVICE"),
            "ICudaEngine.get_tensor_shape": lambda _: SHAPE,
            "IExecutionContext.get_tensor_shape": lambda _: SHAPE,
            "IExecutionContext.infer_shapes": lambda _: [],
            "EngineInspector.get_engine_information": lambda _: INSPECTED,
        }
