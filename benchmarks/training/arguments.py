"""What the command lines of this package share."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable

from hybridnets.errors import ExitCode, HnxError

__all__ = ["ending", "positive", "size"]


def size(text: str) -> tuple[int, int]:
    """`640x384` as (width, height)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 640x384")
    return int(match[1]), int(match[2])


def positive(text: str) -> int:
    """A whole number above 0."""
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def ending(action: Callable[[], int]) -> int:
    """Exit code of an action; its errors as sentences on standard error."""
    try:
        return action()
    except HnxError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        return int(ExitCode.INTERRUPTED)
