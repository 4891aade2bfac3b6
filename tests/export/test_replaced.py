"""What is said of a bundle that an export replaces."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.replaced import lost


@pytest.fixture
def manifest(bundle_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle_path / "manifest.json").read_text())
    return found


def test_the_same_export_again_loses_nothing(manifest: dict[str, Any]) -> None:
    assert lost({**manifest, "created": "another day", "tools": {}, "proof": {}}, manifest) == ()


def quantised(manifest: dict[str, Any]) -> None:
    network = {"precision": "int8", "file": "n-int8.onnx", "runtimes": ["openvino"]}
    manifest["variants"].append(network)
    manifest["files"]["n-int8.onnx"] = {}


def suppressed(manifest: dict[str, Any]) -> None:
    manifest["pipeline"]["nms"] = {"conf": 0.25, "iou": 0.3}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (quantised, "networks of hnx quantize: int8 for openvino"),
        (suppressed, "nms: conf 0.25 iou 0.3, now none"),
        (lambda m: m.update(tuning={"openvino": {}}), "settings of hnx tune: openvino"),
        (lambda m: m["variants"][0].update(opset=13), "opset 13, now 17"),
        (lambda m: m["model"].update(source={"file": "a.pth"}), "weights: a.pth, now the untrained network"),
        (
            lambda m: m["model"].update(source={"seed": 1}),
            "weights: the untrained network, now another",
        ),
        (lambda m: m["files"].update({"anchors_1.bin": {}}), "anchors_1.bin"),
        (lambda m: m.update(rewrites=[]), "rewrites: none, now "),
        (lambda m: m.update(classes=["cat"]), "classes: cat, now car"),
    ],
)
def test_each_thing_that_is_gone_is_named(
    manifest: dict[str, Any], change: Callable[[dict[str, Any]], Any], text: str
) -> None:
    old = copy.deepcopy(manifest)
    change(old)
    (found,) = lost(old, manifest)
    assert found.startswith(text)


@pytest.mark.parametrize(
    "old",
    [
        *(None, [], 3, {}, {"model": 3, "variants": {}, "files": [], "pipeline": [], "tuning": [], "rewrites": [1]}),
        {"outputs": [{"name": 1, "dtype": 2, "shape": 3}], "variants": [{"runtimes": 3}], "tuning": {"a": 1}},
    ],
)
def test_manifests_that_anybody_wrote(manifest: dict[str, Any], old: Any) -> None:
    assert all(isinstance(text, str) for text in lost(old, manifest))
