"""OpenVINO is loaded without the process that its telemetry would start."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_LOOK = """
import os, sys
forks = []
os.register_at_fork(before=lambda: forks.append(1))
from runtimes.openvino import OpenVinoRuntime
version = OpenVinoRuntime.probe().version
import openvino.tools.ovc
# its sender forks from a thread, which ends before the interpreter does
from concurrent.futures import thread
thread._python_exit()
print(bool(version), len(forks), "openvino_telemetry" in sys.modules)
import openvino_telemetry
"""


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None or importlib.util.find_spec("openvino_telemetry") is None,
    reason="needs openvino and openvino_telemetry",
)
def test_importing_openvino_forks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    # it keeps quiet in CI by itself
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "LOCALAPPDATA": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", _LOOK], capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT
    )
    assert found.stdout.split() == ["True", "0", "False"], found.stderr
    assert found.returncode == 0  # who asks for it later gets it
    assert not list(tmp_path.rglob("*"))
