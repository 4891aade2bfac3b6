"""The one exception users see, and the exit codes of the command line."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from enum import IntEnum

__all__ = [
    "ExitCode",
    "HnxError",
    "did_you_mean",
    "first_line",
    "from_os_error",
    "kind_and_line",
    "last_line",
    "printable",
]


class ExitCode(IntEnum):
    """What every `hnx` command returns to the shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    GATE_FAILED = 3  # the work was done, a tolerance or budget was exceeded
    NOTHING_RAN = 4  # no requested runtime or device can run here
    INTERRUPTED = 130


class HnxError(Exception):
    """A failure the user can act on.

    Args:
        what: what failed, naming the file, tensor or option.
        why: the cause, as far as it is known.
        fix: what to do next, a command where there is one.
        code: the exit status of the command that ends with this error.

    >>> print(HnxError("Cannot read a.pth", why="it is empty", fix="download it again"))
    Cannot read a.pth
      why: it is empty
      fix: download it again
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(what, why, fix, code)
        self.what, self.why, self.fix, self.code = what, why, fix, code

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(map(printable, lines))

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only arguments: the default pickling (used between processes) would fail
        return (_rebuild, (self.what, self.why, self.fix, self.code))


def _rebuild(what: str, why: str, fix: str, code: ExitCode) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=code)


def printable(text: str) -> str:
    """Text that cannot command a terminal: names from files may hold escape sequences and line breaks.

    >>> printable("a\\x1b[31m b")
    'a\\\\x1b[31m b'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_SHOWN = 20  # names in one sentence


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the closest known word, and all of them.

    >>> did_you_mean("opnvino", ["torch", "openvino"])
    "did you mean 'openvino'? Known: torch, openvino"
    """
    names = list(known)
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    head = f"did you mean {close[0]!r}? " if close else ""
    return f"{head}Known: {shown}"


_OS_ERRORS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose another folder"),
    errno.EDQUOT: ("your disk quota is used up", "free some space, or choose another folder"),
    errno.EACCES: ("permission denied", "choose a folder you may write to, or change its permissions"),
    errno.EPERM: ("permission denied", "choose a folder you may write to, or change its permissions"),
    errno.EROFS: ("the file system is read-only", "choose a folder on a writable disk"),
    errno.EEXIST: ("a file with this name is in the way", "choose another name, or move it away"),
    errno.ENOENT: ("it does not exist", "check the path"),
    errno.EISDIR: ("it is a folder, a file was expected", "name a file"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter name"),
    errno.EMFILE: ("too many open files", "raise the limit: ulimit -n 4096"),
}


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's text, cut to 300 characters; its type where it says nothing.

    Libraries print whole call stacks.
    """
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """As `first_line`, of the last line: where OpenCV says what it missed."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    lines = [line.strip()[:300] for line in str(error).splitlines() if line.strip()]
    return lines or [type(error).__name__]


def kind_and_line(error: BaseException) -> str:
    """Its type and `first_line`, for texts that may be a bare number or nothing."""
    name, text = type(error).__name__, first_line(error)
    return name if text == name else f"{name}: {text}"


def from_os_error(what: str, error: OSError) -> HnxError:
    """The user's error for a failed file operation."""
    why, fix = _OS_ERRORS.get(error.errno or 0, (error.strerror or str(error), "check the path and the disk"))
    name = f" ({error.filename})" if error.filename is not None else ""
    return HnxError(what, why=why + name, fix=fix)
