"""A scene's four files."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError
from hybridnets.files import write_bytes, write_json
from tools.synth.config import SynthConfig
from tools.synth.scene import Scene, render_scene

__all__ = ["label_json", "scene_name", "write_scene"]


def scene_name(split: str, index: int) -> str:
    """Name of a scene, the stem of its files."""
    return f"{split}-{index:06d}"


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


def write_scene(config: SynthConfig, split: str, index: int) -> None:
    """Render and write scene `index`; its label file last, so that a scene that is listed is complete.

    Raises:
        HnxError: a file cannot be written.
    """
    scene = render_scene(config.seed, split, index, size=config.size, lane_width=config.lane_width)
    quality = [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality]
    # level 2: masks of 1280x720 take 2 to 5 kB, higher levels cost twice the time for a tenth less
    compression = [cv2.IMWRITE_PNG_COMPRESSION, 2]
    files = (
        ("imgs", scene.frame, quality),
        ("da_seg_annot", scene.road, compression),
        ("ll_seg_annot", scene.lane, compression),
    )
    for folder, picture, options in files:
        path = config.path(folder, split, scene.name)
        write_bytes(path, _encoded(path.suffix, picture, options))
    write_json(config.path("det_annot", split, scene.name), label_json(scene))


def _encoded(suffix: str, picture: NDArray[np.uint8], options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, picture, options)
    if not done:
        raise HnxError(
            f"Cannot encode a {suffix} picture", why="OpenCV refused it", fix="reinstall opencv-python-headless"
        )
    return bytes(data)
