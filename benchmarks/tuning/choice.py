"""Which of the measured settings is taken, and why not each of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.tuning.settings import Setting
from benchmarks.tuning.timing import Timed, ratio

__all__ = ["choose", "int8_remark", "over_budget", "unresolved"]

# what loses least comes first: bits of the mantissa
_CAREFUL = ("fp32", "fp16", "bf16", "int8")


def choose(timed: Mapping[Setting, Timed], allowed: Sequence[Setting]) -> Setting:
    """The fastest allowed setting; of those that the rounds cannot tell from it the most careful one.

    Careful is the precision that loses less; with the same precision the bundle's own graph, then fewer streams, then
    fewer threads, which leaves cores to other programs.
    """
    fastest = min(allowed, key=lambda setting: _middle(timed, setting, allowed[0]))
    alike = [setting for setting in allowed if setting == fastest or unresolved(timed[setting], timed[fastest])]
    return min(alike, key=_care)


def _care(setting: Setting) -> tuple[int, bool, int, int]:
    return _CAREFUL.index(setting.precision), bool(setting.rewrites), setting.streams, setting.threads


def _middle(timed: Mapping[Setting, Timed], setting: Setting, baseline: Setting) -> float:
    return ratio(timed[setting], timed[baseline])[1]


def unresolved(slower: Timed, faster: Timed) -> bool:
    """In a quarter of the rounds or more the slower one was no slower."""
    return ratio(slower, faster)[0] <= 1.0


def over_budget(lost: Mapping[str, float], budget: float) -> str:
    """A sentence for the task that lost most, where that is more than the budget; else ""."""
    if not lost:
        return ""
    task = max(lost, key=lambda name: lost[name])
    return f"over the budget: {task} loses {lost[task]:.2f}" if lost[task] > budget else ""


def int8_remark(timed: Mapping[str, Timed], runtime: str) -> str:
    """What to do where INT8 is not faster than a float precision; else "".

    Args:
        timed: precision to its times, all taken in the same turns; without INT8 there is nothing to say.
    """
    floats = [name for name in timed if name != "int8"]
    if "int8" not in timed or not floats:
        return ""
    best = min(floats, key=lambda name: ratio(timed[name], timed[floats[0]])[1])
    low, middle, high = ratio(timed["int8"], timed[best])
    share = f"{middle:.2f} of its time, {low:.2f} to {high:.2f} over the rounds"
    if high < 1.0:
        return ""
    if middle < 1.0:
        return (
            f"{runtime}: int8 is not resolved from {best} by these rounds ({share}); {best} loses less and needs no "
            "calibration: take it unless more rounds say otherwise"
        )
    return (
        f"{runtime}: int8 is not faster than {best} on this machine ({share}); take {best}, which loses less and needs "
        "no calibration"
    )
