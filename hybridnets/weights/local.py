"""Weights on this machine: where they lie, whether they are what they should be, and what `-w` means."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from hybridnets.cache import cache_folder
from hybridnets.config import Activation
from hybridnets.errors import ExitCode, HnxError, did_you_mean, from_os_error
from hybridnets.files import sha256_file, write_bytes
from hybridnets.weights import registry
from hybridnets.weights.registry import WeightsEntry

__all__ = ["default_entry", "download_folder", "local_path", "pin", "resolve_weights", "verified", "verify"]

PREFERRED_COEF = 3  # the published network
_LIKE_A_PATH = re.compile(r"[\\/]|\.(pth|pt|ckpt|safetensors|onnx|bin)$", re.IGNORECASE)


def download_folder() -> Path:
    """Where downloaded weights are kept: `weights` in the cache folder. Not made.

    Raises:
        HnxError: there is no cache folder.
    """
    return cache_folder() / "weights"


def local_path(entry: WeightsEntry, folder: Path | None = None) -> Path:
    """Where the file of an entry lies, or would lie: in the installation, or in `folder` (the download folder)."""
    return registry.FILES / entry.file if entry.is_shipped else (folder or download_folder()) / entry.file


def pin(path: Path) -> Path:
    """The file that keeps the digest of a download nobody has recorded, as `sha256sum -c` reads it."""
    return path.with_name(path.name + ".sha256")


def verify(entry: WeightsEntry, path: Path, digest: str, *, named: Path | None = None) -> None:
    """Hold a digest against the recorded one, else against that of the first download; keep it if it is the first.

    Args:
        entry: what the file should be.
        path: the file.
        digest: its SHA-256.
        named: where the file will lie, if that is elsewhere.

    Raises:
        HnxError: it is another file.
    """
    named = named or path
    expected, origin = entry.sha256, "the list of weights"
    if expected is None:
        kept = pin(named)
        try:
            expected, origin = kept.read_text(encoding="ascii").split()[0].lower(), str(kept)
        except FileNotFoundError:
            # a folder that cannot be written holds what an administrator put there
            with contextlib.suppress(HnxError):
                write_bytes(kept, f"{digest}  {named.name}\n".encode("ascii"))
            return
        except OSError as error:
            raise from_os_error(f"Cannot read {kept}", error) from error
        except (UnicodeDecodeError, IndexError) as error:
            raise HnxError(f"Cannot read {kept}", why="it holds no digest", fix="remove it") from error
    if digest == expected:
        return
    if entry.is_shipped:
        fix = "the installation is damaged: install hnx again"
    elif entry.sha256 is None:
        fix = (
            f"hnx weights download {entry.name} --again; if the publisher replaced the file and you trust the new one, "
            f"remove {pin(named)} first"
        )
    else:
        fix = f"hnx weights download {entry.name} --again"
    raise HnxError(
        f"{path} is not the file it should be",
        why=f"its SHA-256 is {digest}, that of {origin} is {expected}",
        fix=fix,
    )


def verified(entry: WeightsEntry, folder: Path | None = None) -> Path:
    """The file of an entry, after its digest has been checked.

    Raises:
        HnxError: it has not been downloaded yet, cannot be read, or is another file.
    """
    path = local_path(entry, folder)
    if not path.is_file():
        if entry.is_shipped:
            raise HnxError(
                f"The weights {entry.name} are not where they should be",
                why=f"{path} does not exist",
                fix="the installation is damaged: install hnx again",
            )
        raise HnxError(
            f"The weights {entry.name} are not on this machine yet",
            why=f"{path} does not exist",
            fix=f"hnx weights download {entry.name}; or copy the file there by hand",
        )
    verify(entry, path, sha256_file(path))
    return path


def resolve_weights(name_or_path: str | Path) -> Path:
    """The checkpoint that `-w` means: a file of that path, else the weights of that name.

    Raises:
        HnxError: neither exists (suggests the closest name, exit code 2), the weights have not been downloaded yet, or
            their file is not what it should be.
    """
    path = Path(name_or_path)
    text = str(name_or_path)
    if path.is_file():
        return path
    known = {entry.name: entry for entry in registry.entries()}
    if text in known:
        return verified(known[text])
    if path.exists() or path.is_symlink():  # a folder, a pipe, a broken link: the reader says what is wrong with it
        return path
    if _LIKE_A_PATH.search(text):
        raise HnxError(
            f"Cannot read the checkpoint {text}",
            why=f"it does not exist, and no weights are called so ({did_you_mean(text, known)})",
            fix="check the path; hnx weights list shows the names",
            code=ExitCode.USAGE,
        )
    raise HnxError(
        f"There are no weights called {text!r}",
        why=f"no file has this name either; {did_you_mean(text, known)}",
        fix="name a .pth or .safetensors file, or one of hnx weights list",
        code=ExitCode.USAGE,
    )


def default_entry(
    compound_coef: int | None = None,
    *,
    size: tuple[int, int] | None = None,
    activation: Activation | None = None,
    classes: tuple[str, ...] | None = None,
    seg_classes: tuple[str, ...] | None = None,
) -> WeightsEntry | None:
    """The shipped weights for somebody who names none; None where nothing fits.

    Args:
        compound_coef: None takes the published 3 if it is there, else the first of the list.
        size: (width, height) wanted: weights trained on it come first, others serve, too.
        activation: None takes swish, which every runtime has.
        classes: detection classes the project needs; None takes what the weights have.
        seg_classes: the same for segmentation.

    Raises:
        HnxError: the list of shipped weights is damaged.
    """
    fitting = [
        entry
        for entry in registry.shipped()
        if (compound_coef is None or entry.compound_coef == compound_coef)
        and entry.activation == (activation or "swish")
        and classes in (None, entry.classes)
        and seg_classes in (None, entry.seg_classes)
    ]
    # stable: within equals the order of the list holds
    fitting.sort(key=lambda entry: (entry.compound_coef != PREFERRED_COEF, size is not None and entry.size != size))
    return fitting[0] if fitting else None
