"""Half precision on disk: what is left out comes back, what cannot be halved is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from hybridnets.checkpoint import build_model, load_checkpoint, save_safetensors
from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError
from hybridnets.network import HybridNets, create_model
from hybridnets.network.compact import compact_state, complete_state


@pytest.fixture(scope="module")
def model() -> HybridNets:
    return create_model(ModelConfig(0), seed=3).eval()


def test_half_the_bytes_and_the_same_network(tmp_path: Path, model: HybridNets) -> None:
    plain, compact = tmp_path / "plain.safetensors", tmp_path / "compact.safetensors"
    save_safetensors(plain, model, {"note": "kept"})
    save_safetensors(compact, model, {"note": "kept"}, compact=True)
    assert compact.stat().st_size < 0.47 * plain.stat().st_size
    checkpoint = load_checkpoint(compact)
    assert checkpoint.metadata["note"] == "kept"
    assert checkpoint.metadata["hnx_format_version"] == 2
    state = model.state_dict()
    assert list(checkpoint.state.keys() ^ state.keys()) == []
    for name, value in checkpoint.state.items():
        assert value.dtype == state[name].dtype
        assert value.shape == state[name].shape
        if not name.startswith(("encoder._conv_head", "encoder._bn1")) and value.is_floating_point():
            assert torch.equal(value, state[name].half().float())
    assert float(checkpoint.state["encoder._bn1.running_var"].min()) == 1.0
    loaded = build_model(checkpoint)
    halved = create_model(ModelConfig(0), seed=3).eval()
    halved.load_state_dict({name: v.half().float() if v.is_floating_point() else v for name, v in state.items()})
    image = torch.rand(1, 3, 128, 128)
    with torch.inference_mode():
        for found, expected in zip(loaded(image), halved(image), strict=True):
            assert torch.equal(found, expected)


def test_a_second_round_changes_nothing(tmp_path: Path, model: HybridNets) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_safetensors(first, model, {}, compact=True)
    save_safetensors(second, build_model(load_checkpoint(first)), {}, compact=True)
    assert first.read_bytes() == second.read_bytes()


def test_what_is_really_missing_is_still_named(tmp_path: Path, model: HybridNets) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, model, {}, compact=True)
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del tensors["encoder._conv_stem.weight"]
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(HnxError, match="does not fit") as caught:
        build_model(load_checkpoint(path))
    assert "encoder._conv_stem.weight" in caught.value.why
    assert "1 more" not in caught.value.why
    # without the version nothing is filled in
    del metadata["hnx_format_version"]
    safetensors.torch.save_file(tensors, path, metadata)
    with pytest.raises(HnxError, match="does not fit"):
        build_model(load_checkpoint(path))


def test_metadata_of_another_network_are_refused(tmp_path: Path, model: HybridNets) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, model, {}, compact=True)
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, {"hnx_format_version": "2", "compound_coef": json.dumps(7)})
    with pytest.raises(HnxError, match="contradicts"):
        load_checkpoint(path)


def test_values_beyond_half_stay_float32(model: HybridNets) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = compact_state(state, model.config).vanished  # a few of five million normal numbers
    state["encoder._bn0.running_var"][0] = 1e5
    state["bifpn.0.conv6_up.bn.running_mean"][0] = -7e4
    state["encoder._conv_stem.weight"][0, 0, 0, 0] = 1e-9
    compact = compact_state(state, model.config)
    assert sorted(compact.kept) == ["bifpn.0.conv6_up.bn.running_mean", "encoder._bn0.running_var"]
    assert compact.vanished == before + 1
    assert compact.state["encoder._bn0.running_var"].dtype == torch.float32
    assert compact.state["encoder._conv_stem.weight"].dtype == torch.float16
    full = complete_state(compact.state, model.config)
    assert full.keys() == state.keys()


def test_tiny_variances_are_no_reason_where_epsilon_covers_them(model: HybridNets) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["encoder._bn0.running_var"].fill_(1e-8)  # 0 in float16; the batch norm divides by its root plus 1e-3
    assert compact_state(state, model.config).kept == []


def test_nan_is_refused(model: HybridNets) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["encoder._conv_stem.weight"][0] = float("nan")
    with pytest.raises(HnxError, match="cannot be shipped") as caught:
        compact_state(state, model.config)
    assert "encoder._conv_stem.weight" in caught.value.why


def test_timm_names_that_look_alike_stay() -> None:
    state = {"encoder._bn1.weight": torch.ones(2), "encoder.x.num_batches_tracked": torch.tensor(3)}
    assert list(compact_state(state, ModelConfig(0, backbone="resnet18")).state) == ["encoder._bn1.weight"]
    assert list(compact_state(state, ModelConfig(0)).state) == []


def test_the_largest_convolutions_in_8_bits(tmp_path: Path, model: HybridNets) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, model, {}, compact=True, eighths=2)
    stored = safetensors.torch.load_file(path)
    names = [name for name, value in stored.items() if value.dtype == torch.int8]
    assert len(names) == 2
    state, checkpoint = model.state_dict(), load_checkpoint(path)
    assert checkpoint.state.keys() == state.keys()
    for name in names:
        weight, found = state[name], checkpoint.state[name]
        step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
        assert bool(((found - weight).abs() <= step * 0.501).all())
        assert len(found.unique()) > 200
    assert build_model(checkpoint).config == model.config


def test_a_channel_of_zeros_in_8_bits_stays_zero(model: HybridNets) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    (name,) = compact_state(state, model.config, eighths=1).eighths
    state[name][5] = 0.0
    full = complete_state(compact_state(state, model.config, eighths=1).state, model.config)
    assert bool((full[name][5] == 0).all())
    assert bool(torch.isfinite(full[name]).all())


def test_scales_that_fit_nothing_are_refused(tmp_path: Path, model: HybridNets) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(path, model, {}, compact=True)
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    for scale in ({"nothing.8bit_scale": torch.ones(3)}, {"encoder._conv_stem.weight.8bit_scale": torch.ones(32)}):
        safetensors.torch.save_file({**tensors, **scale}, path, metadata)
        with pytest.raises(HnxError, match="contradicts itself"):
            load_checkpoint(path)
