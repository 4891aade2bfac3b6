"""Convolutions of one input as one: the same channels, in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from export.rewrites import apply_rewrites, parallel_convolutions
from tests.export.rewrites.networks import CASES, SMALL, Case, assert_idempotent, changed_by, graph, kinds

NAME = "parallel-convolutions"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_first_cell_projects_p4_and_p5_once(case: Case) -> None:
    model = graph(case)
    rewritten, moved = changed_by(model, NAME)
    assert moved < 1e-5
    assert_idempotent(rewritten, NAME)
    _, (report,) = apply_rewrites(model, [NAME])
    assert kinds(rewritten)["Conv"] == kinds(model)["Conv"] - report.places
    assert report.after.macs == report.before.macs
    projected = {node.input[0] for node in rewritten.graph.node if node.name.endswith("_merged")}
    assert len(projected) == kinds(rewritten)["Split"] == 2


@pytest.mark.parametrize("opset", [11, 20])
def test_both_forms_of_split(opset: int) -> None:
    rewritten, moved = changed_by(graph(SMALL, opset), NAME)
    assert moved < 1e-5
    (split, *_) = [node for node in rewritten.graph.node if node.op_type == "Split"]
    assert len(split.input) == (1 if opset < 13 else 2)


@pytest.mark.parametrize("mutation", ["swapped", "without biases"])
def test_broken_algebra_is_seen(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = parallel_convolutions._merge

    def wrong(editor: Any, source: str, group: list[Any]) -> None:
        if mutation == "swapped":
            nodes = [part.node for part in group]
            group = [part._replace(node=node) for part, node in zip(reversed(group), nodes, strict=True)]
        else:
            group = [part._replace(bias=np.zeros_like(part.bias)) for part in group]
        merge(editor, source, group)

    monkeypatch.setattr(parallel_convolutions, "_merge", wrong)
    _, moved = changed_by(graph(SMALL), NAME)
    assert moved > 1e-3
