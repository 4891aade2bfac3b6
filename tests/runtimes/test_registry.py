"""Names, aliases, suggestions, and libraries that are missing or broken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes import registry
from runtimes.base import Probe, Runtime, RuntimeOptions, parse_precision
from runtimes.openvino import OpenVinoRuntime
from runtimes.registry import REGISTRY, entry, obstacle, open_runtime, parse_runtimes


def test_all_and_lists() -> None:
    assert [row for row, _ in parse_runtimes("all")] == list(REGISTRY)
    chosen = [(row.name, precision) for row, precision in parse_runtimes("ort, OV:half,ort")]
    assert chosen == [("onnxruntime", None), ("openvino", "fp16")]


@pytest.mark.parametrize(
    ("text", "hint"), [("opnvino", "'openvino'"), ("torch:fp31", "'fp32'"), ("", "Known"), ("tensrflow", "Known")]
)
def test_unknown_names_are_usage_errors_with_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(HnxError) as caught:
        parse_runtimes(text)
    assert caught.value.code == ExitCode.USAGE
    assert hint in caught.value.why


def test_precision_aliases() -> None:
    assert [parse_precision(word) for word in ("FP32", "f16", "half", "bfloat16", "i8")] == [
        "fp32", "fp16", "fp16", "bf16", "int8",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"threads": 0}, {"streams": 0}, {"precision": "fp8"}])
def test_options_are_validated(options: dict[str, object]) -> None:
    with pytest.raises(HnxError) as caught:
        RuntimeOptions(**options)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE


def test_missing_and_broken_libraries_are_reasons(monkeypatch: pytest.MonkeyPatch, bundle_path: Path) -> None:
    class Missing:
        @classmethod
        def probe(cls) -> Probe:
            raise ImportError("libfoo.so.1: cannot open shared object file")

    class Broken:
        @classmethod
        def probe(cls) -> Probe:
            raise RuntimeError("bad driver\nstack\nstack")

    for cls, reason in ((Missing, "libfoo.so.1"), (Broken, "installed but broken: bad driver")):
        monkeypatch.setattr(registry, "runtime_class", lambda row, cls=cls: cls)
        state = registry.probe(entry("openvino"))
        assert not state.available
        assert reason in state.reason
        assert "\n" not in state.reason
        assert "openvino" in state.fix
        for name in ("openvino", "auto"):
            with pytest.raises(HnxError) as caught:
                open_runtime(name, open_bundle(bundle_path))
            assert caught.value.code == ExitCode.NOTHING_RAN


def test_auto_takes_the_first_that_runs(bundle_path: Path) -> None:
    with open_runtime("auto", open_bundle(bundle_path), RuntimeOptions(threads=1)) as runtime:
        assert runtime.name == REGISTRY[0].name


def test_a_library_that_ends_the_process_on_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(row: object) -> type:
        raise SystemExit(3)

    monkeypatch.setattr(registry, "runtime_class", leave)
    assert "broken" in registry.probe(registry.entry("openvino")).reason


def test_thread_counts_no_machine_has_are_refused() -> None:
    with pytest.raises(HnxError, match="threads is 100000") as caught:
        RuntimeOptions(threads=100_000)
    assert caught.value.code == ExitCode.USAGE


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
