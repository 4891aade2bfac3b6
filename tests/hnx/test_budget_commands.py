"""`hnx quantize --max-drop` and `hnx sensitivity` on the smallest bundle and labelled pictures of the suite."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tuning.settings import Setting
from benchmarks.tuning.timing import Timed
from calibration.variants import float_model
from hnx import trials
from hnx.__main__ import main
from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import Probe

TASKS = {"mAP50": 60.0, "road IoU": 80.0, "lane IoU": 35.0}


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture
def words(bundle: Path, data: Path) -> list[str]:
    source = str(data / "parity" / "dataset")
    return [str(bundle), "--calib", source, "--frames", "3", "--data", source, "--limit", "2", "--threads", "1"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...] | None]:
    """Figures that follow from what is quantised: the classifier costs 2 points, every other block 0.01."""
    asked: list[tuple[str, ...] | None] = []

    def figures(self: trials.Trials, kept: Collection[str] | None) -> dict[str, float]:
        from calibration.engine import variant_of

        asked.append(None if kept is None else tuple(kept))
        if kept is None:
            return dict(TASKS)
        stored = variant_of(self.target, self.found, self.config, kept).model
        scales = [node.name for node in stored.graph.node if node.op_type == "DequantizeLinear"]
        lost = 2.0 * any(name.startswith("/classifier") for name in scales) + 0.01 * len(
            {n.split("/")[1] for n in scales}
        )
        return {task: value - lost for task, value in TASKS.items()}

    monkeypatch.setattr(trials.Trials, "__call__", figures)
    monkeypatch.setattr(trials.Trials, "unmeasurable", lambda self: {})
    return asked


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...] | None]:
    """The same figures for every network, none of which is made."""
    asked: list[tuple[str, ...] | None] = []

    def figures(self: trials.Trials, kept: Collection[str] | None) -> dict[str, float]:
        asked.append(None if kept is None else tuple(kept))
        return dict(TASKS)

    monkeypatch.setattr(trials.Trials, "__call__", figures)
    monkeypatch.setattr(trials.Trials, "unmeasurable", lambda self: {})
    return asked


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Times of each precision, and what a block in float adds to INT8's; change them before the command."""
    times = {"fp32": 10.0, "bf16": 6.0, "fp16": 6.0, "int8": 5.0, "block": 0.1}

    def made_up(networks: Mapping[str, tuple[Bundle, Setting]], runtime: str, **_: Any) -> dict[str, Timed]:
        found = {}
        for name, (_, setting) in networks.items():
            count = re.search(r"(\d+) in float", name)
            ms = times[setting.precision] + times["block"] * int(count[1] if count else 0)
            found[name] = Timed((ms,) * 4, ms, setting.precision)
        return found

    monkeypatch.setattr("benchmarks.tuning.timing.time_networks", made_up)
    return times


def contents(folder: Path) -> list[tuple[str, bytes]]:
    return sorted((path.name, path.read_bytes()) for path in folder.iterdir())


def test_the_block_that_costs_most_stays_float(
    words: list[str],
    bundle: Path,
    tmp_path: Path,
    measured: list[tuple[str, ...] | None],
    timed: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = tmp_path / "fit.json"
    code = main(["quantize", *words, "--for", "openvino", "--max-drop", "0.5", "--report", str(report)])
    assert code == ExitCode.OK
    captured = capsys.readouterr()
    # nobody waits minutes without a word where there is no terminal
    assert re.search(r"^openvino: ranking blocks: 1 of \d+: the float network$", captured.err, re.MULTILINE)
    assert re.search(r"^openvino: fitting the budget: 1 of \d+: all blocks in INT8$", captured.err, re.MULTILINE)
    assert "left in float: classifier" in captured.out
    assert "chosen" in captured.out
    assert "over the budget" in captured.out
    assert re.search(r"chosen *$", captured.out, re.MULTILINE)
    assert "0.51 (0.51 to 0.51)" in captured.out  # one block in float
    assert "int8 0.51" in captured.out
    found = json.loads(report.read_text())
    # all of INT8 is fastest, one block in float loses less
    shares = {len(trial["kept_float"]): trial["time"]["of_fp32"][1] for trial in found["trials"]}
    assert shares == pytest.approx({count: 0.5 + 0.01 * count for count in shares})
    pareto = {len(trial["kept_float"]): trial["time"]["pareto"] for trial in found["trials"]}
    assert pareto[0]
    assert pareto[1]
    assert found["float_rounds_ms"]["fp32"] == [10.0] * 4
    assert found["chosen"]["kept_float"] == ["classifier"]
    assert found["order"][0] == "classifier"
    (variant,) = [v for v in open_bundle(bundle).manifest["variants"] if v["precision"] == "int8"]
    assert variant["kept_float"] == ["classifier"]
    # the same command measures nothing again
    before = len(measured)
    assert main(["quantize", *words, "--for", "openvino", "--max-drop", "0.5"]) == ExitCode.OK
    assert len(measured) == before
    captured = capsys.readouterr().err
    # and says so before it goes through them
    assert captured.index(f"{before} network(s) of this search were measured before") < captured.index("ranking blocks")


def test_nothing_fits(
    words: list[str],
    bundle: Path,
    measured: list[tuple[str, ...] | None],
    timed: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(path.name for path in bundle.iterdir())
    assert main(["quantize", *words, "--for", "openvino", "--max-drop", "0.001"]) == ExitCode.GATE_FAILED
    assert "closest one loses" in capsys.readouterr().err
    assert sorted(path.name for path in bundle.iterdir()) == before


def test_a_mixture_that_is_too_slow_is_not_written(
    words: list[str],
    bundle: Path,
    measured: list[tuple[str, ...] | None],
    timed: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    timed["int8"] = 5.97
    before = contents(bundle)
    command = ["quantize", *words, "--for", "openvino", "--max-drop", "0.5", "--max-latency-ratio"]
    assert main([*command, "0.6"]) == ExitCode.GATE_FAILED
    # all blocks in INT8 would be fast enough, and lose too much
    assert "openvino 0.61" in capsys.readouterr().err
    assert contents(bundle) == before
    assert main([*command, "0.61"]) == ExitCode.OK
    assert open_bundle(bundle).variant("int8", "openvino")


def test_the_fewest_blocks_that_keep_both_limits_are_chosen(
    words: list[str], bundle: Path, measured: list[tuple[str, ...] | None], timed: dict[str, float]
) -> None:
    # as on a CPU without VNNI: the more in float, the faster
    timed |= {"int8": 12.0, "block": -0.3}
    command = ["quantize", *words, "--for", "openvino", "--max-drop", "0.5", "--report", "fit.json"]
    assert main([*command, "--max-latency-ratio", "1.15"]) == ExitCode.OK
    found = json.loads(Path("fit.json").read_text())
    assert len(found["chosen"]["kept_float"]) == 2
    (variant,) = [v for v in open_bundle(bundle).manifest["variants"] if v["precision"] == "int8"]
    assert len(variant["kept_float"]) == 2
    assert main([*command, "--max-latency-ratio", "0.1"]) == ExitCode.GATE_FAILED


def test_a_small_machine_times_what_was_chosen(
    words: list[str],
    bundle: Path,
    measured: list[tuple[str, ...] | None],
    timed: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, most = trials.Trials.times, [1]

    def times(self: trials.Trials, mixtures: Sequence[Collection[str]], *more: Any) -> Any:
        if len(mixtures) > most[0]:
            raise HnxError(f"{len(mixtures)} settings cannot be timed side by side", why="no memory", fix="close some")
        return real(self, mixtures, *more)

    monkeypatch.setattr(trials.Trials, "times", times)
    command = ["quantize", *words, "--for", "openvino", "--max-drop", "0.5", "--report", "fit.json"]
    before = contents(bundle)
    assert main([*command, "--max-latency-ratio", "0.5"]) == ExitCode.GATE_FAILED
    captured = capsys.readouterr()
    assert "cannot be timed side by side: no memory" in captured.err
    assert "int8 0.51" in captured.out
    found = json.loads(Path("fit.json").read_text())
    assert [len(trial["kept_float"]) for trial in found["trials"] if trial["time"]] == [1]
    # no room for a single one: a limit that nobody can measure is not kept
    most[0] = 0
    assert main([*command, "--max-latency-ratio", "0.9"]) == ExitCode.FAILED
    assert "No latency was measured for openvino" in capsys.readouterr().err
    assert contents(bundle) == before
    assert main(command) == ExitCode.OK
    assert {trial["time"] for trial in json.loads(Path("fit.json").read_text())["trials"]} == {None}
    assert open_bundle(bundle).variant("int8", "openvino")


def test_networks_for_tensorrt_are_not_timed_elsewhere(
    words: list[str],
    bundle: Path,
    measured: list[tuple[str, ...] | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["quantize", *words, "--for", "tensorrt", "--max-drop", "0.5"]
    assert main([*command, "--max-latency-ratio", "0.6"]) == ExitCode.USAGE
    assert "nothing to measure for tensorrt" in capsys.readouterr().err
    assert not measured
    assert main(command) == ExitCode.OK
    captured = capsys.readouterr()
    assert "No network for tensorrt was timed" in captured.err
    assert "time/fp32" not in captured.out


def test_nothing_is_written_where_one_of_several_targets_keeps_no_budget(
    words: list[str],
    bundle: Path,
    timed: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def figures(self: trials.Trials, kept: Collection[str] | None) -> dict[str, float]:
        lost = 5.0 if self.target == bad and kept is not None else 0.0
        return {task: value - lost for task, value in TASKS.items()}

    monkeypatch.setattr(trials.Trials, "__call__", figures)
    monkeypatch.setattr(trials.Trials, "unmeasurable", lambda self: {})
    before = contents(bundle)
    command = ["quantize", *words, "--for", "openvino,onnxruntime", "--max-drop", "0.5", "--report", "fit.json"]
    bad = "onnxruntime"
    assert main(command) == ExitCode.GATE_FAILED
    assert "for onnxruntime" in capsys.readouterr().err
    assert contents(bundle) == before
    # the report of each target says why
    assert json.loads(Path("fit-openvino.json").read_text())["chosen"]["kept_float"] == []
    assert json.loads(Path("fit-onnxruntime.json").read_text())["chosen"] is None


def test_tasks_that_guard_nothing_are_named(
    words: list[str],
    bundle: Path,
    counted: list[tuple[str, ...] | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reasons = {"lane IoU": "no label of it in these images"}
    monkeypatch.setattr(trials.Trials, "unmeasurable", lambda self: reasons)
    assert main(["sensitivity", *words]) == ExitCode.OK
    said = "no loss of lane IoU can be seen, and no budget guards it: no label of it in these images"
    assert said in capsys.readouterr().err
    # a search that goes on says it again
    assert main(["sensitivity", *words]) == ExitCode.OK
    assert said in capsys.readouterr().err
    # where nothing at all can be seen, nothing is measured: other images, another search
    reasons |= {"mAP50": "FP32 itself scores 0.0", "road mIoU": "FP32 itself scores 0.0"}
    where = bundle / "manifest.json"
    manifest = json.loads(where.read_text())
    manifest["model"]["untrained"] = False
    where.write_text(json.dumps(manifest))
    before = len(counted)
    assert main(["sensitivity", *words, "--limit", "1"]) == ExitCode.NOTHING_RAN
    assert "No task can be measured" in capsys.readouterr().err
    assert len(counted) == before


@pytest.mark.parametrize(
    ("place", "changed"),
    [("runtimes.hardware.isa", lambda: ["another"]), ("runtimes.registry.installed_version", lambda row: "0.1")],
)
def test_figures_of_another_machine_are_not_taken(
    place: str,
    changed: Callable[..., Any],
    words: list[str],
    counted: list[tuple[str, ...] | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sensitivity", *words]) == ExitCode.OK
    before = len(counted)
    monkeypatch.setattr(place, changed)
    assert main(["sensitivity", *words]) == ExitCode.OK
    assert len(counted) == 2 * before
    assert "measured before" not in capsys.readouterr().err


def test_an_interrupted_search_says_how_to_go_on(
    words: list[str],
    counted: list[tuple[str, ...] | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = trials.Trials.__call__

    def stopped(self: trials.Trials, kept: Collection[str] | None) -> dict[str, float]:
        if len(counted) == 3:
            raise KeyboardInterrupt
        return figures(self, kept)

    monkeypatch.setattr(trials.Trials, "__call__", stopped)
    assert main(["sensitivity", *words]) == ExitCode.INTERRUPTED
    assert "the same command goes on from here: 3 measured network(s) are kept" in capsys.readouterr().err
    monkeypatch.setattr(trials.Trials, "__call__", figures)
    assert main(["sensitivity", *words]) == ExitCode.OK
    captured = capsys.readouterr().err
    assert captured.index("3 network(s) of this search were measured before") < captured.index("ranking blocks")


def test_damaged_trials_are_measured_again(
    words: list[str],
    tmp_path: Path,
    counted: list[tuple[str, ...] | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sensitivity", *words]) == ExitCode.OK
    before = len(counted)
    (journal,) = (tmp_path / "cache" / "trials").iterdir()
    journal.write_text(journal.read_text()[:-100])
    assert main(["sensitivity", *words]) == ExitCode.OK
    assert len(counted) == 2 * before
    assert f"{journal} is damaged and is replaced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "more", "code", "text"),
    [
        ("quantize", ["--max-drop", "1", "--exclude", "("], ExitCode.USAGE, "not a regular expression"),
        ("quantize", ["--max-drop", "1", "--exclude", "nosuch"], ExitCode.USAGE, "'nosuch' matches no"),
        ("quantize", ["--max-drop", "1", "--exclude", "."], ExitCode.USAGE, "Nothing is left to quantise"),
        ("quantize", ["--max-drop", "1", "-p", "nosuch"], ExitCode.USAGE, "nosuch"),
        ("quantize", ["--max-drop", "1", "--for", "fp16"], ExitCode.USAGE, "nothing to choose for fp16"),
        ("quantize", ["--max-drop", "1", "--data", "nosuch"], ExitCode.FAILED, "nosuch"),
        ("quantize", ["--max-drop", "1", "--report", "file/x.json"], ExitCode.USAGE, "is a file, not a folder"),
        ("sensitivity", ["--exclude", "("], ExitCode.USAGE, "not a regular expression"),
        ("sensitivity", ["-p", "nosuch"], ExitCode.USAGE, "nosuch"),
        ("sensitivity", ["--csv", "file/x.csv"], ExitCode.USAGE, "is a file, not a folder"),
    ],
)
def test_mistakes_show_before_the_calibration(
    command: str,
    more: list[str],
    code: ExitCode,
    text: str,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("calibration.engine.calibrate", lambda *_: pytest.fail("it calibrates"))
    Path("file").touch()
    assert main([command, *words, *more]) == code
    assert text in capsys.readouterr().err


def test_a_limit_on_time_without_its_runtime_shows_before_the_calibration(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = Probe(reason="openvino is not installed", fix='pip install -e ".[openvino]"')
    monkeypatch.setattr("runtimes.registry.probe", lambda row: absent)
    monkeypatch.setattr("calibration.engine.calibrate", lambda *_: pytest.fail("it calibrates"))
    command = ["quantize", *words[:5], "--for", "openvino", "--max-latency-ratio", "0.6"]
    assert main(command) == ExitCode.NOTHING_RAN
    assert "openvino: openvino is not installed" in capsys.readouterr().err


@pytest.mark.parametrize("products", [True, False])
def test_a_cpu_without_int8_products_is_named(
    products: bool,
    words: list[str],
    counted: list[tuple[str, ...] | None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("runtimes.cpu.has_int8_products", lambda: products)
    assert main(["sensitivity", *words]) == ExitCode.OK
    assert ("no instructions for sums of 8-bit products" in capsys.readouterr().err) is not products


def test_an_old_opset_shows_before_the_calibration(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def old(bundle: Bundle) -> Any:
        model = float_model(bundle)
        model.opset_import[0].version = 12
        return model

    monkeypatch.setattr("calibration.variants.float_model", old)
    monkeypatch.setattr("calibration.engine.calibrate", lambda *_: pytest.fail("it calibrates"))
    for command in ("quantize", "sensitivity"):
        assert main([command, *words[:5]]) == ExitCode.USAGE
        assert "opset 12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("int8", "code", "text"),
    [(5.0, ExitCode.OK, ""), (7.0, ExitCode.GATE_FAILED, "more than 0.6"), (20.0, ExitCode.GATE_FAILED, "not faster")],
)
def test_what_int8_is_worth_here(
    int8: float,
    code: ExitCode,
    text: str,
    words: list[str],
    timed: dict[str, float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    timed["int8"] = int8
    timed["bf16"] = timed["fp16"] = 6.0
    command = ["quantize", *words[:5], "--threads", "1", "--for", "openvino", "--max-latency-ratio", "0.6"]
    assert main(command) == code
    assert text in capsys.readouterr().err


def test_sensitivity_writes_a_table_and_a_picture(
    words: list[str],
    tmp_path: Path,
    measured: list[tuple[str, ...] | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "out" / "blocks.csv"
    assert main(["sensitivity", *words, "--csv", str(path)]) == ExitCode.OK
    rows = list(csv.DictReader(path.open()))
    assert rows[0]["block"] == "classifier"
    assert float(rows[0]["mAP50"]) > 1.9
    assert len(rows) == len({row["block"] for row in rows}) > 10
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "classifier" in capsys.readouterr().out


def test_real_figures_of_a_few_images(
    words: list[str], bundle: Path, timed: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything measured for real: the untrained network loses nothing worth a word, which is said."""
    assert main(["quantize", *words, "--for", "onnxruntime", "--max-drop", "100"]) == ExitCode.OK
    assert open_bundle(bundle).variant("int8", "onnxruntime")
    assert "no loss of mAP50 can be seen, and no budget guards it: FP32 itself scores 0." in capsys.readouterr().err


def test_real_times_end_in_a_share_of_fp32s(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize", *words[:5], "--threads", "1", "--for", "openvino"]) == ExitCode.OK
    assert "time as a share of fp32's over 12 rounds: fp32 1.00" in capsys.readouterr().out
