"""Names, aliases, suggestions, and libraries that are missing or broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridnets.bundle import open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes import registry
from runtimes.base import Probe, RuntimeOptions, parse_precision
from runtimes.registry import REGISTRY, entry, open_runtime, parse_runtimes


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
