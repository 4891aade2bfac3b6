"""Numbers written as arithmetic in a project file, read without eval."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

__all__ = ["parse_arithmetic"]

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_MAX_LENGTH = 2000  # upstream's longest line has 60 characters


def parse_arithmetic(text: str) -> Any:
    """Value of an expression of numbers, + - * / **, parentheses, lists and tuples.

    All numbers become floats before they are combined, so no power can grow an integer without bound.

    Raises:
        ValueError: anything else stands in the text, or a result is not finite.

    >>> parse_arithmetic("[2**0, (0.62, 3/2)]")
    [1.0, (0.62, 1.5)]
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"longer than {_MAX_LENGTH} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body)
    except (SyntaxError, RecursionError, MemoryError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return _number(node)


def _number(node: ast.expr) -> float:
    # True is an int to Python, not to a project file
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        result = float(node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        operand = _number(node.operand)
        result = -operand if isinstance(node.op, ast.USub) else operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        power = _BINARY[type(node.op)](_number(node.left), _number(node.right))
        if isinstance(power, complex):
            raise ValueError("a root of a negative number")
        result = power
    else:
        raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")
    if not math.isfinite(result):
        raise ValueError("the result is not finite")
    return result
