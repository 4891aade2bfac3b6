"""Which other graphs there are of a network."""

from __future__ import annotations

import pytest

from export.rewrites import REWRITES, parse_rewrites
from hnx.graphs import graph_lists

KNOWN = ("a", "b", "c")


@pytest.mark.parametrize(
    ("done", "lists"),
    [
        # all but one, where it found something
        ({"a": 1, "b": 0, "c": 2}, {"none": "none", "all but a": "b,c", "all but c": "a,b"}),
        # nothing was rewritten; nobody knows what would be found
        ({}, {"all": "all", "all but a": "b,c", "all but b": "a,c", "all but c": "a,b"}),
        # a part
        ({"a": 3}, {"none": "none", "all": "all", "all but a": "b,c", "all but b": "a,c", "all but c": "a,b"}),
        # all but one: that graph is the bundle's own
        ({"a": 3, "c": 1}, {"none": "none", "all": "all", "all but a": "b,c", "all but c": "a,b"}),
        ({"a": 0, "b": 0, "c": 0}, {}),
    ],
)
def test_every_graph_once_and_never_the_bundles_own(done: dict[str, int], lists: dict[str, str]) -> None:
    assert graph_lists(done, KNOWN) == lists


def test_they_are_words_of_the_exporter() -> None:
    for rewrite in graph_lists(dict.fromkeys(REWRITES, 1), REWRITES).values():
        parse_rewrites(rewrite)
