"""Names of rewrites, their order, their reports, and what is refused."""

from __future__ import annotations

import itertools
import json

import onnx
import pytest

from export.rewrites import REWRITES, apply_rewrites, parse_rewrites
from hybridnets.errors import ExitCode, HnxError
from tests.export.rewrites.networks import PUBLISHED, SMALL, Case, assert_idempotent, distance, graph


def test_names() -> None:
    assert parse_rewrites("all") == tuple(REWRITES)
    assert parse_rewrites("none") == ()
    names = list(REWRITES)
    assert parse_rewrites(f" {names[-1]} ,{names[0]},") == tuple(dict.fromkeys((names[0], names[-1])))
    assert all(rewrite.name == name and rewrite.summary for name, rewrite in REWRITES.items())


@pytest.mark.parametrize("text", ["", ",", "all,none", "none,segmentation-head", "segmentationhead", "ALL"])
def test_bad_lists(text: str) -> None:
    with pytest.raises(HnxError) as caught:
        parse_rewrites(text)
    assert caught.value.code == ExitCode.USAGE
    assert caught.value.fix


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(HnxError, match="did you mean 'segmentation-head'"):
        parse_rewrites("segmentation_head")
    with pytest.raises(HnxError, match="did you mean 'segmentation-head'"):
        apply_rewrites(graph(SMALL), ["segmentation_head"])


@pytest.mark.parametrize("case", [SMALL, PUBLISHED], ids=str)
def test_all_of_them_one_after_the_other(case: Case) -> None:
    model = graph(case)
    rewritten, reports = apply_rewrites(model, tuple(reversed(REWRITES)))
    assert [report.name for report in reports] == list(REWRITES)
    assert all(a.after == b.before for a, b in itertools.pairwise(reports))
    assert distance(rewritten, model) < 1e-5
    again, second = apply_rewrites(rewritten, tuple(REWRITES))
    assert [report.places for report in second] == [0] * len(REWRITES)
    assert again == rewritten
    for name in REWRITES:
        assert_idempotent(rewritten, name)


def test_reports_are_json_and_one_line_each() -> None:
    _, reports = apply_rewrites(graph(SMALL), ["segmentation-head"])
    (report,) = reports
    stored = json.loads(json.dumps(report.to_json()))
    assert stored["before"]["nodes"] == len(graph(SMALL).graph.node)
    assert stored["places"] == 1
    assert "\n" not in str(report)
    assert "GMAC" in str(report)


def test_none_is_the_same_graph() -> None:
    model = graph(SMALL)
    same, reports = apply_rewrites(model, ())
    assert reports == ()
    assert same == model
    assert same is not model


def test_a_graph_that_makes_no_sense() -> None:
    model = onnx.ModelProto()
    model.CopyFrom(graph(SMALL))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.input[0] = "nobody makes this"
    with pytest.raises(HnxError, match="cannot be rewritten"):
        apply_rewrites(model, ["segmentation-head"])
