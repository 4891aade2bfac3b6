"""The four files of a scene, and many scenes by several processes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset.workers import ordered_map
from hybridnets.errors import HnxError
from hybridnets.files import write_bytes, write_json
from tools.synth.config import SynthConfig
from tools.synth.scene import Scene, render_scene

__all__ = ["Job", "label_json", "write_all", "write_scene"]

_GRACE_S = 10.0  # a scene takes a third of a second; a disk may be slow


@dataclass(frozen=True)
class Job:
    """A scene to write."""

    split: str
    index: int

    @property
    def name(self) -> str:
        """The stem of its files."""
        return f"{self.split}-{self.index:06d}"

    def __str__(self) -> str:
        return self.name


def write_all(config: SynthConfig, jobs: Sequence[Job]) -> Generator[None, None, None]:
    """Write scenes; yields after each. Closing the generator lets workers finish the scene they are at.

    Raises:
        HnxError: a file cannot be written, or a worker died.
    """
    count = min(config.processes, len(jobs))
    if count > 1:
        yield from ordered_map(
            functools.partial(write_scene, config), jobs, workers=count, prefetch=8 * count, grace_s=_GRACE_S
        )
        return
    with _one_thread():
        for job in jobs:
            write_scene(config, job)
            yield


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV's own threads gain nothing here."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def label_json(scene: Scene) -> dict[str, Any]:
    """BDD's oldest form, one file for each picture: what upstream reads.

    Corners are positions, (0, 0) is the first pixel's upper left corner: x2 - x1 is the width in pixels.
    """
    objects = []
    for number, found in enumerate(scene.objects):
        x1, y1, x2, y2 = found.box
        attributes = {"occluded": found.occluded, "truncated": found.truncated, "trafficLightColor": found.light}
        objects.append(
            {
                "category": found.category,
                "id": number,
                "attributes": attributes,
                "box2d": {"x1": x1, "y1": y1, "x2": x2, "y2": y2},
            }
        )
    return {"name": scene.name, "attributes": scene.attributes, "frames": [{"timestamp": 10000, "objects": objects}]}


def write_scene(config: SynthConfig, job: Job) -> None:
    """Render and write a scene; its label file last, so that a scene that is listed is complete.

    Raises:
        HnxError: a file cannot be written.
    """
    scene = render_scene(config.seed, job.split, job.index, size=config.size, lane_width=config.lane_width)
    quality = [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality]
    # level 2: masks of 1280x720 take 2 to 5 kB, higher levels cost twice the time for a tenth less
    compression = [cv2.IMWRITE_PNG_COMPRESSION, 2]
    files = (
        ("imgs", scene.frame, quality),
        ("da_seg_annot", scene.road, compression),
        ("ll_seg_annot", scene.lane, compression),
    )
    for folder, picture, options in files:
        path = config.path(folder, job.split, scene.name)
        write_bytes(path, _encoded(path.suffix, picture, options))
    write_json(config.path("det_annot", job.split, scene.name), label_json(scene))


def _encoded(suffix: str, picture: NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, picture, options)
    if not done:
        raise HnxError(
            f"Cannot encode a {suffix} picture", why="OpenCV refused it", fix="reinstall opencv-python-headless"
        )
    return bytes(data)
