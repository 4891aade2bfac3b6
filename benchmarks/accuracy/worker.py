"""The child's side of a row's process: it loads one runtime at one precision and scores images when it is told to.

Started as `python -m benchmarks.accuracy.worker`; the protocol is that of `benchmarks.children`. Images are read and
prepared here, ahead of the network (`feed.py`), by the one preprocessing that all of hnx uses; only counts leave
this process, as chunks in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.choose import WORKING_CONF
from benchmarks.accuracy.feed import Feed, Prepared
from benchmarks.accuracy.protocols import Protocol
from benchmarks.accuracy.records import ImageRecord
from benchmarks.accuracy.scoring import ImageScorer
from benchmarks.accuracy.split_json import unpack_split
from benchmarks.accuracy.store import Chunk, write_chunk
from benchmarks.serving import answer, probe, serve
from hybridnets.dataset import BrokenSample, Sample, SampleReader
from hybridnets.files import atomic_path

__all__ = ["EvalSession", "main"]


class EvalSession:
    """What a child knows between commands."""

    def __init__(self) -> None:
        self._runtime: Any = None
        self._pipeline: Any = None
        self._scorer: ImageScorer | None = None
        self._reader: SampleReader | None = None
        self._feed: Feed | None = None
        self._clear()

    def _clear(self) -> None:
        self._records: list[ImageRecord] = []
        self._broken: dict[str, str] = {}
        self._nonfinite: list[str] = []
        self._dropped: dict[str, Sequence[str]] = {}

    def handle(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one command; a failure is an answer too."""
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "probe": probe,
            "open": self.open,
            "begin": self.begin,
            "score": self.score,
            "save": self.save,
            "predict": self.predict,
            "finish": self.finish,
        }
        return answer(commands, message)

    def open(
        self,
        *,
        bundle: str,
        runtime: str,
        precision: str,
        threads: int,
        split: Mapping[str, Any],
        protocol: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Load the network; what really runs."""
        # the parent compared the hashes
        from hybridnets.bundle import open_bundle
        from runtimes.base import RuntimeOptions
        from runtimes.opening import open_runtime
        from runtimes.predictor import Pipeline, user_cache

        chosen = Protocol(**protocol)
        opened = open_bundle(Path(bundle), verify=False)
        cv2.setNumThreads(threads)
        options = RuntimeOptions(precision=precision, threads=threads, cache_dir=user_cache())
        self._runtime = open_runtime(runtime, opened, options)
        # its postprocessing serves pictures only; better boxes are never dropped for weaker ones, so those that a
        # lower threshold lets through change nothing
        self._pipeline = Pipeline(self._runtime, conf=max(chosen.conf, WORKING_CONF), iou=chosen.iou)
        self._reader = SampleReader(unpack_split(split), opened.target, frame_target=chosen.at == "frame")
        self._scorer = ImageScorer.for_bundle(chosen, opened)
        execution = self._runtime.execution
        return {
            "precision": execution.precision,
            "device": execution.device,
            "threads": execution.threads,
            "library": execution.library,
            "details": dict(execution.details),
        }

    def begin(self, *, names: Sequence[str], workers: int) -> dict[str, Any]:
        """Start reading these images ahead; `score` takes them in this order."""
        assert self._reader is not None
        self._clear()
        if self._feed is not None:
            self._feed.close()
        preprocessor = self._runtime.bundle.preprocessor()
        self._feed = Feed(self._reader, names, preprocessor, workers=workers)
        return {}

    def score(self, *, count: int) -> dict[str, Any]:
        """Score the next images; what is known of them waits for `save`."""
        assert self._feed is not None
        done = 0
        while done < count:
            item = self._feed.take()
            if item is None:
                break
            if isinstance(item, BrokenSample):
                self._broken[item.name] = ": ".join(filter(None, [item.error.what, item.error.why]))
            else:
                self._score(item)
            done += 1
        return {"done": done}

    def _score(self, item: Prepared) -> None:
        assert self._scorer is not None
        outputs = self._pipeline.network(item.tensor)
        name = item.sample.name
        if not _finite(outputs):
            self._nonfinite.append(name)
        if item.sample.dropped:
            self._dropped[name] = item.sample.dropped
        self._records.append(self._scorer.score(item.sample, outputs, item.sha256))

    def save(self, *, folder: str) -> dict[str, Any]:
        """Write what was scored since the last time as one chunk."""
        chunk = Chunk(self._records, self._broken, self._nonfinite, self._dropped)
        name = write_chunk(Path(folder), chunk)
        self._clear()
        return {"chunk": name}

    def predict(self, *, name: str, path: str) -> dict[str, Any]:
        """Boxes and masks of one image at frame size, as an .npz file."""
        assert self._reader is not None
        sample: Sample = self._reader.read(name)
        found = self._pipeline(sample.frame)
        boxes, mask = found.detections, found.segmentation
        masks = np.zeros((0, 0), np.uint8) if mask is None else mask
        with atomic_path(Path(path)) as temporary:
            np.savez(temporary, boxes=boxes.boxes, scores=boxes.scores, classes=boxes.classes, masks=masks)
        return {"frame": list(found.letterbox.frame), "target": list(found.letterbox.target)}

    def finish(self) -> dict[str, Any]:
        """Free everything."""
        if self._feed is not None:
            self._feed.close()
        if self._runtime is not None:
            self._runtime.close()
        return {}


def _finite(outputs: Mapping[str, NDArray[Any]]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in outputs.values())


def main() -> None:
    """Serve the commands of an `EvalSession`."""
    serve(EvalSession().handle)


if __name__ == "__main__":
    main()
