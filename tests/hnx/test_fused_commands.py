"""Every command on bundles whose graph does steps of pre- and postprocessing, held against the plain bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

from hnx.__main__ import main
from hybridnets.bundle import UNFUSED, GraphForm, NmsForm, open_bundle
from hybridnets.errors import ExitCode
from hybridnets.sinks import rle_decode
from runtimes.base import Runtime
from runtimes.opencv_dnn import OpenCvRuntime
from tests.fused import lively_bundle

DATA = Path(__file__).parents[1] / "data" / "parity" / "dataset"
# the untrained network finds 400 boxes a frame
SUPPRESSED = GraphForm("uint8", "classmap", "nms", NmsForm(candidates=3840, boxes=1000))
DECODED = GraphForm("uint8", "lowres", "decoded")
STRICT = GraphForm(detection="nms", nms=NmsForm(conf=0.5, iou=0.6))


@dataclass(frozen=True)
class Bundles:
    """The same network in several forms."""

    plain: Path
    suppressed: Path
    decoded: Path
    strict: Path


@pytest.fixture(scope="module")
def bundles(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("forms")
    forms = {"plain": UNFUSED, "suppressed": SUPPRESSED, "decoded": DECODED, "strict": STRICT}
    for name, form in forms.items():
        lively_bundle(folder / name, form, bundle_path)
    return Bundles(**{name: folder / name for name in forms})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


# -- hnx infer ---------------------------------------------------------------------------------------------------


def infer(bundle: Path, frame: Path, *words: str) -> dict[str, Any]:
    """The record of one frame."""
    out = Path("out") / bundle.name
    arguments = ["-b", str(bundle), "-r", "ort", "--threads", "1", "--no-draw", "-o", str(out), *words]
    assert main(["infer", str(frame), *arguments]) == ExitCode.OK
    record: dict[str, Any] = json.loads(next(out.glob("*.jsonl")).read_text())
    shutil.rmtree(out)
    return record


def test_infer_delivers_what_the_plain_bundle_does(bundles: Bundles, road_image: Path) -> None:
    expected = infer(bundles.plain, road_image)
    assert len(expected["boxes"]) > 20
    for bundle in (bundles.suppressed, bundles.decoded):
        found = infer(bundle, road_image)
        assert found["scores"] == pytest.approx(expected["scores"], abs=2e-4)
        assert np.allclose(found["boxes"], expected["boxes"], atol=0.05)
        assert found["class_ids"] == expected["class_ids"]
        for name in ("road", "lane"):
            a, b = (rle_decode(record["segmentation"][name]) for record in (found, expected))
            assert np.count_nonzero(a != b) <= 1e-4 * a.size


def test_infer_takes_the_thresholds_of_the_graph(
    bundles: Bundles, road_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = infer(bundles.plain, road_image, "--conf", "0.5", "--iou", "0.6")
    assert infer(bundles.strict, road_image)["scores"] == pytest.approx(expected["scores"], abs=2e-4)
    higher = infer(bundles.strict, road_image, "--conf", "0.6")
    assert higher["scores"] == [score for score in infer(bundles.strict, road_image)["scores"] if score > 0.6]
    capsys.readouterr()
    words = ["infer", str(road_image), "-b", str(bundles.strict), "-r", "ort", "--no-draw"]
    assert main([*words, "--conf", "0.25"]) == ExitCode.USAGE
    assert "--conf 0.5 (or more) --iou 0.6" in capsys.readouterr().err


# -- hnx compare -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "outputs"),
    [
        ("plain", "suppressed", []),
        ("plain", "decoded", ["classification"]),
        ("decoded", "suppressed", []),
        ("plain", "strict", ["segmentation"]),
        ("decoded", "decoded", ["boxes", "classification", "segmentation"]),
    ],
)
def test_compare_two_forms(first: str, second: str, outputs: list[str], bundles: Bundles, tmp_path: Path) -> None:
    report = tmp_path / "compare.json"
    names = [str(getattr(bundles, name)) for name in (first, second)]
    words = ["--runtime", "ort,opencv-dnn", "--threads", "1", "--json", str(report)]
    assert main(["compare", *names, *words]) == ExitCode.OK
    found = json.loads(report.read_text())
    assert sorted(found["outputs"]) == outputs
    assert found["boxes"][0] == found["boxes"][1] == found["boxes"][2] > 10
    assert found["pixel_agreement"] > 0.9999
    assert found["problems"] == []


def test_compare_refuses_graphs_that_suppress_with_other_overlaps(
    bundles: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(bundles.suppressed), str(bundles.strict), "--runtime", "ort"]) == ExitCode.USAGE
    assert "suppresses boxes itself" in capsys.readouterr().err


# -- hnx bench ---------------------------------------------------------------------------------------------------


def test_bench_measures_every_runtime(bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "bench.json"
    words = ["--iterations", "2", "--duration", "0.02", "--max-time", "5", "--threads", "1", "--fast"]
    runtimes = "ort,opencv-dnn"
    assert main(["bench", str(bundles.strict), "--runtime", runtimes, *words, "--json", str(report)]) == ExitCode.OK
    stored = json.loads(report.read_text())
    rows = {f"{row['runtime']}:{row['precision']}": row for row in stored["rows"]}
    for name in ("onnxruntime:fp32", "opencv-dnn:fp32"):
        assert rows[name]["forward_ms"]["p50"] > 0
    assert "the bundle stores no int8 network" in rows["onnxruntime:int8"]["skipped"]["reason"]
    assert (stored["settings"]["conf"], stored["settings"]["iou"]) == (0.5, 0.6)
    assert stored["bundle"]["pipeline"] == STRICT.to_json()


def test_a_runtime_that_cannot_do_a_form_is_a_skipped_row(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # OpenCV 4.8 and 4.12 were tried: both stop at the suppression, and do everything else
    monkeypatch.setattr("cv2.__version__", "4.12.0")
    for form, able in ((SUPPRESSED, False), (DECODED, True), (UNFUSED, True)):
        opened = open_bundle({SUPPRESSED: bundles.suppressed, DECODED: bundles.decoded, UNFUSED: bundles.plain}[form])
        refusal = OpenCvRuntime.refuses(opened)
        assert (refusal is None) == able
    assert main(["infer", "-b", str(bundles.suppressed), "-r", "opencv-dnn"]) == ExitCode.NOTHING_RAN
    assert "--decode instead of --nms" in capsys.readouterr().err
    monkeypatch.undo()

    # a row's process cannot be patched: the parent asks before it starts one
    def refuse(cls: type[Runtime], bundle: object) -> tuple[str, str]:
        return "it has no such operator", "export without it"

    monkeypatch.setattr(OpenCvRuntime, "refuses", classmethod(refuse))
    words = ["--iterations", "2", "--duration", "0.02", "--max-time", "5", "--threads", "1", "--fast"]
    assert main(["bench", str(bundles.plain), "--runtime", "ort:fp32,opencv-dnn", *words]) == ExitCode.OK
    assert "skipped opencv-dnn:fp32: it has no such operator (fix: export without it)" in capsys.readouterr().out
    words = ["--data", str(DATA), "--limit", "2", "--threads", "1", "--draws", "0", "--conf", "0.02"]
    assert main(["eval", str(bundles.plain), "--runtime", "ort:fp32,opencv-dnn", *words]) == ExitCode.OK
    assert "skipped opencv-dnn:fp32: it has no such operator (fix: export without it)" in capsys.readouterr().out


# -- hnx eval ----------------------------------------------------------------------------------------------------


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Metrics of a bundle."""

    def run(bundle: Path, *words: str) -> dict[str, Any]:
        report = tmp_path / "eval.json"
        given = ["--data", str(DATA), "--limit", "4", "--threads", "1", "--draws", "0", "--runtime", "ort:fp32"]
        assert main(["eval", str(bundle), *given, "--json", str(report), *words]) == ExitCode.OK
        metrics: dict[str, Any] = json.loads(report.read_text())["rows"][0]["metrics"]
        return metrics

    return run


def _flat(value: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            found |= {f"{name}.{inner}": number for inner, number in _flat(item).items()}
        elif isinstance(item, int | float):
            found[name] = item
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("decoded", ("--conf", "0.1")),
        ("decoded", ("--protocol", "deploy")),
        ("suppressed", ("--protocol", "deploy")),
        ("suppressed", ("--protocol", "paper", "--conf", "0.25", "--iou", "0.3")),
    ],
)
def test_eval_scores_them_like_the_plain_bundle(
    name: str, words: tuple[str, ...], bundles: Bundles, evaluate: Callable[..., dict[str, Any]]
) -> None:
    expected, found = _flat(evaluate(bundles.plain, *words)), _flat(evaluate(getattr(bundles, name), *words))
    assert found == pytest.approx(expected, abs=1e-3)
    assert expected["R"] > 0
    assert 0 < expected["mIoU"] < 100


def test_eval_refuses_a_protocol_that_a_graph_cannot_serve(
    bundles: Bundles, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(DATA), "--limit", "2", "--runtime", "ort:fp32"]
    assert main(["eval", str(bundles.suppressed), *words]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert "above 0.001 with an IoU of 0.6" in error
    assert "--protocol deploy --conf 0.25 --iou 0.3" in error
    assert main(["eval", str(bundles.strict), "--protocol", "deploy", *words]) == ExitCode.USAGE
    assert "--conf 0.5 --iou 0.6" in capsys.readouterr().err


# -- hnx quantize and inspect ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "targets",
    ["tensorrt,fp16", pytest.param("openvino,onnxruntime", marks=pytest.mark.slow)],  # those are timed, too
)
def test_quantize_leaves_the_pipeline_and_the_stem_in_float(
    targets: str, bundles: Bundles, tmp_path: Path, road_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(bundles.suppressed, tmp_path / "bundle"))
    frames = tmp_path / "frames"
    frames.mkdir()
    image = cv2.resize(cv2.imread(str(road_image)), (256, 144))
    for index, gain in enumerate((0.5, 1.0, 1.2)):
        cv2.imwrite(str(frames / f"{index}.png"), np.clip(image * gain, 0, 255).astype(np.uint8))
    words = ["--calib", str(frames), "--frames", "3", "--threads", "1", "--for", targets]
    assert main(["quantize", str(bundle), *words]) == ExitCode.OK
    out = capsys.readouterr().out
    assert any(line.split()[:2] == ["encoder/stem", "0/1"] for line in out.splitlines())
    assert "relative L2 to FP32 regression" in out  # of the network, not of boxes in an order
    opened = open_bundle(bundle)
    assert len(opened.variants) == (4 if "fp16" in targets else 3)
    for variant in opened.variants:
        graph = onnx.shape_inference.infer_shapes(onnx.load(opened.file(variant.file))).graph
        half = {v.name for v in graph.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
        half |= {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT16}
        pipeline = [node for node in graph.node if node.name.startswith("/pipeline/") and "_cast" not in node.name]
        assert len(pipeline) > 40
        assert not half.intersection(name for node in pipeline for name in (*node.input, *node.output))
        assert bool(half) == ("tensorrt-strong" in variant.runtimes)
    for runtime in () if "fp16" in targets else ("openvino", "ort"):
        report = tmp_path / "compare.json"
        words = ["--runtime", f"ort:fp32,{runtime}:int8", "--json", str(report)]
        assert main(["compare", str(bundle), *words]) in (ExitCode.OK, ExitCode.GATE_FAILED)
        found = json.loads(report.read_text())
        assert found["executed"][1] == "int8"
        # with untrained weights, boxes turned up a hundredfold agree on nothing after INT8; the road's map does
        assert found["boxes"][1] > 20
        assert 0.85 < found["pixel_agreement"] < 1


def test_inspect_shows_the_pipeline(bundles: Bundles, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "graph.json"
    assert main(["inspect", str(bundles.suppressed), "--json", str(report)]) == ExitCode.OK
    found = json.loads(report.read_text())
    assert [spec["name"] for spec in found["outputs"]] == ["detections", "segmentation"]
    assert found["inputs"][0]["dtype"] == "uint8"
    blocks = {block["name"]: block for block in found["blocks"]}
    for name in ("pipeline/input", "pipeline/detection", "pipeline/segmentation"):
        assert blocks[name]["before"]["nodes"] == 0 < blocks[name]["after"]["nodes"]
    file = next(bundles.suppressed.glob("*.onnx"))
    assert found["total"]["after"]["nodes"] == len(onnx.load(file).graph.node)
    assert main(["inspect", str(file)]) == ExitCode.OK
    assert "pipeline/detection" in capsys.readouterr().out


# -- hnx export --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nms-conf", "0.5"], "--nms-conf needs --nms"),
        (["--nms", "--nms-boxes", "5000"], "5000 candidates"),
        (["--nms", "--dynamic-batch"], "do not go together"),
        (["--nms", "--heads", "seg"], "without the detection head"),
        (["--decode", "--heads", "seg"], "--decode was asked for"),
        (["--seg", "lowres", "--heads", "det"], "--seg lowres was asked for"),
        (["--input", "float16"], "float16"),
    ],
)
def test_requests_that_contradict_themselves(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "-c", "0", "--size", "256x128", *words]) == ExitCode.USAGE
    assert text in capsys.readouterr().err
    assert not Path("exports").exists()
