"""The setting that `hnx tune` kept in a bundle, where it holds: on its machine, with its library and its network."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hybridnets.bundle import Bundle
from hybridnets.bundle.manifest import files_of
from hybridnets.bundle.tuning import Place, Tuning, read_tuning
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import PRECISIONS, RuntimeOptions, available_threads
from runtimes.cpu import cpu_model
from runtimes.hardware import gpu_names, isa
from runtimes.registry import entry, installed_version

__all__ = ["LookUp", "is_kept", "look_up", "place_here", "tuned_options"]


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
    record = files_of(bundle.manifest).get(tuning.file)
    if not isinstance(record, dict) or record.get("sha256") != tuning.sha256:
        return LookUp(problem=f"the network it was found with ({tuning.file}) has been replaced")
    return LookUp(tuning)


def is_kept(bundle: Bundle, runtime: str) -> bool:
    """A setting is stored for a runtime, whether it holds here or not."""
    return look_up(bundle, runtime) != LookUp()


def tuned_options(bundle: Bundle, runtime: str, options: RuntimeOptions) -> RuntimeOptions:
    """Options with the stored precision and threads in them, but no more threads than the options allow.

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
    threads = min(found.tuning.threads, options.thread_count)
    return replace(options, precision=found.tuning.precision, threads=threads)
