"""The setting that `hnx tune` kept in a bundle, where it holds: on its machine, with its library and its network."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hybridnets.bundle import Bundle, Variant
from hybridnets.bundle.manifest import files_of
from hybridnets.bundle.tuning import Place, Tuning, is_tuned_file, read_tuning
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file
from hybridnets.onnx_header import read_onnx_header
from runtimes.base import PRECISIONS, RuntimeOptions, available_threads
from runtimes.cpu import cpu_model
from runtimes.hardware import gpu_names, isa
from runtimes.registry import entry, installed_version

__all__ = ["LookUp", "is_kept", "look_up", "place_here", "with_tuning"]


@dataclass(frozen=True)
class LookUp:
    """What became of looking for a stored setting.

    Attributes:
        tuning: the one that holds here; None where there is none.
        problem: why what is stored does not hold here; empty where nothing is stored.
    """

    tuning: Tuning | None = None
    problem: str = ""


def place_here(runtime: str) -> Place:
    """This machine and this installation of a runtime's library, which is not imported."""
    row = entry(runtime)
    return Place(
        cpu=cpu_model(),
        instructions=tuple(isa()),
        cores=available_threads(),
        library=installed_version(row),
        devices=tuple(gpu_names()) if row.gpu else (),
    )


def look_up(bundle: Bundle, runtime: str) -> LookUp:
    """The stored setting of a runtime, if it holds for this machine, this library and the bundle's networks."""
    try:
        tuning = read_tuning(bundle, runtime)
        if tuning is None:
            return LookUp()
        if tuning.precision not in PRECISIONS:
            raise ValueError(f"{tuning.precision!r} is no precision")
        RuntimeOptions(tuning.precision, tuning.threads, tuning.streams)  # its own checks
    except ValueError as error:
        return LookUp(problem=f"it cannot be read ({error})")
    except HnxError as error:
        return LookUp(problem=f"it cannot be read ({error.what})")
    changed = tuning.place.differences(place_here(runtime))
    if changed:
        return LookUp(problem="; ".join(changed))
    problem = _other_graph(bundle, tuning) if tuning.rewrites else _other_file(bundle, tuning)
    return LookUp(problem=problem) if problem else LookUp(tuning)


def _other_file(bundle: Bundle, tuning: Tuning) -> str:
    """Why a network of the bundle is not the one of a tuning; "" where it is."""
    record = files_of(bundle.manifest).get(tuning.file)
    same = isinstance(record, dict) and record.get("sha256") == tuning.sha256
    return "" if same else f"the network it was found with ({tuning.file}) has been replaced"


def _other_graph(bundle: Bundle, tuning: Tuning) -> str:
    """Why a graph that a search made cannot stand for the bundle's own; "" where it can."""
    if not is_tuned_file(tuning.file):
        return f"{tuning.file} is no graph that hnx tune makes"
    path = bundle.path / tuning.file
    if not path.is_file():
        return f"the graph it was found with ({tuning.file}) is missing"
    try:
        if sha256_file(path) != tuning.sha256:
            return f"the graph it was found with ({tuning.file}) has been replaced"
        header = read_onnx_header(path)
    except HnxError as error:
        return f"{error.what} ({error.why})"
    theirs = sorted(map(str, header.inputs)), sorted(map(str, header.outputs))
    ours = [str(bundle.input)], sorted(map(str, bundle.outputs.values()))
    return "" if theirs == ours else f"{tuning.file} has other inputs and outputs than the bundle"


def is_kept(bundle: Bundle, runtime: str) -> bool:
    """A setting is stored for a runtime, whether it holds here or not."""
    return look_up(bundle, runtime) != LookUp()


def with_tuning(bundle: Bundle, runtime: str, options: RuntimeOptions) -> tuple[Bundle, RuntimeOptions]:
    """What is kept for a runtime, to be opened: the bundle, with the graph that `hnx tune` made first among its
    networks where there is one, and options with the kept precision and threads, but no more threads than the options
    allow.

    The streams stay as they are: how many requests run side by side is the caller's doing.

    Raises:
        HnxError: no setting is stored that holds here (exit code 4).
    """
    found = look_up(bundle, runtime)
    if found.tuning is None:
        raise HnxError(
            f"Bundle {bundle.name} is not tuned for {runtime} here",
            why=found.problem or "no setting is stored",
            fix=f"hnx tune {bundle.path} --runtime {runtime}",
            code=ExitCode.NOTHING_RAN,
        )
    tuning = found.tuning
    if tuning.rewrites:
        bundle = replace(bundle, variants=(Variant("fp32", tuning.file, (runtime,)), *bundle.variants))
    return bundle, replace(options, precision=tuning.precision, threads=min(tuning.threads, options.thread_count))
