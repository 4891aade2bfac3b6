"""What users are told of other people's exceptions."""

from __future__ import annotations

import pytest

from hybridnets.errors import first_line, kind_and_line, last_line


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


def test_the_last_line() -> None:
    assert last_line(RuntimeError("(-5:Bad argument) in function 'resize'\n> Overload resolution failed\n\n")) == (
        "> Overload resolution failed"
    )
    assert last_line(ValueError("one")) == "one"
    assert last_line(OSError()) == "OSError"


def test_kind_and_line() -> None:
    assert kind_and_line(KeyError(3)) == "KeyError: 3"
    assert kind_and_line(AssertionError()) == "AssertionError"
