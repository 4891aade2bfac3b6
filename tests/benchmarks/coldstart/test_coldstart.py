"""Which starts are compared, what their figures mean, and that a start does what its row says."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from benchmarks.children import ChildWorker
from benchmarks.coldstart import __main__ as command
from benchmarks.coldstart.samples import NEVER, SEEN, STOCK, UPSTREAM, Sample, take_samples
from benchmarks.coldstart.table import rows, text
from benchmarks.coldstart.upstream import can_make_upstream, make_upstream, pad_by_shape
from benchmarks.coldstart.worker import SPANS
from hybridnets.bundle import open_bundle
from hybridnets.config import ModelConfig
from hybridnets.errors import ExitCode, HnxError
from hybridnets.network.layers import Conv, ZeroPadMaxPool
from hybridnets.network.weights import create_model


def sample(scale: float) -> Sample:
    return Sample({name: scale * (index + 1) for index, name in enumerate(SPANS)}, 28 * scale, 20 * scale, 0.0)


# -- the graphs ----------------------------------------------------------------------------------------------


def test_upstreams_paddings_change_no_number() -> None:
    model = create_model(ModelConfig(compound_coef=0)).eval()
    image = torch.randn(1, 3, 128, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.features(image)
        outputs = (*model.forward_detection(before), model.forward_segmentation(before))
        pad_by_shape(model)
        after = model.features(image)
        again = (*model.forward_detection(after), model.forward_segmentation(after))
    assert all(torch.equal(first, second) for first, second in zip(outputs, again, strict=True))


def test_traced_paddings_are_arithmetic_on_shapes(tmp_path: Path) -> None:
    layers = torch.nn.Sequential(Conv(3, 4, 3), ZeroPadMaxPool(), Conv(4, 2, 1))
    image = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = layers(image).numpy()
    pad_by_shape(layers)
    path = str(tmp_path / "layers.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layers.eval(), (image,), path, opset_version=17, input_names=["x"], dynamo=False)
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Pad") == 3
    assert kinds.count("Shape") >= 6
    (found,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": image.numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_upstreams_graph_works_out_its_paddings(bundle_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    assert can_make_upstream(bundle)
    made = make_upstream(bundle, tmp_path / "new" / "upstream.onnx")
    assert made.target == bundle.target
    path, ours = made.path, bundle_path / "hybridnets_128x256.onnx"
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("Pad") > 100
    assert kinds.count("Shape") > 200
    noise = {"input": np.random.default_rng(0).standard_normal((1, 3, 128, 256), np.float32)}
    sessions = [ort.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (path, ours)]
    for first, second in zip(*(session.run(None, noise) for session in sessions), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-3)


# -- the starts ----------------------------------------------------------------------------------------------


class Pretended:
    """A process that tells of the cache what a real one would."""

    def __init__(self, asked: list[tuple[str, dict[str, Any]]], broken: bool = False) -> None:
        self.asked, self.broken, self.closed = asked, broken, False

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        self.asked.append((command, arguments))
        cache = "off"
        if "cache" in arguments:
            folder = Path(arguments["cache"])
            cache = "read" if folder.exists() else "written"
            folder.mkdir(exist_ok=True)
        return {
            "spans_ms": dict.fromkeys(SPANS, 1.0),
            "cache": "not kept: full" if self.broken else cache,
            "cpu_ms": 1.0,
            "process_cpu_ms": 1.0,
        }

    def close(self) -> None:
        self.closed = True


def test_starts_take_turns_and_only_one_of_them_knows_the_bundle(bundle_path: Path, tmp_path: Path) -> None:
    bundle, asked = open_bundle(bundle_path), []  # type: ignore[var-annotated]
    made: list[Pretended] = []

    def start() -> Pretended:
        made.append(Pretended(asked))
        return made[-1]

    plain = {UPSTREAM: bundle, STOCK: bundle}
    found = take_samples(bundle, plain, tmp_path, precision="bf16", threads=2, rounds=2, start=start)
    assert list(found) == [UPSTREAM, STOCK, NEVER, SEEN]
    assert all([len(taken) for taken in rounds] == [2, 2] for rounds in found.values())
    names = [Path(arguments["cache"]).name if "cache" in arguments else command for command, arguments in asked]
    turn = ["plain", "plain", "never-seen", "seen"]
    assert names == turn + (turn + turn[::-1]) * 2  # once before the rounds, for the files and the cache
    assert asked[0][1] == {"path": str(bundle_path / "hybridnets_128x256.onnx"), "precision": "bf16", "threads": 2}
    assert asked[2][1]["path"] == str(bundle_path)
    assert all(worker.closed for worker in made)


def test_a_cache_that_does_not_work_is_an_error(bundle_path: Path, tmp_path: Path) -> None:
    bundle = open_bundle(bundle_path)
    with pytest.raises(HnxError, match="does not work") as caught:
        take_samples(
            bundle, {}, tmp_path, precision="fp32", threads=1, rounds=1, start=lambda: Pretended([], broken=True)
        )
    assert "not kept: full" in caught.value.why


def test_a_real_start(bundle_path: Path, tmp_path: Path) -> None:
    replies = []
    arguments: dict[str, Any] = {"precision": "fp32", "threads": 1}
    for name, more in (
        ("plain", {"path": str(bundle_path / "hybridnets_128x256.onnx"), "precision": "f32"}),
        ("through_hnx", {"path": str(bundle_path), "cache": str(tmp_path)}),
        ("through_hnx", {"path": str(bundle_path), "cache": str(tmp_path)}),
    ):
        worker = ChildWorker(("-m", "benchmarks.coldstart.worker"))
        try:
            replies.append(worker.call(name, 120, **{**arguments, **more}))
        finally:
            worker.close()
    assert [reply["cache"] for reply in replies] == ["off", "written", "read"]
    for reply in replies:
        assert list(reply["spans_ms"]) == list(SPANS)
        assert all(reply["spans_ms"][name] > 0 for name in ("import", "read", "compile", "first"))
        assert 0 < reply["cpu_ms"] < reply["process_cpu_ms"]
    assert [reply["spans_ms"]["keep"] > 0 for reply in replies] == [False, True, False]


# -- the figures ---------------------------------------------------------------------------------------------


def test_ratios_by_hand() -> None:
    samples = {
        "a": [[sample(1), sample(1)], [sample(2), sample(2)], [sample(1), sample(1)]],
        "b": [[sample(0.5), sample(0.5)], [sample(0.5), sample(0.5)], [sample(1), sample(1)]],
    }
    base, row = rows(samples, ["a"])
    assert sample(1).inference_ms == 14  # 2 + 3 + 4 + 5: without the imports
    assert sample(1).whole_ms == 15
    assert (base.inference_ms, base.whole_ms, base.process_ms) == (14, 15, 20)
    assert base.ratios["a"].paired == 1
    assert row.spans_ms == {name: 0.5 * (index + 1) for index, name in enumerate(SPANS)}
    assert row.ratios["a"].paired == 0.5
    assert row.ratios["a"].spread == (0.25, 1.0)
    assert row.whole_ratios["a"].paired == row.cpu_ratios["a"].paired == 0.5
    printed = text([base, row], ["a"]).splitlines()
    assert printed[2].split()[:1] == ["b"]
    assert "0.500 (0.250 to 1.000)" in printed[2]


@pytest.mark.parametrize(("limit", "code"), [("0.3", ExitCode.OK), ("0.2", ExitCode.GATE_FAILED)])
def test_the_limit_decides_the_exit_code(
    bundle_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: str,
    code: ExitCode,
) -> None:
    def once(value: float) -> Sequence[Sequence[Sample]]:
        return [[sample(value), sample(value)]]

    found = {UPSTREAM: once(4), STOCK: once(2), NEVER: once(2), SEEN: once(1)}
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "make_upstream", lambda bundle, path: bundle)
    monkeypatch.setattr(command, "take_samples", lambda *_, **settings: asked.append(settings) or found)
    report = tmp_path / "report.json"
    words = [str(bundle_path), "--stock", str(bundle_path), "--rounds", "1", "--precision", "fp32", "--threads", "1"]
    assert command.main([*words, "--json", str(report), "--check", limit]) == code
    assert asked == [{"precision": "fp32", "threads": 1, "rounds": 1}]
    assert "seen before: 0.250 of upstream" in capsys.readouterr().out
    stored = json.loads(report.read_text())
    assert [row["name"] for row in stored["rows"]] == list(found)
    assert stored["rows"][3]["ratios"]["stock"]["paired"] == 0.5
    assert stored["rows"][3]["samples"][0][0]["spans_ms"] == sample(1).spans_ms


def test_bad_requests(bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([str(tmp_path / "nothing")]) == ExitCode.FAILED
    assert "There is no bundle" in capsys.readouterr().err
    for words in (["--rounds", "0"], ["--threads", "0"], ["--precision", "int8"]):
        with pytest.raises(SystemExit) as caught:
            command.main([str(bundle_path), *words])
        assert caught.value.code == ExitCode.USAGE
