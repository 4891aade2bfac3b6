"""How fast training samples are read and augmented."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["loader_speed"]


def loader_speed(data: Path, size: tuple[int, int], batch_size: int, *, workers: int, batches: int) -> float:
    """Augmented images/s that the worker processes deliver when nobody else needs the cores."""
    import dataclasses

    from hybridnets.dataset import SampleReader, open_split
    from hybridnets.project import Project
    from hybridnets.training.augment import Augmenter, AugmentSettings
    from hybridnets.training.data import BatchPlan, TrainingSet, training_batches

    project = dataclasses.replace(Project(), image_size=size)
    split = open_split(project, data, project.dataset.train_set)
    augment = Augmenter(AugmentSettings.from_dataset(project.dataset))
    dataset = TrainingSet(SampleReader(split, (size[1], size[0])), split.names, augment)
    epochs = -(-(batches + 2) * batch_size // len(split)) + 1
    stream = training_batches(dataset, BatchPlan(len(split), batch_size, epochs=epochs), workers=workers)
    for _ in range(2):  # the processes start
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return batches * batch_size / (time.perf_counter() - start)
