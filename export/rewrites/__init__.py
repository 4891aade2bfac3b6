"""Exact rewrites of an exported graph: the same function in fewer operations, one pass for each idea.

A pass is a function on a `GraphEditor` that returns how many places it changed; its module states the algebra. Passes
always run in the order of `REWRITES`, whatever the order in which they were asked for, and a second run of a pass on
its own result changes nothing.
"""

from __future__ import annotations

from export.rewrites.manager import REWRITES, PassReport, Rewrite, apply_rewrites, parse_rewrites
from export.rewrites.statistics import Statistics, statistics

__all__ = ["REWRITES", "PassReport", "Rewrite", "Statistics", "apply_rewrites", "parse_rewrites", "statistics"]
