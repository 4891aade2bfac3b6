"""Runtimes and processes of our own for the tests of the evaluation, and reports made by hand."""

from __future__ import annotations

import json
import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import hybridnets.bundle
from benchmarks.accuracy import worker
from benchmarks.accuracy.config import EvalConfig
from benchmarks.accuracy.report import EvalReport
from benchmarks.accuracy.worker import EvalSession
from benchmarks.children import checked
from hybridnets.dataset import Split, open_split
from hybridnets.project import load_project
from runtimes import registry
from runtimes.base import Arrays, Execution, Probe, Runtime
from tests.benchmarks.fakes import ANCHORS, fake_bundle, rows_of

DATA = Path(__file__).parents[2] / "data" / "parity" / "dataset"


def split() -> Split:
    """Twelve labelled images."""
    return open_split(load_project(), DATA)


class Seeing(Runtime):
    """A network whose outputs depend on the image and on nothing else."""

    name = "seeing"
    extra = ""
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}
    error = 0.0

    @classmethod
    def probe(cls) -> Probe:
        return Probe(version="1", precisions={"fp32": "", "bf16": "", "fp16": "this CPU has no native fp16"})

    def _open(self) -> Execution:
        return Execution(self.options.precision, "CPU", self.options.thread_count, "seeing 1", {"answer": 42})

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        image = inputs["input"]
        noise = np.random.default_rng(zlib.crc32(image.tobytes()))
        shift = self.error if self.options.precision == "bf16" else 0.0
        scores = noise.random((1, ANCHORS, 1), np.float32) ** 100
        offsets = noise.normal(0, 0.1, (1, ANCHORS, 4)).astype(np.float32)
        masks = image + np.array([0.0, shift, 0.0], np.float32).reshape(1, 3, 1, 1)
        return {"regression": offsets, "classification": scores, "segmentation": masks}

    def _close(self) -> None: ...


class Blurred(Seeing):
    """Its bf16 loses road."""

    name = "blurred"
    error = -1.0


class Broken(Seeing):
    """NaN out."""

    name = "broken"

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        return {name: np.full_like(array, np.nan) for name, array in super()._infer(state, inputs).items()}


class Refusing(Seeing):
    """Loads nothing."""

    name = "refusing"

    def _open(self) -> Execution:
        raise OSError("no such engine")


class Mortal(Seeing):
    """The kernel kills its process at the third image, as often as the file DEATHS says."""

    name = "mortal"
    calls = 0

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        type(self).calls += 1
        counter = Path(os.environ["DEATHS"])
        left = int(counter.read_text())
        if type(self).calls > 2 and left > 0:
            counter.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._infer(state, inputs)


RUNTIMES = {cls.name: cls for cls in (Seeing, Blurred, Broken, Refusing, Mortal)}


def use(*names: str, precisions: tuple[str, ...] = ("fp32",)) -> tuple[Any, ...]:
    """Rows of the registry."""
    return tuple(
        registry.RuntimeEntry(row.name, __name__, row.attribute, "", row.packages, precisions)
        for row in rows_of(*(RUNTIMES[name] for name in names))
    )


def serve() -> None:
    """What a real child of these tests runs: the ordinary loop with our runtimes."""
    registry.REGISTRY = use("seeing", "mortal")
    hybridnets.bundle.open_bundle = lambda path, verify=True: fake_bundle()  # type: ignore[assignment]
    worker.main()


CHILD = ("-c", "from tests.benchmarks.accuracy import eval_fakes; eval_fakes.serve()")


class LocalWorker:
    """A session in this process; what passes is passed as JSON, as between processes."""

    def __init__(self, disturb: Callable[[str], None] = lambda command: None) -> None:
        self.session, self._disturb = EvalSession(), disturb
        self.closed = False

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        self._disturb(command)
        message = json.loads(json.dumps({"command": command, **arguments}))
        return checked(json.loads(json.dumps(self.session.handle(message), default=str)))

    def close(self) -> None:
        self.closed = True
        self.session.finish()


def config(store: Path, **changes: Any) -> EvalConfig:
    values: dict[str, Any] = {"bundle": fake_bundle(), "split": split(), "threads": 1, "draws": 20, "store": store}
    return EvalConfig(**{**values, **changes})


# -- reports -------------------------------------------------------------------------------------------------


def report_row(runtime: str = "openvino", precision: str = "fp32", lost: float = 0.0, **changes: Any) -> dict[str, Any]:
    """A row whose figures all lie `lost` below round ones."""
    seg = {"road": {"mIoU": 0.9, "IoU": 0.85, "Acc": 0.95}, "lane": {"mIoU": 0.6, "IoU": 0.3, "Acc": 0.8}}
    figures = {"P": 0.1, "R": 0.9, "F1": 0.18, "mAP50": 0.75, "mAP50-95": 0.5, "mIoU": 0.7, "mAcc": 0.9}
    metrics: dict[str, Any] = {
        **{key: value - lost for key, value in figures.items()},
        "seg": {name: {key: value - lost for key, value in part.items()} for name, part in seg.items()},
        "pooled": {"mIoU": 0.6, "IoU": {"background": 0.9, "road": 0.8, "lane": 0.2}},
        "classes": {"car": {"P": 0.1, "R": 0.9, "mAP50": 0.75, "mAP50-95": 0.5, "labels": 40}},
        "coco": None,
        "coco_note": "pycocotools is not installed",
    }
    return {
        "runtime": runtime,
        "precision": precision,
        "executed": precision,
        "images": 10,
        "labels": 40,
        "metrics": metrics,
        "intervals": {"mAP50": [0.7, 0.8]},
        "nonfinite": {"count": 0, "images": []},
        **changes,
    }


def drop(**points: float) -> dict[str, Any]:
    """Drops against openvino:fp32, each with an interval of one point to both sides."""
    names = {"map50": "mAP50", "map": "mAP50-95", "road": "road mIoU", "lane": "lane IoU", "acc": "lane Acc", "r": "R"}
    return {
        "baseline": "openvino:fp32",
        "metrics": {names[key]: {"points": value, "interval": [value - 1, value + 1]} for key, value in points.items()},
    }


def skipped_row(runtime: str, reason: str, *, failed: bool = False, precision: str = "fp32") -> dict[str, Any]:
    return {
        "runtime": runtime,
        "precision": precision,
        "skipped": {"reason": reason, "fix": "mend it", "failed": failed},
    }


def report_of(*rows: dict[str, Any], **changes: Any) -> EvalReport:
    values: dict[str, Any] = {
        "rows": rows,
        "data": {
            "path": "datasets",
            "split": "val",
            "images": 10,
            "digest": "ab" * 32,
            "shard": None,
            "broken": {"count": 0, "images": []},
            "dropped_boxes": {"count": 0, "reasons": []},
        },
        "protocol": {"name": "paper", "conf": 0.001, "iou": 0.6, "at": "input"},
        "inputs": {"identical": True, "sha256": "cd" * 32, "differing": []},
        "bundle": {
            "name": "hybridnets_c3_384x640",
            "untrained": False,
            "classes": ["car"],
            "seg_classes": ["road", "lane"],
            "seg_mode": "multiclass",
        },
        "environment": {"hnx": "0", "os": "Linux", "cpu": {"model": "Example 9000"}},
        "settings": {
            "baseline": "openvino:fp32",
            "draws": 200,
            "level": 0.95,
            "watched": ["mAP50", "mAP50-95", "road mIoU", "lane IoU"],
        },
        "created": "2020-01-01T00:00:00+00:00",
    }
    return EvalReport(**{**values, **changes})
