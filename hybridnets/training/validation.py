"""Validation during training: every image once, spread over the processes, scored by what the caller hands in.

The network is measured image by image: a record per image, and everything final computed from all records sorted by
name. So the numbers do not depend on how many processes shared the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hybridnets.dataset import Sample, SampleReader
from hybridnets.errors import HnxError
from hybridnets.network.model import HybridNets, Outputs
from hybridnets.training.config import Fitness
from hybridnets.training.data import Batch, collate, item_of, make_loader
from hybridnets.training.distributed import World
from hybridnets.training.label_check import none_readable
from hybridnets.training.step import Criterion, Normaliser

__all__ = ["Scorer", "Scores", "Validation", "Validator", "fitness_of"]


@dataclass(frozen=True)
class Scores:
    """What a scorer says about all images.

    Attributes:
        detection: 0.1 mAP50 + 0.9 mAP50-95; None without any label.
        segmentation: mean IoU of each foreground class, by its name.
        metrics: everything, as JSON.
    """

    detection: float | None
    segmentation: Mapping[str, float]
    metrics: Mapping[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """Scores single images; `hnx train` makes one from benchmarks.accuracy."""

    @property
    def frame_target(self) -> bool:
        """Whether samples must carry the segmentation target at frame size."""

    def score(self, sample: Sample, outputs: Mapping[str, NDArray[np.float32]]) -> Any:
        """A picklable record of one image with an attribute `name`.

        Args:
            outputs: regression (A, 4), classification (A, classes), segmentation (C, H, W), float32.
        """

    def summarise(self, records: Sequence[Any]) -> Scores:
        """The scores of all images; the order of the records means nothing."""


@dataclass(frozen=True)
class Validation:
    """One validation.

    Attributes:
        scores: None where no scorer was given (`--cal-map False`).
        losses: mean over images of each loss term, each image taken as a batch of its own.
        images: how many were measured.
        broken: names that could not be read.
        seconds: it took.
    """

    scores: Scores | None
    losses: Mapping[str, float]
    images: int
    broken: tuple[str, ...]
    seconds: float = 0.0


def fitness_of(validation: Validation, kind: Fitness, *, detection: bool = True, segmentation: bool = True) -> float:
    """The number a best network is chosen by: larger is better.

    Args:
        kind: det is upstream's 0.1 mAP50 + 0.9 mAP50-95. all is the mean over tasks, of that number and the IoU of
            each segmentation class.
        detection, segmentation: whether the task is trained; frozen tasks do not count in `all`.

    Returns:
        Minus the mean loss where nothing was scored.
    """
    scores = validation.scores
    if scores is None:
        return -validation.losses["loss"]
    found = 0.0 if scores.detection is None else scores.detection
    if kind == "det" and detection:
        return found
    parts = [found] if detection else []
    if segmentation:
        parts += scores.segmentation.values()
    return sum(parts) / len(parts) if parts else found


@dataclass(frozen=True)
class _Shard(Dataset[Any]):
    """Samples of one process; indices beyond the last one repeat the first ones."""

    reader: SampleReader
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        name = self.names[index % len(self.names)]
        try:
            return self.reader.read(name)
        except HnxError as error:
            return name, error


def _as_list(items: list[Any]) -> list[Any]:
    return items


class Validator:
    """Measures a network on one split.

    Args:
        reader: of the images, which are those of its split.
        criterion: the losses, measured beside the scores.
        normaliser: makes the input.
        world: this process among all.
        scorer: None measures losses only.
        batch_size: images of a forward pass.
        workers: processes that read.
    """

    def __init__(
        self,
        reader: SampleReader,
        criterion: Criterion,
        normaliser: Normaliser,
        world: World,
        *,
        scorer: Scorer | None = None,
        batch_size: int = 4,
        workers: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.criterion, self.normaliser, self.world, self.scorer, self.dtype = (
            criterion,
            normaliser,
            world,
            scorer,
            dtype,
        )
        split = reader.split
        self.split, self.batch_size = split, max(1, min(batch_size, len(split)))
        # Whole batches are dealt out, so an image has the same neighbours whatever the number of processes: kernels
        # round the rows of a batch in different ways. A process may have no batch at all.
        firsts = range(self.batch_size * world.rank, len(split), self.batch_size * world.size)
        shares = [split.names[first : first + self.batch_size] for first in firsts]
        names = tuple(name for share in shares for name in share)
        self._shard = _Shard(reader, names)
        # only the very last batch can be smaller; it is filled up with repetitions, which are not counted
        whole = len(shares) * self.batch_size
        batches = [list(range(i, i + self.batch_size)) for i in range(0, whole, self.batch_size)]
        self._loader = make_loader(self._shard, batches, _as_list, workers=workers if batches else 0, pin=False)

    @torch.inference_mode()
    def run(self, network: HybridNets, on_image: Callable[[int, int], None] = lambda done, total: None) -> Validation:
        """Measure a network in eval mode, on its device.

        Args:
            on_image: told how many images of this process are done, and how many it has.

        Raises:
            HnxError: no image can be read.
        """
        records: list[tuple[str, Any, dict[str, float]]] = []
        broken: list[str] = []
        done, total = 0, len(self._shard)
        for items in self._loader if total else ():
            samples = [item for item in items if isinstance(item, Sample)]
            fresh = items[: total - done]
            broken += [item[0] for item in fresh if not isinstance(item, Sample)]
            if samples:
                kept = sum(isinstance(item, Sample) for item in fresh)
                records += self._measure(network, samples, kept)
            done += len(fresh)
            on_image(done, total)
        found = sorted((r for part in self.world.gather(records) for r in part), key=lambda record: record[0])
        unread = tuple(sorted(name for part in self.world.gather(broken) for name in part))
        if not found:
            raise none_readable(self.split)
        losses = {key: sum(r[2][key] for r in found) / len(found) for key in found[0][2]}
        scores = None if self.scorer is None else self.scorer.summarise([record for _, record, _ in found])
        return Validation(scores, losses, len(found), unread)

    def _measure(
        self, network: HybridNets, samples: Sequence[Sample], kept: int
    ) -> list[tuple[str, Any, dict[str, float]]]:
        """Records of the first `kept` samples; all batches have one size, so that an image's numbers do not depend
        on its neighbours through the choice of a kernel."""
        filled = [*samples, *[samples[-1]] * (self.batch_size - len(samples))]
        batch = collate([item_of(sample) for sample in filled]).to(self.world.device)
        with torch.autocast(self.world.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            raw = network(self.normaliser(batch.images))
        outputs = Outputs(*(x.float() for x in raw))
        arrays = [x.cpu().numpy() for x in outputs] if self.scorer is not None else []
        result = []
        for row, sample in enumerate(samples[:kept]):
            one = slice(row, row + 1)
            single = Batch(
                batch.images[one],
                batch.boxes[one],
                batch.target[one],
                (sample.name,),
                has_boxes=None if batch.has_boxes is None else batch.has_boxes[one],
            )
            terms = self.criterion(Outputs(*(x[one] for x in outputs)), single)
            losses = {name: float(value) for name, value in terms.items()}
            record = None
            if self.scorer is not None:
                named = dict(zip(Outputs._fields, (x[row] for x in arrays), strict=True))
                record = self.scorer.score(sample, named)
            result.append((sample.name, record, losses))
        return result
