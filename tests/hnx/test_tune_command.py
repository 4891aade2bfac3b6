"""`hnx tune` on the smallest bundle: what it finds is kept, shown, removed; what cannot be is refused first."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tuning import engine
from benchmarks.tuning.config import TuneConfig
from benchmarks.tuning.losses import Losses
from benchmarks.tuning.settings import Setting
from benchmarks.tuning.timing import Timed
from hnx.__main__ import main
from hybridnets.bundle import Bundle, GraphForm, open_bundle
from hybridnets.bundle.tuning import read_tuning
from hybridnets.errors import ExitCode, HnxError


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[TuneConfig]:
    """Made-up times, and losses that grow with what is saved; the configurations that were asked about."""
    asked: list[TuneConfig] = []
    ms = {"fp32": 10.0, "fp16": 6.2, "bf16": 6.0, "int8": 9.0}

    def time(graphs: Mapping[str, Bundle], runtime: str, settings: Sequence[Setting], **_: Any) -> dict[Setting, Timed]:
        return {setting: Timed((ms[setting.precision],) * 4, ms[setting.precision], "?") for setting in settings}

    def losses(config: TuneConfig, names: Sequence[str], *_: Any) -> Losses:
        asked.append(config)
        return Losses({name: {"mAP50": 0.1, "lane IoU": -0.05} for name in names}, 12, "scenes")

    monkeypatch.setattr(engine, "time_settings", time)
    monkeypatch.setattr(engine, "measure_losses", losses)
    monkeypatch.setattr(engine, "precisions", lambda bundle, runtime: (["fp32", "bf16"], {"int8": "none is stored"}))
    return asked


@pytest.fixture
def labels(data: Path) -> list[str]:
    return ["--data", str(data / "parity" / "dataset"), "--limit", "2"]


def test_found_kept_shown_and_removed(
    bundle: Path, labels: list[str], measured: list[TuneConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(bundle), "--show"]) == ExitCode.OK
    assert "is not tuned for openvino" in capsys.readouterr().out
    assert main(["tune", str(bundle), "--threads", "1", *labels]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "bf16, 1 thread(s), 1 stream(s): 0.60 of fp32's time" in captured.out
    assert "12 labelled image(s) of scenes; at most 0.5 were allowed" in captured.out
    assert "int8 was not tried: none is stored" in captured.err
    assert measured[0].split is not None
    kept = read_tuning(open_bundle(bundle), "openvino")
    assert kept is not None
    assert (kept.precision, kept.threads, kept.measure) == ("bf16", 1, "labels")
    assert main(["tune", str(bundle), "--show"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "0.60 of fp32's time" in captured.out
    assert "not used here" not in captured.err
    assert main(["tune", str(bundle), "--reset"]) == ExitCode.OK
    assert read_tuning(open_bundle(bundle), "openvino") is None
    assert main(["tune", str(bundle), "--reset"]) == ExitCode.OK
    assert "was not tuned" in capsys.readouterr().out


def test_the_next_command_shows_what_was_found(
    bundle: Path,
    labels: list[str],
    measured: list[TuneConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del measured

    def time(graphs: Mapping[str, Bundle], runtime: str, settings: Sequence[Setting], **_: Any) -> dict[Setting, Timed]:
        return {setting: Timed((9.0 / setting.streams,) * 4, 9.0 / setting.streams, "?") for setting in settings}

    monkeypatch.setattr(engine, "time_settings", time)
    for goal, streams in (("latency", ""), ("throughput", " --scenario multi --streams 2")):
        assert main(["tune", str(bundle), "--threads", "2", "--goal", goal, *labels]) == ExitCode.OK
        last = capsys.readouterr().out.splitlines()[-1]
        assert last == f"Next: hnx bench {bundle} --runtime openvino:fp32,openvino:tuned{streams}"


def test_a_dry_run_keeps_nothing(
    bundle: Path, labels: list[str], measured: list[TuneConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    assert main(["tune", str(bundle), "--dry-run", *labels]) == ExitCode.OK
    assert "nothing was kept" in capsys.readouterr().out
    assert (bundle / "manifest.json").read_bytes() == before
    # a bare file can be measured, too
    network = bundle.parent / "bare" / "net.onnx"
    network.parent.mkdir()
    shutil.copy(next(bundle.glob("*.onnx")), network)
    assert main(["tune", str(network), "--dry-run", *labels]) == ExitCode.OK
    assert main(["tune", str(network), *labels]) == ExitCode.FAILED
    assert "no manifest to keep" in capsys.readouterr().err


def test_what_is_shown_of_another_machine(
    bundle: Path, labels: list[str], measured: list[TuneConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(bundle), *labels]) == ExitCode.OK
    where = bundle / "manifest.json"
    manifest = json.loads(where.read_text())
    manifest["tuning"]["openvino"]["place"]["cpu"] = "Another \x1b[31mCPU"
    where.write_text(json.dumps(manifest))
    assert main(["tune", str(bundle), "--show"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "on Another" in captured.out
    assert "not used here: CPU" in captured.err
    assert "\x1b" not in captured.out + captured.err
    stored = manifest["tuning"]["openvino"]
    stored["source"] = stored["rewrites"] = "a \x1b[31mlie"
    for row in stored["rows"]:
        row["rewrites"] = row["verdict"] = "a \x1b[31mlie"
    where.write_text(json.dumps(manifest))
    assert main(["tune", str(bundle), "--show"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "31mlie" in captured.out
    assert "\x1b" not in captured.out + captured.err
    manifest["tuning"]["openvino"]["threads"] = "many"
    where.write_text(json.dumps(manifest))
    assert main(["tune", str(bundle), "--show"]) == ExitCode.FAILED
    assert "--reset" in capsys.readouterr().err
    assert main(["tune", str(bundle), "--reset"]) == ExitCode.OK


def test_frames_without_labels(
    bundle: Path, road_video: Path, measured: list[TuneConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(bundle), "--frames", str(road_video)]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "points of disagreement with fp32" in captured.out
    assert "agreement is not accuracy" in captured.out
    assert measured[0].budget == 3.0


def test_a_network_that_no_labels_fit(
    bundle: Path, measured: list[TuneConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    where = bundle / "manifest.json"
    where.write_text(where.read_text().replace('"car"', '"tram"'))
    assert main(["tune", str(bundle)]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "no labels for this network" in captured.err
    assert "agreement is not accuracy" in captured.out
    # asked for by name, it is an error
    assert main(["tune", str(bundle), "-p", "bdd100k"]) == ExitCode.USAGE


def test_an_export_without_rewrites(
    bundle: Path, labels: list[str], measured: list[TuneConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(bundle), *labels]) == ExitCode.OK
    assert "exact rewrites" not in capsys.readouterr().err
    where = bundle / "manifest.json"
    manifest = json.loads(where.read_text())
    manifest["rewrites"] = []
    where.write_text(json.dumps(manifest))
    assert main(["tune", str(bundle), *labels]) == ExitCode.OK
    assert "hnx export --rewrite all" in capsys.readouterr().err


def test_other_rewrites(
    bundle: Path,
    labels: list[str],
    road_image: Path,
    measured: list[TuneConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The made-up times prefer one graph; it goes into the bundle, is shown, run and removed again."""
    asked: list[str] = []

    def export(source: Bundle, folder: Path, rewrite: str, form: GraphForm) -> Bundle:
        asked.append(rewrite)
        assert form == source.form
        return open_bundle(shutil.copytree(source.path, folder))

    monkeypatch.setattr("benchmarks.exports.export_again", export)
    base = engine.time_settings

    def time(graphs: Mapping[str, Bundle], runtime: str, settings: Sequence[Setting], **_: Any) -> Any:
        found = base(graphs, runtime, [replace(setting, precision="fp32") for setting in settings], **_)
        share = {setting: 0.8 if setting.rewrites == "none" else 1.0 for setting in settings}
        return {s: Timed((10 * share[s],) * 4, 10 * share[s], "?") for s in settings} if found else {}

    monkeypatch.setattr(engine, "time_settings", time)
    assert main(["tune", str(bundle), "--rewrites", "--threads", "1", *labels]) == ExitCode.OK
    captured = capsys.readouterr()
    assert asked[0] == "none"
    assert len(asked) == 5  # and all but each of the four that found something in a network of Swish
    assert "fp32, 1 thread(s), 1 stream(s), rewrites: none: 0.80 of fp32's time" in captured.out
    assert "as it is" in captured.out
    (made,) = bundle.glob("*-tuned-*.onnx")
    assert main(["tune", str(bundle), "--show"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "rewrites: none" in captured.out
    assert "not used here" not in captured.err
    words = ["infer", str(road_image), "-b", str(bundle), "-r", "openvino", "-o", "out", "--no-draw", "--threads", "1"]
    assert main(words) == ExitCode.OK
    assert "fp32, 1 thread(s), rewrites: none" in capsys.readouterr().err
    assert main(["tune", str(bundle), "--reset"]) == ExitCode.OK
    assert not made.exists()


def test_graphs_that_cannot_be_exported_are_left_out(
    bundle: Path,
    labels: list[str],
    measured: list[TuneConfig],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def export(source: Bundle, folder: Path, rewrite: str, form: GraphForm) -> Bundle:
        raise HnxError(f"No export with {rewrite}", why="it differs")

    monkeypatch.setattr("benchmarks.exports.export_again", export)
    assert main(["tune", str(bundle), "--rewrites", "--threads", "1", *labels]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "No export with none: it differs" in captured.err
    assert "bf16, 1 thread(s), 1 stream(s): 0.60 of fp32's time" in captured.out


def test_rewrites_that_nothing_can_be_made_of(
    bundle: Path, labels: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", str(bundle), "--rewrites", *labels]
    assert main([*words, "--runtime", "torch"]) == ExitCode.USAGE
    assert "runs the weights, not a graph" in capsys.readouterr().err
    assert main([*words, "--runtime", "tensorrt"]) == ExitCode.USAGE
    assert "runs plans, not a graph" in capsys.readouterr().err
    bare = bundle.parent / "bare" / "net.onnx"
    bare.parent.mkdir()
    shutil.copy(next(bundle.glob("*.onnx")), bare)
    assert main(["tune", str(bare), "--dry-run", *words[2:]]) == ExitCode.USAGE
    assert "is a bare ONNX file" in capsys.readouterr().err
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "onnxsim", None)
        assert main(words) == ExitCode.NOTHING_RAN
    assert "[export]" in capsys.readouterr().err
    where = bundle / "manifest.json"
    manifest = json.loads(where.read_text())
    manifest["model"]["weights"] = None
    where.write_text(json.dumps(manifest))
    assert main(words) == ExitCode.USAGE
    assert "--no-weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--show", "--rewrites"], ExitCode.USAGE, "for measuring"),
        (["--runtime", "openvin"], ExitCode.USAGE, "did you mean 'openvino'"),
        (["--show", "--reset"], ExitCode.USAGE, "exclude each other"),
        (["--frames", "x", "--data", "y"], ExitCode.USAGE, "takes no labels"),
        (["--data", "nowhere"], ExitCode.FAILED, "nowhere"),
        (["--frames", "nowhere.mp4"], ExitCode.FAILED, "nowhere"),
        (["--max-drop", "-1"], ExitCode.USAGE, "max-drop"),
        (["--rounds", "1"], ExitCode.USAGE, "rounds"),
    ],
)
def test_what_cannot_be(
    words: list[str], code: ExitCode, text: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / "manifest.json").read_bytes()
    assert main(["tune", str(bundle), "--runtime", "onnxruntime", *words]) == code
    assert text in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before


def test_everything_for_real(bundle: Path, road_video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained network and few frames: real times, real agreement, a setting that is kept and holds."""
    words = ["--frames", str(road_video), "--limit", "2", "--threads", "1", "--rounds", "3"]
    assert main(["tune", str(bundle), *words]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "chosen" in captured.out
    assert main(["tune", str(bundle), "--show"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert "chosen" in captured.out
    assert "not used here" not in captured.err
