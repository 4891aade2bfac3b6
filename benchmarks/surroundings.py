"""Where these packages lie, and the environment of a child process that finds them wherever it starts."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT", "with_root"]

ROOT = Path(__file__).resolve().parent.parent


def with_root(**more: str) -> dict[str, str]:
    """The environment of this process with the packages first on Python's path.

    Args:
        more: further variables.
    """
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
