"""`hnx data synth` from the shell's side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hnx.__main__ import main
from hybridnets.files import read_json


def test_it_writes_a_data_set_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "datasets"
    arguments = ["data", "synth", str(folder), "--train", "1", "--val", "1", "--seed", "4", "--workers", "1"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "1 scenes to train on, 1 to evaluate on (2 new)" in captured.out
    assert f"hnx data check {folder}" in captured.out
    assert "2 of 2 scenes" in captured.err
    assert read_json(folder / "manifest.json")["size"] == [720, 1280]
    assert main(arguments) == 0
    assert "(0 new)" in capsys.readouterr().out


def test_refusals_have_three_lines_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "synth", str(tmp_path), "--train", "-3"]) == 2
    assert main(["data", "synth"]) == 2
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "mine.jpg").write_bytes(b"")
    capsys.readouterr()
    assert main(["data", "synth", str(tmp_path), "--train", "1", "--overwrite"]) == 2
    captured = capsys.readouterr()
    assert "holds other data" in captured.err
    assert "why:" in captured.err
    assert "fix:" in captured.err
    assert captured.out == ""


def test_help_costs_no_import_of_the_renderer() -> None:
    code = "import sys; from hnx.__main__ import main; main(['data', 'synth', '--help']); print('cv2' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--lane-width" in result.stdout
    assert result.stdout.strip().endswith("False")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_ends_with_130_and_whole_files(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "hnx", "data", "synth", str(tmp_path / "d"), "--train", "500", "--workers", "2"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    labels = tmp_path / "d" / "det_annot" / "train"
    for _ in range(600):
        if labels.is_dir() and any(labels.iterdir()):
            break
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as a terminal does when it closes
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "stopped" in err
    assert not list(tmp_path.rglob("*.tmp*"))
    for path in labels.iterdir():
        assert read_json(path)["frames"]
