"""Networks that a search wants measured: put into a copy of the bundle, and run as users would run them."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import temporary_directory

if TYPE_CHECKING:
    from benchmarks.accuracy.metrics import Accumulator
    from benchmarks.tuning.timing import Timed
    from calibration.engine import Calibrated, QuantiseConfig
    from hybridnets.bundle import Bundle
    from hybridnets.dataset import Sample, Split

__all__ = ["HERE", "ROUNDS", "ROUND_S", "Trials", "place_of", "trials"]

# targets whose networks run here; those for TensorRT are timed by `hnx bench` on the machine they are for
HERE = ("openvino", "onnxruntime")

# of each network: some 6 s altogether; quartiles of 12 rounds are those of the third and the ninth
ROUNDS = 12
ROUND_S = 0.5


def runtime_of(target: str) -> str:
    """The runtime that computes the networks of a target here."""
    return target if target in HERE else "onnxruntime"


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

    def times(
        self, mixtures: Sequence[Collection[str]], on_step: Callable[[str], None] = lambda _: None
    ) -> tuple[dict[str, Timed], list[Timed]]:
        """Time the float precisions that run here and INT8 networks, all in turns.

        Args:
            mixtures: blocks in float of each network.

        Returns:
            Precision to its times, float32 first; and the times of each mixture.

        Raises:
            HnxError: the target's own runtime is not here, or there is no memory for all of them side by side.
        """
        from benchmarks.int8.networks import with_file
        from benchmarks.tuning.settings import Setting, precisions
        from benchmarks.tuning.timing import time_networks
        from calibration.engine import variant_of
        from hybridnets.files import write_bytes

        if self.runtime != self.target:
            raise HnxError(
                f"No network for {self.target} was timed",
                why=f"{self.runtime} computes its figures here, and its times say nothing about {self.target}",
                fix="time it on the machine it is for, with `hnx bench`",
            )
        floats = [name for name in precisions(self.bundle, self.runtime)[0] if name != "int8"]
        networks = {name: (self.bundle, Setting(name, self.threads)) for name in floats}
        labels = []
        for number, kept in enumerate(mixtures):
            path = self.bundle.path / f"mixture{number}.onnx"
            write_bytes(path, variant_of(self.target, self.found, self.config, kept).model.SerializeToString())
            labels.append(f"int8 with {len(kept)} in float")
            networks[labels[-1]] = (with_file(self.bundle, path), Setting("int8", self.threads))
        found = time_networks(networks, self.runtime, rounds=ROUNDS, seconds=ROUND_S, on_step=on_step)
        return {name: found[name] for name in floats}, [found[label] for label in labels]

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
    with temporary_directory("hnx-trials-") as folder:
        copy = folder / bundle.name
        shutil.copytree(bundle.path, copy, copy_function=_link)
        yield Trials(copy, target, found, config, samples, threads)


def _link(source: str, target: str) -> str:
    """A hard link where that is possible; the copy's manifest and variants are replaced, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
