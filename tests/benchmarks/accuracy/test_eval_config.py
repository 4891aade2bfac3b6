"""What may be asked of an evaluation, and that a project fits its network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.accuracy import config as configuration
from benchmarks.accuracy.config import EvalConfig, Shard, check_project, required_rows
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project
from tests.benchmarks.accuracy.eval_fakes import config, split
from tests.benchmarks.fakes import fake_bundle


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"protocol": "papr"}, "did you mean 'paper'"),
        ({"conf": 1.5}, "--conf 1.5"),
        ({"iou": -0.1}, "--iou -0.1"),
        ({"limit": 0}, "--limit 0"),
        ({"workers": -1}, "--workers -1"),
        ({"draws": -1}, "--draws -1"),
        ({"threads": 0}, "threads is 0"),
        ({"runtimes": "opnvino"}, "did you mean 'openvino'"),
        ({"baseline": "torch", "runtimes": "opencv-dnn"}, "is not evaluated"),
        ({"shard": Shard(13, 13)}, "holds no image"),
        ({"split": replace(split(), project=Project(classes=("car", "person")))}, "obj_list"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HnxError) as error:
        config(tmp_path, **changes)
    assert error.value.code == ExitCode.USAGE
    assert sentence in str(error.value)


def test_thresholds_come_from_the_protocol_unless_given(tmp_path: Path) -> None:
    assert config(tmp_path).effective == replace(config(tmp_path).effective, conf=0.001, iou=0.6, at="input")
    changed = config(tmp_path, protocol="deploy", conf=0.0).effective
    assert (changed.name, changed.conf, changed.iou, changed.at) == ("deploy", 0.0, 0.3, "frame")


def test_shards_make_up_what_the_limit_leaves(tmp_path: Path) -> None:
    whole = config(tmp_path, limit=7)
    parts = [config(tmp_path, limit=7, shard=Shard(index, 3)) for index in (1, 2, 3)]
    assert len(whole.names) == 7
    assert [len(part.names) for part in parts] == [3, 2, 2]
    assert sorted(name for part in parts for name in part.names) == list(whole.names)
    assert {part.all_names for part in parts} == {whole.names}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(HnxError) as error:
        Shard.parse(text)
    assert error.value.code == ExitCode.USAGE


def test_readers_follow_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((2, 0), (8, 4)):
        monkeypatch.setattr(configuration, "available_threads", lambda cores=cores: cores)
        assert config(tmp_path).worker_count == expected
        assert config(tmp_path, workers=3).worker_count == 3


def test_rows_that_were_asked_for_by_name() -> None:
    assert required_rows("all") == set()
    assert required_rows("all", "ov:half") == {("openvino", "fp16")}
    assert required_rows("torch,ov:bf16") == {("torch", "fp32"), ("openvino", "bf16")}


PROJECT = Project()
MANIFEST = {"files": {}}


@pytest.mark.parametrize(
    ("bundle", "project", "sentence"),
    [
        (
            {"manifest": MANIFEST},
            {"classes": ("person",)},
            "detection classes are car, the project's (obj_list) person",
        ),
        ({"manifest": MANIFEST}, {"classes": ("car", "person")}, "obj_list"),
        ({"manifest": MANIFEST}, {"seg_list": ("lane", "road")}, "seg_list"),
        ({"manifest": MANIFEST}, {"seg_multilabel": True}, "segmentation is multiclass, the project's multilabel"),
        ({}, {"classes": ("a", "b")}, "obj_list"),
        ({}, {"seg_list": ("road",)}, "seg_list"),
    ],
)
def test_projects_that_do_not_fit(bundle: dict[str, Any], project: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HnxError) as error:
        check_project(replace(fake_bundle(), **bundle), replace(PROJECT, **project))
    assert error.value.code == ExitCode.USAGE
    assert sentence in str(error.value)
    assert "-p" in error.value.fix


def test_projects_that_fit() -> None:
    bundle = fake_bundle()
    check_project(replace(bundle, manifest=MANIFEST), PROJECT)
    # files of other exporters carry no names
    check_project(bundle, replace(PROJECT, classes=("vehicle",), seg_list=("area", "line")))
    # what a head is missing for is not compared
    boxes = {role: spec for role, spec in bundle.outputs.items() if role != "segmentation"}
    check_project(replace(bundle, outputs=boxes, manifest=MANIFEST), replace(PROJECT, seg_list=("a", "b", "c")))


def test_defaults_are_those_of_the_help(tmp_path: Path) -> None:
    from hnx.commands.eval import command

    shown = {option.name: option.default for option in command.params}
    default = EvalConfig(fake_bundle(), split())
    assert shown["store"] == default.store
    assert shown["draws"] == default.draws
    assert shown["protocol"] == default.protocol
    assert shown["runtime"] == default.runtimes
