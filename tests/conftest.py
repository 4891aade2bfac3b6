"""Fixtures of the whole suite: real frames and a small bundle that is exported once for all workers."""

from __future__ import annotations

import os

# one thread each: pytest-xdist already runs a worker on every core
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).with_name("data")


@pytest.fixture(scope="session")
def data() -> Path:
    """tests/data."""
    return DATA


@pytest.fixture(scope="session")
def road_image() -> Path:
    """A real 1280x720 frame."""
    from hybridnets.data import demo_frame

    return demo_frame()


@pytest.fixture(scope="session")
def road_video() -> Path:
    """38 real frames of 1280x720 at 25 frames/s."""
    return DATA / "frames" / "highway_1280x720.mp4"


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proved bundle of the untrained coefficient 0 at 256x128, made by the command itself. Do not change it."""
    base = tmp_path_factory.getbasetemp()
    # beside the folders of the session's workers; without workers there is one folder, and its parent has all sessions
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-bundle"
    shared.mkdir(exist_ok=True)
    path = shared / "hybridnets_c0_128x256"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            options = ["-w", "untrained", "-c", "0", "--size", "256x128", "-o", str(shared)]
            command = [sys.executable, "-m", "hnx", "export", *options]
            subprocess.run(command, check=True, capture_output=True, timeout=300)
    return path
