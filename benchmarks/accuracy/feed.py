"""Samples with the network's input, read and prepared ahead while the network works on the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from benchmarks.frames import tensor_sha256
from hybridnets.dataset import BrokenSample, Sample, SampleLoader, SampleReader
from hybridnets.preprocess import Preprocessor

__all__ = ["AHEAD", "Feed", "Prepared"]

# 7 MB each at 1280x720 and 640x384; one would do, more even out images that take longer
AHEAD = 4


@dataclass(frozen=True)
class Prepared:
    """A sample, the tensor that the network gets for it, and the SHA-256 of that tensor's bytes."""

    sample: Sample
    tensor: NDArray[np.float32]
    sha256: str


class Feed:
    """Prepared samples in the order of their names; broken ones come as such.

    A thread reads and prepares them, with `workers` processes that read for it. Use it in a with statement, so that
    neither outlives it.

    Args:
        preprocessor: used by that thread alone.
    """

    def __init__(
        self, reader: SampleReader, names: Sequence[str], preprocessor: Preprocessor, *, workers: int = 0
    ) -> None:
        self._samples = iter(SampleLoader(reader, names, workers=workers))
        self._preprocess = preprocessor
        self._queue: queue.Queue[Prepared | BrokenSample | BaseException | None] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        end: BaseException | None = None
        try:
            for sample in self._samples:
                self._put(sample if isinstance(sample, BrokenSample) else self._prepare(sample))
                if self._stopped.is_set():
                    break
        except BaseException as error:  # raised again where the sample is asked for
            end = error
        finally:
            self._samples.close()
        self._put(end)

    def _prepare(self, sample: Sample) -> Prepared:
        tensor = self._preprocess(sample.frame)[0].copy()  # its buffer is overwritten by the next call
        return Prepared(sample, tensor, tensor_sha256(tensor))

    def _put(self, item: Prepared | BrokenSample | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def take(self) -> Prepared | BrokenSample | None:
        """The next one, None after the last.

        Raises:
            HnxError: a reading process died.
        """
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and its processes."""
        self._stopped.set()
        self._thread.join(timeout=10)
