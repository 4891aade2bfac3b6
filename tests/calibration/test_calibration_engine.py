"""What is made for TensorRT: two files, each run on frames that no range was measured on, or one and the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from calibration import engine
from calibration.cache import CalibrationKey
from calibration.engine import Calibrated, Made, QuantiseConfig
from calibration.half import HalfModel, to_half
from calibration.ranges import measure_ranges
from hybridnets.errors import HnxError
from tests.calibration.nets import frames, mbconv_net

CONFIG = QuantiseConfig("frames", targets=("tensorrt",))


@pytest.fixture(autouse=True)
def _tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_check_tensors", lambda chosen, bundle: frames(2, seed=2))


def make(opset: int = 17) -> list[Made]:
    """All for TensorRT of a small network; neither bundle nor frames are asked for anything else."""
    model = mbconv_net(opset=opset)
    key = CalibrationKey("model", "frames", "max", "preprocess", "tools")
    ranges = measure_ranges(model, lambda: iter(frames()))
    found = Calibrated(model, ranges, cast(Any, None), key, cast(Any, None), reused=False)
    return engine._make("tensorrt", found, CONFIG, cast(Any, None), ())


def test_each_file_has_a_distance_of_its_own() -> None:
    weak, strong = make()
    assert (weak.variant.label, strong.variant.label) == ("tensorrt-weak", "tensorrt-strong")
    assert weak.outputs.keys() == strong.outputs.keys()
    assert all(strong.outputs[name] != weak.outputs[name] for name in weak.outputs)
    assert weak.notes == strong.notes == ()


def test_a_broken_strong_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]]) -> HalfModel:
        half = to_half(model, ranges)
        for tensor in half.model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 4:
                tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float16), tensor.name))
        return half

    monkeypatch.setattr(engine, "to_half", broken)
    with pytest.raises(HnxError, match="strongly typed INT8 network is not the weakly typed one") as caught:
        make()
    assert "nothing was written" in caught.value.fix


@pytest.mark.parametrize("opset", [18, 20])
def test_a_weak_file_that_cannot_be_is_no_secret(opset: int) -> None:
    (strong,) = make(opset)
    assert strong.variant.label == "tensorrt-strong"
    (note,) = strong.notes
    assert f"no weakly typed network for TensorRT 8.5 to 10: opset {opset} is above 17" in note
    assert "hnx export --opset 17" in note
