"""Shards put together give what one run gives, or say why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hybridnets.bundle
from benchmarks.accuracy.config import Shard
from benchmarks.accuracy.engine import run_eval
from benchmarks.accuracy.merge import merge_shards, records_folder, write_shard
from benchmarks.accuracy.summary import EvalResult
from benchmarks.accuracy.views import write_report
from hybridnets.dataset import open_split
from hybridnets.errors import HnxError
from hybridnets.project import load_project
from runtimes import registry
from tests.benchmarks.accuracy.eval_fakes import DATA, LocalWorker, config, use
from tests.benchmarks.fakes import fake_bundle


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., EvalResult]:
    monkeypatch.setattr(hybridnets.bundle, "open_bundle", lambda path, verify=True: fake_bundle())
    monkeypatch.setattr(registry, "REGISTRY", use("seeing", "blurred", precisions=("fp32", "bf16", "fp16")))

    def run(**changes: Any) -> EvalResult:
        return run_eval(
            config(tmp_path / "store", **{"runtimes": "seeing:fp32,blurred:bf16", **changes}), start=LocalWorker
        )

    return run


@pytest.fixture
def shards(evaluate: Callable[..., EvalResult], tmp_path: Path) -> list[Path]:
    return [save(evaluate(shard=Shard(index, 3), limit=3), tmp_path / f"{index}.json") for index in (1, 2, 3)]


def save(result: EvalResult, path: Path) -> Path:
    write_report(result.report, path)
    write_shard(result, path)
    return path


def test_the_whole_is_what_one_run_gives(evaluate: Callable[..., EvalResult], tmp_path: Path) -> None:
    # one image is broken: it must be counted once, in its shard
    shutil.copytree(DATA, tmp_path / "data")
    (tmp_path / "data" / "imgs" / "val" / "val_04.jpg").write_bytes(b"")
    split = open_split(load_project(), tmp_path / "data")
    once = evaluate(split=split, fresh=True).report.to_json()
    paths = [
        save(evaluate(split=split, shard=Shard(index, 3), fresh=True), tmp_path / f"{index}.json")
        for index in (3, 1, 2)
    ]
    merged = merge_shards(paths, draws=20).report.to_json()
    changing = ("seconds", "resumed_images", "restarts")
    for ours, theirs in zip(merged["rows"], once["rows"], strict=True):
        assert {k: v for k, v in ours.items() if k not in changing} == {
            k: v for k, v in theirs.items() if k not in changing
        }
    assert merged["rows"][1]["drop"]["metrics"]["road IoU"]["points"] != 0
    assert merged["inputs"] == once["inputs"]
    assert merged["data"]["broken"] == once["data"]["broken"]
    assert merged["data"]["broken"]["count"] == 1
    assert merged["data"]["images"] == 12
    assert merged["data"]["merged"] == ["3.json", "1.json", "2.json"]
    json.dumps(merged, allow_nan=False)


def test_another_baseline_can_be_chosen(shards: list[Path]) -> None:
    assert merge_shards(shards, draws=2).report.baseline == "seeing:fp32"
    report = merge_shards(shards, baseline=("blurred", "bf16"), draws=2).report
    assert report.baseline == "blurred:bf16"
    assert "drop" in report.rows[0]
    with pytest.raises(HnxError, match="in none of the shards"):
        merge_shards(shards, baseline=("seeing", "bf16"), draws=2)


def test_missing_and_double_shards(shards: list[Path]) -> None:
    with pytest.raises(HnxError, match="Shard 2/3 missing"):
        merge_shards([shards[0], shards[2]])
    with pytest.raises(HnxError, match="both shard 1/3"):
        merge_shards([*shards, shards[0]])


def test_a_report_of_a_whole_is_no_shard(evaluate: Callable[..., EvalResult], tmp_path: Path) -> None:
    path = save(evaluate(), tmp_path / "whole.json")
    with pytest.raises(HnxError, match="not the report of a shard"):
        merge_shards([path])


def change(path: Path, section: str, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    content[section][key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("section", "key", "value", "sentence"),
    [
        ("protocol", "conf", 0.1, "the protocol"),
        ("data", "names_sha256", "0", "list of images"),
        ("data", "truth", {}, "the project"),
        ("bundle", "files_sha256", {"a": "b"}, "the bundle"),
        ("environment", "hnx", "99", "version of hnx"),
        ("data", "shard", "2/4", "do not belong together"),
        ("data", "shard", "x", "--shard x"),
    ],
)
def test_shards_of_something_else(shards: list[Path], section: str, key: str, value: Any, sentence: str) -> None:
    change(shards[1], section, key, value)
    with pytest.raises(HnxError) as error:
        merge_shards(shards)
    assert sentence in str(error.value)


def test_a_row_must_have_run_everywhere(shards: list[Path]) -> None:
    content = json.loads(shards[2].read_text())
    content["rows"][1] = {"runtime": "blurred", "precision": "bf16", "skipped": {"reason": "it died", "failed": True}}
    shards[2].write_text(json.dumps(content))
    report = merge_shards(shards, draws=2).report
    assert [row["runtime"] for row in report.measured] == ["seeing"]
    assert report.skipped[0]["skipped"]["failed"]
    assert "3/3" in report.skipped[0]["skipped"]["reason"]


def test_a_row_must_be_the_same_everywhere(shards: list[Path]) -> None:
    content = json.loads(shards[1].read_text())
    content["rows"][1]["executed"] = "fp32"
    shards[1].write_text(json.dumps(content))
    report = merge_shards(shards, draws=2).report
    assert "ran bf16 in one shard and fp32 in 2.json" in report.skipped[0]["skipped"]["reason"]


def test_a_tuned_row_must_be_of_one_network(shards: list[Path]) -> None:
    for path, digest in zip(shards, ("aa", "aa", "bb"), strict=True):
        content = json.loads(path.read_text())
        content["rows"][1]["network"] = {"file": "n.onnx", "sha256": digest, "rewrites": "none"}
        path.write_text(json.dumps(content))
    assert merge_shards(shards, draws=2).report.skipped[0]["skipped"]["reason"] == "3.json was tuned to another network"
    content["rows"][1]["network"]["sha256"] = "aa"
    shards[2].write_text(json.dumps(content))
    row = merge_shards(shards, draws=2).report.measured[1]
    assert row["network"] == {"file": "n.onnx", "sha256": "aa", "rewrites": "none"}


def test_records_that_are_missing_damaged_or_of_another_shard(shards: list[Path]) -> None:
    folder = records_folder(shards[1])
    saved = folder.with_name("saved")
    shutil.copytree(folder, saved)
    for archive in folder.rglob("*.npz"):
        archive.write_bytes(archive.read_bytes()[:-9])
    with pytest.raises(HnxError, match="damaged"):
        merge_shards(shards)
    shutil.rmtree(folder)
    with pytest.raises(HnxError, match="missing"):
        merge_shards(shards)
    shutil.copytree(records_folder(shards[0]), folder)
    with pytest.raises(HnxError):
        merge_shards(shards)
    shutil.rmtree(folder)
    saved.rename(folder)
    assert merge_shards(shards, draws=2).report.measured
