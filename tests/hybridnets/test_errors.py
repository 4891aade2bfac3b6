"""What users are told of other people's exceptions."""

from __future__ import annotations

import pytest

from hybridnets.errors import first_line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no such node"), "no such node"),
        (RuntimeError("\n\n  Check failed: x\n at core.cpp:132\n"), "Check failed: x"),
        (AssertionError(), "AssertionError"),
        (EOFError(" \n "), "EOFError"),
        (ValueError("x" * 1000), "x" * 300),
    ],
)
def test_the_first_line_says_something_and_is_short(error: Exception, expected: str) -> None:
    assert first_line(error) == expected
