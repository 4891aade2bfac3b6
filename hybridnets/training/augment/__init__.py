"""Changing labelled images for training: affine, flips, colour, mosaic, mixup. numpy and OpenCV only.

Every function takes its random numbers from a `numpy.random.Generator` that it is given, so a sample is the same
whichever process makes it.
"""

from hybridnets.training.augment.affine import Affine, draw_affine, keep_boxes, warp
from hybridnets.training.augment.augmenter import Augmented, Augmenter, AugmentSettings
from hybridnets.training.augment.colour import ColourGains, draw_colour, jitter
from hybridnets.training.augment.flip import flip_left_right, flip_up_down
from hybridnets.training.augment.mosaic import mix, mosaic
from hybridnets.training.augment.scene import Scene, scene_of, target_of

__all__ = [
    "Affine",
    "AugmentSettings",
    "Augmented",
    "Augmenter",
    "ColourGains",
    "Scene",
    "draw_affine",
    "draw_colour",
    "flip_left_right",
    "flip_up_down",
    "jitter",
    "keep_boxes",
    "mix",
    "mosaic",
    "scene_of",
    "target_of",
    "warp",
]
