"""Opening a bundle on a runtime: what stands in the way, and what `hnx tune` kept."""

from __future__ import annotations

from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes import registry
from runtimes.base import TUNED, Runtime, RuntimeOptions
from runtimes.registry import RuntimeEntry
from runtimes.tuned import look_up, with_tuning

__all__ = ["first_runnable", "missing_variant", "obstacle", "open_runtime"]


def missing_variant(bundle: Bundle, row: RuntimeEntry, precision: str) -> dict[str, str] | None:
    """Reason and fix where a bundle stores no network (or no tuned setting that holds here), else None."""
    if precision == TUNED:
        return _not_tuned(bundle, row)
    stored = registry.runtime_class(row).stored.get(precision, "fp32")
    if any(v.precision == stored and (not v.runtimes or row.name in v.runtimes) for v in bundle.variants):
        return None
    made_by = f"hnx quantize {bundle.path}" + (" --for fp16" if stored == "fp16" else "")
    return {"reason": f"the bundle stores no {stored} network for {row.name}", "fix": made_by}


def _not_tuned(bundle: Bundle, row: RuntimeEntry) -> dict[str, str] | None:
    found = look_up(bundle, row.name)
    if found.tuning is not None:
        return None
    reason = f"the setting of hnx tune is not used here: {found.problem}" if found.problem else "no setting is kept"
    return {"reason": reason, "fix": f"hnx tune {bundle.path} --runtime {row.name}"}


def obstacle(bundle: Bundle, row: RuntimeEntry, precision: str) -> dict[str, str] | None:
    """Reason and fix where a runtime that is here cannot run a precision of a bundle, else None."""
    refusal = registry.runtime_class(row).refuses(bundle)
    if refusal is not None:
        return {"reason": refusal[0], "fix": refusal[1]}
    return missing_variant(bundle, row, precision)


def open_runtime(word: str, bundle: Bundle, options: RuntimeOptions | None = None) -> Runtime:
    """Open a bundle on a runtime by name, or on the first that runs here for `auto`.

    The precision `tuned` runs what `hnx tune` kept in the bundle for this machine.

    Raises:
        HnxError: unknown runtime (code 2), nothing can run here or nothing is kept for it (code 4), or the library
            refuses the network.
    """
    options = options or RuntimeOptions()
    tuned = options.precision == TUNED
    if word != "auto":
        row = registry.entry(word)
        state = registry.probe(row)
        if not state.available:
            raise HnxError(f"{row.name} cannot run here", why=state.reason, fix=state.fix, code=ExitCode.NOTHING_RAN)
    else:
        row = first_runnable(bundle, "fp32" if tuned else options.precision)
    if tuned:
        bundle, options = with_tuning(bundle, row.name, options)
    return registry.runtime_class(row)(bundle, options).open()


def first_runnable(bundle: Bundle, precision: str) -> RuntimeEntry:
    """The first runtime of the registry that runs a precision of a bundle here.

    Raises:
        HnxError: none does, with the reason of each (exit code 4).
    """
    reasons = []
    fixes = []
    for row in registry.REGISTRY:
        state = registry.probe(row)
        reason = state.reason or state.precisions.get(precision, f"no {precision}")
        if precision in state.runnable():
            problem = obstacle(bundle, row, precision)
            if problem is None:
                return row
            reason = problem["reason"]
            fixes.append(problem["fix"])
        reasons.append(f"{row.name}: {reason}")
    raise HnxError(
        f"No runtime can run {precision} here",
        why="; ".join(reasons),
        fix=fixes[0] if fixes else 'pip install -e ".[openvino]"',
        code=ExitCode.NOTHING_RAN,
    )
