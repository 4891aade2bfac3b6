"""NVIDIA's real Python bindings refuse nothing we call, and refuse what a removed guard would call (`.ci/trt`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# version -> guards it needs, as the modules themselves say
VERSIONS = {
    "8.5.3.1": {
        "progress_monitor",
        "optimization_level",
        "hardware_compatibility",
        "same_cc",
        "version_compatible",
        "node_names",
    },
    "8.6.1": {"progress_monitor", "same_cc", "node_names"},
    "10.3.0": {"same_cc"},
    "10.13.3.9": set(),
    "11.4.0.106": {"explicit_batch", "precision_flags"},
}

pytestmark = pytest.mark.trt


@pytest.fixture(scope="module")
def wheels() -> Path:
    """Folder with one folder for each version, which holds the installed bindings."""
    if "HNX_TRT_BINDINGS" not in os.environ:
        pytest.skip(".ci/trt fetches NVIDIA's wheels and says where they are in HNX_TRT_BINDINGS")
    return Path(os.environ["HNX_TRT_BINDINGS"])


@pytest.mark.parametrize("version", VERSIONS)
def test_real_bindings_take_every_call(version: str, wheels: Path, tmp_path: Path) -> None:
    if version == "8.5.3.1" and "HNX_TRT_PYTHON310" not in os.environ:
        pytest.skip("its bindings need Python 3.10")
    python = os.environ["HNX_TRT_PYTHON310"] if version == "8.5.3.1" else sys.executable
    report = tmp_path / "report.json"
    command = [python, "-m", "tests.runtimes.tensorrt.standin", str(wheels / version), str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(report.read_text())
    assert seen["version"] == version
    assert seen["typing"] == ("strong" if version.startswith("11.") else "weak")
    assert seen["plan"] == "fakeplan"
    assert seen["tensors"] == [
        ["images", "input", "float16", [1, 3, 8, 8]],
        ["boxes", "output", "float16", [1, 3, 8, 8]],
    ]
    assert seen["precision"] == "fp16"
    assert seen["outputs"] == {"boxes": [1, 3, 8, 8]}
    assert seen["graph"]
    assert "node 12" in seen["refused"]
    assert ("conv1_quant" in seen["refused"]) == (not version.startswith("8."))
    options = {"optimization_level", "version_compatible", "hardware_compatibility", "same_cc"}
    assert set(seen["not_there"]) == options & VERSIONS[version]
    # mutation: without its guard each call is refused by the bindings themselves
    assert seen["without_guard"].keys() == VERSIONS[version]
    assert all(error.startswith("AttributeError") for error in seen["without_guard"].values()), seen["without_guard"]
