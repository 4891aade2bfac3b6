"""File names made of names from elsewhere."""

from __future__ import annotations

import re

__all__ = ["safe_name"]

_LONGEST = 80  # of 255 bytes that file systems allow; a file name here has two such parts


def safe_name(text: str) -> str:
    """A part of a file name, whatever the text: ASCII letters, digits, dots, dashes and underscores.

    Different texts may become equal: `hybridnets.sinks.OutputNames` keeps their files apart.

    >>> safe_name("../a b:c")
    'a_b_c'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:_LONGEST] or "unnamed"
