"""One real road frame that ships with the package (MIT, Udacity; see LICENSE-highway)."""

from __future__ import annotations

from pathlib import Path

__all__ = ["demo_frame"]


def demo_frame() -> Path:
    """A 1280x720 motorway picture with two cars."""
    return Path(__file__).with_name("highway.jpg")
