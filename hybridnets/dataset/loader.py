"""Many samples in order, read ahead by worker processes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import cv2

from hybridnets.dataset.reader import Sample, SampleReader
from hybridnets.dataset.workers import ordered_map
from hybridnets.errors import ExitCode, HnxError, last_line

__all__ = ["BrokenSample", "SampleLoader"]


@dataclass(frozen=True)
class BrokenSample:
    """A sample that could not be read, and why."""

    name: str
    error: HnxError


@dataclass(frozen=True)
class _Read:
    """Picklable: reader and all."""

    reader: SampleReader

    def __call__(self, name: str) -> Sample | BrokenSample:
        try:
            return self.reader.read(name)
        except HnxError as error:
            return BrokenSample(name, error)
        except (OSError, cv2.error) as error:
            what, why = f"Cannot read sample {name}", last_line(error)
            return BrokenSample(name, HnxError(what, why=why, fix="`hnx data check` looks closer"))


class SampleLoader:
    """Iterates over samples in the order of `names`; one that is broken is yielded as such, never left out.

    Args:
        reader: reads one sample.
        names: which, such as `split.names`.
        workers: processes that read ahead; 0 reads here, when a sample is asked for.
        prefetch: samples in memory at a time, at most; default two for each worker. A 1280x720 sample has 3.0 MB,
            with `frame_target` 3.9.

    Raises:
        HnxError: negative numbers, fewer samples than workers in memory; while iterating: a worker process died.
    """

    def __init__(
        self, reader: SampleReader, names: Sequence[str], *, workers: int = 0, prefetch: int | None = None
    ) -> None:
        prefetch = 2 * workers if prefetch is None else prefetch
        if workers < 0 or prefetch < workers:
            raise HnxError(
                f"{workers} workers with {prefetch} samples read ahead",
                why="workers count from 0, and each needs a sample",
                fix="raise prefetch",
                code=ExitCode.USAGE,
            )
        self.reader, self.names, self.workers, self.prefetch = reader, tuple(names), workers, prefetch

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Generator[Sample | BrokenSample, None, None]:
        return ordered_map(_Read(self.reader), self.names, workers=self.workers, prefetch=self.prefetch)
