"""`python -m benchmarks.int8` on the smallest bundle: runtimes read one file, rows refer to their own baseline."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.quick import read_samples, score, tasks
from benchmarks.int8.__main__ import main
from benchmarks.int8.agreement import Agreement, agree
from benchmarks.int8.networks import SIMULATED, Network, int8_files, open_network, with_file
from benchmarks.int8.table import FLOAT, losses, networks
from hnx import trials
from hnx.__main__ import main as hnx
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.dataset import Sample, open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import load_project
from runtimes.cpu import has_int8_products
from runtimes.openvino import OpenVinoRuntime


@pytest.fixture(scope="module")
def quantised(bundle_path: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    path = Path(shutil.copytree(bundle_path, folder / "bundle"))
    words = ["--calib", str(data / "parity" / "dataset"), "--frames", "3", "--threads", "1"]
    words += ["--cache", str(folder / "ranges.json"), "--for", "onnxruntime,openvino,tensorrt"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "ROUNDS", 2)
        patch.setattr(trials, "ROUND_S", 0.01)
        assert hnx(["quantize", str(path), *words]) == ExitCode.OK
    return path


@pytest.fixture(scope="module")
def samples(quantised: Path, data: Path) -> list[Sample]:
    split = open_split(load_project(), data / "parity" / "dataset", "val")
    return read_samples(open_bundle(quantised), split, 2)


def test_one_file_in_three_runtimes(quantised: Path, samples: list[Sample]) -> None:
    bundle = open_bundle(quantised)
    assert set(int8_files(bundle)) == {"onnxruntime", "openvino", "tensorrt-weak"}
    found = agree(bundle, samples, 1, runtimes=("onnxruntime", SIMULATED))
    for item in found:
        assert set(item.figures) == {"onnxruntime", SIMULATED}
        assert item.figures[SIMULATED].keys() == {"mAP50", "road mIoU", "lane IoU"}
        # random weights: what counts is that the pairs mean the same in both
        assert item.spread["road mIoU"] < 1.0
        assert item.differences["onnxruntime"].points["road mIoU"] == pytest.approx(
            item.figures[SIMULATED]["road mIoU"] - item.figures["onnxruntime"]["road mIoU"]
        )
        low, high = item.differences["onnxruntime"].interval["road mIoU"]
        assert low <= high
        assert item.lost is not None
        assert item.lost.baseline == "float32"
        assert item.to_json()["lost_against_float"]["points"] == item.lost.points
    assert found[0].executed["onnxruntime"]


def test_openvino_computes_the_rest_of_a_file_in_float32(quantised: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the CPU has BF16 its row `int8` takes that, which is no property of the file."""
    assert [OpenVinoRuntime.beside_int8(found) for found in (["FP32"], ["FP32", "BF16"])] == ["fp32", "bf16"]
    asked = []
    monkeypatch.setattr(OpenVinoRuntime, "beside_int8", staticmethod(lambda found: asked.append(found) or "fp32"))  # type: ignore[func-returns-value]
    row = Network("", open_bundle(quantised), "openvino", "int8")
    for as_written in (True, False):
        with open_network(row, 1, as_written=as_written) as runtime:
            assert runtime.execution.precision == "int8"
            assert runtime.execution.details["precision_hint"] == "f32"
        assert len(asked) == (not as_written)


@pytest.mark.skipif(not has_int8_products(), reason="this CPU has no VNNI: INT8 sums saturate")
def test_rounding_changes_the_outputs_alike(quantised: Path, samples: list[Sample]) -> None:
    """The simulated network is nearer to ONNX Runtime's INT8 than the float network is."""
    bundle = open_bundle(quantised)
    shared = with_file(bundle, int8_files(bundle)["onnxruntime"])
    feed = {bundle.input.name: bundle.preprocessor().normalise(samples[0].frame).copy()}
    outputs = {}
    for name, network in {
        "float": Network("", bundle, "onnxruntime", "fp32"),
        "int8": Network("", shared, "onnxruntime", "int8"),
        "simulated": Network("", shared, SIMULATED, "int8"),
    }.items():
        with open_network(network, 1) as runtime:
            outputs[name] = {key: np.array(value) for key, value in runtime.infer(feed).items()}
    for key, value in outputs["int8"].items():
        near, far = (float(np.linalg.norm(value - outputs[name][key])) for name in ("simulated", "float"))
        assert near < 0.8 * far  # 0.61: where a value lies on the edge of two steps, float noise decides


def test_spread_is_the_largest_difference() -> None:
    rows = {"a": {"x": 1.0, "y": 5.0}, "b": {"x": 1.5, "y": 5.0}, "c": {"x": 0.75, "y": 4.0}}
    assert Agreement("p", "f", rows, {}).spread == {"x": 0.75, "y": 1.0}


def test_losses_refer_to_their_own_baseline(quantised: Path, samples: list[Sample]) -> None:
    bundle = open_bundle(quantised)
    chosen = [Network(FLOAT, bundle, "onnxruntime", "fp32"), Network("ours", bundle, "onnxruntime", "int8", FLOAT)]
    scored = {}
    for network in chosen:
        with open_network(network, 1) as runtime:
            scored[network.name] = score(runtime, samples)
    found = losses(chosen, scored)
    assert set(found) == {"ours"}
    expected = tasks(scored[FLOAT])["road mIoU"] - tasks(scored["ours"])["road mIoU"]
    assert found["ours"].points["road mIoU"] == pytest.approx(expected)


def test_rows_and_what_does_not_belong_together(quantised: Path, tmp_path: Path) -> None:
    bundle = open_bundle(quantised)
    names = [network.name for network in networks(bundle, bundle, half="bf16", twin=bundle)]
    assert names == ["stock bf16", FLOAT, "rewritten bf16", "our INT8", "twin fp32", "twin bf16", "twin INT8"]
    also = networks(bundle, bundle, half="bf16", also=[bundle])
    assert [network.name for network in also][-1] == f"{bundle.name} bf16"
    with pytest.raises(HnxError, match="Two bundles of one name"):
        networks(bundle, bundle, half="bf16", also=[bundle, bundle])
    with pytest.raises(HnxError, match="different inputs"):
        networks(bundle, replace(bundle, mean=(0.0, 0.0, 0.0)), half="fp32")
    with pytest.raises(HnxError, match="There is no network"):
        networks(bundle, bundle, half="fp32", nncf=tmp_path / "none.xml")


def test_latency_alone_needs_no_labels(
    quantised: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.int8.__main__.make_stock", lambda bundle, folder, tell: bundle)
    assert main(["table", str(quantised), "--rounds", "1", "--samples", "1", "--threads", "1"]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert "0 labelled images" in printed
    assert "our INT8" in printed
    assert "lost" not in printed


def test_the_command_is_a_gate(quantised: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "agreement.json"
    words = ["agreement", str(quantised), "--data", str(data / "parity" / "dataset"), "--split", "val", "--limit", "1"]
    words += ["--threads", "1", "--json", str(report)]
    assert main([*words, "--limit-points", "101"]) == ExitCode.OK
    assert "largest difference" in capsys.readouterr().out
    assert len(json.loads(report.read_text())["files"]) == 3
    assert main([*words, "--limit-points", "-1"]) == ExitCode.GATE_FAILED


def test_a_bundle_without_int8(bundle_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle: Bundle = open_bundle(bundle_path)
    with pytest.raises(HnxError, match="stores no INT8"):
        int8_files(bundle)
    words = ["agreement", str(bundle_path), "--data", str(data / "parity" / "dataset"), "--split", "val"]
    assert main(words) == ExitCode.NOTHING_RAN
    assert "hnx quantize" in capsys.readouterr().err
