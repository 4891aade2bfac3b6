"""`hnx weights` from the shell's side, and which weights commands take by default."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hnx.__main__ import main
from hnx.cli import cli
from hnx.defaults import Chosen, choose_weights
from hybridnets.errors import HnxError
from hybridnets.files import write_json
from hybridnets.weights import UPSTREAM, WeightsEntry, registry
from tests.hybridnets.weights.servers import Faults, serve

DATA = b"PK\x03\x04 not really a network"
DIGEST = hashlib.sha256(DATA).hexdigest()


def entry(name: str = "c0-384x256", **changes: object) -> WeightsEntry:
    found = WeightsEntry(
        name=name,
        compound_coef=0,
        size=(384, 256),
        activation="swish",
        classes=("car",),
        seg_classes=("road", "lane"),
        licence="MIT",
        summary="a [test]",
        file=f"{name}.safetensors",
        bytes=len(DATA),
        sha256=DIGEST,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(cli._members, "weights", "")  # type: ignore[attr-defined]
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(registry, "FILES", folder)
    monkeypatch.setenv("HNX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


def ship(files: Path, *found: WeightsEntry) -> None:
    for one in found:
        (files / one.file).write_bytes(DATA)
    write_json(files / "index.json", {"schema_version": 1, "weights": [one.to_json() for one in found]})


def test_the_list_is_a_table_or_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert "hybridnets-v1" in out
    assert "hnx weights download hybridnets-v1" in out
    ship(files, entry())
    assert main(["weights", "list"]) == 0
    out = capsys.readouterr().out
    assert "a [test]" in out
    assert "hnx export -w c0-384x256" in out
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["state"]) for row in rows] == [
        ("c0-384x256", "shipped"),
        ("hybridnets-v1", "to download"),
    ]
    assert rows[0]["path"] == str(files / "c0-384x256.safetensors")
    assert rows[0]["sha256"] == DIGEST
    assert rows[1]["sha256"] is None


def test_the_list_needs_no_home(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("no home")

    for name in ("HNX_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert main(["weights", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["path"] is None
    assert main(["weights", "path", "hybridnets-v1"]) == 1
    assert "HNX_CACHE" in capsys.readouterr().err


def test_path_prints_the_path_alone(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ship(files, entry())
    assert main(["weights", "path", "c0-384x256"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{files / 'c0-384x256.safetensors'}\n"
    assert captured.err == ""
    assert main(["weights", "path", "hybridnets-v1"]) == 1
    assert main(["weights", "path", "hybridnet-v1"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "fix: hnx weights download hybridnets-v1" in captured.err
    assert "did you mean 'hybridnets-v1'" in captured.err


def test_download_prints_the_path_and_says_what_it_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(DATA)
    with serve(faults) as url:
        monkeypatch.setattr(registry, "UPSTREAM", replace(UPSTREAM, url=url))
        assert main(["weights", "download", "hybridnets-v1"]) == 0
        captured = capsys.readouterr()
        path = tmp_path / "cache" / "weights" / "hybridnets.pth"
        assert captured.out == f"{path}\n"
        assert "nobody has published a digest" in captured.err
        assert "MB" in captured.err
        assert main(["weights", "path", "hybridnets-v1"]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert main(["weights", "download", "hybridnets-v1", "-o", str(tmp_path / "there")]) == 0
        assert (tmp_path / "there" / "hybridnets.pth").read_bytes() == DATA
        assert main(["weights", "list", "--json"]) == 0
        assert '"downloaded"' in capsys.readouterr().out
        faults.codes = [404]
        assert main(["weights", "download", "hybridnets-v1", "--again"]) == 1
        err = capsys.readouterr().err
        assert "404" in err
        assert "fix:" in err
        assert path.read_bytes() == DATA


def test_shipped_ones_need_no_download(files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ship(files, entry())
    assert main(["weights", "download", "c0-384x256"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{files / 'c0-384x256.safetensors'}\n"
    assert "nothing to download" in captured.err
    assert main(["weights", "download", "c0-384x256", "-o", str(tmp_path / "d")]) == 0
    assert (tmp_path / "d" / "c0-384x256.safetensors").read_bytes() == DATA


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_keeps_what_has_arrived(tmp_path: Path, number: signal.Signals) -> None:
    faults = Faults(DATA * 1000, cut=[5000, None])
    with serve(faults) as url:
        code = (
            "import sys\nfrom dataclasses import replace\nfrom hnx.cli import cli\n"
            "from hybridnets.weights import registry\n"
            "cli._members['weights'] = ''\n"
            f"registry.UPSTREAM = replace(registry.UPSTREAM, url={url!r})\n"
            "from hnx.__main__ import run\nsys.argv = ['hnx', 'weights', 'download', 'hybridnets-v1']\nrun()"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        part = tmp_path / "cache" / "weights" / "hybridnets.pth.part"
        for _ in range(300):
            if part.exists() and part.stat().st_size == 5000:
                break
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "Traceback" not in err
        assert part.stat().st_size == 5000


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hnx.cli import cli\ncli._members['weights'] = ''\nfrom hnx.__main__ import main\n"
        "main(['weights', 'download', '--help']); main(['weights', '--help'])\n"
        "print(sorted({'numpy', 'torch', 'urllib.request', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HNX_CACHE" in result.stdout
    assert result.stdout.strip().endswith("[]")


def test_names_and_files_are_taken_as_they_are(files: Path, tmp_path: Path) -> None:
    ship(files, entry())
    chosen = choose_weights("c0-384x256")
    assert (chosen.path, chosen.remark, chosen.size) == (files / "c0-384x256.safetensors", "", (384, 256))
    assert "c0-384x256 was trained at 384x256" in choose_weights("c0-384x256", size=(640, 384)).remark
    (tmp_path / "a.pth").write_bytes(b"x")
    assert choose_weights(Path("a.pth"), size=(640, 384)) == Chosen(Path("a.pth"))
    with pytest.raises(HnxError):
        choose_weights("c1")
    assert choose_weights("untrained").path is None
    assert "as asked" in choose_weights("untrained").remark


def test_nobody_named_any(files: Path, tmp_path: Path) -> None:
    chosen = choose_weights(None)
    assert chosen.path is None
    assert "untrained" in chosen.remark
    ship(files, entry(), entry("c0-384x256-hardswish", activation="hardswish"))
    chosen = choose_weights(None)
    assert chosen.path == files / "c0-384x256.safetensors"
    assert chosen.size == (384, 256)
    assert "using c0-384x256" in chosen.remark
    assert "trained at" not in chosen.remark
    chosen = choose_weights(None, compound_coef=0, size=(640, 384))
    assert "trained at 384x256" in chosen.remark
    assert "640x384" in chosen.remark
    assert choose_weights(None, activation="hardswish").path == files / "c0-384x256-hardswish.safetensors"
    assert choose_weights(None, compound_coef=3).path is None
    assert choose_weights(None, backbone="resnet18").path is None


def test_a_project_with_other_classes_gets_no_default(files: Path, tmp_path: Path) -> None:
    ship(files, entry())
    assert choose_weights(None, project="bdd100k").path is not None
    text = (Path(registry.__file__).parents[1] / "projects" / "bdd100k.yml").read_text()
    other = tmp_path / "other.yml"
    other.write_text(text.replace("seg_list: [road, lane]", "seg_list: [road, line]"))
    assert choose_weights(None, project=str(other)).path is None


def test_the_place_of_upstreams_comes_first_for_its_coefficient(files: Path, tmp_path: Path) -> None:
    ship(files, entry())
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "hybridnets.pth").write_bytes(DATA)
    chosen = choose_weights(None)
    assert chosen.path == Path("weights") / "hybridnets.pth"
    assert "using weights" in chosen.remark
    assert choose_weights(None, compound_coef=0).path == files / "c0-384x256.safetensors"
    assert choose_weights(None, activation="hardswish").path is None


def test_quickstart_refuses_unknown_weights_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quickstart", "-w", "c0-384x257"]) == 2
    assert "no weights called" in capsys.readouterr().err


def test_shipped_weights_become_the_default_bundle(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hnx.defaults import export_default, resolve_bundle
    from hybridnets.checkpoint import save_safetensors
    from hybridnets.config import ModelConfig
    from hybridnets.network import create_model
    from tools.pack_weights import PackConfig, pack

    metadata = {
        "classes": ["car"],
        "seg_classes": ["road", "lane"],
        "anchors": {"scales": [1.0, 1.62, 2.5], "ratios": [[0.62, 1.58], [1.0, 1.0], [1.58, 0.62]]},
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    save_safetensors(tmp_path / "best.safetensors", create_model(ModelConfig(0)).eval(), metadata)
    packed = pack(PackConfig(tmp_path / "best.safetensors", "c0-256x128", (256, 128), "a test"))
    bundle = resolve_bundle(None)
    assert bundle.path == Path("exports") / "hybridnets_c0_128x256"
    assert not bundle.untrained
    assert bundle.manifest["model"]["source"]["sha256"] == packed.entry.sha256
    err = capsys.readouterr().err
    assert "using c0-256x128" in err
    assert "untrained network" not in err
    with pytest.raises(HnxError, match="no weights called"):
        export_default("c0-128x256")
