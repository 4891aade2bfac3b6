"""Labelled driving scenes from random numbers, in upstream's layout: nothing to download, labels exact by construction.

A scene is a road seen by a pinhole camera. The picture and its labels come from the same polygons: every draw also
writes its owner into an id buffer, and boxes and masks are read from that.
"""

from __future__ import annotations

from tools.synth.config import SynthConfig
from tools.synth.pipeline import SynthProgress, SynthReport, generate
from tools.synth.randoms import VERSION
from tools.synth.scene import Scene, SceneObject, render_scene

__all__ = ["VERSION", "Scene", "SceneObject", "SynthConfig", "SynthProgress", "SynthReport", "generate", "render_scene"]
