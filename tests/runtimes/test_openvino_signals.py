"""A Ctrl-C after OpenVINO was used in several threads interrupts, and does not crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[2]

SCRIPT = """
import gc, os, signal, sys, threading, time
from pathlib import Path
from hybridnets.bundle import open_bundle
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime

# whoever started the tests may have set SIGINT to be ignored, which children inherit
signal.signal(signal.SIGINT, signal.default_int_handler)
held = []

def use():
    held.append(open_runtime("openvino", open_bundle(Path(sys.argv[1])), RuntimeOptions(threads=1)))

def drop():
    held.pop().close()
    gc.collect()

if sys.argv[2] == "here":
    use()
    other = threading.Thread(target=drop)
    other.start()
    other.join()
else:
    other = threading.Thread(target=use)
    other.start()
    other.join()
    drop()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_runtime_that_another_thread_closes_leaves_signals_alone(where: str, bundle_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(bundle_path), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["interrupted"]
