"""What stands in the way of a bundle on a runtime, and what opening it gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hybridnets.bundle import Bundle, Variant, open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import Runtime, RuntimeOptions
from runtimes.opening import first_runnable, obstacle, open_runtime
from runtimes.openvino import OpenVinoRuntime
from runtimes.registry import REGISTRY, entry


def test_auto_takes_the_first_that_runs(bundle_path: Path) -> None:
    with open_runtime("auto", open_bundle(bundle_path), RuntimeOptions(threads=1)) as runtime:
        assert runtime.name == REGISTRY[0].name


def test_an_error_of_a_library_while_running_becomes_ours(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("\n the device is gone\nstack")

    with open_runtime("opencv-dnn", open_bundle(bundle_path)) as runtime:
        monkeypatch.setattr(type(runtime), "_infer", fail)
        with pytest.raises(HnxError, match="failed while running") as caught:
            runtime.infer(runtime.warm_input())
    assert caught.value.why == "the device is gone"


def test_auto_passes_over_runtimes_that_refuse_a_bundle(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cls: type[Runtime], bundle: Bundle) -> tuple[str, str]:
        return "it has no such operator", "export without it"

    bundle = open_bundle(bundle_path)
    monkeypatch.setattr(OpenVinoRuntime, "refuses", classmethod(refuse))
    with open_runtime("auto", bundle, RuntimeOptions(threads=1)) as runtime:
        assert runtime.name == REGISTRY[1].name
    with pytest.raises(HnxError, match="openvino cannot run bundle") as caught:
        open_runtime("openvino", bundle)
    assert (caught.value.why, caught.value.code) == ("it has no such operator", ExitCode.NOTHING_RAN)
    assert obstacle(bundle, entry("openvino"), "fp32") == {
        "reason": "it has no such operator",
        "fix": "export without it",
    }
    stored = obstacle(bundle, entry("onnxruntime"), "int8")
    assert stored is not None
    assert "stores no int8" in stored["reason"]
    assert obstacle(bundle, entry("onnxruntime"), "fp32") is None


def test_auto_passes_over_runtimes_that_no_network_is_stored_for(bundle_path: Path) -> None:
    """INT8 for one runtime: no other can run it, however early it stands in the registry."""
    bundle = open_bundle(bundle_path)
    with pytest.raises(HnxError, match="No runtime can run int8") as caught:
        first_runnable(bundle, "int8")
    assert "openvino: the bundle stores no int8 network" in caught.value.why
    assert caught.value.fix.startswith("hnx quantize ")
    assert caught.value.code == ExitCode.NOTHING_RAN
    stored = Variant("int8", bundle.variants[0].file, ("onnxruntime",))
    quantised = dataclasses.replace(bundle, variants=(*bundle.variants, stored))
    assert first_runnable(quantised, "int8").name == "onnxruntime"
    assert first_runnable(quantised, "fp32").name == REGISTRY[0].name


def test_torch_refuses_bundles_without_weights(bundle_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    assert obstacle(bundle, entry("torch"), "fp32") is None
    found = obstacle(dataclasses.replace(bundle, weights=None), entry("torch"), "fp32")
    assert found is not None
    assert "weights.safetensors" in found["reason"]
    assert "--no-weights" in found["fix"]


def test_opencv_gives_the_types_of_the_bundle(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # OpenCV 4 gives everything as float32, class numbers too
    bundle = open_bundle(bundle_path)
    spec = bundle.outputs["segmentation"]
    map_like = dataclasses.replace(spec, dtype="uint8")
    declared = dataclasses.replace(bundle, outputs={**bundle.outputs, "segmentation": map_like})
    with open_runtime("opencv-dnn", declared, RuntimeOptions(threads=1)) as runtime:
        found = runtime.infer(runtime.warm_input())
        assert found[spec.name].dtype == np.uint8
        assert found["regression"].dtype == np.float32
