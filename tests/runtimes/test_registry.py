"""Names, aliases, suggestions, and libraries that are missing or broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from hybridnets.bundle import open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes import registry
from runtimes.base import Probe, RuntimeOptions, parse_precision
from runtimes.opening import open_runtime
from runtimes.registry import REGISTRY, entry, parse_runtimes


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


def test_a_precision_where_a_runtime_is_named() -> None:
    with pytest.raises(HnxError, match="more than a runtime") as caught:
        entry("OpenVINO:fp32")
    assert "--precision fp32" in caught.value.fix
    with pytest.raises(HnxError, match="Unknown"):
        entry("opnvino:fp32")


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


def test_a_library_that_ends_the_process_on_import_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(row: object) -> type:
        raise SystemExit(3)

    monkeypatch.setattr(registry, "runtime_class", leave)
    assert "broken" in registry.probe(registry.entry("openvino")).reason


def test_thread_counts_no_machine_has_are_refused() -> None:
    with pytest.raises(HnxError, match="threads is 100000") as caught:
        RuntimeOptions(threads=100_000)
    assert caught.value.code == ExitCode.USAGE
