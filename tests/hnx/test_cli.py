"""The command line as a shell sees it: help, exit codes, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hnx.__main__ import main
from hnx.cli import COMMANDS
from hybridnets.errors import ExitCode, HnxError
from tests import boards


def hnx(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "hnx", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=300,
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from hnx.__main__ import main\n"
        "try: main(['--help'])\n"
        "finally: print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'numpy', 'cv2', 'torch', 'yaml', 'rich', 'onnx', 'onnxruntime', 'openvino'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    for name in COMMANDS:
        assert f"  {name} " in result.stdout


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert "Usage: hnx" in text
    assert "Example" in text
    assert name in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from hybridnets.version import __version__

    assert main(["--version"]) == ExitCode.OK
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["exprot"], ExitCode.USAGE, "did you mean 'export'"),
        (["export", "--widht", "640"], ExitCode.USAGE, "--width"),
        (["export", "--width", "600", "--height", "384"], ExitCode.USAGE, "use 512 or 640"),
        (["export", "--size", "640"], ExitCode.USAGE, "640x384"),
        (["export", "--size", "640x384", "--width", "640"], ExitCode.USAGE, "not both"),
        (["export", "-w", ""], ExitCode.FAILED, "fix"),
        (["export", "-c", "9"], ExitCode.USAGE, "coefficient 9"),
        (["export", "-w", "absent.pth"], ExitCode.USAGE, "absent.pth"),
        (["export", "-p", "absent.yml"], ExitCode.FAILED, "absent.yml"),
        (["bench", "absent-bundle"], ExitCode.FAILED, "absent-bundle"),
        (["infer", "absent.jpg", "-b", "absent-bundle"], ExitCode.FAILED, "absent"),
        (["compare", "absent-bundle"], ExitCode.FAILED, "absent-bundle"),
        (["compare", "a", "b", "c"], ExitCode.USAGE, "one bundle, or two"),
        (["compare", "--runtime", "torch"], ExitCode.USAGE, "two runtimes"),
        (["compare", "--runtime", "torch,opnvino"], ExitCode.USAGE, "did you mean 'openvino'"),
    ],
)
def test_mistakes(
    arguments: list[str],
    code: ExitCode,
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_errors_become_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hnx import cli

    cases: list[tuple[BaseException, int, str]] = [
        (HnxError("what", why="why", fix="fix", code=ExitCode.GATE_FAILED), 3, "hnx: what\n  why: why\n  fix: fix"),
        (KeyboardInterrupt(), 130, "stopped"),
        (MemoryError(), 1, "Not enough memory"),
        (OSError(28, "No space left on device", "x"), 1, "the disk is full"),
        (ZeroDivisionError("boom"), 1, "Internal error: ZeroDivisionError: boom"),
    ]
    for error, code, words in cases:

        def raising(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(cli.cli, "main", raising)
        assert main([]) == code
        text = capsys.readouterr().err
        assert words in text
        assert "Traceback" not in text


def test_errors_survive_a_process_boundary() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(HnxError("a", why="b", fix="c", code=ExitCode.NOTHING_RAN)))
    assert (error.what, error.why, error.fix, error.code) == ("a", "b", "c", ExitCode.NOTHING_RAN)


def test_a_closed_pipe_of_remarks_is_no_error(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    # the note about the default answers on standard error, whose reader has gone
    result = subprocess.run(
        f"{sys.executable} -m hnx doctor --json machine.json 2>&1 >/dev/null | true; test -s machine.json",
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=300,
    )
    assert result.returncode == 0


def test_a_closed_pipe_is_no_error() -> None:
    root = Path(__file__).parents[2]
    result = subprocess.run(
        f"{sys.executable} -m hnx --help | head -1", shell=True, capture_output=True, text=True, cwd=root
    )
    assert result.stderr == ""
    assert result.stdout.startswith("Usage")


def test_doctor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    assert main(["doctor", "--json", str(path)]) == ExitCode.OK
    text = capsys.readouterr().out
    for name in ("openvino", "onnxruntime", "torch", "opencv-dnn", "instruction sets", "Jetson"):
        assert name in text
    findings = json.loads(path.read_text())
    assert {row["name"] for row in findings["runtimes"]} >= {"openvino", "torch"}
    assert all(row["available"] or (row["reason"] and row["fix"]) for row in findings["runtimes"])


def test_doctor_on_a_jetson(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from benchmarks import children
    from runtimes import sysfs

    board = sysfs.Tree(boards.agx_orin(tmp_path))
    ready = {"version": "1", "runnable": ["fp32"], "precisions": {"fp32": ""}, "reason": "", "fix": ""}
    monkeypatch.setattr(sysfs, "Tree", lambda: board)
    monkeypatch.setattr(children, "probe_apart", lambda name: ready)
    path = tmp_path / "machine.json"
    assert main(["doctor", "--json", str(path)]) == ExitCode.OK
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "AGX Orin Developer Kit",
        "6.1 (L4T 36.4.0)",
        "TensorRT 10.3",
        "2 cores",
        "nvidia-jetpack",
        "ina3221",
    ):
        assert words in text
    findings = json.loads(path.read_text())
    assert {row["name"]: row["reason"] for row in findings["power"]}["ina3221"] == ""
    assert "TensorRT" in [row["what"] for row in findings["jetson"]]


def test_doctor_with_nothing_runnable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import children

    def missing(name: str) -> dict[str, Any]:
        fix = f"pip install {name}"
        return {"version": "", "runnable": [], "precisions": {}, "reason": "not installed", "fix": fix}

    monkeypatch.setattr(children, "probe_apart", missing)
    assert main(["doctor"]) == ExitCode.NOTHING_RAN
    assert "pip install openvino" in capsys.readouterr().out


def test_compare_agrees_and_gates(bundle_path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "agreement.json"
    arguments = ["compare", str(bundle_path), "--runtime", "torch,openvino", "--json", str(path), "--threads", "1"]
    assert main(arguments) == ExitCode.OK
    report = json.loads(path.read_text())
    assert report["outputs"]["segmentation"]["rel_l2"] < 1e-4
    assert report["pixel_agreement"] > 0.99
    assert report["problems"] == []
    assert len(report["input_sha256"]) == 64
    capsys.readouterr()
    assert main([*arguments, "--tolerance", "1e-12"]) == ExitCode.GATE_FAILED
    assert "beyond tolerance" in capsys.readouterr().err


def test_compare_names_what_it_could_not_read(
    bundle_path: Path, road_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(road_image.read_bytes())
    (tmp_path / "in" / "b.jpg").write_bytes(road_image.read_bytes()[:999])
    words = ["compare", str(bundle_path), "--source", str(tmp_path / "in"), "--json", str(tmp_path / "a.json")]
    words += ["--runtime", "onnxruntime,opencv-dnn", "--threads", "1"]
    assert main(words) == ExitCode.FAILED
    text = capsys.readouterr()
    assert "1 frame(s)" in text.out
    assert "b.jpg" in text.err
    assert "1 of 2 images could not be read" in text.err
    assert json.loads((tmp_path / "a.json").read_text())["unreadable"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ["eval", "--max-drop", "nan"],
        ["report", "a.json", "--max-drop", "NaN"],
        ["bench", "--max-regression", "inf"],
        ["tune", "--max-drop", "nan"],
        ["infer", "a.jpg", "--conf", "nan"],
        ["compare", "--tolerance", "inf"],
    ],
)
def test_limits_are_numbers_that_something_can_be_above(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == ExitCode.USAGE
    assert f"{words[-1]} is not a finite number" in capsys.readouterr().err


def test_export_default_in_an_empty_folder(tmp_path: Path) -> None:
    result = hnx("export", "-c", "0", "--width", "128", "--height", "128", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "proved" in result.stdout
    assert "untrained" in result.stderr
    folder = tmp_path / "exports" / "hybridnets_c0_128x128"
    assert sorted(path.name for path in folder.iterdir()) == [
        "anchor_128_128.npy", "hybridnets_128x128.onnx", "manifest.json", "weights.safetensors",
    ]  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o755


SPEAK = """
import sys
from hnx import __main__, cli
cli.cli.main = lambda **_: [print(chr(0xD7) * 9, chr(0xDC80)) for _ in range(20_000)] and 0
__main__.run()
"""


@pytest.mark.parametrize(
    ("shell", "code"),
    [("{} | head -n 1", 0), ("{} >&-", 0), ("{} >/dev/full", 1), ("PYTHONIOENCODING=ascii {} >/dev/null", 0)],
)
def test_standard_output_of_any_kind(tmp_path: Path, shell: str, code: int) -> None:
    (tmp_path / "speak.py").write_text(SPEAK)
    command = "set -o pipefail; " + shell.format(f"'{sys.executable}' '{tmp_path / 'speak.py'}'")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr
    assert "Exception" not in done.stderr
    assert "Error" not in done.stderr
    assert ("disk is full" in done.stderr) == (code == 1)


def test_a_folder_that_was_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["doctor"]) == ExitCode.FAILED
    assert "no longer exists" in capsys.readouterr().err


def test_names_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from hnx.console import note, success

    note("a\x1b[31m\nb")
    success("\u202ec")
    text = capsys.readouterr()
    assert text.err == "note: a\\x1b[31m\nb\n"
    assert text.out == "\\u202ec\n"
    assert str(HnxError("a\nb\x07")) == "a\\nb\\x07"


@pytest.mark.parametrize("options", [["--tolerance", "nan"], ["--json", "."]])
def test_compare_refuses_before_it_runs(bundle_path: Path, options: list[str]) -> None:
    assert main(["compare", str(bundle_path), *options]) == ExitCode.USAGE
