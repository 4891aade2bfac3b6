"""Fetch a file of the web whole, once, and the right one: with the standard library alone, as edge devices have it.

What arrives goes into `NAME.part`; a download that broke off goes on from there by HTTP Range, if the server says that
the file is still the same one (If-Range). `NAME.part.json` keeps what it said. Proxies come from the environment
(`https_proxy`, `no_proxy`), certificates from `SSL_CERT_FILE` or the system.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.files import sha256_file
from hybridnets.version import __version__
from hybridnets.weights.answers import Answer, StaleError, TransientError, open_answer
from hybridnets.weights.local import download_folder, local_path, pin, verified, verify
from hybridnets.weights.part import Part
from hybridnets.weights.registry import WeightsEntry

__all__ = ["Policy", "download"]

_CHUNK = 1 << 18
_OFFLINE_ATTEMPTS = 3
_POLL_S = 0.5  # between two looks at a lock that another process holds
Progress = Callable[[int, int | None], None]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Policy:
    """How stubborn a download is.

    Attributes:
        attempts: tries in a row that bring nothing; a try that brings bytes starts the count anew.
        first_wait_s: before the second try; doubled before each further one, at most a minute.
        timeout_s: without a single byte.
        sleep: waits; tests hand in another.

    Raises:
        HnxError: a value is out of range.
    """

    attempts: int = 5
    first_wait_s: float = 1.0
    timeout_s: float = 30.0
    sleep: Callable[[float], None] = field(default=time.sleep)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_wait_s < 0 or not 0 < self.timeout_s < 86_400:
            raise HnxError("A download needs at least one try and a time to wait", code=ExitCode.USAGE)

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds before the next try, after that many in a row; `asked`: what the server asked for."""
        return min(60.0, max(asked or 0.0, self.first_wait_s * 2 ** (failures - 1)))


def download(
    entry: WeightsEntry,
    folder: Path | None = None,
    *,
    again: bool = False,
    policy: Policy | None = None,
    on_progress: Progress = _ignore,
    on_note: Callable[[str], None] = _ignore,
) -> Path:
    """The file of an entry, fetched if it is not there yet. Whole and verified, or not there.

    Args:
        entry: what to fetch. One that is shipped is copied if a folder is given.
        folder: where to; None takes the download folder.
        again: fetch it though it is there; the old file stays until the new one is complete.
        policy: tries and waits.
        on_progress: called with (bytes there, bytes of the whole, None while unknown).
        on_note: called with sentences for the user.

    Raises:
        HnxError: no connection, no such file, not the right file, no place: says what to do. What has arrived is kept
            for the next call where that can go on.
    """
    if entry.is_shipped:
        return _copied(entry, folder)
    target = local_path(entry, folder or download_folder())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target, on_note):
            if target.is_file() and not again:
                return verified(entry, target.parent)
            _fetch(entry, Part(target), policy or Policy(), on_progress, on_note)
    except OSError as error:
        raise _no_place(target, error) from error
    return target


def _copied(entry: WeightsEntry, folder: Path | None) -> Path:
    source = verified(entry)
    if folder is None:
        return source
    from hybridnets.files import atomic_path

    target = folder / entry.file
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _no_place(target: Path, error: OSError) -> HnxError:
    found = from_os_error(f"Cannot write {target}", error)
    return HnxError(
        found.what, why=found.why, fix=f"{found.fix}; HNX_CACHE=/path/to/folder or --output DIR name another place"
    )


@contextlib.contextmanager
def _alone(target: Path, on_note: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file; waits while another process fetches it. The system drops it however a process ends."""
    try:
        import fcntl
    except ImportError:  # Windows: the last one to finish wins, with a whole file
        yield
        return
    handle = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        said = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not said:
                    on_note(f"waiting for another process that downloads {target.name}")
                    said = True
                time.sleep(_POLL_S)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(handle)


def _fetch(
    entry: WeightsEntry, part: Part, policy: Policy, on_progress: Progress, on_note: Callable[[str], None]
) -> None:
    assert entry.url is not None
    part.prepare(entry.url, known=entry.sha256 is not None)
    failures, restarted = 0, False
    while True:
        before = part.size()
        try:
            _receive(entry, part, policy, on_progress)
        except TransientError as error:
            failures = 1 if part.size() > before else failures + 1
            # who has no network wants to know it now
            if failures >= (min(policy.attempts, _OFFLINE_ATTEMPTS) if error.offline else policy.attempts):
                raise error.explained(entry, part.target, part.size()) from error
            if isinstance(error, StaleError):
                part.remove()
            wait = policy.wait(failures, error.retry_after)
            on_note(f"{error}; trying again in {wait:g} s, {part.size() / 1e6:.1f} MB are there")
            policy.sleep(wait)
            continue
        try:
            _check(entry, part)
        except HnxError:
            part.remove()
            if before and not restarted:
                restarted = True
                on_note("the pieces of the download do not fit together: starting anew")
                continue
            raise
        part.finish()
        return


def _check(entry: WeightsEntry, part: Part) -> None:
    """Whether what has arrived is the file: by its digest, or where there is none, a checkpoint at all."""
    with part.path.open("rb") as stream:
        head = stream.read(16)
    # a zip file or a pickle of torch, or safetensors
    if entry.sha256 is None and not (head.startswith((b"PK\x03\x04", b"\x80")) or head[8:9] == b"{"):
        raise HnxError(
            f"What {entry.url} sent is no checkpoint",
            why=f"it begins with {head!r}" if head else "it is empty",
            fix="try again later, or from another network: a proxy may answer in place of the server",
        )
    try:
        verify(entry, part.path, sha256_file(part.path), named=part.target)
    except HnxError as error:
        raise HnxError(
            f"What {entry.url} sent is not the file it should be", why=error.why, fix=_retry_hint(entry, part)
        ) from error


def _retry_hint(entry: WeightsEntry, part: Part) -> str:
    hint = "try again later, or from another network: a proxy may change files"
    if entry.sha256 is None:
        hint += f"; if the publisher replaced the file and you trust the new one, remove {pin(part.target)} first"
    return hint


def _receive(entry: WeightsEntry, part: Part, policy: Policy, on_progress: Progress) -> None:
    """One try: append what the server sends, until the file is complete."""
    assert entry.url is not None
    headers = {"User-Agent": f"hnx/{__version__}", "Accept-Encoding": "identity", **part.headers()}
    request = urllib.request.Request(entry.url, headers=headers)
    with open_answer(request, policy.timeout_s, part.size()) as answer:
        if answer.complete:
            return
        part.begin(entry.url, answer)
        total = _expected(entry, answer)
        _check_space(part, total)
        _copy(answer, part, total, on_progress)


def _expected(entry: WeightsEntry, answer: Answer) -> int | None:
    if entry.bytes is not None and answer.total is not None and entry.bytes != answer.total:
        raise HnxError(
            f"The file at {entry.url} is not the one it should be",
            why=f"the server announces {answer.total} bytes, the list of weights {entry.bytes}",
            fix="update hnx; or a proxy answers in place of the server: try another network",
        )
    return entry.bytes if answer.total is None else answer.total


def _check_space(part: Part, total: int | None) -> None:
    if total is None:
        return
    free, needed = shutil.disk_usage(part.target.parent).free, total - part.size()
    if needed > free:
        raise HnxError(
            f"Not enough space for {part.target}",
            why=f"{needed / 1e6:.1f} MB are missing, {free / 1e6:.1f} MB are free",
            fix="free some space, or choose another place: HNX_CACHE=/path/to/folder or --output DIR",
        )


def _copy(answer: Answer, part: Part, total: int | None, on_progress: Progress) -> None:
    there = answer.start
    with part.path.open("r+b") as stream:
        stream.seek(there)
        stream.truncate()
        on_progress(there, total)
        while chunk := _read(answer.body, _CHUNK):
            stream.write(chunk)
            there += len(chunk)
            on_progress(there, total)
            if total is not None and there > total:
                break
        stream.flush()
        os.fsync(stream.fileno())
    if total is not None and there > total:
        part.remove()
        raise HnxError(
            f"The server sent more than the {total} bytes it had announced",
            why="a proxy or the server is broken",
            fix="try again later, or from another network",
        )
    if total is not None and there < total:
        raise TransientError(f"the connection broke off after {there / 1e6:.1f} of {total / 1e6:.1f} MB")


def _read(body: Any, size: int) -> bytes:
    try:
        data: bytes = body.read1(size)
    except (OSError, http.client.HTTPException) as error:
        # a timeout or a reset while reading; errors of the disk do not come from here
        raise TransientError(f"the connection broke off: {error or type(error).__name__}") from error
    return data
