"""All changes in upstream's order, for one sample of the training split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.dataset import Sample, SampleReader
from hybridnets.errors import ExitCode, HnxError
from hybridnets.preprocess import PAD_VALUE, Letterbox
from hybridnets.project import DatasetConfig
from hybridnets.training.augment.affine import draw_affine, warp
from hybridnets.training.augment.colour import draw_colour, jitter
from hybridnets.training.augment.flip import flip_left_right, flip_up_down
from hybridnets.training.augment.mosaic import mix, mosaic
from hybridnets.training.augment.scene import Scene, scene_of, target_of

__all__ = ["AugmentSettings", "Augmented", "Augmenter"]

_PARTNER_TRIES = 8  # for one partner of a mosaic, where samples are broken

# name -> (smallest, largest) allowed value
_RANGES = {
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "degrees": (0.0, 180.0),
    "translate": (0.0, 1.0),
    "scale": (0.0, 0.99),
    "shear": (0.0, 80.0),
    "hue": (0.0, 1.0),
    "saturation": (0.0, 10.0),
    "value": (0.0, 10.0),
    "fliplr": (0.0, 1.0),
    "flipud": (0.0, 1.0),
}


@dataclass(frozen=True)
class AugmentSettings:
    """How much is changed; the defaults are upstream's.

    Attributes:
        mosaic: probability of a mosaic of four samples.
        mixup: probability that a mosaic is blended with another.
        degrees, translate, scale, shear: bounds of `draw_affine`.
        hue, saturation, value: bounds of `draw_colour`.
        fliplr, flipud: probabilities.
        swapped_hue: convert colours with red and blue exchanged, as upstream does by mistake.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    mosaic: float = 0.0
    mixup: float = 0.0
    degrees: float = 10.0
    translate: float = 0.1
    scale: float = 0.25
    shear: float = 0.0
    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    fliplr: float = 0.5
    flipud: float = 0.0
    swapped_hue: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise HnxError(
                    f"The augmentation value {name} is {value:g}",
                    why=f"it lies between {low:g} and {high:g}",
                    fix="correct the section `dataset` of the project file",
                    code=ExitCode.USAGE,
                )

    @classmethod
    def from_dataset(cls, dataset: DatasetConfig, *, swapped_hue: bool = False) -> AugmentSettings:
        """The settings of a project file."""
        return cls(
            mosaic=dataset.mosaic,
            mixup=dataset.mixup,
            degrees=dataset.rot_factor,
            translate=dataset.translate,
            scale=dataset.scale_factor,
            shear=dataset.shear,
            hue=dataset.hsv_h,
            saturation=dataset.hsv_s,
            value=dataset.hsv_v,
            fliplr=dataset.fliplr,
            flipud=dataset.flipud,
            swapped_hue=swapped_hue,
        )


@dataclass(frozen=True)
class Augmented:
    """A sample as the network sees it.

    Attributes:
        name: of the sample; of a mosaic the first.
        image: uint8 (H, W, 3) RGB at input size, padded with 114.
        boxes: float32 (n, 5): x1, y1, x2, y2, class in input pixels.
        target: uint8 segmentation target at input size, as `hybridnets.dataset.Sample` has it.
        broken: (name, error) of partners in a mosaic that could not be read and were replaced.
        has_boxes: whether boxes are labelled; of a mosaic, in all its parts.
    """

    name: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    target: NDArray[np.uint8]
    broken: tuple[tuple[str, HnxError], ...] = ()
    has_boxes: bool = True


class Augmenter:
    """Makes augmented samples; holds no state, so it can be sent to other processes.

    Order: mosaic and mixup, affine, colour, flips, letterbox.

    Args:
        settings: how much is changed.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        self.settings = settings

    def __call__(self, reader: SampleReader, name: str, random: np.random.Generator) -> Augmented:
        """One sample. The same generator state gives the same result.

        Args:
            reader: reads samples; partners of a mosaic come from its split, too.
            name: of the sample.
            random: seeded by the run's seed, the epoch and the sample's index.

        Raises:
            HnxError: the sample cannot be read, or no partner for its mosaic.
        """
        settings, mode = self.settings, reader.split.project.seg_mode
        broken: list[tuple[str, HnxError]] = []
        sample = reader.read(name)
        scene, place = scene_of(sample, mode), sample.letterbox
        if random.random() < settings.mosaic:
            scene = self._mosaic(reader, scene, random, broken)
            if random.random() < settings.mixup:
                other = scene_of(_partner(reader, random, broken), mode)
                scene = mix(scene, self._mosaic(reader, other, random, broken), random)
            # from the canvas back to the size of the input, which it fills
            place = Letterbox(reader.target, reader.target, 0, 0, reader.target)
        affine = draw_affine(
            random,
            degrees=settings.degrees,
            translate=settings.translate,
            scale=settings.scale,
            shear=settings.shear,
        )
        scene = warp(scene, affine, place.content)
        gains = draw_colour(random, settings.hue, settings.saturation, settings.value)
        scene = replace(scene, image=jitter(scene.image, gains, swapped=settings.swapped_hue))
        left_right, up_down = random.random(2).tolist()
        if left_right < settings.fliplr:
            scene = flip_left_right(scene)
        if up_down < settings.flipud:
            scene = flip_up_down(scene)
        project = reader.split.project
        image, boxes, planes = _letterboxed(scene, place)
        target = target_of(planes, project.seg_list, project.seg_mode)
        return Augmented(name, image, boxes, target, tuple(broken), scene.has_boxes)

    def _mosaic(
        self, reader: SampleReader, first: Scene, random: np.random.Generator, broken: list[tuple[str, HnxError]]
    ) -> Scene:
        mode = reader.split.project.seg_mode
        partners = [scene_of(_partner(reader, random, broken), mode) for _ in range(3)]
        return mosaic([first, *partners], reader.target, random)


def _letterboxed(
    scene: Scene, place: Letterbox
) -> tuple[NDArray[np.uint8], NDArray[np.float32], list[NDArray[np.uint8]]]:
    """RGB image, boxes and planes of a scene in its place in the input."""
    image = np.full((*place.target, 3), PAD_VALUE, np.uint8)
    cv2.cvtColor(scene.image, cv2.COLOR_BGR2RGB, dst=_inside(image, place))
    planes = [np.zeros(place.target, np.uint8) for _ in scene.planes]
    for plane, part in zip(planes, scene.planes, strict=True):
        _inside(plane, place)[...] = part
    boxes = scene.boxes.copy()
    boxes[:, :4] += (place.left, place.top) * 2
    return image, boxes.astype(np.float32), planes


def _inside(canvas: NDArray[np.uint8], place: Letterbox) -> NDArray[np.uint8]:
    return canvas[place.top : place.top + place.content[0], place.left : place.left + place.content[1]]


def _partner(reader: SampleReader, random: np.random.Generator, broken: list[tuple[str, HnxError]]) -> Sample:
    """A random sample of the split that can be read."""
    names = reader.split.names
    error: HnxError | None = None
    for _ in range(_PARTNER_TRIES):
        name = names[int(random.integers(len(names)))]
        try:
            return reader.read(name)
        except HnxError as caught:
            error = caught
            broken.append((name, caught))
    assert error is not None
    raise error
