"""Where files that can be fetched or made again are kept between commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hybridnets.errors import HnxError

__all__ = ["OFF", "cache_folder", "compiled_folder"]

# this word in HNX_CACHE keeps compiled networks nowhere; everything else is kept at the usual place
OFF = "off"


def cache_folder() -> Path:
    """The folder of this user's cache, as an absolute path. Nothing is made.

    `HNX_CACHE` names it, unless it says `off`; else it is `hnx` in `XDG_CACHE_HOME` (which must be absolute, as its
    specification says), in %LOCALAPPDATA% on Windows, in ~/Library/Caches on macOS, in ~/.cache elsewhere.

    Raises:
        HnxError: this user has no home, and no variable names another place.
    """
    try:
        if (named := os.environ.get("HNX_CACHE")) and named != OFF:
            return Path(named).expanduser().absolute()
        if (named := os.environ.get("XDG_CACHE_HOME")) and Path(named).is_absolute():
            return Path(named) / "hnx"
        if sys.platform == "win32" and (named := os.environ.get("LOCALAPPDATA")):
            return Path(named) / "hnx"
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "hnx"
    except (OSError, RuntimeError) as error:  # a service without a home, a current folder that is gone
        raise HnxError(
            "There is no folder for downloaded files",
            why=str(error) or "this user has no home",
            fix="name one: HNX_CACHE=/path/to/folder",
        ) from error


def compiled_folder(runtime: str) -> Path | None:
    """Where networks that a runtime compiled are kept; None where `HNX_CACHE` is `off` or this user has no place.

    Nothing is made, and the folder need not be one that can be written: what lies there is used all the same.
    """
    if os.environ.get("HNX_CACHE") == OFF:
        return None
    try:
        return cache_folder() / runtime
    except HnxError:  # containers and services often run as a user without a home: they load slower, and nothing else
        return None
