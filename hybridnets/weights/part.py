"""The half-finished file of a download, and what the server said about the whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from hybridnets.errors import HnxError
from hybridnets.files import read_json, write_json
from hybridnets.weights.answers import Answer, StaleError

__all__ = ["Part"]


class Part:
    """`TARGET.part` and `TARGET.part.json`.

    Attributes:
        target: the file they become.
        path: what has arrived.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self._notes = target.with_name(target.name + ".part.json")
        self._validator: str | None = None
        self._total: int | None = None

    def size(self) -> int:
        """Bytes that have arrived."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def prepare(self, url: str, *, known: bool) -> None:
        """Read the notes of an earlier process; start anew where going on could join two different files.

        Args:
            url: what is fetched.
            known: the digest of the whole is recorded, which would show a wrong join.
        """
        notes: Any = None
        with contextlib.suppress(HnxError):
            notes = read_json(self._notes, limit=1 << 16)
        same = isinstance(notes, dict) and notes.get("url") == url
        validator = notes.get("validator") if same else None
        # it goes into a header line
        if isinstance(validator, str) and 0 < len(validator) < 256 and validator.isprintable() and validator.isascii():
            self._validator = validator
        self._total = total if same and isinstance(total := notes.get("total"), int) else None
        if self.size() and not (same and (self._validator or known)):
            self.remove()

    def headers(self) -> dict[str, str]:
        """What asks a server for the rest alone."""
        size = self.size()
        if not size:
            return {}
        headers = {"Range": f"bytes={size}-"}
        return {**headers, "If-Range": self._validator} if self._validator else headers

    def begin(self, url: str, answer: Answer) -> None:
        """Get ready for what follows: an empty file and notes about it, if that is the whole.

        Raises:
            StaleError: what follows belongs to another file than what is there.
        """
        if answer.start:
            if self._validator not in (None, answer.validator) or self._total not in (None, answer.total):
                raise StaleError("the server has replaced the file in the meantime")
            return
        self._validator, self._total = answer.validator, answer.total
        self.path.write_bytes(b"")
        write_json(self._notes, {"url": url, "validator": answer.validator, "total": answer.total})

    def finish(self) -> None:
        """Give the file its name."""
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        self.path.replace(self.target)
        self._notes.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget what has arrived."""
        self._validator = self._total = None
        self.path.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)
