"""Ranges against plain numpy over the same tensors, histograms against histograms of everything at once."""

from __future__ import annotations

import numpy as np
import pytest

from calibration import ranges as module
from calibration.histogram import Histogram
from calibration.ranges import RangeConfig, measure_ranges, observed_tensors
from calibration.thresholds import entropy, mean_square, percentile
from hybridnets.errors import ExitCode, HnxError
from tests.calibration.nets import frames, inner, mbconv_net


def test_extremes_and_means_are_those_of_all_frames() -> None:
    model, inputs = mbconv_net(), frames(3)
    found = measure_ranges(model, lambda: iter(inputs))
    for name in observed_tensors(model):
        values = np.concatenate([x if name == "input" else inner(model, name, x) for x in inputs])
        assert found[name].low == pytest.approx(values.min(), rel=1e-4, abs=1e-6)
        assert found[name].high == pytest.approx(values.max(), rel=1e-4, abs=1e-6)
        assert found[name].threshold == found[name].reach
        if found[name].means and name != "input":
            np.testing.assert_allclose(found[name].means, values.mean(axis=(0, 2, 3)), rtol=1e-3, atol=1e-5)
        if found[name].reaches:
            np.testing.assert_allclose(found[name].reaches, np.abs(values).max(axis=(0, 2, 3)), rtol=1e-4, atol=1e-6)
    read = {node.input[0] for node in model.graph.node if node.op_type == "Conv"} - {"input"}
    assert len(read) > 5
    assert {name for name in found if found[name].reaches} == read
    assert set(observed_tensors(model)) <= set(found)


def test_every_tensor_that_nodes_make_has_a_range() -> None:
    model = mbconv_net()
    found = measure_ranges(model, lambda: iter(frames(1)))
    assert {name for node in model.graph.node for name in node.output} <= set(found)


@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_methods_clip_no_further_out_than_what_was_seen(method: str) -> None:
    model, inputs = mbconv_net(), frames(3)
    config = RangeConfig(method=method, percentile=99.0)  # type: ignore[arg-type]
    found = measure_ranges(model, lambda: iter(inputs), config)
    assert all(0 <= r.threshold <= r.reach for r in found.values())
    observed = [found[name] for name in observed_tensors(model) if name != "input"]
    assert any(r.threshold < r.reach for r in observed)


def test_groups_of_tensors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = mbconv_net(), frames(2)
    config = RangeConfig(method="percentile", percentile=99.0)
    whole = measure_ranges(model, lambda: iter(inputs), config)
    monkeypatch.setattr(module, "_GROUP_BYTES", 4096)
    done: list[int] = []
    assert measure_ranges(model, lambda: iter(inputs), config, on_frame=done.append) == whole
    assert done == list(range(1, len(done) + 1))
    assert len(done) > 6


def test_the_order_of_frames_does_not_matter() -> None:
    model, inputs = mbconv_net(), frames(4)
    config = RangeConfig(method="mse")
    forward, backward = (measure_ranges(model, lambda xs=xs: iter(xs), config) for xs in (inputs, inputs[::-1]))
    assert {k: v.threshold for k, v in forward.items()} == {k: v.threshold for k, v in backward.items()}


def test_no_frame_and_infinite_tensors_are_errors() -> None:
    with pytest.raises(HnxError, match="No frame"):
        measure_ranges(mbconv_net(), lambda: iter(()))
    bad = frames(1)
    bad[0][0, 0, 3, 3] = np.inf
    with pytest.raises(HnxError, match="is not finite on calibration frame 0"):
        measure_ranges(mbconv_net(), lambda: iter(bad))


@pytest.mark.parametrize("values", [{"method": "median"}, {"percentile": 50.0}, {"percentile": 101.0}])
def test_configurations_are_checked(values: dict[str, object]) -> None:
    with pytest.raises(HnxError) as caught:
        RangeConfig(**values)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE


def test_a_growing_histogram_is_one_of_everything() -> None:
    random = np.random.default_rng(0)
    parts = [random.normal(0, scale, 5000).astype(np.float32) for scale in (0.1, 3.0, 0.5, 40.0)]
    parts.append(np.zeros(10, np.float32))
    grown, reverse, whole = Histogram(), Histogram(), Histogram()
    for part in parts:
        grown.add(part)
    for part in reversed(parts):
        reverse.add(part)
    whole.add(np.concatenate(parts))
    reference, _ = np.histogram(np.abs(np.concatenate(parts[:-1])), bins=2048, range=(0, whole.limit))
    for histogram in (grown, reverse, whole):
        assert histogram.limit == whole.limit
        np.testing.assert_array_equal(histogram.counts, reference)
        assert (histogram.zeros, histogram.total) == (10, 20010)


def of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return histogram


def test_percentile_is_numpys_within_a_bin() -> None:
    values = np.abs(np.random.default_rng(1).normal(0, 1, 100_000))
    histogram = of(values)
    for share in (90.0, 99.0, 99.9):
        assert percentile(histogram, share) == pytest.approx(np.percentile(values, share), abs=2 * histogram.width)
    assert percentile(histogram, 100.0) >= values.max()
    assert percentile(of(np.zeros(5)), 99.0) == 0


def test_mean_square_is_the_best_of_all_thresholds() -> None:
    values = np.random.default_rng(2).laplace(0, 1, 20_000)

    def error(threshold: float) -> float:
        step = threshold / 127
        return float(((np.clip(np.rint(values / step), -127, 127) * step - values) ** 2).sum())

    found = mean_square(of(values))
    grid = np.linspace(0.3, 1.0, 60) * np.abs(values).max()
    assert error(found) <= 1.02 * min(map(error, grid))
    assert found < np.abs(values).max()


def test_entropy_clips_an_outlier_and_keeps_an_even_distribution() -> None:
    random = np.random.default_rng(3)
    even = np.linspace(-1, 1, 40_000)
    assert entropy(of(even)) == pytest.approx(1.0, rel=0.02)
    with_outlier = np.append(random.normal(0, 1, 100_000), 100.0)
    assert entropy(of(with_outlier)) < 50
