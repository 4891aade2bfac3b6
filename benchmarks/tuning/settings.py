"""Settings that are tried: precisions first, then other graphs, threads and streams of the best one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes.opening import obstacle
from runtimes.registry import entry, probe

__all__ = ["Setting", "precisions", "stream_settings", "thread_settings"]


@dataclass(frozen=True, order=True)
class Setting:
    """How a bundle is run.

    Attributes:
        precision: also chooses the stored network: INT8 runs one of its own, the others share the float one.
        threads: of all inferences together.
        streams: inferences side by side.
        rewrites: another graph of the float network, by the exact rewrites in it; "" is the bundle's own.
    """

    precision: str
    threads: int
    streams: int = 1
    rewrites: str = ""

    def __str__(self) -> str:
        parts = [self.precision, f"{self.threads} thread{'' if self.threads == 1 else 's'}"]
        if self.streams > 1:
            parts.append(f"{self.streams} streams")
        if self.rewrites:
            parts.append(f"rewrites: {self.rewrites}")
        return ", ".join(parts)


def precisions(bundle: Bundle, runtime: str) -> tuple[list[str], dict[str, str]]:
    """Precisions that run here, float32 first, and the reason why not for each of the others.

    Raises:
        HnxError: the runtime is not here, or does not run float32, which everything is compared with (exit code 4).
    """
    row = entry(runtime)
    state = probe(row)
    if not state.available:
        raise HnxError(f"{runtime} cannot run here", why=state.reason, fix=state.fix, code=ExitCode.NOTHING_RAN)
    left_out: dict[str, str] = {}
    found = []
    for name in dict.fromkeys(["fp32", *row.precisions]):
        problem = state.precisions.get(name, f"{runtime} does not know it")
        absent = None if problem else obstacle(bundle, row, name)
        if problem:
            left_out[name] = problem
        elif absent is not None:
            left_out[name] = f"{absent['reason']} (`{absent['fix']}` makes one)"
        else:
            found.append(name)
    if "fp32" not in found:
        raise HnxError(
            f"{runtime} does not run this bundle in float32 here",
            why=left_out["fp32"],
            fix="choose another runtime: `hnx doctor` lists them",
            code=ExitCode.NOTHING_RAN,
        )
    return found, left_out


def thread_settings(best: Setting) -> list[Setting]:
    """The setting with half of its threads, a quarter, and so on to one: all cores are not always fastest, since
    threads of one core share its units and small maps have too little work for many."""
    found = []
    count = best.threads // 2
    while count >= 1:
        found.append(replace(best, threads=count))
        count //= 2
    return found


def stream_settings(best: Setting) -> list[Setting]:
    """The setting with 2, 4 and so on streams, up to one for each thread."""
    found = []
    count = 2 * best.streams
    while count <= best.threads:
        found.append(replace(best, streams=count))
        count *= 2
    return found
