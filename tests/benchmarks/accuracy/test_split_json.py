"""A split reaches a row's process as it was."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.accuracy.split_json import pack_split, unpack_split
from hybridnets.dataset import open_split
from hybridnets.project import DatasetConfig, Project, load_project
from tests.hybridnets.training.tiny import make_data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"), train=1, val=2)


@pytest.mark.parametrize(
    "project",
    [
        load_project(),
        dataclasses.replace(
            Project(),
            classes=("car", "tl_grün"),
            seg_list=("road", "lane"),
            mean=(0.1, 1 / 3, 5e-324),
            warnings=("a key means nothing",),
            dataset=DatasetConfig(org_img_size=(1, 2), scale_factor=0.1 + 0.2),
        ),
    ],
)
def test_the_way_through_json_changes_nothing_but_the_names(
    project: Project, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    split = open_split(project, Path(data.name), "val")
    found = unpack_split(json.loads(json.dumps(pack_split(split))))
    assert found == dataclasses.replace(
        split,
        images=split.images.resolve(),
        labels=split.labels.resolve(),
        masks=tuple(path.resolve() for path in split.masks),
        names=(),
    )
    assert found.images.is_absolute()
