"""Anchors fitted to the boxes of a data set. numpy only.

An anchor is stride x anchor_scale x scale x ratio, the same three scales and ratios on all five levels. In logarithms
the size sqrt(w h) of an anchor depends on stride and scale alone, its shape w / h on the ratio alone, so fitting nine
anchors is two one-dimensional k-means (Lloyd 1982): of the shapes, and of the sizes modulo the strides. A random search
then climbs the measure that counts, the overlap. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hybridnets.anchors import AnchorRule
from hybridnets.config import STRIDES
from hybridnets.dataset import Split
from hybridnets.dataset.labels import boxes_in_input, class_ids, fault_of, read_label
from hybridnets.errors import HnxError
from hybridnets.preprocess import Letterbox

__all__ = ["AnchorFit", "AnchorFitness", "fit_anchors", "label_sizes", "measure"]

Floats = NDArray[np.float64]

_MIN_SIDE = 2.0  # px; augmentation drops smaller boxes
_MIN_BOXES = 9  # fewer than anchors cannot say anything
_MAX_BOXES = 6000  # looked at: 3 ms a measurement, and 0.6 % standard error of the recall at most
_RESTARTS, _ROUNDS = 16, 50  # of k-means
_GENERATIONS, _STEP = 400, 0.06  # of the random search, step in natural logarithms
_DIGITS = 4  # of scales and ratios, as they stand in a project file

# when the losses call an anchor positive
SMALL_AREA, IOU, IOU_SMALL = 100.0, 0.5, 0.15


@dataclass(frozen=True)
class AnchorFitness:
    """How well anchors fit boxes, were each box in the middle of a cell.

    Attributes:
        recall: part of the boxes for which some anchor would be positive (best possible recall).
        iou: mean over the boxes of the largest IoU with any anchor.
    """

    recall: float
    iou: float


@dataclass(frozen=True)
class AnchorFit:
    """What was found.

    Attributes:
        rule: the better of the old and the fitted rule.
        before, after: fitness of the old rule and of `rule`.
        boxes: how many were looked at.
    """

    rule: AnchorRule
    before: AnchorFitness
    after: AnchorFitness
    boxes: int


def label_sizes(split: Split, target: tuple[int, int], *, limit: int = 4000, seed: int = 0) -> Floats:
    """(n, 2): width and height in input pixels of the boxes that training sees, from labels alone.

    Images are not opened: each is taken to have the shape of `org_img_size`. Label files that cannot be read are left
    to whoever trains on them.

    Args:
        split: of the training data.
        target: (height, width) of the network's input.
        limit: largest number of label files to read, drawn at random from all.
        seed: of that draw.
    """
    project = split.project
    names = split.names
    if len(names) > limit:
        chosen = np.random.default_rng(seed).choice(len(names), limit, replace=False)
        names = tuple(names[index] for index in np.sort(chosen))
    size = project.dataset.org_img_size
    place, wanted = Letterbox.fit(size, target), class_ids(project)
    found = [np.empty((0, 2))]
    for name in names:
        try:
            labels = read_label(split.files(name).label, project.traffic_light_color)
        except HnxError:
            continue
        kept = [label for label in labels.boxes if label.category in wanted and not fault_of(label.box, size)]
        boxes = boxes_in_input(kept, project, place)
        found.append(boxes[:, 2:4] - boxes[:, :2])
    sizes = np.concatenate(found)
    return sizes[(sizes > _MIN_SIDE).all(axis=1)]


def measure(rule: AnchorRule, sizes: Floats) -> AnchorFitness:
    """Fitness of a rule for boxes of (n, 2) width and height in input pixels, n at least 1."""
    shapes = np.array(
        [
            (rule.anchor_scale * stride * scale * ratio[0], rule.anchor_scale * stride * scale * ratio[1])
            for stride in STRIDES
            for scale in rule.scales
            for ratio in rule.ratios
        ]
    )
    width, height = np.ascontiguousarray(sizes.T)
    area = width * height
    # pairs are (45, n): numpy runs along the boxes
    shared = np.minimum(width, shapes[:, :1])
    shared *= np.minimum(height, shapes[:, 1:])
    union = area + shapes.prod(axis=1, keepdims=True)
    union -= shared
    shared /= union
    best = shared.max(axis=0)
    needed = np.where(area > SMALL_AREA, IOU, IOU_SMALL)
    return AnchorFitness(float((best >= needed).mean()), float(best.mean()))


def fit_anchors(sizes: Floats, rule: AnchorRule | None = None, *, seed: int = 0) -> AnchorFit:
    """Scales and ratios for boxes of (n, 2) width and height in input pixels; never worse than the given rule.

    Args:
        sizes: from `label_sizes`.
        rule: the rule so far; its `anchor_scale` is kept.
        seed: of everything random.

    Raises:
        HnxError: there are fewer boxes than anchors.
    """
    rule = rule or AnchorRule()
    if len(sizes) < _MIN_BOXES:
        raise HnxError(
            f"Cannot fit anchors to {len(sizes)} boxes",
            why=f"at least {_MIN_BOXES} boxes with sides above {_MIN_SIDE:g} px are needed",
            fix="check the classes of the project file with `hnx data check`, or switch the fitting off",
        )
    random = np.random.default_rng(seed)
    if len(sizes) > _MAX_BOXES:
        sizes = sizes[np.sort(random.choice(len(sizes), _MAX_BOXES, replace=False))]
    width, height = np.log(sizes).T
    shapes = _shapes((width - height) / 2.0, random)
    scales = _scales((width + height) / 2.0 - np.log(rule.anchor_scale), random)
    before = measure(rule, sizes)
    best, after = rule, before
    starts = [np.concatenate([scales, shapes])]
    if len(rule.scales) == len(rule.ratios):  # and not nine of one and one of the other
        starts.append(_numbers(rule))
    for start in starts:
        found = _climb(start, rule, sizes, random)
        fitness = measure(found, sizes)
        if _score(fitness) > _score(after):
            best, after = found, fitness
    return AnchorFit(best, before, after, len(sizes))


def _shapes(values: Floats, random: np.random.Generator) -> Floats:
    """Centres of log(w / h) / 2."""
    return _k_means(values, np.zeros(1), [np.quantile(values, [1 / 6, 1 / 2, 5 / 6])], random)


def _scales(values: Floats, random: np.random.Generator) -> Floats:
    """Centres of log(size / anchor_scale) relative to the stride they are nearest to."""
    octave = np.log(2.0)
    return _k_means(values, np.log(STRIDES), [np.array([0.0, octave / 3, octave * 2 / 3])], random)


def _k_means(values: Floats, offsets: Floats, starts: Sequence[Floats], random: np.random.Generator) -> Floats:
    """Three centres c so that the values lie near offset + c, for any offset of a list; ascending."""
    spread = float(np.ptp(values)) if len(offsets) == 1 else float(np.log(2.0))
    middle = float(np.median(values)) if len(offsets) == 1 else spread / 2.0
    drawn = [middle + spread * random.uniform(-0.6, 0.6, 3) for _ in range(_RESTARTS)]
    best, lowest = np.sort(starts[0]), np.inf
    for start in (*starts, *drawn):
        centres = start.copy()
        for _ in range(_ROUNDS):
            grid = (offsets[:, None] + centres).reshape(-1)  # offset by offset
            nearest = np.abs(values[:, None] - grid).argmin(axis=1)
            rest = values - np.repeat(offsets, 3)[nearest]
            count = np.bincount(nearest % 3, minlength=3)
            total = np.bincount(nearest % 3, weights=rest, minlength=3)
            moved = np.where(count > 0, total / np.maximum(count, 1), centres)  # a centre without values stays
            if np.array_equal(moved, centres):
                break
            centres = moved
        inertia = float(np.square(values[:, None] - (offsets[:, None] + centres).reshape(-1)).min(axis=1).sum())
        if inertia < lowest:
            best, lowest = np.sort(centres), inertia
    return best


def _numbers(rule: AnchorRule) -> Floats:
    """Logarithms of a rule's three scales, with the mean size of its ratios, and of its ratios' shapes."""
    ratios = np.log(rule.ratios)
    return np.concatenate([np.log(rule.scales) + ratios.mean(), (ratios[:, 0] - ratios[:, 1]) / 2.0])


def _rule(numbers: Floats, rule: AnchorRule) -> AnchorRule:
    scales, shapes = np.exp(np.sort(numbers[:3])), np.exp(np.sort(numbers[3:]))
    return replace(
        rule,
        scales=tuple(round(float(v), _DIGITS) for v in scales),
        ratios=tuple((round(float(v), _DIGITS), round(float(1.0 / v), _DIGITS)) for v in shapes),
    )


def _score(fitness: AnchorFitness) -> float:
    return fitness.recall + fitness.iou


def _climb(numbers: Floats, rule: AnchorRule, sizes: Floats, random: np.random.Generator) -> AnchorRule:
    """Random search from six numbers: a change that is better stays."""
    best = _rule(numbers, rule)
    score = _score(measure(best, sizes))
    for _ in range(_GENERATIONS):
        change = random.normal(0.0, _STEP, 6) * (random.random(6) < 0.5)
        candidate = _rule(numbers + change, rule)
        found = _score(measure(candidate, sizes))
        if found > score:
            numbers, best, score = numbers + change, candidate, found
    return best
