"""OpenVINO's networks from the cache: the same numbers to the last bit, and never a stale or broken one."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import HnxError
from runtimes.base import Runtime, RuntimeOptions
from runtimes.compiled import CompiledStore, Kept
from runtimes.opening import open_runtime
from runtimes.openvino import OpenVinoRuntime
from runtimes.predictor import load

pytest.importorskip("openvino")
Outputs = dict[str, NDArray[Any]]


def opened(bundle: Bundle, folder: Path | None, threads: int = 1, precision: str = "fp32", streams: int = 1) -> Runtime:
    return open_runtime("openvino", bundle, RuntimeOptions(precision, threads, streams, cache_dir=folder))


def outputs_of(runtime: Runtime) -> Outputs:
    spec = runtime.bundle.input
    noise = np.random.default_rng(0).standard_normal(spec.shape, np.float32)  # type: ignore[arg-type]
    return {name: array.copy() for name, array in runtime.infer({spec.name: noise}).items()}


def came(runtime: Runtime) -> str:
    return str(runtime.execution.details["cache"])


def same(first: Outputs, second: Outputs) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def kept(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outputs]:
    """A folder that holds one network, and what the compiled network answered."""
    folder = tmp_path_factory.mktemp("cache")
    with opened(open_bundle(bundle_path), folder) as runtime:
        assert came(runtime) == "written"
        assert runtime.execution.details["cache_ms"] > 0
        return folder, outputs_of(runtime)


@pytest.fixture
def own(kept: tuple[Path, Outputs], tmp_path: Path) -> Path:
    """A copy of that folder that may be spoilt."""
    return Path(shutil.copytree(kept[0], tmp_path / "own"))


def test_the_same_numbers_from_the_cache(bundle_path: Path, kept: tuple[Path, Outputs]) -> None:
    folder, expected = kept
    with opened(open_bundle(bundle_path), None) as compiled:
        assert came(compiled) == "off"
        convolutions = compiled.execution.details["convolutions"]
    runtime = opened(open_bundle(bundle_path), folder)
    assert came(runtime) == "read"
    assert runtime.execution.details["precision_hint"] == "f32"
    assert runtime.execution.details["convolutions"] == convolutions
    assert same(outputs_of(runtime), expected)
    spec = runtime.bundle.input
    noise = np.random.default_rng(0).standard_normal(spec.shape, np.float32)  # type: ignore[arg-type]
    context = runtime.context()
    # another thread may close the runtime while this one computes, and its weights are in the mapped file
    runtime._close()
    gc.collect()
    assert same(context.infer({spec.name: noise}), expected)
    runtime.close()
    with pytest.raises(HnxError, match="is closed"):
        context.infer({spec.name: noise})


def test_a_copied_bundle_finds_it_too(bundle_path: Path, kept: tuple[Path, Outputs], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(bundle_path, tmp_path / "elsewhere"))
    with opened(open_bundle(copied, verify=False), kept[0]) as runtime:
        assert came(runtime) == "read"


def test_the_precision_and_the_streams_are_part_of_it(bundle_path: Path, own: Path) -> None:
    precisions = [name for name in ("bf16", "fp16") if name in OpenVinoRuntime.probe().runnable()]
    for precision, streams in ((precisions or ["fp32"])[0], 1), ("fp32", 2):
        bundle = open_bundle(bundle_path)
        with opened(bundle, own, precision=precision, streams=streams) as cold:
            assert came(cold) == ("written" if (precision, streams) != ("fp32", 1) else "read")
            expected = outputs_of(cold)
        with opened(bundle, own, precision=precision, streams=streams) as warm:
            assert came(warm) == "read"
            assert warm.execution.precision == precision
            assert same(outputs_of(warm), expected)


@pytest.mark.parametrize("damage", ["shortened", "changed", "not a network"])
def test_damage_costs_time_and_nothing_else(
    bundle_path: Path, kept: tuple[Path, Outputs], own: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = own.iterdir()
    whole = path.read_bytes()
    if damage == "shortened":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "changed":
        path.write_bytes(whole[:-100] + b"?" + whole[-99:])
    else:
        monkeypatch.setattr(
            CompiledStore, "read", lambda store, key: Kept(np.zeros(5000, np.uint8), {"convolutions": {}})
        )
    with opened(open_bundle(bundle_path), own) as runtime:
        assert came(runtime) == "written"
        assert same(outputs_of(runtime), kept[1])
    monkeypatch.undo()
    with opened(open_bundle(bundle_path), own) as runtime:
        assert came(runtime) == "read"


@pytest.mark.parametrize("external", [False, True])
def test_a_network_that_changed_in_its_place_is_compiled_anew(
    bundle_path: Path, tmp_path: Path, external: bool
) -> None:
    model = onnx.load(bundle_path / "hybridnets_128x256.onnx")
    path = tmp_path / "net" / "network.onnx"
    path.parent.mkdir()
    found = []
    for change in (0.0, 0.5):
        head = next(t for t in model.graph.initializer if t.name.endswith("folded0_bias"))
        head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + np.float32(change), head.name))
        (path.parent / "weights.bin").unlink(missing_ok=True)
        onnx.save(
            onnx.ModelProto.FromString(model.SerializeToString()),
            path,
            save_as_external_data=external,
            location="weights.bin",
            size_threshold=0,
        )
        with opened(open_bundle(path), tmp_path / "cache") as runtime:
            assert came(runtime) == "written"
            found.append(outputs_of(runtime)["segmentation"])
    assert np.abs(found[1] - found[0] - 0.5).max() < 1e-3


def test_where_nothing_can_be_kept_the_network_runs(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with opened(open_bundle(bundle_path), tmp_path / "file") as runtime:
        assert came(runtime).startswith("not kept: ")
        assert outputs_of(runtime)


def test_by_default_and_off(bundle_path: Path, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.rename(tmp_path / "openvino")
    monkeypatch.setenv("HNX_CACHE", str(tmp_path))
    with load(bundle_path, "openvino", threads=1) as predictor:
        assert came(predictor.runtime) == "read"
    monkeypatch.setenv("HNX_CACHE", "off")
    with load(bundle_path, "openvino", threads=1) as predictor:
        assert came(predictor.runtime) == "off"
    assert [path.name for path in tmp_path.iterdir()] == ["openvino"]
