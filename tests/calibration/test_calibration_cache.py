"""A cache is used for what it was measured for, and refused for everything else with what differs."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import onnx
import pytest

from calibration.cache import CalibrationKey, calibration_key, default_place, model_digest, read_ranges, write_ranges
from calibration.frames import select_frames
from calibration.ranges import RangeConfig, measure_ranges, measured_tensors
from hybridnets.bundle import open_bundle
from hybridnets.errors import HnxError
from tests.calibration.nets import frames, mbconv_net

KEY = CalibrationKey("model", "frames", "max", "preprocess", "tools")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    ranges = measure_ranges(mbconv_net(), lambda: iter(frames(1)))
    write_ranges(tmp_path / "c.json", KEY, ranges)
    assert read_ranges(tmp_path / "c.json", KEY) == ranges


@pytest.mark.parametrize("part", [field.name for field in dataclasses.fields(CalibrationKey)])
def test_any_other_part_is_refused_and_named(tmp_path: Path, part: str) -> None:
    write_ranges(tmp_path / "c.json", KEY, {})
    wanted = dataclasses.replace(KEY, **{part: "another"})
    with pytest.raises(HnxError, match="stale") as caught:
        read_ranges(tmp_path / "c.json", wanted)
    assert f"{part}: {getattr(KEY, part)} there, another asked for" in caught.value.why
    assert default_place(wanted) != default_place(KEY)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"kind": "hnx calibration"}', '{"kind": "hnx calibration", "key": {"model": "model"}}'],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(HnxError, match="Cannot") as caught:
        read_ranges(tmp_path / "c.json", KEY)
    assert "--fresh" in caught.value.fix


def test_a_file_without_a_tensor_of_the_network_is_refused(tmp_path: Path) -> None:
    net = mbconv_net()
    ranges = measure_ranges(net, lambda: iter(frames(1)))
    assert set(ranges) == set(measured_tensors(net))
    absent = list(ranges)[1]
    write_ranges(tmp_path / "c.json", KEY, {name: found for name, found in ranges.items() if name != absent})
    with pytest.raises(HnxError, match="Cannot use calibration cache") as caught:
        read_ranges(tmp_path / "c.json", KEY, measured_tensors(net))
    assert f"1 tensor(s) of the network, such as {absent}" in caught.value.why
    with pytest.raises(HnxError, match="stale"):
        read_ranges(tmp_path / "c.json", dataclasses.replace(KEY, model="other"), measured_tensors(net))


@pytest.mark.parametrize(
    "entry", [{"low": 1, "high": 0}, {"threshold": -1}, {"low": "x"}, {"means": 3}, {"high": 1e999}, {"reaches": [-1]}]
)
def test_impossible_ranges_are_refused(tmp_path: Path, entry: dict[str, object]) -> None:
    path = tmp_path / "c.json"
    write_ranges(path, KEY, {})
    value = json.loads(path.read_text())
    value["ranges"] = {"t": {"low": -1.0, "high": 1.0, "threshold": 1.0, "means": [], "reaches": [], **entry}}
    path.write_text(json.dumps(value))
    with pytest.raises(HnxError, match="Cannot use calibration cache"):
        read_ranges(path, KEY)


def test_the_key_is_of_weights_frames_and_method(bundle_path: Path, road_video: Path) -> None:
    bundle = open_bundle(bundle_path)
    model = onnx.load(bundle.file(bundle.variants[0].file))
    few, more = select_frames(road_video, 4), select_frames(road_video, 5)
    key = calibration_key(model, few, RangeConfig(), bundle)
    assert calibration_key(model, select_frames(road_video, 4), RangeConfig(), bundle) == key
    assert key.differences(calibration_key(model, more, RangeConfig(), bundle))[0].startswith("frames: ")
    assert key.differences(calibration_key(model, few, RangeConfig(method="mse"), bundle)) == [
        "method: mse there, percentile 99.99 asked for"
    ]
    assert "256x128" in key.preprocess
    other = dataclasses.replace(bundle, mean=(0.5, 0.5, 0.5))
    assert key.differences(calibration_key(model, few, RangeConfig(), other))[0].startswith("preprocess: ")


@pytest.mark.parametrize("name", ["onnxruntime", "numpy", "cv2"])
def test_the_key_is_of_the_modules_that_are_imported(
    name: str, bundle_path: Path, road_image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever distribution provides them: onnxruntime-gpu, opencv-python, or a package of the system."""
    bundle, chosen = open_bundle(bundle_path), select_frames(road_image, 1)
    key = calibration_key(mbconv_net(), chosen, RangeConfig(), bundle)
    assert "none" not in key.tools
    monkeypatch.setattr(importlib.import_module(name), "__version__", "99.1")
    after = calibration_key(mbconv_net(), chosen, RangeConfig(), bundle)
    assert f"{name} 99.1" in after.tools
    assert key.digest() != after.digest()
    assert key.differences(after) == [f"tools: {after.tools} there, {key.tools} asked for"]


def test_the_models_digest_knows_weights_and_not_metadata() -> None:
    model, digest = mbconv_net(), model_digest(mbconv_net())
    model.producer_name, model.doc_string = "somebody", "text"
    onnx.helper.set_model_props(model, {"a": "b"})
    assert model_digest(model) == digest
    assert model_digest(mbconv_net(seed=1)) != digest
    model.graph.node[0].attribute[0].i += 1
    assert model_digest(model) != digest
