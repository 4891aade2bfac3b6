"""What INT8 is worth on this machine, for `hnx quantize`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from hnx.trials import HERE
from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from benchmarks.tuning.timing import Timed
    from hybridnets.bundle import Bundle

__all__ = ["Times", "check_ratio", "time_precisions", "verdict"]

# runtime -> precision -> times that were taken in the same turns
Times = Mapping[str, Mapping[str, "Timed"]]


def check_ratio(targets: Collection[str], max_ratio: float | None) -> None:
    """Refuse a limit on a time that nothing could measure.

    Raises:
        HnxError: no target runs on a CPU (exit code 2), or no runtime of one is here (exit code 4).
    """
    from runtimes.registry import entry, probe

    if max_ratio is None:
        return
    states = {name: probe(entry(name)) for name in targets if name in HERE}
    if not states:
        raise HnxError(
            f"--max-latency-ratio has nothing to measure for {', '.join(targets)}",
            why="those networks do not run on a CPU",
            fix=f"add {' or '.join(HERE)} to --for, or leave --max-latency-ratio out",
            code=ExitCode.USAGE,
        )
    reasons = {name: state.reason or state.precisions.get("int8", "it knows no int8") for name, state in states.items()}
    if all(reasons.values()):
        raise HnxError(
            "--max-latency-ratio cannot be measured here",
            why="; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
            fix=next(filter(None, (state.fix for state in states.values())), "leave --max-latency-ratio out"),
            code=ExitCode.NOTHING_RAN,
        )


def time_precisions(bundle: Bundle, targets: Collection[str], threads: int) -> dict[str, dict[str, Timed]]:
    """Time all precisions of each runtime that is a target and runs INT8 here; others are named in notes."""
    from benchmarks.tuning.settings import Setting, precisions
    from benchmarks.tuning.timing import time_settings
    from hnx.console import note, status
    from hnx.trials import ROUND_S, ROUNDS

    found = {}
    for target in (name for name in targets if name in HERE):
        try:
            names, left_out = precisions(bundle, target)
        except HnxError as error:
            note(f"{error.what}: {error.why}; nothing was measured")
            continue
        if "int8" in left_out:
            note(f"{target} runs no int8 here, so nothing was measured: {left_out['int8']}")
            continue
        settings = [Setting(name, threads) for name in names]
        try:
            with status(f"timing {target}") as step:
                timed = time_settings({"": bundle}, target, settings, rounds=ROUNDS, seconds=ROUND_S, on_step=step)
        except HnxError as error:  # what was made is good, whether or not there is memory to time it
            note(f"{error.what}: {error.why}; nothing was measured")
            continue
        found[target] = {setting.precision: times for setting, times in timed.items()}
    return found


def verdict(times: Times, max_ratio: float | None) -> None:
    """Print INT8's time beside that of the other precisions, and say which one to take.

    Raises:
        HnxError: INT8 takes more than `max_ratio` of FP32's time (exit code 3), or nothing was measured.
    """
    from benchmarks.tuning.choice import int8_remark
    from benchmarks.tuning.timing import ratio
    from hnx.console import note

    slow: list[str] = []
    for runtime, timed in times.items():
        ratios = {name: ratio(value, timed["fp32"]) for name, value in timed.items()}
        shares = ", ".join(f"{name} {mid:.2f} ({low:.2f} to {high:.2f})" for name, (low, mid, high) in ratios.items())
        print(f"{runtime}, time as a share of fp32's over {len(timed['fp32'].rounds)} rounds: {shares}")
        if remark := int8_remark(timed, runtime):
            note(remark)
        if max_ratio is not None and ratios["int8"][1] > max_ratio:
            slow.append(f"{runtime} {ratios['int8'][1]:.2f}")
    if max_ratio is not None and not times:
        raise HnxError(
            "No latency was measured", why="nothing that was made runs here", fix="leave --max-latency-ratio out"
        )
    if slow:
        raise HnxError(
            f"INT8 takes more than {max_ratio:g} of FP32's time",
            why=", ".join(slow),
            fix="take the precision recommended above, or quantise on the machine it is for",
            code=ExitCode.GATE_FAILED,
        )
