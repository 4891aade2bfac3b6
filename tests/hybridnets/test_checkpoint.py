"""Every checkpoint layout is read, every bad file is refused with its reason."""

from __future__ import annotations

import json
import os
import pickle
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from hybridnets import checkpoint as module
from hybridnets.checkpoint import (
    Checkpoint,
    build_model,
    infer_config,
    load_checkpoint,
    save_safetensors,
)
from hybridnets.config import ModelConfig, SegMode
from hybridnets.errors import HnxError
from hybridnets.files import sha256_file
from hybridnets.network import HybridNets, create_model
from tests import parity

_METADATA: dict[str, Any] = {
    "classes": ["car"],
    "seg_classes": ["road", "lane"],
    "anchors": {"scales": [1.0, 1.62, 2.5], "ratios": [[0.62, 1.58], [1.0, 1.0], [1.58, 0.62]]},
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


@pytest.fixture(scope="module")
def network() -> HybridNets:
    return create_model(ModelConfig(0)).eval()


@pytest.fixture(scope="module")
def state(network: HybridNets) -> dict[str, torch.Tensor]:
    return network.state_dict()


def _prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in state.items()}


def _best(state: dict[str, torch.Tensor], fitness: object) -> dict[str, Any]:
    groups = [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0, 1]}]
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": groups}
    return {
        "epoch": 2,
        "step": 37,
        "best_fitness": fitness,
        "model": OrderedDict(state),
        "optimizer": optimizer,
        "scaler": {},
    }


_LAYOUTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "plain": (lambda s: OrderedDict(s), "plain"),
    "model": (lambda s: {"model": s}, "under 'model'"),
    "state_dict": (lambda s: {"state_dict": s}, "under 'state_dict'"),
    "prefix": (lambda s: _prefixed(s, "model."), "plain, prefix 'model.' removed"),
    "ddp": (lambda s: _prefixed(s, "module.model."), "plain, prefix 'module.model.' removed"),
    "both": (lambda s: {"model": _prefixed(s, "module.")}, "under 'model', prefix 'module.' removed"),
    "best": (lambda s: _best(s, np.array([0.25])), "under 'model'"),
    "best scalar": (lambda s: _best(s, np.float64(0.25)), "under 'model'"),
}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_torch_layouts(tmp_path: Path, state: dict[str, torch.Tensor], layout: str) -> None:
    wrap, expected = _LAYOUTS[layout]
    path = tmp_path / "weights.pth"
    torch.save(wrap(state), path)
    checkpoint = load_checkpoint(path)
    assert checkpoint.layout == expected
    assert checkpoint.sha256 == sha256_file(path)
    assert parity.state_digest(checkpoint.state) == parity.state_digest(state)
    if layout.startswith("best"):
        assert checkpoint.metadata == {"epoch": 2, "step": 37, "best_fitness": 0.25}


@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_best_file_of_either_numpy_generation(tmp_path: Path, package: str, legacy: bool) -> None:
    function = np.empty(0).__reduce__()[0]
    name = f"{package}.multiarray".encode()

    class Renaming(pickle._Pickler):  # type: ignore[name-defined,misc]
        """Writes numpy's reconstruction function under the wanted module."""

        def save_global(self, obj: Any, qualified: str | None = None) -> None:
            if obj is not function:
                super().save_global(obj, qualified)
                return
            self.write(pickle.GLOBAL + name + b"\n_reconstruct\n")
            self.memoize(obj)

        dispatch = {**pickle._Pickler.dispatch, type(function): save_global}  # type: ignore[attr-defined]  # noqa: RUF012

    class Module:
        __name__ = "pickle"
        Pickler = Renaming
        dump = staticmethod(pickle.dump)

    path = tmp_path / "a_best.pth"
    content = {"model": {"a": torch.ones(2)}, "best_fitness": np.array([0.5]), "epoch": 1}
    torch.save(content, path, pickle_module=Module, _use_new_zipfile_serialization=not legacy)
    assert name in path.read_bytes()
    assert load_checkpoint(path).metadata == {"best_fitness": 0.5, "epoch": 1}


def test_half_precision_becomes_float32(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "half.pt"
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, path)
    checkpoint = load_checkpoint(path)
    assert {value.dtype for value in checkpoint.state.values()} == {torch.float32, torch.int64}
    assert not build_model(checkpoint).training


def test_model_is_built_from_tensors_alone_and_owns_its_memory(
    tmp_path: Path, network: HybridNets, state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    checkpoint = load_checkpoint(path)
    model = build_model(checkpoint)
    assert model.config == network.config
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    image = torch.from_numpy(parity.leaves_image("checkpoint", 1, 128, 128))
    with torch.inference_mode():
        assert torch.equal(model(image).segmentation, network(image).segmentation)
    next(iter(checkpoint.state.values())).zero_()
    assert parity.state_digest(model.state_dict()) == parity.state_digest(state)


@pytest.mark.parametrize("coefficient", range(8))
@pytest.mark.parametrize(
    ("classes", "seg_classes", "mode"), [(1, 2, "multiclass"), (10, 1, "binary"), (3, 4, "multiclass")]
)
def test_configuration_is_read_from_the_shapes(coefficient: int, classes: int, seg_classes: int, mode: SegMode) -> None:
    config = ModelConfig(min(coefficient, 6), classes, seg_classes, mode)
    with torch.device("meta"):
        state = HybridNets(config).state_dict()
    assert infer_config(state) == config
    if coefficient == 7:
        assert infer_config(state, metadata={"compound_coef": 7}).compound_coef == 7


def test_mode_and_activation_are_options(state: dict[str, torch.Tensor]) -> None:
    config = infer_config(state, activation="relu", seg_mode="multilabel")
    assert config == ModelConfig(0, 1, 2, "multilabel", "relu")
    with pytest.raises(HnxError, match="'binary' does not go with the 3 channel"):
        infer_config(state, seg_mode="binary")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"compound_coef": 3}, "coefficient 3, but a BiFPN of 64 channels is coefficient 0"),
        ({"compound_coef": []}, "coefficient []"),
        ({"compound_coef": False}, "coefficient False"),
        ({"classes": ["car", "bus"]}, "lists 2 classes, the tensors are for 1"),
        ({"seg_classes": ["road"]}, "lists 1 seg_classes, the tensors are for 2"),
        ({"seg_mode": "other"}, "known: binary, multiclass, multilabel"),
        ({"activation": 5}, "known: swish, hardswish, relu"),
    ],
)
def test_metadata_that_contradicts_the_tensors(
    state: dict[str, torch.Tensor], metadata: dict[str, Any], words: str
) -> None:
    with pytest.raises(HnxError) as caught:
        infer_config(state, metadata=metadata)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier.header.pointwise_conv.conv.bias": torch.zeros(10)},
        {"classifier.header.pointwise_conv.conv.bias": torch.zeros(0)},
        {"classifier.header.pointwise_conv.conv.bias": torch.tensor(1.0)},
        {"bifpn.0.p5_down_channel.0.conv.weight": torch.zeros(65, 1, 1, 1)},
        {"segmentation_head.0.weight": torch.zeros(0, 64, 1, 1)},
    ],
)
def test_impossible_shapes(state: dict[str, torch.Tensor], changes: dict[str, torch.Tensor]) -> None:
    with pytest.raises(HnxError):
        infer_config({**state, **changes})


def test_another_network_is_recognised() -> None:
    with pytest.raises(HnxError) as caught:
        infer_config({"fc.weight": torch.zeros(2, 2)})
    assert "not a HybridNets state dict" in str(caught.value)
    assert "segmentation_head.0.weight" in str(caught.value)
    assert "fc.weight" in str(caught.value)
    with pytest.raises(HnxError, match="no tensors"):
        infer_config({})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ModelConfig(0, 10), ("expected (90,), found (9,)", "must list 1 detection class(es)")),
        (ModelConfig(0, 1, 4), ("expected (5, 64, 1, 1), found (3, 64, 1, 1)", "2 segmentation classes")),
        (ModelConfig(0, 1, 1, "binary"), ("expected (1,), found (3,)", "multiclass or multilabel")),
        (ModelConfig(3), ("bifpn.0.conv6_up", "more", "try -c 0")),
    ],
)
def test_misfit_names_tensors_and_cause(
    state: dict[str, torch.Tensor], config: ModelConfig, words: tuple[str, ...]
) -> None:
    with pytest.raises(HnxError) as caught:
        build_model(Checkpoint(dict(state), {}, "plain", ""), config)
    for word in words:
        assert word in str(caught.value)


def test_missing_unknown_and_mistyped_tensors(state: dict[str, torch.Tensor]) -> None:
    changed = {**state, "stray": torch.zeros(1)}
    del changed["bifpn.0.p6_w1"]
    changed["bifpn.0.p5_w1"] = torch.ones(2, dtype=torch.int64)
    with pytest.raises(HnxError) as caught:
        build_model(Checkpoint(changed, {}, "plain", ""))
    text = str(caught.value)
    assert "bifpn.0.p6_w1: expected (2,), missing" in text
    assert "bifpn.0.p5_w1: expected torch.float32, found torch.int64" in text
    assert "stray: not expected" in text


# --- safetensors -----------------------------------------------------------------------------------------


def test_safetensors_round_trip(tmp_path: Path) -> None:
    config = ModelConfig(0, 1, 2, "multilabel", "hardswish")
    network = create_model(config, 3)
    path = tmp_path / "new" / "weights.safetensors"
    save_safetensors(path, network, {**_METADATA, "note": {"epoch": 5}})
    checkpoint = load_checkpoint(path)
    assert checkpoint.layout == "safetensors"
    assert checkpoint.metadata == {
        **_METADATA,
        "note": {"epoch": 5},
        "hnx_format_version": 1,
        "compound_coef": 0,
        "seg_mode": "multilabel",
        "activation": "hardswish",
    }
    model = build_model(checkpoint)
    assert model.config == config
    assert parity.state_digest(model.state_dict()) == parity.state_digest(network.state_dict())
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_network_makes_the_same_bytes(tmp_path: Path, network: HybridNets) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_safetensors(first, network, _METADATA)
    save_safetensors(second, network, dict(reversed(_METADATA.items())))
    assert first.read_bytes() == second.read_bytes()
    (length,) = struct.unpack("<Q", first.read_bytes()[:8])
    assert length % 8 == 0
    with safetensors.safe_open(first, framework="pt") as file:  # the library reads it
        assert json.loads(file.metadata()["classes"]) == ["car"]
        assert len(list(file.keys())) == len(network.state_dict())


def test_safetensors_of_others_have_text_metadata(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "a.pth"  # the content decides, not the name
    metadata = {"format": "pt", "deep": "[" * 100_000, "number": "NaN"}
    safetensors.torch.save_file(_prefixed(state, "model."), path, metadata)
    checkpoint = load_checkpoint(path)
    assert checkpoint.metadata == metadata
    assert checkpoint.layout == "safetensors, prefix 'model.' removed"
    assert infer_config(checkpoint.state, metadata=checkpoint.metadata).compound_coef == 0


@pytest.mark.parametrize(
    "metadata", [{"classes": ["a", "b"]}, {"note": float("nan")}, {"note": {1, 2}}, {"seg_classes": []}]
)
def test_wrong_metadata_is_not_written(tmp_path: Path, network: HybridNets, metadata: dict[str, Any]) -> None:
    with pytest.raises(HnxError):
        save_safetensors(tmp_path / "a.safetensors", network, metadata)
    assert not list(tmp_path.iterdir())


def test_newer_format_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, {"hnx_format_version": "3"})
    with pytest.raises(HnxError, match="update hnx"):
        load_checkpoint(path)


def _header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        _header(b"{"),
        _header(b'{"a": ' * 5000),
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}, bytes(8)),
        _header({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 8]}}, bytes(8)),
        _header({"a": {"dtype": "F32", "shape": [1 << 62, 4], "data_offsets": [0, 8]}}, bytes(8)),
        _header({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        _header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, bytes(8)),
        _header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
        _header({"__metadata__": {"a": 1}}),
        struct.pack("<Q", 1 << 63) + b'{"a": 1}',
    ],
)
def test_hostile_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(HnxError, match="Cannot read the checkpoint"):
        load_checkpoint(path)


# --- bad files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(100), "damaged"),
        (b"<html>404</html>", "not a torch checkpoint"),
        (b"\x80\x02", "damaged"),
        (b"hello", "damaged: KeyError: 101"),  # the error's text is a bare number
        (bytes(1000), "not a torch checkpoint"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(HnxError) as caught:
        load_checkpoint(path)
    assert words in str(caught.value)
    assert str(path) in caught.value.what
    assert caught.value.fix


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_files(
    tmp_path: Path, network: HybridNets, state: dict[str, torch.Tensor], suffix: str, share: float
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_safetensors(path, network, _METADATA)
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(HnxError, match="Cannot read the checkpoint"):
        load_checkpoint(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    with pytest.raises(HnxError, match="it is a folder"):
        load_checkpoint(tmp_path)


class _Hostile:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "system"), (eval, "eval"), (os.mkdir, "mkdir"), (np.fromfile, "fromfile")]
)
def test_hostile_pickle_is_named_and_does_not_run(
    tmp_path: Path, function: Callable[..., object], name: str, legacy: bool
) -> None:
    path, trace = tmp_path / "a.pth", tmp_path / "ran"
    argument = {"system": f"touch {trace}", "eval": f"open({str(trace)!r}, 'w')"}.get(name, str(trace))
    content = {"model": {"a": torch.ones(1)}, "epoch": _Hostile(function, argument)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(HnxError, match="Refused to read") as caught:
        load_checkpoint(path)
    assert name in caught.value.why
    assert not trace.exists()


def test_numpy_substitutes_take_any_state(tmp_path: Path) -> None:
    dtype, array = np.dtype, np.empty(0).__reduce__()[0]
    hostile = [
        _Hostile(array, np.ndarray, (0,), b"b"),
        _Hostile(dtype, "O", False, True),
        np.array(["text"], dtype=object),
        np.zeros((2, 2)),
    ]
    torch.save({"model": {"a": torch.ones(1)}, "x": hostile, "y": np.zeros(3)}, tmp_path / "a.pth")
    assert load_checkpoint(tmp_path / "a.pth").metadata == {}
    assert module._latin1(5) == b""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(1)], "a list, not a dictionary"),
        (torch.ones(1), "a Tensor, not a dictionary"),
        ({"a": "text"}, "'a' is a str"),
        ({"a": {"b": torch.ones(1)}}, "'a' is a dict"),
        ({5: torch.ones(1)}, "entry 5"),
        ({"model": {"a": 1.5}}, "'a' is a float"),
        ({"a": torch.ones(2, 2).to_sparse()}, "not dense and real"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "not dense and real"),
        ({"a": torch.empty(1, device="meta")}, "not dense and real"),
        ({"a": torch.ones(1).expand(10**12)}, "claims more values"),
        ({"fine": torch.ones(1), "a.b": torch.tensor([1.0, float("nan")])}, "tensor a.b contains NaN"),
        ({"a.b": torch.tensor(float("inf"))}, "tensor a.b contains NaN or infinity"),
        ({"a.b": torch.tensor(1e300, dtype=torch.float64)}, "tensor a.b contains NaN or infinity"),
    ],
)
def test_wrong_content(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(HnxError) as caught:
        load_checkpoint(path)
    assert words in str(caught.value)


def test_a_zip_cut_near_its_start_is_called_cut(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "a.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(HnxError, match="cut short"):
        load_checkpoint(path)


def test_unusual_pickles_are_refused_without_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(HnxError, match=r"a\.pkl"):
            load_checkpoint(tmp_path / "a.pkl")


def test_no_segmentation_channels(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(HnxError, match="contradicts") as caught:
        infer_config({**state, "segmentation_head.0.weight": torch.zeros(0, 1, 1, 1)})
    assert caught.value.code == 1


def test_classes_are_blamed_only_when_they_differ(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(HnxError) as caught:
        build_model(Checkpoint(state, {}, "plain", ""), ModelConfig(compound_coef=3))
    assert "try -c 0" in caught.value.fix
    assert "must list" not in caught.value.fix
