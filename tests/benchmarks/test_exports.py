"""A bundle's network exported again: the same tensors, another graph."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from benchmarks import exports
from hybridnets.bundle import Bundle, GraphForm, NmsForm, open_bundle
from hybridnets.errors import ExitCode, HnxError


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return open_bundle(bundle_path)


def test_another_graph_of_the_same_network(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # files of the user's that would stand before ours on the path of `python -m hnx`
    for name in ("export.py", "hnx.py", "hybridnets.py"):
        (tmp_path / name).write_text("raise RuntimeError('not ours')")
    monkeypatch.chdir(tmp_path)
    bundle = replace(bundle, manifest={**bundle.manifest, "proof": {"tolerance_rel_l2": 0.002}})
    form = GraphForm("uint8", "classmap", "nms", NmsForm(conf=0.4, iou=0.5, boxes=50))
    found = exports.export_again(bundle, Path("again"), "max-pool", form)
    assert found.form == form
    assert found.target == bundle.target
    assert [entry["name"] for entry in found.manifest["rewrites"]] == ["max-pool"]
    assert found.manifest["proof"]["tolerance_rel_l2"] == 0.002
    assert found.weights is None
    opset = onnx.load(found.file(found.variants[0].file)).opset_import[0].version
    assert opset == bundle.manifest["variants"][0]["opset"]


def test_words_of_the_command(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        said = "a step\nhnx: It broke\n  why: because\n  fix: type this\n"
        return subprocess.CompletedProcess(command, 4, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    free = replace(bundle.input, shape=("N", *bundle.input.shape[1:]))
    alone = {"segmentation": bundle.outputs["segmentation"], "anchors": bundle.outputs["regression"]}
    with pytest.raises(HnxError, match="cannot be exported with rewrites none") as caught:
        exports.export_again(replace(bundle, input=free, outputs=alone), tmp_path, "none", GraphForm())
    assert (caught.value.why, caught.value.fix) == ("It broke; because", "type this")
    assert caught.value.code == ExitCode.NOTHING_RAN
    words = " ".join(asked[0])
    for text in ("--heads seg ", "--dynamic-batch", "--layout anchors-output", "--size 256x128", "--seg logits"):
        assert text in words
    with pytest.raises(HnxError):
        exports.export_again(bundle, tmp_path, "all", GraphForm(detection="decoded"))
    assert "--decode" in asked[1]


def test_without_weights(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="cannot be exported again"):
        exports.export_again(replace(bundle, weights=None), tmp_path, "all")
