"""The model card says what the reports say, and refuses what would mislead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.card_source import read_source
from benchmarks.contact_sheet import contact_sheet, write_small_jpeg
from benchmarks.model_card import main
from hybridnets.bundle import open_bundle
from hybridnets.errors import HnxError
from hybridnets.files import read_json, write_json
from hybridnets.weights import WeightsEntry, registry

DIGEST = "0123456789abcdef" * 4


def report(**changes: Any) -> dict[str, Any]:
    metrics = {
        "labels": 41,
        "mAP50": 0.7123,
        "mAP50-95": 0.4,
        "R": 0.9,
        "P": 0.01,
        "seg": {
            "road": {"mIoU": 0.95, "IoU": 0.93, "Acc": 0.97},
            "lane": {"mIoU": 0.7, "IoU": 0.456, "Acc": 0.8},
        },
        "pooled": {"mIoU": 0.9, "IoU": {"road": 0.944, "lane": None}},
    }
    row = {"runtime": "onnxruntime", "precision": "fp32", "metrics": metrics, "intervals": {"mAP50": [0.7, 0.724]}}
    value: dict[str, Any] = {
        "schema_version": 1,
        "kind": "eval",
        "created": "2026-01-01T00:00:00+00:00",
        "rows": [row, {"runtime": "openvino", "precision": "fp32", "skipped": {"reason": "absent"}}],
        "data": {"images": 200, "split": "val", "digest": "feed" * 16, "broken": {"count": 1}},
        "protocol": {"name": "paper", "conf": 0.001, "iou": 0.6, "at": "input"},
        "inputs": {},
        "bundle": {"untrained": False, "classes": ["car"], "seg_classes": ["road", "lane"]},
        "environment": {},
        "settings": {"level": 0.95},
    }
    return {**value, **changes}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files = tmp_path / "files"
    monkeypatch.setattr(registry, "FILES", files)
    entry = WeightsEntry(
        name="c0-384x256",
        compound_coef=0,
        size=(384, 256),
        activation="swish",
        classes=("car",),
        seg_classes=("road", "lane"),
        licence="MIT",
        summary="one | two",
        file="a.safetensors",
        bytes=8_780_000,
        sha256=DIGEST,
    )
    write_json(files / "index.json", {"schema_version": 1, "weights": [entry.to_json()]})
    write_json(tmp_path / "scenes.json", report())
    (tmp_path / "train.sh").write_text("hnx train -c 0\n")
    return tmp_path


def source(folder: Path, text: str, rest: str = "") -> Path:
    path = folder / "card.yml"
    indented = "\n".join(f"  {line}" for line in text.splitlines())
    facts = (
        "weights:\n- {name: c0-384x256, hours: 3 h on one core}\nevaluations:\n  scenes: {c0-384x256: scenes.json}\n"
    )
    path.write_text(f"text: |\n{indented}\n{facts}{rest}")
    return path


def test_every_place_is_filled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = source(folder, "# Card\n\n{{weights}}\n\n{{ evaluation scenes }}\n\n{{file train.sh}}\n\nIt cannot fly.")
    assert main([str(path), "-o", "docs/card.md"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "docs/card.md\n"
    text = Path("docs/card.md").read_text()
    assert text.startswith("<!-- Written by")
    assert "| `c0-384x256` | one \\| two | 0 | 384x256 | swish | 3 h on one core | 8.78 | `0123456789abcdef` |" in text
    row = next(line for line in text.splitlines() if "onnxruntime" in line)
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[:3] == ["`c0-384x256`", "onnxruntime:fp32", "71.2 [70.0, 72.4]"]
    assert cells[3:] == ["40.0", "90.0", "93.0", "94.4", "95.0", "45.6", "80.0"]
    assert "openvino" not in text
    assert "199 images of the split val" in text
    assert "`feedfeedfeedfeed`" in text
    assert "```sh\nhnx train -c 0\n```" in text
    assert text.endswith("It cannot fly.\n")


def test_boxes_nobody_labelled_have_no_columns(folder: Path) -> None:
    value = report()
    value["rows"][0]["metrics"] = {**value["rows"][0]["metrics"], "labels": 0, "mAP50": 0.0, "R": 0.0}
    write_json(folder / "scenes.json", value)
    assert main([str(source(folder, "{{evaluation scenes}}")), "-o", "card.md"]) == 0
    text = Path("card.md").read_text()
    assert "mAP" not in text
    assert "lane IoU" in text
    # reports of before have no pooled figures
    del value["rows"][0]["metrics"]["pooled"]
    write_json(folder / "scenes.json", value)
    assert main([str(source(folder, "{{evaluation scenes}}")), "-o", "card.md"]) == 0
    assert "all pixels" not in Path("card.md").read_text()


def test_two_networks_share_a_table(folder: Path) -> None:
    write_json(folder / "other.json", report())
    path = source(folder, "{{evaluation scenes}}")
    path.write_text(path.read_text().replace("scenes.json}", "scenes.json, twin: other.json}"))
    assert main([str(path), "-o", "card.md"]) == 0
    assert Path("card.md").read_text().count("onnxruntime:fp32") == 2
    for change, word in (
        ({"data": {"digest": "other"}}, "other data"),
        ({"protocol": {"name": "deploy"}}, "another protocol"),
        ({"bundle": {"untrained": True}}, "untrained"),
        ({"rows": []}, "no row of it ran"),
    ):
        write_json(folder / "other.json", report(**change))
        with pytest.raises(HnxError, match=word):
            from benchmarks.model_card import evaluation_table

            card = read_source(path)
            evaluation_table(card, card.evaluations["scenes"])


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("{{weihgts}}", 2, "weights"),
        ("{{evaluation scene}}", 2, "did you mean 'scenes'"),
        ("{{pictures frames}}", 2, "frames"),
        ("{{file absent.sh}}", 1, "does not exist"),
    ],
)
def test_places_for_nothing(folder: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, word: str) -> None:
    assert main([str(source(folder, text)), "-o", "card.md"]) == code
    assert word in capsys.readouterr().err
    assert not Path("card.md").exists()


@pytest.mark.parametrize(
    "rest",
    [
        "more: 1",
        "pictures: {a: {bundle: b, frames: [c], file: d.jpg}}",
        "pictures: {a: {bundle: b, frames: [c], file: ../d.jpg, caption: e}}",
        "pictures: {a: {bundle: b, frames: [c], file: d.png, caption: e}}",
        "pictures: {a: {bundle: b, frames: [], file: d.jpg, caption: e}}",
        "pictures: {a: {bundle: b, frames: [c], file: d.jpg, caption: e, columns: 0}}",
        "pictures: {a: {bundle: b, frames: [c], file: d.jpg, caption: e, colums: 2}}",
        "pictures: 3",
        "pictures: {a: {bundle: 3, frames: [c], file: d.jpg, caption: e}}",
        "x: [",
    ],
)
def test_a_wrong_source_is_refused(folder: Path, rest: str) -> None:
    with pytest.raises(HnxError) as caught:
        read_source(source(folder, "a", rest))
    assert caught.value.code == 2


def test_other_wrong_sources(folder: Path) -> None:
    path = folder / "x.yml"
    for content in (
        b"",
        b"text: 3",
        b"[1]",
        b"\xff\xfe\x00",
        b"text: a\nevaluations: {b: {}}",
        b"text: " + b"a" * (1 << 20),
    ):
        path.write_bytes(content)
        with pytest.raises(HnxError, match="no source"):
            read_source(path)
    with pytest.raises(HnxError, match="Cannot read"):
        read_source(folder / "absent.yml")
    assert main([str(folder / "absent.yml")]) == 1


def test_pictures_are_drawn_by_the_bundle(
    folder: Path, bundle_path: Path, road_video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = folder / "bundle"
    trained.mkdir()
    for file in bundle_path.iterdir():
        (trained / file.name).write_bytes(file.read_bytes())
    rest = (
        f"pictures:\n  road: {{bundle: BUNDLE, frames: {road_video}, file: road.jpg, caption: A road, "
        "step: 10, most: 3, width: 640, limit: 60000, runtime: onnxruntime}\n"
    )
    path = source(folder, "{{pictures road}}", rest.replace("BUNDLE", str(trained)))
    manifest = read_json(trained / "manifest.json")
    if open_bundle(trained).untrained:
        assert main([str(path), "-o", "docs/card.md"]) == 1
        assert "untrained" in capsys.readouterr().err
    manifest["model"]["untrained"] = False
    write_json(trained / "manifest.json", manifest)
    assert main([str(path), "-o", "docs/card.md"]) == 0
    picture = cv2.imread("docs/road.jpg")
    assert picture is not None
    assert picture.shape == (2 * 179 + 4, 640, 3)
    assert Path("docs/road.jpg").stat().st_size <= 60_000
    assert "![A road](road.jpg)" in Path("docs/card.md").read_text()


def test_a_sheet_places_pictures_of_any_size() -> None:
    pictures = [
        np.full((90, 160, 3), 10, np.uint8),
        np.full((50, 50, 3), 20, np.uint8),
        np.full((9, 16, 3), 30, np.uint8),
    ]
    sheet = contact_sheet(pictures, columns=2, width=204)
    assert sheet.shape == (100 + 4 + 56, 204, 3)
    assert (sheet[0, 0, 0], sheet[0, 103, 0], sheet[0, 104, 0], sheet[99, 104, 0]) == (10, 255, 20, 20)
    assert (sheet[60, 0, 0], sheet[104, 0, 0], sheet[104, 150, 0]) == (255, 30, 255)
    with pytest.raises(HnxError):
        contact_sheet([], columns=2, width=100)
    with pytest.raises(HnxError):
        contact_sheet(pictures, columns=50, width=100)


def test_a_jpeg_becomes_as_small_as_asked(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 800, 3), dtype=np.uint8)
    path = tmp_path / "a.jpg"
    assert write_small_jpeg(path, noise, 1 << 20) == path.stat().st_size
    assert cv2.imread(str(path)).shape == (400, 800, 3)
    assert write_small_jpeg(path, noise, 100_000) <= 100_000
    found = cv2.imread(str(path))
    assert 320 <= found.shape[1] < 800
    with pytest.raises(HnxError, match="too many pictures"):
        write_small_jpeg(path, noise, 1000)
