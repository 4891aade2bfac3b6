"""Networks that a search wants measured: put into a copy of the bundle, and run as users would run them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from benchmarks.accuracy.metrics import Accumulator
    from calibration.engine import Calibrated, QuantiseConfig
    from hybridnets.bundle import Bundle
    from hybridnets.dataset import Sample, Split

__all__ = ["Trials", "place_of", "trials"]


def runtime_of(target: str) -> str:
    """The runtime that computes the networks of a target here."""
    return target if target in ("openvino", "onnxruntime") else "onnxruntime"


def place_of(target: str) -> dict[str, Any]:
    """What decides the figures of a network beside the network: another version, or a CPU with other units, rounds
    otherwise."""
    from runtimes.hardware import isa
    from runtimes.registry import entry, installed_version

    name = runtime_of(target)
    return {"runtime": name, "version": installed_version(entry(name)), "instructions": isa()}


class Trials:
    """Measures quantised networks on labelled images, which are read once and kept: 0.5 MB each at 640x384.

    Args:
        folder: of the copy of the bundle.
        target: key of `calibration.engine.TARGETS`, not fp16; `tensorrt` is computed by ONNX Runtime.
        samples: labelled images whose `frame` is letterboxed already.
        threads: of the network.
    """

    def __init__(
        self,
        folder: Path,
        target: str,
        found: Calibrated,
        config: QuantiseConfig,
        samples: Sequence[Sample],
        threads: int,
    ) -> None:
        from hybridnets.bundle import open_bundle

        self.target, self.found, self.config, self.samples, self.threads = target, found, config, samples, threads
        self.runtime = runtime_of(target)
        self.bundle = open_bundle(folder)
        self._float: Accumulator | None = None

    def __call__(self, kept: Collection[str] | None) -> dict[str, float]:
        """Points of each task; `kept` are the blocks in float, None the float network.

        Raises:
            HnxError: the runtime refuses the network, or the labels fit none of its tasks.
        """
        from dataclasses import replace

        from benchmarks.accuracy.quick import tasks
        from calibration.engine import variant_of
        from calibration.variants import add_variants

        if kept is None:
            return tasks(self._float_scores())
        variant = replace(variant_of(self.target, self.found, self.config, kept), runtimes=(self.runtime,))
        self.bundle = add_variants(self.bundle, [variant])
        return tasks(self._scores("int8"))

    def unmeasurable(self) -> Mapping[str, str]:
        """Task -> why no loss could be seen in it on these images.

        Raises:
            HnxError: the runtime refuses the float network.
        """
        from benchmarks.accuracy.measurable import unmeasurable

        scores = self._float_scores()
        return unmeasurable(scores.metrics(coco=False).to_json(), scores.heads)

    def _float_scores(self) -> Accumulator:
        if self._float is None:
            self._float = self._scores("fp32")
        return self._float

    def _scores(self, precision: str) -> Accumulator:
        from benchmarks.accuracy.quick import score
        from runtimes.base import RuntimeOptions
        from runtimes.opening import open_runtime

        with open_runtime(
            self.runtime, self.bundle, RuntimeOptions(precision=precision, threads=self.threads)
        ) as runtime:
            return score(runtime, self.samples)


@contextlib.contextmanager
def trials(
    bundle: Bundle, target: str, found: Calibrated, config: QuantiseConfig, split: Split, limit: int, threads: int
) -> Iterator[Trials]:
    """A `Trials` on the first images of a split; its copy of the bundle goes with it.

    Raises:
        HnxError: no image can be read, or there is no room for the copy.
    """
    from benchmarks.accuracy.quick import read_samples

    if target == "fp16":
        raise HnxError(
            "FP16 has no blocks to choose", fix="name openvino, onnxruntime or tensorrt", code=ExitCode.USAGE
        )
    samples = read_samples(bundle, split, limit)
    with tempfile.TemporaryDirectory(prefix="hnx-trials-") as folder:
        copy = Path(folder) / bundle.name
        shutil.copytree(bundle.path, copy, copy_function=_link)
        yield Trials(copy, target, found, config, samples, threads)


def _link(source: str, target: str) -> str:
    """A hard link where that is possible; the copy's manifest and variants are replaced, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
