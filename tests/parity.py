"""Deterministic weights, inputs and comparisons against recorded outputs of the original network.

No weights are stored. Every tensor is drawn from a random stream named by its state-dict key, scaled so that
a network of this depth neither dies out nor explodes; `tests/data/parity` holds what the original network
returned for them, in float32 and float64.

Importing this module limits torch to one thread: pytest runs one process per core.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from hybridnets.config import ModelConfig
from hybridnets.network import HybridNets

DATA = Path(__file__).parent / "data" / "parity"
NOISE_FACTOR = 20.0  # limit = this times the float32 noise recorded with the fixture
SAMPLES = 4000  # stored values per output, at most

torch.set_num_threads(1)


@functools.cache
def data(name: str) -> Any:
    """A JSON file of the parity data."""
    return json.loads((DATA / name).read_text())


def stream(name: str) -> np.random.Generator:
    """The random stream of that name."""
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))


# standard deviation of a convolution = gain / sqrt(fan-in); the first pattern that matches counts
_GAINS: tuple[tuple[str, float], ...] = (
    (r"encoder\._conv_stem\.", 1.0),
    (r"encoder\..*_se_reduce\.", 0.5),
    (r"encoder\..*_se_expand\.", 1.0),
    (r"encoder\.", 1.4),
    (r"bifpn\.", 1.4),
    (r"(regressor|classifier)\.conv_list\.", 1.4),
    (r"(regressor|classifier)\.header\.depthwise_conv\.", 1.0),
    (r"regressor\.header\.pointwise_conv\.", 0.08),
    (r"classifier\.header\.pointwise_conv\.", 0.5),
    (r"bifpndecoder\.", 1.4),
    (r"segmentation_head\.", 0.5),
)


def fill(key: str, shape: Iterable[int], table: Mapping[str, float]) -> NDArray[Any]:
    """The value of one state-dict entry. `table`: batch norm -> mean square of what enters it."""
    shape = tuple(shape)
    norm, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    noise = stream(key).standard_normal(shape)
    square = table.get(norm, 1.0)
    value: NDArray[Any]
    if leaf == "running_mean":
        value = 0.1 * np.sqrt(square) * noise
    elif leaf == "running_var":
        value = square * np.exp(0.1 * noise)
    elif leaf == "bias":
        value = 0.1 * noise - (4.0 if key == "classifier.header.pointwise_conv.conv.bias" else 0.0)
    elif leaf == "weight" and len(shape) == 1:
        value = 1.0 + 0.1 * noise
    elif leaf == "weight":
        gain = next(value for pattern, value in _GAINS if re.match(pattern, key))
        value = noise * (gain / np.sqrt(shape[1] * shape[2] * shape[3]))
    else:  # fusion weights
        value = np.abs(noise) + 0.1
    return value.astype(np.float32)


def state(config: ModelConfig) -> dict[str, torch.Tensor]:
    """The filled state dict of coefficient 3 or 4."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in HybridNets(config).state_dict().items()}
    table = data(f"bn_scale_c{config.compound_coef}.json")
    return {key: torch.from_numpy(np.asarray(fill(key, shape, table))) for key, shape in shapes.items()}


@functools.lru_cache(maxsize=2)
def model(config: ModelConfig) -> HybridNets:
    """The filled network in eval mode. Shared by all tests of a process: do not change it."""
    with torch.device("meta"):
        network = HybridNets(config)
    network.load_state_dict(state(config), strict=True, assign=True)
    return network.eval()


@functools.lru_cache(maxsize=4)
def leaves_image(name: str, count: int, height: int, width: int) -> NDArray[np.float32]:
    """(count, 3, height, width): 300 rectangles of random size, place and colour each, plus noise."""
    random = stream(name)
    image = np.zeros((count, 3, height, width))
    for sample in image:
        for _ in range(300):
            h, w = 2.0 ** random.uniform(2.0, 7.5, 2)
            cy = random.uniform(0, height)
            cx = random.uniform(0, width)
            colour = random.uniform(-2.0, 2.0, 3)
            rows = slice(max(0, int(cy - h / 2)), min(height, int(cy + h / 2)))
            columns = slice(max(0, int(cx - w / 2)), min(width, int(cx + w / 2)))
            sample[:, rows, columns] = colour[:, None, None]
    image += 0.1 * random.standard_normal(image.shape)
    return image.astype(np.float32)


def sample_index(name: str, size: int, count: int = SAMPLES) -> NDArray[np.int64]:
    """At most `count` flat indices below `size`, ascending, each once."""
    return np.unique(stream(f"index/{name}").integers(0, size, count))


def state_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(tensors[key].numpy()).tobytes())
    return digest.hexdigest()


def assert_output(fixture: str, output: str, got: ArrayLike) -> None:
    """Compare one output of the network with a forward fixture: samples, mean and norm."""
    meta = data("forward/index.json")[fixture]["outputs"][output]
    array = np.asarray(got)
    assert list(array.shape) == meta["shape"]
    flat = array.astype(np.float64).ravel()
    index = sample_index(f"{fixture}/{output}", flat.size)
    with np.load(DATA / "forward" / f"{fixture}.npz") as stored:
        assert np.array_equal(index, stored[f"{output}_idx"]), "another numpy random stream"
        error = float(np.abs(flat[index] - stored[f"{output}_f64"]).max())
    limit = NOISE_FACTOR * max(meta["max_abs_diff_f32_f64"], meta["max_abs_diff_f32_without_mkldnn"])
    assert error <= limit
    assert abs(float(flat.mean()) - meta["f64"]["mean"]) <= limit
    assert abs(float(np.sqrt((flat * flat).sum())) / meta["f64"]["l2"] - 1.0) <= 1e-4


def assert_feature(fixture: str, key: str, got: ArrayLike) -> None:
    """Compare one intermediate map with its stored samples."""
    meta = data(f"features/{fixture}.json")[key]
    array = np.asarray(got, np.float64)
    assert list(array.shape) == meta["shape"], key
    error = float(np.abs(array.ravel()[meta["idx"]] - np.asarray(meta["f64"])).max())
    limit = max(NOISE_FACTOR * meta["max_abs_diff_f32_f64"], 1e-6)
    assert error <= limit, f"{key}: {error:.3g} > {limit:.3g}"
