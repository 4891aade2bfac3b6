"""Sums by block, networks of others, and files that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import inspection
from export.inspection import inspect_bundle, inspect_file, inspect_model, load_model, trace_bundle
from export.rewrites import REWRITES, Statistics, statistics
from hybridnets.bundle import MANIFEST, open_bundle
from hybridnets.errors import ExitCode, HnxError
from tests.export.rewrites.networks import distance


@pytest.fixture(scope="module")
def unrewritten(bundle_path: Path) -> onnx.ModelProto:
    return trace_bundle(open_bundle(bundle_path))


@pytest.fixture
def traced(unrewritten: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """The bundle's network without rewrites, traced once for all tests."""
    monkeypatch.setattr(inspection, "trace_bundle", lambda _: unrewritten)
    return unrewritten


def test_blocks_of_a_bundle_before_and_after(bundle_path: Path, traced: onnx.ModelProto) -> None:
    found = inspect_bundle(open_bundle(bundle_path))
    file = onnx.load(bundle_path / "hybridnets_128x256.onnx")
    assert found.grouping == "blocks"
    assert found.total.before == statistics(traced)
    assert found.total.after == statistics(file)
    assert [report.name for report in found.passes] == list(REWRITES)
    names = [block.name for block in found.blocks]
    assert names[0] == "encoder/stem"
    assert names[-1] == "segmentation-head"
    assert {f"bifpn/cell{cell}" for cell in range(3)} < set(names)
    assert [part.name for part in found.parts()] == ["backbone", "BiFPN", "heads", "decoder"]
    blocks = {block.name: block for block in found.blocks}
    assert blocks["decoder/sum"].before.nodes > 0
    assert blocks["decoder/sum"].after == Statistics()  # the sum is taken on the classes' channels
    assert blocks["encoder/stage1"].before == blocks["encoder/stage1"].after
    assert distance(file, traced) < 1e-5


def test_figures_of_one_convolution() -> None:
    model = _network(["/net/a/Conv", "/net/b/Relu"])
    found = inspect_model(model, (), "two nodes")
    assert found.grouping == "names"
    assert {block.name: block.before for block in found.blocks} == {
        # 4x8x8 results of 3x3x3 products each, 4 bytes each; 4x3x3x3 weights and 4 biases
        "net/a": Statistics(1, 4 * 8 * 8 * 27, 4 * 8 * 8 * 4, (108 + 4) * 4, 112),
        "net/b": Statistics(1, 0, 4 * 8 * 8 * 4, 0, 0),
    }


@pytest.mark.usefixtures("traced")
def test_other_rewrites_than_those_of_the_export(bundle_path: Path) -> None:
    found = inspect_bundle(open_bundle(bundle_path), ["max-pool"])
    assert [report.name for report in found.passes] == ["max-pool"]
    assert found.total.after != found.total.before
    assert inspect_bundle(open_bundle(bundle_path), ()).passes == ()


def test_a_bundle_without_weights_stands_for_itself(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(bundle_path)
    stripped = shutil.copytree(bundle_path, tmp_path / "bundle")
    manifest = json.loads((stripped / MANIFEST).read_text())
    (stripped / "weights.safetensors").unlink()
    del manifest["files"]["weights.safetensors"]
    manifest["model"]["weights"] = None
    (stripped / MANIFEST).write_text(json.dumps(manifest))
    found = inspect_bundle(open_bundle(stripped))
    assert "segmentation-head" in found.notes[0]
    assert found.total.before == found.total.after == statistics(load_model(next(bundle_path.glob("*.onnx"))))

    def no_torch(_: Any) -> None:
        raise ImportError("No module named 'torch'")

    monkeypatch.setattr(inspection, "trace_bundle", no_torch)
    assert "No module named 'torch'" in inspect_bundle(bundle).notes[0]


@pytest.mark.parametrize("rewrites", [None, 5, "all", [5], [{"name": 1, "places": "x"}], [{"name": "max-pool"}]])
def test_a_manifest_may_say_anything_of_its_rewrites(bundle_path: Path, tmp_path: Path, rewrites: object) -> None:
    changed = shutil.copytree(bundle_path, tmp_path / "bundle")
    manifest = json.loads((changed / MANIFEST).read_text())
    manifest["rewrites"] = rewrites
    (changed / MANIFEST).write_text(json.dumps(manifest))
    assert inspect_bundle(open_bundle(changed)).total.before.nodes > 0


def _network(names: list[str], shape: tuple[int | str, ...] = (1, 3, 10, 10)) -> onnx.ModelProto:
    """A convolution and any number of Relus behind it, the nodes called so."""
    weights = {"w": np.ones((4, 3, 3, 3), np.float32), "b": np.ones(4, np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["t0"], names[0], kernel_shape=[3, 3])]
    nodes += [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"], name) for i, name in enumerate(names[1:])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"t{len(names) - 1}", TensorProto.FLOAT, ("n", 4, "h", "w"))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("names", "grouping", "blocks"),
    [
        (["/m/one/Conv", "/m/two/Relu", "/m/two/Relu_1"], "names", ["m/one", "m/two"]),
        (["", "", ""], "sizes", ["8x8"]),
        (["Conv_0", "Relu_1", "Relu_2"], "sizes", ["8x8"]),
        ([f"/layer{i}/Op" for i in range(30)], "sizes", ["8x8"]),
        ([f"/net/stage{i % 3}/layer{i}/Op" for i in range(30)], "names", [f"net/stage{i}" for i in range(3)]),
        (["/encoder/layer.0/Conv", "/encoder/layer.1/Relu"], "names", ["encoder/layer.0", "encoder/layer.1"]),
    ],
)
def test_networks_of_others(names: list[str], grouping: str, blocks: list[str]) -> None:
    found = inspect_model(_network(names), tuple(REWRITES), "foreign")
    assert found.grouping == grouping
    assert [block.name for block in found.blocks] == blocks
    assert found.parts() == ()
    assert found.total.before.nodes == len(names)


def test_a_wrapped_network_of_ours_has_the_same_blocks() -> None:
    names = ["/encoder/_conv_stem/Conv", "/bifpn/bifpn.0/Relu", "/regressor/Relu"]
    plain = inspect_model(_network(names), (), "ours")
    wrapped = inspect_model(_network([f"/model/net{name}" for name in names]), (), "wrapped")
    assert plain.grouping == wrapped.grouping == "blocks"
    assert [b.name for b in plain.blocks] == [b.name for b in wrapped.blocks]
    assert plain.blocks[0].name == "encoder/stem"


def test_free_sizes(tmp_path: Path) -> None:
    path = tmp_path / "free.onnx"
    onnx.save(_network(["", ""], ("n", 3, "height", "width")), path)
    free = inspect_file(path)
    assert "height, width" in free.notes[0]
    fixed = inspect_file(path, shape=(2, 3, 10, 10))
    assert fixed.notes == ()
    assert fixed.total.before.macs == 2 * 4 * 8 * 8 * 27
    for shape in ((2, 3, 10), (2, 4, 10, 10), (0, 3, 10, 10)):
        with pytest.raises(HnxError) as caught:
            load_model(path, shape)
        assert caught.value.code == ExitCode.USAGE


def _broken(kind: str, path: Path) -> None:
    model = _network(["a", "b"])
    whole = model.SerializeToString()
    if kind == "weights elsewhere":
        onnx.save(model, path, save_as_external_data=True, size_threshold=0, location="w.data", convert_attribute=False)
        (path.parent / "w.data").unlink()
        return
    if kind == "a tensor nobody makes":
        model.graph.node[1].input[0] = "nobody"
    elif kind == "weights of another size":
        model.graph.initializer[0].dims[0] = 5
    elif kind == "an unknown type":
        model.graph.initializer[0].data_type = 64
    content = {
        "text": b"this is no network\n" * 20,
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "no text in a name": whole.replace(b"\x1a\x01a", b"\x1a\x01\xff"),
    }.get(kind, model.SerializeToString())
    path.write_bytes(content)


@pytest.mark.parametrize(
    "kind",
    [
        "text",
        "empty",
        "half",
        "no text in a name",
        "weights elsewhere",
        "a tensor nobody makes",
        "weights of another size",
        "an unknown type",
    ],
)
@pytest.mark.parametrize("rewrites", [None, ()], ids=["rewritten", "as it is"])
def test_broken_files(tmp_path: Path, kind: str, rewrites: tuple[str, ...] | None) -> None:
    path = tmp_path / "broken.onnx"
    _broken(kind, path)
    with pytest.raises(HnxError) as caught:
        inspect_file(path, rewrites)
    assert caught.value.why
    assert caught.value.fix


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.onnx", tmp_path):
        with pytest.raises(HnxError, match="Cannot read"):
            inspect_file(path)


def test_external_data_are_read_along(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    onnx.save(
        _network(["", ""]), path, save_as_external_data=True, size_threshold=0, location="w.data",
        convert_attribute=False,
    )  # fmt: skip
    assert inspect_file(path).total.before.parameters == 112
