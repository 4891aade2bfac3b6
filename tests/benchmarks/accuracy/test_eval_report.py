"""Views of a report."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.accuracy.report import figures, read_report, watched
from benchmarks.accuracy.views import csv_text, headline, markdown, print_report, remarks, write_report
from hybridnets.errors import ExitCode, HnxError
from tests.benchmarks.accuracy.eval_fakes import drop, report_of, report_row, skipped_row

FULL = report_of(
    report_row(),
    report_row("onnxruntime", "bf16", 0.01, executed="fp32", drop=drop(map50=1.0, map=-0.001, road=12.345, lane=-99.5)),
    skipped_row("torch", "no weights"),
)


def shown(report: Any, *, verbose: bool = False, width: int = 160) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width), verbose=verbose)
    return stream.getvalue()


def test_the_table_is_plain_and_fits() -> None:
    text = shown(FULL)
    table = [line for line in text.splitlines() if "|" in line or "+-" in line]
    assert max(map(len, table)) <= 120
    assert text.isascii()
    assert "…" not in text
    figures_of = ["75.00", "50.00", "90.00", "10.00", "90.00", "30.00", "80.00"]
    assert cells(table, "openvino ") == ["openvino", "fp32", "fp32", "10", *figures_of]
    assert cells(table, "onnxruntime ")[:4] == ["onnxruntime", "bf16", "fp32", "10"]


def cells(lines: list[str], start: str) -> list[str]:
    return [cell.strip() for cell in next(line for line in lines if line.startswith(start)).split("|")]


def test_drops_stand_with_their_intervals() -> None:
    lines = shown(FULL).splitlines()
    row = next(index for index, line in enumerate(lines) if line.startswith("onnxruntime:bf16"))
    # a drop of -0.001 points is no minus zero
    assert [cell.strip() for cell in lines[row].split("|")][1:5] == ["+1.00", "+0.00", "+12.35", "-99.50"]
    assert [cell.strip() for cell in lines[row + 1].split("|")][1:3] == ["[+0.00, +2.00]", "[-1.00, +1.00]"]
    assert "plus is worse" in shown(FULL)
    assert "Drop" not in shown(report_of(report_row()))


def test_verbose_shows_classes_and_pixels() -> None:
    text = shown(FULL, verbose=True)
    assert "Per class" in text
    assert "all pixels" in text
    assert "Per class" not in shown(FULL)


def test_the_widest_names_still_fit() -> None:
    report = report_of(
        report_row("onnxruntime"),
        report_row("onnxruntime", "bf16", drop=drop(map50=-100, map=-100, road=-100, lane=-100, acc=-100)),
    )
    assert max(len(line) for line in shown(report).splitlines() if "|" in line) <= 120
    assert "…" not in shown(report)


def test_remarks() -> None:
    broken = {"count": 7, "images": [{"name": f"a{i}", "reason": "no image \x1b[31m"} for i in range(7)]}
    report = report_of(
        report_row(nonfinite={"count": 3, "images": ["a"]}),
        report_row("torch", drop=drop(map50=0)),
        skipped_row("onnxruntime", "not installed"),
        skipped_row("opencv-dnn", "it died", failed=True),
        data={
            "path": "datasets",
            "split": "val",
            "images": 10,
            "shard": "1/2",
            "broken": broken,
            "dropped_boxes": {"count": 2, "reasons": ["a.json: object 3 (car): no area", "b"]},
        },
        inputs={"identical": False, "sha256": None, "differing": ["a1", "a2"]},
        bundle={"name": "b", "untrained": True, "classes": ["car"], "seg_classes": ["road"]},
    )
    lines = remarks(report)
    text = "\n".join(lines)
    assert "7 of 10 images could not be read" in text
    assert "a4" in text
    assert "and 2 more" in text
    assert "a5" not in text
    assert "\x1b" not in text
    assert "ROWS CANNOT BE COMPARED: 2 images" in text
    assert "2 label boxes" in text
    assert "object 3" in text
    assert "openvino:fp32 gave NaN or infinite values for 3 images" in text
    assert "skipped onnxruntime:fp32: not installed (fix: mend it)" in text
    assert "FAILED opencv-dnn:fp32: it died" in text
    assert "untrained" in text
    assert "no COCO figures: pycocotools is not installed" in text
    assert "shard 1/2" in headline(report)
    assert "byte-identical" in "\n".join(remarks(FULL))


def test_markdown_and_csv(tmp_path: Path) -> None:
    for name in ("a.md", "a.csv", "a.json"):
        write_report(FULL, tmp_path / name)
    text = (tmp_path / "a.md").read_text()
    assert text == markdown(FULL)
    assert "| onnxruntime | bf16 | fp32 | 10 |" in text
    assert "+1.00 [+0.00, +2.00]" in text
    rows = list(csv.DictReader(io.StringIO(csv_text(FULL))))
    assert [row["runtime"] for row in rows] == ["openvino", "onnxruntime", "torch"]
    assert float(rows[0]["mAP50"]) == 0.75
    assert float(rows[0]["mAP50 low"]) == 0.7
    assert float(rows[1]["road mIoU drop"]) == 12.345
    assert rows[2]["skipped"] == "no weights"
    assert rows[2]["mAP50"] == ""
    back = read_report(tmp_path / "a.json")
    assert back.to_json() == FULL.to_json()


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HnxError) as error:
        write_report(FULL, tmp_path / "a.pdf")
    assert error.value.code == ExitCode.USAGE


def test_a_network_with_one_head() -> None:
    metrics = {"mAP50": None, "seg": {"road": {"mIoU": 0.5, "IoU": 0.4, "Acc": 0.6}}, "classes": {}, "pooled": None}
    report = report_of(
        report_row(metrics=metrics, labels=None, intervals={}),
        bundle={"name": "b", "classes": [], "seg_classes": ["road"], "untrained": False},
    )
    text = shown(report, verbose=True)
    assert "mAP50" not in text
    assert "50.00" in text
    assert "road" in markdown(report)
    assert csv_text(report).splitlines()[1].startswith("openvino,fp32,fp32,10,,")


def test_figures_and_what_is_watched() -> None:
    found = figures(report_row()["metrics"])
    assert found["lane IoU"] == 0.3
    assert found["mAP50-95"] == 0.5
    assert "F1" in found
    assert watched(["drivable", "lane_lines"]) == ["mAP50", "mAP50-95", "drivable mIoU", "lane_lines IoU"]
    assert watched(["planet"], boxes=False) == ["planet mIoU"]


def test_nothing_measured() -> None:
    report = report_of(skipped_row("torch", "no weights"), settings={"baseline": None})
    assert "skipped torch:fp32: no weights" in shown(report)
    assert "skipped torch:fp32" in markdown(report)
    assert "torch" in csv_text(report)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"schema_version": 1, "rows": []},
        {"schema_version": "1", "kind": "eval", "rows": []},
        {"schema_version": 1, "kind": "eval", "rows": [{}]},
        {"schema_version": 1, "kind": "eval", "rows": [{"runtime": "a", "precision": 1}]},
        {"schema_version": 1, "kind": "eval", "rows": [{"runtime": "a", "precision": "b", "metrics": 3}]},
        {"schema_version": 2, "kind": "eval", "rows": []},
        {"schema_version": 1, "kind": "eval", "rows": [], "data": []},
    ],
)
def test_other_files_are_refused(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    with pytest.raises(HnxError, match=r"a\.json"):
        read_report(path)
