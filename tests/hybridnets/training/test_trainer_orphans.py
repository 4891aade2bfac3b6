"""No reading process outlives its run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.processes import alive

ROOT = Path(__file__).parents[3]

_PARENT = """
import multiprocessing, os, time
from hybridnets.training.orphans import end_with_parent

def child(pipe):
    end_with_parent()
    pipe.send(os.getpid())
    time.sleep(600)

if __name__ == "__main__":
    end_with_parent()  # nobody's child: nothing happens
    context = multiprocessing.get_context("forkserver")
    mine, other = context.Pipe()
    process = context.Process(target=child, args=(other,))
    process.start()
    print(mine.recv(), os.getpid(), flush=True)
    time.sleep(600)
"""


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline().split()[0])
    assert alive(child)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)
