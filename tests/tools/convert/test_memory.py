"""Memory of large files, measured in processes of their own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tools.convert.builders import image

ROOT = Path(__file__).parents[3]
SMALL = {"width": 128, "height": 72}
_INDEX = """
import sys, tracemalloc
from pathlib import Path
from tools.convert.index import JsonIndex
tracemalloc.start()
index = JsonIndex(Path(sys.argv[1]))
held, peak = tracemalloc.get_traced_memory()
print(len(index), held, peak)
"""
_CONVERT = """
import resource, sys
from pathlib import Path
from tools.convert import ConvertConfig, convert, make_plan
if __name__ == "__main__":
    config = ConvertConfig(Path(sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]), images="link")
    (report,) = convert(config, make_plan(config))
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(report.frames, own, children)
"""


def det(name: str, chance: random.Random, boxes: int) -> dict[str, Any]:
    """A frame as large as an official one."""
    labels = []
    for index in range(boxes):
        x, y = chance.uniform(0, 100), chance.uniform(0, 50)
        corners = {"x1": x, "y1": y, "x2": x + chance.uniform(1, 20), "y2": y + chance.uniform(1, 20)}
        attributes = {"occluded": False, "truncated": False, "trafficLightColor": "NA"}
        labels.append({"id": str(index), "attributes": attributes, "category": "car", "box2d": corners})
    about = {"weather": "clear", "scene": "city street", "timeofday": "daytime"}
    return {"name": f"{name}.jpg", "size": SMALL, "attributes": about, "timestamp": 10000, "labels": labels}


def names(count: int) -> list[str]:
    return [f"{i:08x}-{i:08x}" for i in range(count)]


def write_list(path: Path, frames: Any) -> Path:
    """A list of frames, indented as the official ones are, without holding it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        for index, frame in enumerate(frames):
            stream.write(("[" if index == 0 else ",") + json.dumps(frame, indent=4))
        stream.write("]")
    return path


def call(code: str, *arguments: str | Path) -> list[int]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [int(word) for word in done.stdout.split()]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    chance = random.Random(3)
    held, peaks, sizes = [], [], []
    for count in (200, 1400):
        path = write_list(tmp_path / f"{count}.json", (det(name, chance, 18) for name in names(count)))
        found, kept, peak = call(_INDEX, path)
        assert found == count
        held.append(kept)
        peaks.append(peak)
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] > 9_000_000
    # the place of a frame, not the frame: its name, one integer, and its slot in the table
    assert (held[1] - held[0]) / 1200 < 400
    assert peaks[1] - peaks[0] < 3_000_000


@pytest.mark.slow
def test_100_000_frames(tmp_path: Path) -> None:
    count, chance = 100_000, random.Random(3)
    root = tmp_path / "in"
    folder = root / "images/100k/train"
    folder.mkdir(parents=True)
    picture = image(tmp_path / "picture.jpg")
    for name in names(count):
        (folder / f"{name}.jpg").symlink_to(picture)
    path = write_list(root / "labels/det_20/det_train.json", (det(name, chance, 18) for name in names(count)))
    assert path.stat().st_size > 400_000_000
    square = [{"vertices": [[10, 70], [60, 30], [110, 70]], "types": "LLL", "closed": True}]
    line = [{"vertices": [[10, 70], [60, 30]], "types": "LL", "closed": False}]
    for part, category, shape in (("drivable", "direct", square), ("lane", "single white", line)):
        label = {"id": "0", "category": category, "attributes": {}, "poly2d": shape}
        frames = ({"name": f"{name}.jpg", "size": SMALL, "labels": [label]} for name in reversed(names(count)))
        write_list(root / f"labels/{part}/polygons/{part}_train.json", frames)
    (tmp_path / "convert.py").write_text(_CONVERT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "convert.py"), str(root), str(tmp_path / "out"), "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    frames_written, own, worker = map(int, done.stdout.split())
    print(f"{path.stat().st_size} bytes, peak {own} kB in the main process, {worker} kB in the largest worker")
    assert frames_written == count
    assert own < 300_000
    assert worker < 300_000
