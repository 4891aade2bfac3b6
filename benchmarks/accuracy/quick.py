"""Figures of networks that are measured again and again on the same few labelled images, in this process.

`hnx eval` gives each row a process of its own, and reads images anew; a search over fifty networks reads them once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.protocols import PROTOCOLS, Heads
from benchmarks.accuracy.report import figures, watched
from benchmarks.accuracy.scoring import ImageScorer
from hybridnets.bundle import Bundle
from hybridnets.dataset import Sample, SampleReader, Split
from hybridnets.errors import HnxError
from runtimes.base import Runtime
from runtimes.predictor import Pipeline

__all__ = ["drops", "read_samples", "score", "task_names", "tasks"]


def read_samples(bundle: Bundle, split: Split, limit: int) -> list[Sample]:
    """The first images of a split with `frame` letterboxed for a bundle: 0.5 MB each at 640x384. Broken ones are left
    out: `hnx data check` names them.

    Raises:
        HnxError: none can be read.
    """
    reader = SampleReader(split, bundle.target, frame_target=PROTOCOLS["paper"].at == "frame")
    preprocess = bundle.preprocessor()
    samples = []
    for name in split.names[:limit]:
        with contextlib.suppress(HnxError):
            sample = reader.read(name)
            samples.append(replace(sample, frame=preprocess.letterbox(sample.frame)[0].copy()))
    if not samples:
        raise HnxError(
            f"None of the images of {split.split} can be read", fix="`hnx data check` lists every broken file"
        )
    return samples


def score(runtime: Runtime, samples: Sequence[Sample]) -> Accumulator:
    """Run an open runtime on samples of `read_samples`, and score them by the protocol of papers."""
    bundle = runtime.bundle
    protocol = PROTOCOLS["paper"].within(bundle.form)
    scorer = ImageScorer.for_bundle(protocol, bundle)
    accumulator = Accumulator(scorer.heads)
    preprocess = bundle.preprocessor()
    pipeline = Pipeline(runtime, conf=protocol.conf, iou=protocol.iou)
    for sample in samples:
        accumulator.add(scorer.score(sample, pipeline.network(preprocess.normalise(sample.frame))))
    return accumulator


def task_names(heads: Heads) -> list[str]:
    """Names of the figures that stand for the tasks of a network, as in papers.

    >>> task_names(Heads(("car",), ("road", "lane")))
    ['mAP50', 'road mIoU', 'lane IoU']
    """
    return [name for name in watched(heads.seg_classes, boxes=bool(heads.classes)) if name != "mAP50-95"]


def tasks(accumulator: Accumulator) -> dict[str, float]:
    """Points (0 to 100) of each task by its usual figure: mAP50, mean IoU of areas, IoU of thin things.

    Raises:
        HnxError: the labels hold nothing that the network has a task for.
    """
    heads = accumulator.heads
    known = figures(accumulator.metrics(coco=False).to_json())
    found = {name: 100 * known[name] for name in task_names(heads) if name in known}
    if not found:
        raise HnxError(
            "No task can be measured",
            why="the labels hold no box and no area of the network's classes",
            fix="name labelled images: --data DIR",
        )
    return found


def drops(baseline: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """Points lost in each task; negative is a gain."""
    return {task: baseline[task] - found[task] for task in baseline if task in found}
