"""The network is the same function as the original one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hybridnets.config import ModelConfig, SegMode
from hybridnets.network import HybridNets
from tests import parity


def _entries(config: ModelConfig) -> list[tuple[str, list[int], str]]:
    with torch.device("meta"):
        network = HybridNets(config)
    return [(k, list(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in network.state_dict().items()]


def _recorded(coefficient: int) -> list[tuple[str, list[int], str]]:
    return [(key, shape, dtype) for key, shape, dtype in parity.data(f"keys_c{coefficient}.json")]


@pytest.mark.parametrize("coefficient", [3, 4])
def test_state_dict_has_the_recorded_names_shapes_and_order(coefficient: int) -> None:
    assert _entries(ModelConfig(coefficient)) == _recorded(coefficient)


@pytest.mark.parametrize("coefficient", [3, 4])
@pytest.mark.parametrize(
    ("variant", "classes", "seg_classes", "mode"),
    [
        ("nc10_multiclass", 10, 2, "multiclass"),
        ("nc1_binary_1class", 1, 1, "binary"),
        ("nc1_multilabel", 1, 2, "multilabel"),
        ("nc10_multilabel", 10, 2, "multilabel"),
        ("nc1_multiclass_4classes", 1, 4, "multiclass"),
    ],
)
def test_only_the_last_layers_depend_on_the_classes(
    coefficient: int, variant: str, classes: int, seg_classes: int, mode: SegMode
) -> None:
    differences = parity.data("keys_variants.json")[f"c{coefficient}_{variant}"]
    expected = [
        (key, differences.get(key, {"variant": shape})["variant"], dtype)
        for key, shape, dtype in _recorded(coefficient)
    ]
    assert _entries(ModelConfig(coefficient, classes, seg_classes, mode)) == expected


@pytest.mark.parametrize(
    ("variant", "config"),
    [
        ("c3", ModelConfig(3)),
        ("c4", ModelConfig(4)),
        ("c3_nc10_multilabel", ModelConfig(3, 10, 2, "multilabel")),
        ("c3_nc1_binary", ModelConfig(3, 1, 1, "binary")),
        ("c4_nc10_multiclass", ModelConfig(4, 10)),
    ],
)
def test_filled_weights_are_those_of_the_recording(variant: str, config: ModelConfig) -> None:
    assert parity.state_digest(parity.state(config)) == parity.data("weights_check.json")[variant]["sha256"]


@pytest.mark.parametrize("fixture", ["c3_256x384_b1", "c3_384x640_b1", "c4_384x640_b1"])
def test_outputs_match_the_recording(fixture: str) -> None:
    height, width = map(int, fixture.split("_")[1].split("x"))
    image = torch.from_numpy(parity.leaves_image(f"input/{fixture}", 1, height, width))
    with torch.inference_mode():
        outputs = parity.model(ModelConfig(int(fixture[1])))(image)
    for name, value in outputs._asdict().items():
        parity.assert_output(fixture, name, value)


def test_every_intermediate_map_matches_the_recording() -> None:
    fixture = "c3_384x640_b1"
    network = parity.model(ModelConfig(3))
    image = torch.from_numpy(parity.leaves_image(f"input/{fixture}", 1, 384, 640))
    recorded = parity.data(f"features/{fixture}.json")
    seen: set[str] = set()

    def compare(key: str, value: Tensor | tuple[Tensor, ...]) -> None:
        maps = {key: value} if isinstance(value, Tensor) else {f"{key}[{i}]": x for i, x in enumerate(value)}
        for name, x in maps.items():
            parity.assert_feature(fixture, name, x)
            seen.add(name)

    modules = {name.partition("[")[0] for name in recorded} - {"encoder"}
    handles = []
    for name in modules:

        def hook(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            compare(name, output)

        handles.append(network.get_submodule(name).register_forward_hook(hook))
    try:
        with torch.inference_mode():
            features = network.features(image)
            network.forward_segmentation(features)
            compare("encoder", (image, network.encoder.stem(image), *features.encoder))
    finally:
        for handle in handles:
            handle.remove()
    assert seen == set(recorded)
