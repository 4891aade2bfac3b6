"""Whether parts of a report that somebody else may have written have the form that their readers rely on."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

__all__ = ["all_objects", "is_number", "numbers", "optional_numbers"]


def is_number(value: Any) -> bool:
    """A finite number, and not a truth value.

    >>> [is_number(value) for value in (1, 2.5, True, "1", None, float("nan"))]
    [True, True, False, False, False, False]
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def numbers(value: Any, keys: Collection[str]) -> bool:
    """An object with a number for each key.

    >>> numbers({"p50": 1, "p99": None}, ("p50",)), numbers({"p50": 1}, ("p50", "p99"))
    (True, False)
    """
    return isinstance(value, dict) and all(is_number(value.get(key)) for key in keys)


def optional_numbers(value: Any, keys: Collection[str]) -> bool:
    """None, or an object in which each key has a number or nothing.

    >>> [optional_numbers(value, ("a",)) for value in (None, {"a": 1, "b": ""}, {"a": None}, {"a": "1"}, 3)]
    [True, True, True, False, False]
    """
    return value is None or (
        isinstance(value, dict) and all(value.get(key) is None or is_number(value[key]) for key in keys)
    )


def all_objects(*values: Any) -> bool:
    """Each is an object, or missing.

    >>> all_objects(None, {}, {"a": 1}), all_objects([])
    (True, False)
    """
    return all(value is None or isinstance(value, dict) for value in values)
