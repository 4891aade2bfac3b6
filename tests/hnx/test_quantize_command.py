"""`hnx quantize` from end to end on the smallest bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from hnx.__main__ import main
from hybridnets.bundle import open_bundle
from hybridnets.errors import ExitCode
from hybridnets.sources import read_image
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture
def frames(road_image: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    image = read_image(road_image)
    for index, gain in enumerate((0.3, 0.6, 1.0, 1.3)):
        dimmed = np.clip(image.astype(np.float32) * gain, 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), cv2.resize(dimmed, (256, 144)))
    return folder


def quantize(bundle: Path, frames: Path, *words: str) -> int:
    return main(["quantize", str(bundle), "--calib", str(frames), "--frames", "4", "--threads", "1", *words])


def test_all_targets_and_rows_that_run(bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    float_file = next(bundle.glob("*.onnx")).read_bytes()
    assert quantize(bundle, frames, "--for", "openvino,onnxruntime,tensorrt,fp16") == ExitCode.OK
    captured = capsys.readouterr()
    assert "encoder/stage1" in captured.out
    assert "hnx eval" in captured.out
    assert "4 calibration frame(s) are few" in captured.err
    opened = open_bundle(bundle)  # every hash is checked
    found = {(v.precision, v.runtimes) for v in opened.variants}
    assert found == {
        ("fp32", ()),
        ("int8", ("openvino",)),
        ("int8", ("onnxruntime",)),
        ("int8", ("tensorrt-weak",)),
        ("int8", ("tensorrt-strong",)),
        ("fp16", ("tensorrt-strong", "onnxruntime-cuda")),
    }
    assert (bundle / opened.variants[0].file).read_bytes() == float_file
    noise = np.random.default_rng(0).standard_normal((1, 3, 128, 256), np.float32)
    for name in ("openvino", "onnxruntime"):
        rows = {}
        for precision in ("fp32", "int8"):
            with open_runtime(name, opened, RuntimeOptions(precision=precision, threads=1)) as runtime:
                assert runtime.execution.precision == precision
                rows[precision] = runtime.infer({"input": noise})["segmentation"].copy()
        assert not np.array_equal(rows["fp32"], rows["int8"])


def test_ranges_are_kept_and_never_used_for_something_else(
    bundle: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--for", "openvino", "--cache", str(tmp_path / "ranges.json"))
    assert quantize(bundle, frames, *words) == ExitCode.OK
    assert "kept in" in capsys.readouterr().err
    first = open_bundle(bundle).variant("int8", "openvino").file
    assert quantize(bundle, frames, *words) == ExitCode.OK
    assert "read from" in capsys.readouterr().err
    assert open_bundle(bundle).variant("int8", "openvino").file == first  # named by its hash: the same network
    assert quantize(bundle, frames, *words, "--method", "mse") == ExitCode.FAILED
    assert "stale" in (error := capsys.readouterr().err)
    assert "method" in error
    noise = np.random.default_rng(0).integers(0, 256, (144, 256, 3))
    cv2.imwrite(str(frames / "3.png"), noise.astype(np.uint8))
    assert quantize(bundle, frames, *words) == ExitCode.FAILED
    assert "frames" in capsys.readouterr().err
    assert quantize(bundle, frames, *words, "--fresh") == ExitCode.OK
    assert open_bundle(bundle).variant("int8", "openvino").file != first
    assert len(list(bundle.glob("*int8*"))) == 1


def test_excluded_blocks_stay_float(bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize(bundle, frames, "--for", "openvino", "--exclude", "^encoder/", "--exclude", "classifier") == 0
    table = capsys.readouterr().out
    assert any(line.split()[:2] == ["encoder/stage2", "0/10"] for line in table.splitlines())
    assert any(line.split()[:2] == ["classifier", "0/40"] for line in table.splitlines())


def test_corrupt_frames_are_named_and_left_out(bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (frames / "broken.png").write_bytes(b"no picture")
    (frames / "empty.jpg").write_bytes(b"")
    assert quantize(bundle, frames, "--for", "onnxruntime") == ExitCode.OK
    error = capsys.readouterr().err
    assert "broken.png" in error
    assert "empty.jpg" in error


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("fp16", "build-trt {} --fp16"),
        ("tensorrt", "build-trt {} --int8"),
        ("onnxruntime", "eval {} --runtime onnxruntime:int8"),
    ],
)
def test_what_is_next(
    target: str, command: str, bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(bundle, frames, "--for", target) == ExitCode.OK
    assert f"Next: hnx {command.format(bundle)}" in capsys.readouterr().out


def test_one_scale_for_each_activation_on_request(bundle: Path, frames: Path) -> None:
    scales = {}
    for words, told in (((), "channel"), (("--per-tensor",), "tensor")):
        assert quantize(bundle, frames, "--for", "openvino,onnxruntime", *words) == ExitCode.OK
        opened = open_bundle(bundle)
        (record,) = [
            entry for entry in opened.manifest["variants"]
            if entry["precision"] == "int8" and entry["runtimes"] == ["openvino"]
        ]  # fmt: skip
        assert record["activation_scales"] == told
        model = onnx.load(opened.file(record["file"]))
        values = {tensor.name: tensor for tensor in model.graph.initializer}
        # weights are stored as INT8: what is rounded when it runs is activations
        rounded = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        scales[told] = sum(len(values[node.input[1]].dims) for node in rounded)
    assert scales["tensor"] == 0
    assert scales["channel"] > 9


def test_options_of_int8_that_change_nothing_of_fp16_are_named(
    bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert quantize(bundle, frames, "--for", "fp16", "--bias-correction", "--method", "max") == ExitCode.OK
    assert "--method, --bias-correction changes nothing here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--for", "openvin"), ExitCode.USAGE, "did you mean 'openvino'"),
        (("--for", ","), ExitCode.USAGE, "No runtime is named"),
        (("--frames", "0"), ExitCode.USAGE, "calibration frames"),
        (("--percentile", "120"), ExitCode.USAGE, "percentile"),
        (("--exclude", "("), ExitCode.USAGE, "("),
        (("--exclude", "no such block"), ExitCode.USAGE, "no such block"),
        (("--exclude", "encoder/stem"), ExitCode.USAGE, "matches only what stays in floating point anyway"),
        (("--for", "openvino", "--exclude", "/Add$"), ExitCode.USAGE, "matches only"),
        (("--calib", "nowhere"), ExitCode.FAILED, "nowhere"),
        (("--report", "fit.json"), ExitCode.USAGE, "--report without --max-drop"),
        (("--data", "x", "--limit", "3", "-p", "x"), ExitCode.USAGE, "--data, --project, --limit without --max-drop"),
        (("--method", "mse", "--percentile", "99"), ExitCode.USAGE, "--percentile with --method mse"),
    ],
)
def test_what_cannot_be(
    words: tuple[str, ...], code: ExitCode, text: str, bundle: Path, frames: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in bundle.iterdir())
    assert quantize(bundle, frames, *words) == code
    assert text in capsys.readouterr().err
    assert sorted(path.name for path in bundle.iterdir()) == before


def test_a_folder_without_a_readable_frame(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    assert quantize(bundle, folder) == ExitCode.FAILED
    assert "No frame" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("quantize",), ("quantize", "--max-drop", "1"), ("sensitivity",)], ids=" ".join)
def test_bare_files_are_refused_before_anything_is_measured(
    words: tuple[str, ...], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / "bare" / "net.onnx"
    network.parent.mkdir()
    shutil.copy(next(bundle.glob("*.onnx")), network)
    # frames that are nowhere would be missed next
    assert main([words[0], str(network), "--calib", "nowhere", *words[1:]]) == ExitCode.FAILED
    error = capsys.readouterr().err
    assert error.count("hnx: ") == 1
    assert "net.onnx is a bare ONNX file, and only a bundle can be quantised" in error
    assert "fix: make a bundle with `hnx export`" in error
    assert "with -o" not in error
    assert [path.name for path in network.parent.iterdir()] == ["net.onnx"]
