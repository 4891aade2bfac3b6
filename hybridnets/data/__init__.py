"""One real road frame that ships with the package (MIT, Udacity; see LICENSE-highway)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hybridnets.errors import HnxError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["demo_frame", "read_demo_frame"]


def demo_frame() -> Path:
    """A 1280x720 motorway picture with two cars."""
    return Path(__file__).with_name("highway.jpg")


def read_demo_frame() -> NDArray[np.uint8]:
    """The same as uint8 (720, 1280, 3) BGR."""
    import cv2

    frame: NDArray[np.uint8] | None = cv2.imread(str(demo_frame()))
    if frame is None:
        raise HnxError(f"Cannot read {demo_frame()}", why="the installation is damaged", fix="install hnx again")
    return frame
