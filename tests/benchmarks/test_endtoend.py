"""What is compared end to end, and what the figures mean; no time is ever asserted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks import endtoend, reference
from benchmarks.endtoend import REFERENCE, Equality
from benchmarks.turns import Timing
from hybridnets.bundle import UNFUSED, GraphForm, NmsForm, open_bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from tests.fused import lively_bundle

# the untrained network finds 400 boxes a frame
SUPPRESSED = GraphForm("uint8", "classmap", "nms", NmsForm(candidates=3840, boxes=1000))
SHORT = ["--rounds", "1", "--samples", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def bundles(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("endtoend")
    for name, form in (("plain", UNFUSED), ("fused", SUPPRESSED)):
        lively_bundle(folder / name, form, bundle_path)
    return [str(folder / "plain"), str(folder / "fused")]


def test_ours_gives_what_the_reference_gives(
    bundles: list[str], road_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # as wide as the network's input: frames of another shape are resized twice by upstream, and once by us
    frame = cv2.imread(str(road_image))
    for index, part in enumerate((frame[80:], frame[:640])):
        cv2.imwrite(str(tmp_path / f"{index}.png"), part)
    report = tmp_path / "report.json"
    words = ["--runtime", "ort:fp32,opencv-dnn,ort:int8", "--source", str(tmp_path), "--json", str(report)]
    assert endtoend.main([*bundles, *words, *SHORT]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert "2 frame(s) of 1280x640" in printed
    assert "skipped plain onnxruntime:int8: the bundle stores no int8 network" in printed
    stored = json.loads(report.read_text())
    assert [row["name"] for row in stored["rows"]] == [
        "reference",
        "plain onnxruntime:fp32",
        "plain opencv-dnn:fp32",
        "fused onnxruntime:fp32",
        "fused opencv-dnn:fp32",
    ]
    for row in stored["rows"]:
        samples = row["samples_ms"]
        assert len(samples["wall"][0]) == len(samples["cpu"][0]) == len(samples["stages"]) == 2
        for whole, stages in zip(samples["wall"][0], samples["stages"], strict=True):
            assert 0 < sum(stages) <= whole
        if row["name"] == REFERENCE:
            assert row["equality"] is None
            assert row["ratio"] == 1
            continue
        first, second, matched = row["equality"]["boxes"]
        assert first == second == matched > 100
        assert row["equality"]["score"] < 1e-3
        assert row["equality"]["pixels"] > 0.9999


def test_bundles_of_one_name_are_rows_of_their_own() -> None:
    paths = [Path("swish/net"), Path("hardswish/net"), Path("low")]
    assert endtoend.labels(paths, ["net", "net", "low"]) == ["swish/net", "hardswish/net", "low"]


def _prediction(boxes: list[list[float]], scores: list[float], mask: list[list[int]]) -> Prediction:
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.zeros(len(scores), np.int64)
    )
    return Prediction(found, np.array(mask, np.uint8), Letterbox.fit((2, 2), (128, 128)))


def test_equality_by_hand() -> None:
    box, other, far = [0.0, 0, 10, 10], [0.0, 0, 10, 9.5], [20.0, 20, 30, 30]
    expected = [_prediction([box, far], [0.9, 0.5], [[0, 1], [2, 0]]), _prediction([], [], [[0, 0], [0, 0]])]
    found = [_prediction([other, box], [0.8, 0.5], [[0, 1], [1, 0]]), _prediction([box], [0.3], [[0, 0], [0, 0]])]
    same = endtoend.equality(expected, found)
    assert same.boxes == (2, 3, 1)
    assert same.score == pytest.approx(0.1)
    assert same.pixels == 7 / 8
    assert endtoend.equality(expected[1:], expected[1:]) == Equality((0, 0, 0), None, 1.0)


def test_rows_by_hand() -> None:
    base = Timing([[100.0], [200.0], [100.0]], [[100.0], [100.0], [100.0]])
    ours = Timing([[10.0, 10.0], [10.0, 10.0], [12.0, 12.0]], [[20.0], [20.0], [20.0]])
    stages = {REFERENCE: [[1.0, 98.0, 1.0]], "ours": [[1.0, 8.0, 1.0], [2.0, 8.0, 3.0]]}
    first, second = endtoend.rows({REFERENCE: base, "ours": ours}, stages, {"ours": Equality((1, 1, 1), 0.0, 1.0)})
    assert (first.ratio, first.interval, first.equality) == (1.0, (1.0, 1.0), None)
    assert second.p50_ms == 10
    assert second.stages_ms == {"pre": 1.5, "run": 8.0, "post": 2.0}
    assert second.ratio == 0.1
    assert second.interval == pytest.approx((0.05, 0.12))
    assert second.cpu_ratio == 0.2


@pytest.mark.parametrize(("limit", "code"), [("0.11", ExitCode.OK), ("0.09", ExitCode.GATE_FAILED)])
def test_the_limit_decides_the_exit_code(
    bundles: list[str], monkeypatch: pytest.MonkeyPatch, limit: str, code: ExitCode
) -> None:
    timings = {REFERENCE: Timing([[10.0]], [[10.0]]), "ours": Timing([[1.0]], [[1.0]])}
    stages = {key: [(1.0, 1.0, 1.0)] for key in timings}
    found: Any = (timings, stages, {"ours": Equality((1, 1, 1), 0.0, 1.0)})
    monkeypatch.setattr(endtoend, "measure", lambda *_, **__: found)
    assert endtoend.main([bundles[0], "--runtime", "ort:fp32", "--check", limit, *SHORT]) == code


def test_what_cannot_be(bundles: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert endtoend.main([str(tmp_path / "nothing")]) == ExitCode.FAILED
    assert endtoend.main([bundles[0], "--runtime", "opnvino"]) == ExitCode.USAGE
    assert endtoend.main([bundles[0], "--runtime", "ort:int8", *SHORT]) == ExitCode.NOTHING_RAN
    bare = shutil.copy(Path(bundles[0]) / "hybridnets_128x256.onnx", tmp_path)
    capsys.readouterr()
    assert endtoend.main([str(bare), *SHORT]) == ExitCode.FAILED
    assert "no weights.safetensors" in capsys.readouterr().err
    for words in (["--rounds", "0"], ["--samples", "0"], ["--threads", "0"]):
        with pytest.raises(SystemExit) as caught:
            endtoend.main([bundles[0], *words])
        assert caught.value.code == ExitCode.USAGE


def test_the_reference_is_upstreams_or_none(bundles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    bundle = open_bundle(bundles[0])
    heads = {"segmentation": bundle.outputs["segmentation"]}
    for changed, word in (
        (replace(bundle, mean=(0.5, 0.5, 0.5)), "mean"),
        (replace(bundle, seg_mode="multilabel"), "multilabel"),
        (replace(bundle, outputs=heads), "one head"),
    ):
        with pytest.raises(HnxError) as caught:
            reference.UpstreamPipeline(changed)
        assert word in caught.value.why
    monkeypatch.setattr(reference, "has_torch", lambda: False)
    with pytest.raises(HnxError) as caught:
        reference.UpstreamPipeline(bundle)
    assert caught.value.code == ExitCode.NOTHING_RAN
