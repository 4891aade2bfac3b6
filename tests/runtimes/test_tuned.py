"""Where a kept setting holds, and where it is left alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hybridnets.bundle import Bundle, Variant, open_bundle
from hybridnets.bundle.tuning import TunedRow, Tuning, store_tuning, tuned_file
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.tuned import LookUp, look_up, place_here, with_tuning


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle"))


def tuned(bundle: Bundle, **changes: Any) -> Bundle:
    file = bundle.variants[0].file
    row = TunedRow("fp32", 3, 2, 1.0, (1.0, 1.0, 1.0), {}, "chosen")
    found = Tuning(
        "fp32",
        3,
        2,
        file,
        str(bundle.manifest["files"][file]["sha256"]),
        "throughput",
        "labels",
        0.5,
        10,
        "scenes",
        place_here("openvino"),
        (row,),
        "2026-01-01T00:00:00",
    )
    store_tuning(bundle, "openvino", replace(found, **changes))
    return open_bundle(bundle.path)


def test_nothing_kept(bundle: Bundle) -> None:
    assert look_up(bundle, "openvino") == LookUp()
    with pytest.raises(HnxError, match="not tuned for openvino") as caught:
        with_tuning(bundle, "openvino", RuntimeOptions())
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "hnx tune" in caught.value.fix


def test_it_holds_here(bundle: Bundle) -> None:
    found = look_up(tuned(bundle), "openvino").tuning
    assert found is not None
    assert (found.threads, found.streams) == (3, 2)
    options = with_tuning(tuned(bundle), "openvino", RuntimeOptions("fp32", 8, streams=1))[1]
    assert (options.precision, options.threads, options.streams) == ("fp32", 3, 1)
    # never more threads than were allowed
    assert with_tuning(tuned(bundle), "openvino", RuntimeOptions("fp32", 2))[1].threads == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cpu": "another"}, "CPU: another then"),
        ({"cores": 999}, "cores: 999 then"),
        ({"library": "2020.1"}, "library version: 2020.1 then"),
        ({"instructions": ("mmx",)}, "instruction sets: mmx then"),
    ],
)
def test_another_machine_or_library(change: dict[str, Any], text: str, bundle: Bundle) -> None:
    there = replace(place_here("openvino"), **change)
    opened = tuned(bundle, place=there)
    assert text in look_up(opened, "openvino").problem
    with pytest.raises(HnxError, match="not tuned") as caught:
        with_tuning(opened, "openvino", RuntimeOptions())
    assert text in caught.value.why


def test_a_network_that_was_replaced(bundle: Bundle) -> None:
    assert "has been replaced" in look_up(tuned(bundle, sha256="0" * 64), "openvino").problem
    assert "has been replaced" in look_up(tuned(bundle, file="gone.onnx"), "openvino").problem


@pytest.mark.parametrize(("precision", "threads", "text"), [("fp7", 3, "no precision"), ("fp32", 10**6, "threads is")])
def test_values_that_cannot_be(precision: str, threads: int, text: str, bundle: Bundle) -> None:
    row = TunedRow(precision, threads, 2, 1.0, (1.0, 1.0, 1.0), None, "chosen")
    opened = tuned(bundle, precision=precision, threads=threads, rows=(row,))
    assert text in look_up(opened, "openvino").problem


@pytest.fixture
def rewritten(bundle: Bundle, tmp_path: Path) -> Bundle:
    """Tuned to a graph of its own: the same network, whose road logits are doubled so that it shows."""
    model = onnx.load(bundle.file(bundle.variants[0].file))
    (segmentation,) = [node for node in model.graph.node if "segmentation" in node.output]
    segmentation.output[:] = ["single"]
    model.graph.node.append(onnx.helper.make_node("Add", ["single", "single"], ["segmentation"]))
    path = tmp_path / "made.onnx"
    onnx.save(model, path)
    digest = sha256_file(path)
    row = TunedRow("fp32", 1, 1, 1.0, (0.9, 0.9, 0.9), {}, "chosen", "none")
    file = tuned_file(bundle, digest)
    made = Tuning(
        "fp32", 1, 1, file, digest, "latency", "labels", 0.5, 1, "s", place_here("openvino"), (row,), "now", "none"
    )
    store_tuning(bundle, "openvino", made, path)
    return open_bundle(bundle.path)


def test_the_graph_that_was_made_for_it_runs_and_no_other_row_does(rewritten: Bundle) -> None:
    tensor = np.random.default_rng(0).standard_normal((1, 3, 128, 256), np.float32)
    found = {}
    for word, precision in (("openvino", "fp32"), ("openvino", "tuned"), ("onnxruntime", "fp32")):
        with open_runtime(word, rewritten, RuntimeOptions(precision, 1)) as runtime:
            found[word, precision] = runtime.infer({"input": tensor})["segmentation"].copy()
    own = found["openvino", "fp32"]
    np.testing.assert_allclose(found["openvino", "tuned"], 2 * own, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["onnxruntime", "fp32"], own, rtol=1e-3, atol=1e-3)
    made = Variant("fp32", rewritten.manifest["tuning"]["openvino"]["file"], ("openvino",))
    assert with_tuning(rewritten, "openvino", RuntimeOptions())[0].variants == (made, *rewritten.variants)
    with pytest.raises(HnxError, match="not tuned for onnxruntime"):
        with_tuning(rewritten, "onnxruntime", RuntimeOptions())


def test_a_graph_that_is_not_what_it_was_is_left_alone(rewritten: Bundle) -> None:
    where = rewritten.path / "manifest.json"
    tuning = Tuning.from_json(rewritten.manifest["tuning"]["openvino"])
    path = rewritten.path / tuning.file
    model = onnx.load(path)
    model.graph.output[0].name = "other"
    onnx.save(model, path)
    opened = open_bundle(rewritten.path)
    assert "has been replaced" in look_up(opened, "openvino").problem
    manifest = json.loads(where.read_text())

    def told(file: str) -> str:
        manifest["tuning"]["openvino"] |= {"file": file, "sha256": sha256_file(path)}
        where.write_text(json.dumps(manifest))
        return look_up(open_bundle(rewritten.path), "openvino").problem

    assert "other inputs and outputs" in told(tuning.file)
    assert "no graph that hnx tune makes" in told("weights.safetensors")
    assert "no graph that hnx tune makes" in told(f"../{rewritten.path.name}/{tuning.file}")
    path.write_bytes(b"no network")
    assert told(tuning.file)
    path.unlink()
    where.write_text(json.dumps(rewritten.manifest))
    # the bundle is whole without it
    assert "is missing" in look_up(open_bundle(rewritten.path), "openvino").problem


def test_the_place_names_the_library_without_importing_it() -> None:
    from importlib.metadata import version

    assert place_here("openvino").library == version("openvino")
    assert place_here("openvino").devices == ()
