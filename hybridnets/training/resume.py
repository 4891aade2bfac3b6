"""Checkpoints of a run: whole or absent, found again, and enough to go on as if nothing had happened.

    last.pth                            everything: weights, averaged weights, optimizer, scaler, schedule, position
    hybridnets-d3_12_4000_best.pth      the best networks, as upstream names them: epoch and step
    best.safetensors                    the best network with classes, anchors and normalisation, for `hnx export -w`

All `.pth` files hold plain tensors, numbers and texts (readable with `weights_only=True`), and under `model` the state
dict that validation measured, which upstream's scripts and `hnx export -w` read.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridnets.errors import HnxError, first_line, from_os_error
from hybridnets.files import atomic_path, remove_leftovers, written_under

__all__ = [
    "LAST",
    "Found",
    "best_name",
    "damaged",
    "find_last",
    "folder_lock",
    "nothing_to_resume",
    "read_last",
    "remove_files",
    "remove_results",
    "to_cpu",
    "write_checkpoint",
]

LAST = "last.pth"
LOCK = ".lock"
FORMAT = 1
# hybridnets-d{coefficient}_{epoch}_{step}.pth, as upstream writes them; its `_best` files do not match
_STEP_FILE = re.compile(r"hybridnets-d\d+_(\d+)_(\d+)\.pth")
_BEST_FILE = re.compile(r"hybridnets-d\d+_\d+_\d+_best\.pth")
# what a run leaves beside its best networks and its tables, which are begun anew
_RESULTS = (LAST, "best.safetensors", "report.json", "curves.png", "before.json", "distill.json")
_NEEDED = (
    *("format", "step", "steps_per_epoch", "digest", "history", "anchors"),
    *("model", "train_model", "ema_updates", "optimizer", "schedule", "scaler"),
)


@dataclass(frozen=True)
class Found:
    """What `-w last` found.

    Attributes:
        path: the file.
        resumable: it is a `last.pth` with everything; else it holds upstream's weights only.
    """

    path: Path
    resumable: bool


def find_last(folder: Path) -> Found:
    """`last.pth` of a folder, else upstream's step file with the highest step; `_best` files are no candidates.

    Raises:
        HnxError: there is neither.
    """
    if (folder / LAST).is_file():
        return Found(folder / LAST, resumable=True)
    found: list[tuple[int, int, Path]] = []
    with contextlib.suppress(OSError):
        matches = [(_STEP_FILE.fullmatch(path.name), path) for path in folder.iterdir()]
        found = [(int(match[2]), int(match[1]), path) for match, path in matches if match]
    if not found:
        raise nothing_to_resume(folder, f"neither {LAST} nor a file such as hybridnets-d3_12_4000.pth lies there")
    return Found(max(found)[2], resumable=False)


def nothing_to_resume(folder: Path, why: str, option: str = "-w last") -> HnxError:
    """The user's error for a folder without a run.

    Args:
        option: which the user gave; a run of another one than `-w last` has a folder without its project's name.
    """
    place = "-o and -p" if option == "-w last" else "-o"
    return HnxError(
        f"There is nothing to resume in {folder}",
        why=why,
        fix=f"start a run by leaving `{option}` out, or name its folder with {place}",
    )


def best_name(coefficient: int, epoch: int, step: int) -> str:
    """File name of a best network, as upstream forms it."""
    return f"hybridnets-d{coefficient}_{epoch}_{step}_best.pth"


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove networks that are among the best no more; one that is gone already does not matter.

    The names come from a checkpoint, so anything that is not a network directly in the folder stays.
    """
    for name in names:
        if _BEST_FILE.fullmatch(name):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def remove_results(folder: Path, keep: Iterable[Path | None] = ()) -> None:
    """Remove what a run left in its folder before another one starts there, `last.pth` first.

    Args:
        keep: files that stay all the same.

    Raises:
        HnxError: one cannot be removed.
    """
    kept = {path.resolve() for path in keep if path is not None}
    try:
        best = sorted(path for path in folder.iterdir() if _BEST_FILE.fullmatch(path.name))
        for path in (*(folder / name for name in _RESULTS), *best):
            if path.resolve() not in kept:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise from_os_error(f"Cannot remove the run in {folder}", error) from error


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint whole; when that fails, such as on a full disk, the file that was there stays.

    Raises:
        HnxError: it cannot be written.
    """
    remove_leftovers(path)
    # through memory: torch's zip writer turns a full disk into an error of its own without a cause
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(buffer.getbuffer())


def read_last(path: Path) -> dict[str, Any]:
    """The content of a `last.pth`, its tensors on the CPU.

    Raises:
        HnxError: it cannot be read, is damaged, or belongs to another program or a newer release.
    """
    what = f"Cannot resume from {path}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise from_os_error(what, error) from error
    except Exception as error:  # a damaged file may fail in any way
        raise HnxError(
            what,
            why=f"it is damaged or holds more than tensors: {first_line(error)}",
            fix="start from the newest *_best.pth of the folder instead: -w FILE with another -o",
        ) from error
    missing = [key for key in _NEEDED if not isinstance(content, dict) or key not in content]
    if missing:
        raise HnxError(what, why=f"it lacks {', '.join(missing)}", fix="use it as weights: -w FILE")
    if content["format"] != FORMAT:
        raise HnxError(what, why=f"its format is {content['format']!r}, this release knows {FORMAT}", fix="update hnx")
    return dict(content)


def damaged(path: Path, error: Exception) -> HnxError:
    """The user's error for a checkpoint whose parts are there but make no sense."""
    return HnxError(
        f"Cannot resume from {path}",
        why=f"it is damaged: {first_line(error)}",
        fix="start from the newest *_best.pth of the folder instead: -w FILE with another -o",
    )


def to_cpu(value: Any) -> Any:
    """A copy of nested dictionaries and lists with all tensors on the CPU, sharing memory with nothing."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: to_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_cpu(item) for item in value]
    return value


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep a second run out of a folder; the system drops the lock when this process ends, however it ends.

    Raises:
        HnxError: another process holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise from_os_error(f"Cannot write to {folder}", error) from error
    try:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
            raise HnxError(
                f"Another run is writing to {folder}",
                why=f"process {holder or 'unknown'} holds its lock",
                fix="wait for it, or choose another folder with -o",
            ) from error
        except (ImportError, OSError):
            pass  # a file system without locks: nothing can be told
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        _sweep(folder)
        yield
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Remove half-written files of processes that were killed: a best network's name does not come again."""
    with contextlib.suppress(OSError):
        for target in {written_under(path.name) for path in folder.iterdir()} - {""}:
            remove_leftovers(folder / target)
