"""The search with times and losses made up, and with real ones of the smallest bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.tuning import engine
from benchmarks.tuning.config import TuneConfig
from benchmarks.tuning.losses import Counts, Losses, measure_losses
from benchmarks.tuning.settings import Setting, precisions
from benchmarks.tuning.timing import Timed, time_settings
from hybridnets.bundle import Bundle, Variant, open_bundle
from hybridnets.dataset import open_split
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from hybridnets.project import load_project


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return open_bundle(bundle_path)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Times in ms at 4 threads and losses; change them before the search. Threads scale up to two."""
    state: dict[str, Any] = {
        "ms": {"fp32": 10.0, "bf16": 6.0, "int8": 4.0},
        "lost": {"bf16": {"mAP50": 0.1, "lane IoU": 0.2}, "int8": {"mAP50": 0.3, "lane IoU": 0.9}},
        "evaluated": [],
        "timed": [],
        "graphs": {},
        "graphs lose": 0.1,
    }

    def time(graphs: Mapping[str, Bundle], runtime: str, settings: Sequence[Setting], **_: Any) -> dict[Setting, Timed]:
        state["timed"].append(list(settings))
        found = {}
        for setting in settings:
            assert setting.rewrites in graphs
            ms = state["ms"][setting.precision] * (2 if setting.threads == 1 else 1) / (1 + 0.1 * (setting.streams - 1))
            ms *= state["graphs"].get(setting.rewrites, 1.0)
            found[setting] = Timed((ms,) * 4, ms, setting.precision)
        return found

    def losses(config: TuneConfig, names: Sequence[str], *_: Any) -> Losses:
        state["evaluated"].append([config.bundle.name, *names] if "graph" in config.bundle.name else list(names))
        if "graph" in config.bundle.name:
            return Losses({name: {"mAP50": 0.0, "lane IoU": state["graphs lose"]} for name in names}, 20, "scenes")
        return Losses({name: state["lost"][name] for name in names}, 20, "scenes")

    monkeypatch.setattr(engine, "time_settings", time)
    monkeypatch.setattr(engine, "measure_losses", losses)
    monkeypatch.setattr(engine, "precisions", lambda bundle, runtime: (list(state["ms"]), {"fp16": "no such units"}))
    return state


def config(bundle: Bundle, **changes: Any) -> TuneConfig:
    return TuneConfig(bundle, **({"frames": "somewhere", "threads": 4, "max_drop": 0.5} | changes))


def test_int8_over_the_budget_leaves_bf16(world: dict[str, Any], bundle: Bundle) -> None:
    found = engine.tune(config(bundle))
    # with two threads it is as fast, and leaves two cores
    assert (found.tuning.precision, found.tuning.threads, found.tuning.streams) == ("bf16", 2, 1)
    verdicts = {(row.precision, row.threads): row.verdict for row in found.tuning.rows}
    assert "lane IoU loses 0.90" in verdicts["int8", 4]
    assert verdicts["bf16", 2] == "chosen"
    assert "preferred" in verdicts["bf16", 4]
    assert "2.00 times" in verdicts["bf16", 1]
    assert found.left_out == {"fp16": "no such units"}
    assert any("0.67 of bf16's time" in note and "hnx quantize" in note for note in found.notes)
    assert world["timed"][1] == [Setting("fp32", 4), Setting("bf16", 4), Setting("bf16", 2), Setting("bf16", 1)]
    assert found.tuning.file == bundle.variants[0].file
    assert found.tuning.sha256 == bundle.manifest["files"][found.tuning.file]["sha256"]
    assert found.tuning.measure == "agreement"
    assert found.tuning.images == 20


def test_points_of_disagreement_are_no_budget_for_labels(world: dict[str, Any], bundle: Bundle, data: Path) -> None:
    world["lost"]["int8"] = {"boxes": 9.0, "lane": 4.0}
    (remark,) = [note for note in engine.tune(config(bundle, max_drop=None)).notes if "hnx quantize" in note]
    assert "--max-drop 0.5`" in remark
    assert "needs labelled images (--data)" in remark
    split = open_split(load_project("bdd100k"), data / "parity" / "dataset", None)
    labelled = config(bundle, frames=None, split=split, max_drop=2.0)
    (remark,) = [note for note in engine.tune(labelled).notes if "hnx quantize" in note]
    assert "--max-drop 2`" in remark
    assert "--data" not in remark


def test_a_wider_budget_takes_int8(world: dict[str, Any], bundle: Bundle) -> None:
    int8 = Variant("int8", "net-int8.onnx", ("openvino",))
    files = {**bundle.manifest["files"], int8.file: {"sha256": "8" * 64, "bytes": 1}}
    with_int8 = replace(bundle, variants=(*bundle.variants, int8), manifest={**bundle.manifest, "files": files})
    found = engine.tune(config(with_int8, max_drop=1.0)).tuning
    assert (found.precision, found.file, found.sha256) == ("int8", int8.file, "8" * 64)


def test_slower_precisions_are_not_evaluated(world: dict[str, Any], bundle: Bundle) -> None:
    world["ms"]["int8"] = 14.5
    found = engine.tune(config(bundle))
    assert world["evaluated"] == [["bf16"]]
    assert {row.precision: row.verdict for row in found.tuning.rows}["int8"] == "slower than fp32"
    assert any("int8 is not faster than bf16" in note for note in found.notes)


def test_nothing_is_faster(world: dict[str, Any], bundle: Bundle) -> None:
    world["ms"] = {"fp32": 10.0, "bf16": 11.0}
    found = engine.tune(config(bundle))
    assert world["evaluated"] == []
    assert (found.tuning.precision, found.tuning.images) == ("fp32", 0)
    assert found.tuning.chosen.verdict == "chosen"


def test_throughput_tries_streams(world: dict[str, Any], bundle: Bundle) -> None:
    found = engine.tune(config(bundle, goal="throughput"))
    assert (found.tuning.precision, found.tuning.streams) == ("bf16", 4)
    assert [setting.streams for setting in world["timed"][1]] == [1, 1, 2, 4]


# -- graphs --------------------------------------------------------------------------------------------------


@pytest.fixture
def graphs(bundle: Bundle, tmp_path: Path) -> dict[str, Bundle]:
    """Two bundles that stand for the same network with other rewrites."""
    found = {}
    for name in ("none", "all but max-pool"):
        folder = Path(shutil.copytree(bundle.path, tmp_path / f"graph {name}"))
        found[name] = open_bundle(folder)
    return found


def test_a_faster_graph_is_taken_with_its_own_losses(
    world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle]
) -> None:
    world["graphs"] = {"none": 1.2, "all but max-pool": 0.9}
    found = engine.tune(config(bundle), make_graphs=lambda _: graphs)
    tuning = found.tuning
    assert (tuning.precision, tuning.threads, tuning.rewrites) == ("bf16", 2, "all but max-pool")
    network = graphs["all but max-pool"]
    assert found.graph == network.file(network.variants[0].file)
    assert tuning.sha256 == network.manifest["files"][network.variants[0].file]["sha256"]
    assert tuning.file == f"hybridnets_128x256-tuned-{tuning.sha256[:8]}.onnx"
    assert world["evaluated"] == [["bf16", "int8"], ["graph all but max-pool", "bf16"]]
    rows = {(row.precision, row.rewrites, row.threads): row for row in tuning.rows}
    assert rows["bf16", "none", 4].verdict.startswith("1.20 of the time of the bundle's own graph")
    assert rows["bf16", "none", 4].lost is None
    assert rows["bf16", "all but max-pool", 4].lost == {"mAP50": 0.0, "lane IoU": 0.1}
    # the winner is timed once more, and threads are tried with it, beside the bundle's own float32
    assert [setting.rewrites for setting in world["timed"][2]] == ["", "", "all but max-pool"]
    assert [setting.rewrites for setting in world["timed"][3]] == ["", *["all but max-pool"] * 3]
    assert rows["bf16", "all but max-pool", 2].verdict == "chosen"


def test_a_graph_that_loses_too_much(world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle]) -> None:
    world["graphs"], world["graphs lose"] = {"none": 0.8, "all but max-pool": 0.9}, 0.7
    tuning = engine.tune(config(bundle), make_graphs=lambda _: graphs).tuning
    assert (tuning.precision, tuning.rewrites, tuning.file) == ("bf16", "", bundle.variants[0].file)
    assert world["evaluated"][1:] == [["graph none", "bf16"], ["graph all but max-pool", "bf16"]]
    verdicts = {row.rewrites: row.verdict for row in tuning.rows if row.rewrites}
    assert all("lane IoU loses 0.70" in verdict for verdict in verdicts.values())


def test_a_graph_that_is_not_worth_a_file(world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle]) -> None:
    world["graphs"] = {"none": 0.985, "all but max-pool": 1.0}
    found = engine.tune(config(bundle), make_graphs=lambda _: graphs)
    assert (found.tuning.rewrites, found.graph) == ("", None)
    assert world["evaluated"] == [["bf16", "int8"]]


def test_a_graph_that_was_fast_by_chance(world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle]) -> None:
    class Lucky(dict[str, float]):
        def get(self, name: str, default: Any = None) -> float:
            return 0.9 if name == "none" and len(world["timed"]) == 2 else 1.0

    world["graphs"] = Lucky()
    found = engine.tune(config(bundle), make_graphs=lambda _: graphs)
    assert found.tuning.rewrites == ""
    assert [setting.rewrites for setting in world["timed"][2]] == ["", "", "none"]
    row = next(row for row in found.tuning.rows if row.rewrites == "none")
    assert row.ratio[1] == pytest.approx(0.6)  # the honest figure, not the lucky one
    assert row.verdict == "timed once more: 1.00 of the time of the bundle's own graph (1.00 to 1.00)"
    assert world["evaluated"] == [["bf16", "int8"]]


def test_float32_needs_no_losses_of_a_graph(world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle]) -> None:
    world["ms"], world["graphs"] = {"fp32": 10.0}, {"none": 0.9, "all but max-pool": 1.1}
    tuning = engine.tune(config(bundle), make_graphs=lambda _: graphs).tuning
    assert (tuning.precision, tuning.rewrites) == ("fp32", "none")
    assert world["evaluated"] == []


def test_int8_has_no_other_graphs(world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle]) -> None:
    files = {**bundle.manifest["files"], "net-int8.onnx": {"sha256": "8" * 64, "bytes": 1}}
    with_int8 = replace(
        bundle,
        variants=(*bundle.variants, Variant("int8", "net-int8.onnx", ("openvino",))),
        manifest={**bundle.manifest, "files": files},
    )
    found = engine.tune(config(with_int8, max_drop=1.0), make_graphs=lambda _: pytest.fail("made for nothing"))
    assert found.tuning.precision == "int8"
    assert any("other rewrites were not tried: int8 runs a network of its own" in note for note in found.notes)


def test_graphs_that_cannot_be_tried_cost_nothing_that_was_found(
    world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Mapping[str, Bundle]:
        raise HnxError("It broke", why="because")

    found = engine.tune(config(bundle), make_graphs=fail)
    assert (found.tuning.precision, found.tuning.rewrites) == ("bf16", "")
    assert "other rewrites were not tried: It broke (because)" in found.notes
    found = engine.tune(config(bundle), make_graphs=lambda _: {})
    assert not any("rewrites" in note for note in found.notes)
    # a graph that the runtime refuses, or whose losses cannot be measured
    world["graphs"] = {"none": 0.5, "all but max-pool": 0.5}
    measured = engine.measure_losses
    monkeypatch.setattr(
        engine,
        "measure_losses",
        lambda config, *rest: fail() if "graph" in config.bundle.name else measured(config, *rest),
    )
    found = engine.tune(config(bundle), make_graphs=lambda _: graphs)
    assert (found.tuning.precision, found.tuning.rewrites, found.graph) == ("bf16", "", None)
    assert "other rewrites were not tried: It broke (because)" in found.notes


def test_too_many_graphs_for_the_memory(
    world: dict[str, Any], bundle: Bundle, graphs: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.tuning.timing.available_memory_mb", lambda: 300.0)
    world["graphs"] = {"none": 0.5, "all but max-pool": 0.5}
    found = engine.tune(config(bundle), make_graphs=lambda _: graphs)
    assert found.tuning.rewrites == ""
    assert any("other rewrites were not tried" in note and "memory" in note for note in found.notes)


def test_one_thread_leaves_nothing_to_try(world: dict[str, Any], bundle: Bundle) -> None:
    found = engine.tune(config(bundle, threads=1, goal="throughput"))
    assert len(world["timed"]) == 1
    assert found.tuning.threads == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"runtime": "openvin"}, "Unknown runtime"),
        ({"goal": "speed"}, "Unknown goal"),
        ({"frames": None}, "Losses are measured"),
        ({"limit": 0}, "--limit 0"),
        ({"rounds": 2}, "--rounds 2"),
        ({"max_drop": -1.0}, "--max-drop"),
        ({"max_drop": float("nan")}, "--max-drop"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], text: str, bundle: Bundle) -> None:
    with pytest.raises(HnxError, match=text) as caught:
        config(bundle, **changes)
    assert caught.value.code == ExitCode.USAGE


def test_defaults_of_the_budget(bundle: Bundle, data: Path) -> None:
    split = open_split(load_project("bdd100k"), data / "parity" / "dataset", None)
    assert TuneConfig(bundle, split=split).budget == 0.5
    assert TuneConfig(bundle, frames="x").budget == 3.0


def test_precisions_of_this_bundle_and_why_not_the_others(bundle: Bundle) -> None:
    found, left_out = precisions(bundle, "onnxruntime")
    assert found == ["fp32"]
    assert "hnx quantize" in left_out["int8"]
    with pytest.raises(HnxError) as caught:
        precisions(bundle, "tensorrt")
    assert caught.value.code == ExitCode.NOTHING_RAN


def test_real_times_of_one_and_two_streams(bundle: Bundle) -> None:
    settings = [Setting("fp32", 2), Setting("fp32", 2, 2)]
    found = time_settings({"": bundle}, "openvino", settings, rounds=3, seconds=0.01)
    assert list(found) == settings
    assert all(len(timed.rounds) == 3 and min(timed.rounds) > 0 for timed in found.values())
    assert {timed.executed for timed in found.values()} == {"fp32"}


def test_no_memory_for_all_of_them(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.tuning.timing.available_memory_mb", lambda: 300.0)
    with pytest.raises(HnxError, match="side by side"):
        time_settings({"": bundle}, "openvino", [Setting("fp32", 1), Setting("bf16", 1)], rounds=3, seconds=0.01)


# -- losses --------------------------------------------------------------------------------------------------


def prediction(boxes: list[list[float]], mask: list[list[int]]) -> Prediction:
    count = len(boxes)
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.ones(count, np.float32), np.zeros(count, np.int64)
    )
    return Prediction(found, np.array(mask, np.uint8), Letterbox.fit((2, 2), (2, 2)))


def test_points_of_disagreement(bundle: Bundle) -> None:
    counts = Counts(bundle)
    assert counts.empty
    counts.add(
        prediction([[0, 0, 10, 10], [20, 0, 30, 10]], [[1, 1], [2, 0]]),
        prediction([[0, 0, 10, 9], [50, 0, 60, 10], [70, 0, 80, 10]], [[1, 0], [2, 2]]),
    )
    assert not counts.empty
    # one pair of 2 and 3 boxes; road 1 of 2 pixels, lane 1 of 2
    assert counts.points() == pytest.approx({"boxes": 100 * (1 - 2 / 5), "road": 50.0, "lane": 50.0})


def test_losses_with_labels(bundle: Bundle, data: Path, tmp_path: Path) -> None:
    split = open_split(load_project("bdd100k"), data / "parity" / "dataset", None)
    plan = TuneConfig(bundle, "onnxruntime", split=split, limit=2, threads=1, store=tmp_path / "store")
    found = measure_losses(plan, [])
    assert found.lost == {}
    # of the untrained network it is a note; any other one would be an error
    said = "no loss of mAP50 can be seen, and no budget guards it: FP32 itself scores 0."
    assert any(note.startswith(said) for note in found.notes)
    with pytest.raises(HnxError, match="onnxruntime:int8"):
        measure_losses(plan, ["int8"])


def test_agreement_on_frames_that_cannot_be_read(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(HnxError, match=r"a\.png|frame"):
        measure_losses(TuneConfig(bundle, "onnxruntime", frames=tmp_path, threads=1), [])
