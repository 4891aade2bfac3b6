"""Reports are joined by what the networks are, not by what they are called."""

from __future__ import annotations

import csv
import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.joined import JoinedReport, join, markdown, print_joined, read_reports, write_joined
from benchmarks.joined.views import csv_text, write_picture
from benchmarks.report import read_report as read_bench
from hnx.__main__ import main
from hybridnets.errors import ExitCode, HnxError

BUNDLE = {"name": "net", "files_sha256": {"net.onnx": "aa", "net-int8.onnx": "bb"}, "seg_classes": ["road", "lane"]}


def bench_row(precision: str, p50: float, p99: float, *, valid: bool = True, **more: Any) -> dict[str, Any]:
    forward = {"p50": p50, "p95": p99, "p99": p99, "count": 9}
    slower = {name: value + 5 for name, value in forward.items()}
    return {
        "runtime": "openvino", "precision": precision, "executed": precision, "forward_ms": forward,
        "end_to_end_ms": slower, "ratio": {"forward": p50 / 20, "end_to_end": (p50 + 5) / 25}, "valid": valid,
        "reasons": [] if valid else ["the machine was busy", "few samples"], **more,
    }  # fmt: skip


def eval_row(precision: str, mAP50: float, lane: float, drops: dict[str, float] | None) -> dict[str, Any]:  # noqa: N803
    row: dict[str, Any] = {
        "runtime": "openvino", "precision": precision, "executed": precision, "images": 3,
        "metrics": {"mAP50": mAP50, "mAP50-95": 0.4, "seg": {"road": {"mIoU": 0.9}, "lane": {"IoU": lane}}},
    }  # fmt: skip
    if drops is not None:
        row["drop"] = {"metrics": {name: {"points": value, "interval": [-1, 1]} for name, value in drops.items()}}
    return row


def bench_json(rows: list[dict[str, Any]], bundle: dict[str, Any] = BUNDLE, cpu: str = "CPU A") -> dict[str, Any]:
    settings = {"threads": 2, "streams": 1, "baseline": "openvino:fp32"}
    return {
        "schema_version": 1, "created": "2026-01-01", "rows": rows, "environment": {"cpu": {"model": cpu}},
        "settings": settings, "bundle": bundle,
    }  # fmt: skip


def eval_json(rows: list[dict[str, Any]], bundle: dict[str, Any] = BUNDLE) -> dict[str, Any]:
    return {
        "schema_version": 1, "kind": "eval", "created": "2026-01-01", "rows": rows, "bundle": bundle,
        "data": {"path": "sets/val7", "images": 3}, "protocol": {"name": "paper"}, "inputs": {"identical": True},
        "environment": {"cpu": {"model": "CPU A"}},
        "settings": {"baseline": "openvino:fp32", "watched": ["mAP50", "mAP50-95", "road mIoU", "lane IoU"]},
    }  # fmt: skip


BENCH = bench_json(
    [
        bench_row("fp32", 20, 22),
        bench_row("bf16", 12, 13, power={"forward": {"joules_per_frame": 0.25}}),
        bench_row("int8", 10, 11, valid=False),
        {"runtime": "torch", "precision": "bf16", "skipped": {"reason": "none"}},
    ]
)
EVAL = eval_json(
    [
        eval_row("fp32", 0.62, 0.41, None),
        eval_row("bf16", 0.621, 0.41, {"mAP50": -0.1, "road mIoU": 0.0, "lane IoU": 0.0}),
        eval_row("int8", 0.615, 0.39, {"mAP50": 0.5, "road mIoU": 0.2, "lane IoU": 2.0}),
        eval_row("fp16", 0.62, 0.41, {"mAP50": 0.0}),
    ]
)


def joined(tmp_path: Path, *values: dict[str, Any], kind: Any = "forward") -> JoinedReport:
    paths = []
    for number, value in enumerate(values):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(value))
    return join(*read_reports(paths), kind=kind)


def test_rows_are_joined_fastest_first(tmp_path: Path) -> None:
    report = joined(tmp_path, EVAL, BENCH)
    assert [row.name for row in report.rows] == ["openvino:int8", "openvino:bf16", "openvino:fp32"]
    int8, bf16, fp32 = report.rows
    assert (int8.p50_ms, int8.p99_ms, int8.ratio) == (10, 11, 0.5)
    assert int8.drops == {"mAP50": 0.5, "road mIoU": 0.2, "lane IoU": 2.0}
    assert int8.intervals["lane IoU"] == (-1, 1)
    assert (int8.worst, bf16.worst, fp32.worst) == (2.0, 0.0, 0.0)
    assert (bf16.joules, fp32.joules) == (0.25, None)
    assert report.tasks == ("mAP50", "road mIoU", "lane IoU")
    # fp32 is slower than bf16 and loses as little
    assert [row.pareto for row in report.rows] == [True, True, False]


def test_a_tuned_row_of_another_network_is_left_out(tmp_path: Path) -> None:
    found = [{"network": {"sha256": digest}} for digest in ("aa", "bb")]
    bench = bench_json([bench_row("fp32", 20, 22), bench_row("tuned", 8, 9, **found[0])])
    one, other = (
        eval_json([EVAL["rows"][0], {**eval_row("tuned", 0.6, 0.4, {"mAP50": 0.1}), **more}]) for more in found
    )
    same, different = joined(tmp_path, bench, one), joined(tmp_path, bench, other)
    assert [row.name for row in same.rows] == ["openvino:tuned", "openvino:fp32"]
    assert [row.name for row in different.rows] == ["openvino:fp32"]
    # said where it happened, and nowhere else
    assert [sum("another network" in line for line in report.remarks) for report in (same, different)] == [0, 1]
    # a report of before named none
    assert len(joined(tmp_path, bench, eval_json([EVAL["rows"][0], eval_row("tuned", 0.6, 0.4, None)])).rows) == 2


def test_latency_from_frame_to_result(tmp_path: Path) -> None:
    report = joined(tmp_path, EVAL, BENCH, kind="end_to_end")
    assert [row.p99_ms for row in report.rows] == [16, 18, 27]
    assert report.rows[0].ratio == 0.6
    assert report.rows[1].joules is None


def test_the_fastest_inside_a_budget(tmp_path: Path) -> None:
    report = joined(tmp_path, EVAL, BENCH)
    assert [getattr(report.fastest(limit), "name", None) for limit in (2.0, 0.5, 0.0)] == [
        "openvino:int8", "openvino:bf16", "openvino:bf16",
    ]  # fmt: skip


def test_a_row_that_was_not_compared_is_no_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its baseline nobody knows what a row lost."""
    alone = eval_json([eval_row("int8", 0.6, 0.4, None)])
    alone["settings"] = {**alone["settings"], "baseline": None}
    report = joined(tmp_path, BENCH, alone)
    (row,) = report.rows
    assert (row.worst, row.pareto, report.fastest(100)) == (None, False, None)
    assert "baseline" not in markdown(report).split("Latency of")[0]
    assert csv_text(report).splitlines()[1].count("baseline") == 0
    assert next(csv.DictReader(io.StringIO(csv_text(report))))["worst_drop"] == ""
    with pytest.raises(HnxError, match="no picture"):
        write_picture(report, tmp_path / "p.png")
    files = [str(tmp_path / name) for name in ("0.json", "1.json")]
    assert main(["report", *files]) == ExitCode.OK
    assert main(["report", *files, "--max-drop", "9"]) == ExitCode.GATE_FAILED
    assert "nothing to choose from" in capsys.readouterr().err


def test_a_row_without_the_tasks_is_no_choice(tmp_path: Path) -> None:
    report = joined(tmp_path, BENCH, eval_json([EVAL["rows"][0], eval_row("int8", 0.6, 0.4, {})]))
    assert [(row.name, row.worst) for row in report.rows] == [("openvino:int8", None), ("openvino:fp32", 0.0)]
    best = report.fastest(0.5)
    assert best is not None
    assert best.name == "openvino:fp32"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": {"name": "deploy"}}, "the protocol is not the same"),
        ({"data": {"path": "sets/val7", "images": 3, "names_sha256": "1"}}, "the list of images is not"),
        ({"data": {"path": "sets/val7", "images": 3, "shard": "1/2"}}, "the shard is not"),
    ],
)
def test_figures_that_mean_different_things_are_not_joined(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(HnxError, match=words) as error:
        joined(tmp_path, BENCH, EVAL, {**EVAL, **change})
    assert error.value.code == ExitCode.USAGE


def test_a_row_of_two_files_stands_once(tmp_path: Path) -> None:
    report = joined(tmp_path, BENCH, EVAL, eval_json([eval_row("int8", 0.1, 0.1, {"mAP50": 9.0})]))
    assert [row.name for row in report.rows].count("openvino:int8") == 1
    assert report.rows[0].worst == 2.0
    assert any("2.json: openvino:int8" in line for line in report.remarks)


def test_reports_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    other = {**BUNDLE, "files_sha256": {"net.onnx": "cc"}}
    paths = []
    for folder, bundle, times in (("swish", BUNDLE, 20), ("twin", other, 10)):
        (tmp_path / folder).mkdir()
        for name, value in (
            ("bench", bench_json([bench_row("fp32", times, times)], bundle)),
            ("eval", eval_json([EVAL["rows"][0]], bundle)),
        ):
            paths.append(tmp_path / folder / f"{name}.json")
            paths[-1].write_text(json.dumps(value))
    report = join(*read_reports(paths))
    assert [(row.network, row.pareto) for row in report.rows] == [("twin/bench", True), ("swish/bench", True)]


def test_its_own_tables_are_passed_over_and_inputs_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joined(tmp_path, BENCH, EVAL)
    files = [str(tmp_path / name) for name in ("0.json", "1.json")]
    table = tmp_path / "table.json"
    assert main(["report", *files, "--report", str(table)]) == ExitCode.OK
    assert main(["report", *files, str(table)]) == ExitCode.OK
    assert "table.json is a table of `hnx report`" in capsys.readouterr().err
    before = (tmp_path / "0.json").read_bytes()
    assert main(["report", *files, "--report", str(tmp_path / "sub" / ".." / "0.json")]) == ExitCode.USAGE
    assert (tmp_path / "0.json").read_bytes() == before


@pytest.mark.parametrize(
    ("which", "path", "value"),
    [
        (0, ("rows", 0, "forward_ms"), {}),
        (0, ("rows", 0, "forward_ms", "p99"), None),
        (0, ("rows", 0, "ratio"), "fast"),
        (0, ("rows", 0, "power"), {"forward": 3}),
        (0, ("settings",), 3),
        (0, ("rows", 0, "network"), []),
        (1, ("rows", 1, "drop"), {"metrics": {"mAP50": {}}}),
        (1, ("rows", 1, "drop"), {"metrics": {"mAP50": {"points": 1.0, "interval": [1]}}}),
        (1, ("rows", 1, "drop"), {"metrics": 1}),
        (1, ("rows", 0, "metrics", "seg"), []),
        (1, ("rows", 0, "metrics", "seg", "road"), 1),
    ],
)
def test_damaged_reports_end_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], which: int, path: tuple[Any, ...], value: Any
) -> None:
    reports = [deepcopy(BENCH), deepcopy(EVAL)]
    place: Any = reports[which]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    for name, report in zip(("0.json", "1.json"), reports, strict=True):
        (tmp_path / name).write_text(json.dumps(report))
    assert main(["report", str(tmp_path / "0.json"), str(tmp_path / "1.json")]) == ExitCode.FAILED
    message = capsys.readouterr().err
    assert f"{which}.json" in message
    assert "bug" not in message


def test_a_report_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(EVAL))
    with pytest.raises(HnxError, match="it is one of another kind: eval"):
        read_bench(tmp_path / "e.json")


def test_a_network_and_its_twin_stay_apart(tmp_path: Path) -> None:
    other = {**BUNDLE, "files_sha256": {"net.onnx": "cc"}}
    report = joined(
        tmp_path, BENCH, bench_json([bench_row("fp32", 9, 9)], other), EVAL, eval_json(EVAL["rows"][:1], other)
    )
    assert [row.network for row in report.rows] == ["1", "0", "0", "0"]
    assert "network" in markdown(report)


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    other = {**BUNDLE, "files_sha256": {"net.onnx": "cc", "net-int8.onnx": "bb"}}
    with pytest.raises(HnxError, match="different networks"):
        joined(tmp_path, BENCH, eval_json(EVAL["rows"], other))
    with pytest.raises(HnxError, match="different networks"):
        joined(tmp_path, BENCH, eval_json(EVAL["rows"], {"name": "net"}))
    with pytest.raises(HnxError, match="no row in common"):
        joined(tmp_path, BENCH, eval_json(EVAL["rows"][3:]))
    with pytest.raises(HnxError, match="no accuracy"):
        joined(tmp_path, BENCH)
    with pytest.raises(HnxError, match="no latency"):
        joined(tmp_path, EVAL)
    left = joined(tmp_path, BENCH, EVAL, bench_json([bench_row("fp32", 9, 9)], other))
    assert any("2.json has no counterpart" in line for line in left.remarks)
    (tmp_path / "no.json").write_text("[1]")
    with pytest.raises(HnxError, match=r"no\.json is not a report"):
        read_reports([tmp_path / "no.json"])


def test_what_a_reader_must_know(tmp_path: Path) -> None:
    bench, scored = deepcopy(BENCH), deepcopy(EVAL)
    bench["environment"]["cpu"]["model"] = "CPU B"
    scored["inputs"]["identical"] = False
    scored["bundle"]["untrained"] = True
    said = "\n".join(joined(tmp_path, bench, scored).remarks)
    for words in (
        "latency was measured on CPU B, accuracy on CPU A", "did not get the same inputs", "untrained",
        "openvino:int8 are not valid (the machine was busy)", "3 images of val7, protocol paper",
    ):  # fmt: skip
        assert words in said


def test_views(tmp_path: Path) -> None:
    report = joined(tmp_path, EVAL, BENCH)
    text = markdown(report)
    assert (
        "| openvino:int8 | 10.00 | 11.00 | 0.50 |  | 61.50 (-0.50) | 90.00 (-0.20) | 39.00 (-2.00) | -2.00 | \\* |"
        in text
    )
    assert "| openvino:fp32 | 20.00 | 22.00 | 1.00 |  | 62.00 | 90.00 | 41.00 | baseline |  |" in text
    rows = list(csv.DictReader(io.StringIO(csv_text(report))))
    assert rows[0]["lane IoU drop"] == "2.0"
    assert rows[0]["pareto"] == "true"
    console = Console(file=io.StringIO(), width=120)
    print_joined(report, console)
    assert "61.50 (-0.50)" in console.file.getvalue()  # type: ignore[attr-defined]
    write_joined(report, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["rows"][0]["worst_drop"] == 2.0


def test_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import cv2

    write_picture(joined(tmp_path, EVAL, BENCH), tmp_path / "p.png")
    picture = cv2.imread(str(tmp_path / "p.png"))
    assert picture is not None
    assert picture.std() > 5


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined(tmp_path, BENCH, EVAL)  # writes the files
    files = [str(tmp_path / "0.json"), str(tmp_path / "1.json")]
    assert main(["report", *files, "--max-drop", "1", "--report", str(tmp_path / "t.md")]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "fastest within 1 points: openvino:bf16" in captured.out + captured.err
    assert (tmp_path / "t.md").read_text().startswith("# Accuracy beside latency")
    worse = deepcopy(EVAL)
    worse["rows"] = [eval_row("int8", 0.6, 0.39, {"mAP50": 2.0})]
    (tmp_path / "1.json").write_text(json.dumps(worse))
    assert main(["report", *files, "--max-drop", "1"]) == ExitCode.GATE_FAILED
    assert "the nearest loses 2.00" in capsys.readouterr().err
    assert main(["report", *files, "--report", str(tmp_path / "t.html")]) == ExitCode.USAGE
    assert main(["report", files[0]]) == ExitCode.FAILED
    assert main(["report"]) == ExitCode.USAGE
