"""The image's recipe and the scripts of boards, as far as they can be held without a board."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYERS = {"hybridnets", "runtimes", "export", "calibration", "benchmarks", "tools", "hnx"}
METADATA = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE"}


def test_the_image_gets_every_layer_and_nothing_but_them() -> None:
    recipe = (ROOT / "tools" / "docker" / "Dockerfile.l4t").read_text()
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", recipe, re.MULTILINE) for name in line.split()}
    assert copied - {"tools/docker/python310.sh"} == LAYERS | METADATA
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == LAYERS | METADATA
    assert "torch" not in re.sub(r"^#.*$", "", recipe, flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("name", ["verify_on_device.sh", "docker/python310.sh"])
def test_scripts_are_read_by_the_shell(name: str) -> None:
    path = ROOT / "tools" / name
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_new_enough_python_is_left_alone(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "tools" / "docker" / "python310.sh"), str(tmp_path / "new")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "new").exists()
