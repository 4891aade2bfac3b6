"""Precisions of layers, from the inspector's JSON of all versions and from the builder's log."""

from __future__ import annotations

import json

from runtimes.tensorrt.layers import executed_precision, from_inspector, from_log, summarise

# three lines that TensorRT for RTX 1.7.1 logged for the c3 network in int8, shortened
LOG = """Layers:
Name: entry^bb^signal^4_myl0_0, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , Metadata:
Name: __myl_MulMinMax_myl0_4, LayerType: kgen, Inputs: [ { Name: input, Dimensions: [1,3,384,640], Strides: [1,2,3,4], \
Datatype: Float, Format: (Linear) Row major linear format }], Constants: [ { Name: c, Datatype: Int8, Format: x }, \
{ Name: d, Datatype: Float, Format: x }], Outputs: [ { Name: a, Datatype: Int8, Format: (NHWC) Channel major }], \
TacticName: t, Metadata: [ONNX Layer: input_QuantizeLinear]
Name: /stem/Conv, odd_myl0_5, LayerType: correlation, Inputs: [ { Name: a, Dimensions: [1,4,384,640], Datatype: Int8, \
Format: (NHWC) Channel major format }], Constants: [ { Name: w, Datatype: Int8, Format: x }], Outputs: [ { Name: b, \
Datatype: Half, Format: (NHWC) Channel major format }], TacticName: s, StreamId: 0
"""


def test_the_builders_log() -> None:
    signal, pointwise, conv = from_log(LOG)
    assert signal.precision == "none"
    assert (pointwise.kind, pointwise.precision, pointwise.outputs) == ("kgen", "fp32", ("int8",))
    assert pointwise.weights == ("int8", "fp32")
    assert (conv.name, conv.precision, conv.outputs) == ("/stem/Conv, odd_myl0_5", "int8", ("fp16",))
    assert summarise([signal, pointwise, conv]) == {"correlation": {"int8": 1}, "kgen": {"fp32": 1}}
    assert executed_precision([signal, pointwise, conv], "fp32") == "int8"


def layer(kind: str, key: str, text: str) -> dict[str, object]:
    return {"Name": "n", "LayerType": kind, "Inputs": [{"Name": "a", key: text}], "Outputs": [{"Name": "b", key: text}]}


def test_the_inspectors_json_of_ten_and_eleven() -> None:
    value = {
        "Layers": [
            layer("CaskConvolution", "Format/Datatype", "Channel major FP16 format where channel % 8 == 0"),
            {**layer("CaskConvolution", "Format/Datatype", "Thirty-two wide channel vectorized row major Int8 format"),
             "Weights": {"Type": "Int8", "Count": 9}},
            layer("CaskConvolution", "Format/Datatype", "Row major linear FP32"),
            {**layer("Reformat", "DataType", "Half"), "Inputs": [{"DataType": "Float", "Format": "Linear FP16"}]},
            layer("gemm", "DataType", "BF16"),
            layer("CaskConvolution", "Format/Datatype", "Row major linear FP16"),
        ],
        "Bindings": ["input"],
    }  # fmt: skip
    found = from_inspector(json.dumps(value))
    assert [one.precision for one in found] == ["fp16", "int8", "fp32", "fp32", "bf16", "fp16"]
    assert found[1].weights == ("int8",)
    assert executed_precision(found, "fp32") == "fp16"
    # one of five convolutions is enough: which blocks are quantised is the user's choice
    assert executed_precision(found, "int8") == "int8"
    assert executed_precision([one for one in found if one.precision != "int8"], "int8") == "fp16"


def test_nothing_is_made_up() -> None:
    # what 8.5 says without detailed verbosity: names only
    assert from_inspector('{"Layers": ["conv1 + relu1"], "Bindings": []}') == []
    for text in ("", "no json", "[]", '{"Layers": 7}', '{"Layers": [{"Inputs": 3}]}'):
        assert executed_precision(from_inspector(text), "int8") == ""
    assert from_log("Layers:\nName: x\nName: y, LayerType: conv, Inputs: [ { Datatype: Int8")[0].precision == "none"
