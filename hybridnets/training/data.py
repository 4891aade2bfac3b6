"""Training batches: which samples in which order, read and augmented by worker processes, as uint8 tensors.

Everything follows from (seed, epoch, index): the order, and each sample's augmentation. So a run that was cut off
and resumed, or spread over several processes, sees the samples an uninterrupted one would.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hybridnets.dataset import Sample, SampleReader
from hybridnets.errors import HnxError, first_line
from hybridnets.preprocess import PAD_VALUE, resize_into
from hybridnets.training.orphans import end_with_parent

__all__ = [
    "Augment",
    "Batch",
    "BatchPlan",
    "Item",
    "Ticket",
    "TrainingSet",
    "collate",
    "make_loader",
    "plain_item",
    "training_batches",
]

_TRIES = 16  # neighbours tried in place of a broken sample
_ORDER, _AUGMENT = 1, 2  # keep the random streams of one seed apart


class Ticket(NamedTuple):
    """One sample, by its index, of one epoch."""

    epoch: int
    sample: int


@dataclass(frozen=True)
class Item:
    """One sample, ready to be stacked.

    Attributes:
        name: of its files.
        image: uint8 (H, W, 3) RGB at input size.
        boxes: float32 (n, 5): x1, y1, x2, y2, class in input pixels.
        target: uint8 segmentation target at input size, as `hybridnets.dataset.Sample` has it.
        broken: (name, error) of samples that could not be read and that this one stands in for.
        has_boxes: whether boxes are labelled; without, detection does not learn from it.
    """

    name: str
    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    target: NDArray[np.uint8]
    broken: tuple[tuple[str, HnxError], ...] = ()
    has_boxes: bool = True


class ItemLike(Protocol):
    """The fields of an `Item`."""

    @property
    def name(self) -> str: ...
    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def boxes(self) -> NDArray[np.float32]: ...
    @property
    def target(self) -> NDArray[np.uint8]: ...
    @property
    def broken(self) -> tuple[tuple[str, HnxError], ...]: ...
    @property
    def has_boxes(self) -> bool: ...


# (sample reader, name, random numbers) -> item
Augment = Callable[[SampleReader, str, np.random.Generator], ItemLike]


@dataclass
class Batch:
    """One batch of one process.

    Attributes:
        images: uint8 (N, H, W, 3) RGB; normalised on the device.
        boxes: float32 (N, M, 5): x1, y1, x2, y2, class in input pixels; rows of -1 fill up to M >= 1.
        target: uint8 (N, H, W), (N, 1, H, W) or (N, C, H, W).
        names: of the samples.
        broken: samples that could not be read, each with its error.
        has_boxes: bool (N,): images whose boxes are labelled; None for all.
    """

    images: Tensor
    boxes: Tensor
    target: Tensor
    names: tuple[str, ...]
    broken: tuple[tuple[str, HnxError], ...] = ()
    has_boxes: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; asynchronous from pinned memory."""
        return Batch(
            self.images.to(device, non_blocking=True),
            self.boxes.to(device, non_blocking=True),
            self.target.to(device, non_blocking=True),
            self.names,
            self.broken,
            None if self.has_boxes is None else self.has_boxes.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory; torch's loader calls this."""
        return Batch(
            self.images.pin_memory(),
            self.boxes.pin_memory(),
            self.target.pin_memory(),
            self.names,
            self.broken,
            None if self.has_boxes is None else self.has_boxes.pin_memory(),
        )


def collate(items: Sequence[Item]) -> Batch:
    """Stack samples; boxes are filled up with rows of -1 to the largest number, at least one row."""
    rows = max(1, max(len(item.boxes) for item in items))
    boxes = np.full((len(items), rows, 5), -1.0, np.float32)
    for row, item in zip(boxes, items, strict=True):
        row[: len(item.boxes)] = item.boxes
    return Batch(
        torch.from_numpy(np.stack([item.image for item in items])),
        torch.from_numpy(boxes),
        torch.from_numpy(np.stack([item.target for item in items])),
        tuple(item.name for item in items),
        tuple(pair for item in items for pair in item.broken),
        torch.tensor([item.has_boxes for item in items]),
    )


def plain_item(reader: SampleReader, name: str, random: np.random.Generator | None = None) -> Item:
    """A sample without augmentation: letterboxed as for inference, which is what validation sees."""
    return item_of(reader.read(name))


def item_of(sample: Sample) -> Item:
    """A sample that was read, at input size."""
    height, width = sample.letterbox.target
    canvas = np.full((height, width, 3), PAD_VALUE, np.uint8)
    resize_into(sample.frame, sample.letterbox, canvas)
    return Item(
        sample.name,
        np.ascontiguousarray(canvas[:, :, ::-1]),
        sample.boxes.astype(np.float32),
        sample.target,
        has_boxes=sample.has_boxes,
    )


class TrainingSet(Dataset[Item]):
    """Samples by ticket.

    A sample that cannot be read is replaced by the next one that can, so batches keep their size and a run its
    length; the item names what was broken.

    Args:
        reader: reads one sample.
        names: all samples, in the order that tickets index.
        augment: makes an item; `plain_item` for none.
        seed: of the augmentation.
    """

    def __init__(
        self, reader: SampleReader, names: Sequence[str], augment: Augment = plain_item, seed: int = 0
    ) -> None:
        self.reader, self.names, self.augment, self.seed = reader, tuple(names), augment, seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, ticket: Ticket) -> Item:
        """The item of a ticket.

        Raises:
            HnxError: neither the sample nor any of the next ones can be read.
        """
        epoch, index = ticket
        broken: list[tuple[str, HnxError]] = []
        for shift in range(min(_TRIES, len(self.names))):
            name = self.names[(index + shift) % len(self.names)]
            random = np.random.default_rng([self.seed, _AUGMENT, epoch, (index + shift) % len(self.names), shift])
            try:
                item = self.augment(self.reader, name, random)
            except HnxError as error:
                broken.append((name, error))
                continue
            return Item(item.name, item.image, item.boxes, item.target, (*item.broken, *broken), item.has_boxes)
        raise HnxError(
            f"None of {len(broken)} neighbouring samples can be read, the first is {broken[0][0]}",
            why=f"{broken[0][1].what}: {broken[0][1].why}",
            fix="`hnx data check` lists every broken file",
        )


class BatchPlan(Sampler[list[Ticket]]):
    """The tickets of every batch of one process, from one step to the end of the run.

    Each epoch is a permutation of all samples, drawn from (seed, epoch), cut into steps of
    `batch_size * accumulate * processes` samples; what does not fill a step waits for another epoch's permutation. A
    step's samples are dealt to the processes so that process r of P holds the r-th part of each global batch: which
    samples a step has does not depend on how many processes share it. A data set smaller than a step is repeated.

    Args:
        count: samples of the data set.
        batch_size: samples a batch and process.
        accumulate: batches a step.
        rank, processes: of the run.
        epochs: of the whole run.
        start: first step, counted over all epochs.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        accumulate: int = 1,
        rank: int = 0,
        processes: int = 1,
        epochs: int = 1,
        start: int = 0,
        seed: int = 0,
    ) -> None:
        self.count, self.batch_size, self.accumulate = count, batch_size, accumulate
        self.rank, self.processes, self.epochs, self.start, self.seed = rank, processes, epochs, start, seed
        self.step_size = batch_size * accumulate * processes
        self.steps_per_epoch = max(1, count // self.step_size)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def __len__(self) -> int:
        return max(0, self.steps - self.start) * self.accumulate

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Sample indices of an epoch, as many as its steps need."""
        permutation = np.random.default_rng([self.seed, _ORDER, epoch]).permutation(self.count)
        return np.resize(permutation, self.steps_per_epoch * self.step_size)

    def __iter__(self) -> Iterator[list[Ticket]]:
        whole = self.batch_size * self.processes
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.steps_per_epoch)
            if step == self.start or place == 0:
                order = self.order(epoch)
            samples = order[place * self.step_size : (place + 1) * self.step_size]
            for first in range(0, self.step_size, whole):
                mine = samples[first + self.rank * self.batch_size : first + (self.rank + 1) * self.batch_size]
                yield [Ticket(epoch, int(index)) for index in mine]


def _start_worker(_: int) -> None:
    # a worker per core already: OpenCV's and torch's own threads would only fight over them
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group of processes; the trainer ends its step first and then its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def make_loader(dataset: Dataset[Any], sampler: Any, collate_fn: Any, *, workers: int, pin: bool) -> DataLoader[Any]:
    """torch's loader with the settings that every loader here has."""
    if workers:
        # the server imports what workers need once, instead of each worker for itself
        multiprocessing.set_forkserver_preload([__name__])
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate_fn,
        num_workers=workers,
        worker_init_fn=_start_worker,
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
        pin_memory=pin,
        # forking a process with threads of torch and OpenCV may hang; a fork server starts in a second, once
        multiprocessing_context="forkserver" if workers else None,
    )


def training_batches(
    dataset: TrainingSet, plan: BatchPlan, *, workers: int, pin: bool = False
) -> Iterator[tuple[Batch, ...]]:
    """The batches of each step of a plan, `accumulate` at a time; epochs follow each other without a pause.

    Raises:
        HnxError: a worker process died, or whole neighbourhoods of samples cannot be read.
    """
    loader = make_loader(_Guarded(dataset), plan, _collate_or_error, workers=workers, pin=pin)
    waiting: list[Batch] = []
    try:
        for batch in loader:
            if isinstance(batch, HnxError):
                raise batch
            waiting.append(batch)
            if len(waiting) == plan.accumulate:
                yield tuple(waiting)
                waiting = []
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise HnxError(
            "A process that reads samples died",
            why=first_line(error),
            fix="it may have run out of memory: try fewer workers (-n) or a smaller batch (-b)",
        ) from error


class _Guarded(Dataset[Any]):
    """Hands errors over as values: torch would turn them into a traceback."""

    def __init__(self, inner: Dataset[Any]) -> None:
        self.inner = inner

    def __getitem__(self, ticket: Any) -> Any:
        try:
            return self.inner[ticket]
        except HnxError as error:
            return error


def _collate_or_error(items: Sequence[Any]) -> Any:
    for item in items:
        if isinstance(item, HnxError):
            return item
    return collate(items)
