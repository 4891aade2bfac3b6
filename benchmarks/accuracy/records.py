"""One scored image in about 6 bytes a prediction, and files of them.

Everything final is computed from records, so an evaluation that was resumed, cut into shards or run at once gives
the same figures to the last bit.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import atomic_path

__all__ = ["CocoMatches", "ImageRecord", "read_records", "write_records"]

SCHEMA = 1
FORMAT = "hnx image records"


@dataclass(frozen=True, eq=False)
class CocoMatches:
    """What COCO's average precision needs of one image. Lane `10 * area + threshold` of 40 is one bit.

    Areas are all, small, medium and large; thresholds 0.50 to 0.95. "Considered" predictions are the 100 best of
    each class.

    Attributes:
        label_areas: uint8 (n,): bit a is set when the label lies in area range a; it is ignored in the others.
        areas: uint8 (k,): the same of the considered predictions, in their order.
        rows: int32 (m,): places, among all predictions of the image, of those that are matched in any lane.
        matched, ignored: uint64 (m,): lanes in which they are matched, and matched to a label that is ignored there.
    """

    label_areas: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    areas: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    rows: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    matched: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    ignored: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image, scored for one row.

    Attributes:
        name: any text.
        labels: uint8 or uint16 (n,): classes of the label boxes.
        scores: float32 (p,): of the predictions, best first.
        classes: uint8 or uint16 (p,).
        hits: uint8 (p,): how many of the IoU thresholds 0.50, 0.55 ... 0.95 the matched pair reaches; 0 is a false
            positive everywhere.
        seg: int64 (C, 4): TP, FP, FN, TN of every counted segmentation class, see `Heads.channels`.
        confusion: uint32 (k, 3): predicted class, true class and count, see `matching.confusion_pairs`.
        coco: matches by COCO's rules.
        input_sha256: of the tensor that the network got.

    Raises:
        ValueError: lengths do not agree.
    """

    name: str
    labels: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint8))
    scores: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    classes: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.uint8))
    hits: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    seg: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    confusion: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((0, 3), np.uint32))
    coco: CocoMatches = field(default_factory=CocoMatches)
    input_sha256: str = ""

    def __post_init__(self) -> None:
        coco = self.coco
        if not (len(self.scores) == len(self.classes) == len(self.hits)):
            raise ValueError(f"{self.name!r}: scores, classes and hits differ in length")
        if not (len(coco.rows) == len(coco.matched) == len(coco.ignored)):
            raise ValueError(f"{self.name!r}: COCO matches differ in length")
        if len(coco.rows) and not 0 <= coco.rows.min() <= coco.rows.max() < len(self.scores):
            raise ValueError(f"{self.name!r}: a COCO match of no prediction")


# array, whether it is an attribute of the COCO part, accepted types, columns (0: a plain vector)
_FIELDS: tuple[tuple[str, bool, tuple[str, ...], int], ...] = (
    ("labels", False, ("uint8", "uint16"), 0),
    ("scores", False, ("float32",), 0),
    ("classes", False, ("uint8", "uint16"), 0),
    ("hits", False, ("uint8",), 0),
    ("seg", False, ("int64",), 4),
    ("confusion", False, ("uint32",), 3),
    ("label_areas", True, ("uint8",), 0),
    ("areas", True, ("uint8",), 0),
    ("rows", True, ("int32",), 0),
    ("matched", True, ("uint64",), 0),
    ("ignored", True, ("uint64",), 0),
)
_TEXTS = ("name", "input_sha256")


def write_records(path: Path, records: Sequence[ImageRecord]) -> None:
    """Write records as one .npz file, whole or not at all; the same records give the same bytes.

    Raises:
        HnxError: the folder cannot be written, or the disk is full.
    """
    arrays: dict[str, Any] = {
        "format": np.frombuffer(FORMAT.encode(), np.uint8),
        "schema": np.array([SCHEMA], np.int64),
    }
    for text in _TEXTS:
        # names of files may hold bytes that are no UTF-8: Python keeps them as lone surrogates
        parts = [getattr(record, text).encode("utf-8", "surrogatepass") for record in records]
        arrays[text] = np.frombuffer(b"".join(parts), np.uint8)
        arrays[f"{text}_count"] = np.array([len(part) for part in parts], np.int64)
    for name, nested, types, columns in _FIELDS:
        values = [getattr(record.coco if nested else record, name) for record in records]
        empty = np.zeros((0, columns) if columns else (0,), types[0])
        joined = np.concatenate([empty, *values])
        arrays[name] = joined if joined.dtype.name in types else joined.astype(types[-1])
        arrays[f"{name}_count"] = np.array([len(value) for value in values], np.int64)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)


def read_records(path: Path) -> list[ImageRecord]:
    """Records that `write_records` wrote.

    Raises:
        HnxError: missing, damaged, or not such a file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # ours are stored as they are, so what memory they take is bounded by the size of the file
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
        return _unpacked(arrays)
    except OSError as error:
        if error.errno is None:  # numpy's and zipfile's own word for what they cannot parse
            raise _damaged(path, str(error)) from error
        raise from_os_error(f"Cannot read records {path}", error) from error
    except (
        *(ValueError, TypeError, KeyError, EOFError, MemoryError, OverflowError, SyntaxError),
        *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
    ) as error:
        raise _damaged(path, str(error)) from error


def _unpacked(arrays: dict[str, NDArray[Any]]) -> list[ImageRecord]:
    if arrays["format"].tobytes() != FORMAT.encode():
        raise ValueError("it holds something else")
    if arrays["schema"].tolist() != [SCHEMA]:
        raise ValueError(f"its version is {arrays['schema'].tolist()}, this hnx reads [{SCHEMA}]")
    texts: dict[str, list[str]] = {}
    for text in _TEXTS:
        pieces = _pieces(text, arrays[text], arrays[f"{text}_count"], ("uint8",), 0)
        texts[text] = [piece.tobytes().decode("utf-8", "surrogatepass") for piece in pieces]
    parts = {
        name: _pieces(name, arrays[name], arrays[f"{name}_count"], types, columns)
        for name, _, types, columns in _FIELDS
    }
    if {len(part) for part in parts.values()} | {len(part) for part in texts.values()} != {len(texts["name"])}:
        raise ValueError("its arrays are of different numbers of images")
    records = []
    for index in range(len(texts["name"])):
        values: dict[bool, dict[str, Any]] = {False: {}, True: {}}
        for name, nested, _, _ in _FIELDS:
            values[nested][name] = parts[name][index]
        values[False] |= {text: texts[text][index] for text in _TEXTS}
        records.append(ImageRecord(**values[False], coco=CocoMatches(**values[True])))
    return records


def _pieces(
    name: str, array: NDArray[Any], counts: NDArray[Any], types: tuple[str, ...], columns: int
) -> list[NDArray[Any]]:
    """The array of every image."""
    if array.dtype.name not in types or array.shape[1:] != ((columns,) if columns else ()) or array.ndim < 1:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}")
    if counts.dtype != np.int64 or counts.ndim != 1 or (counts < 0).any() or counts.sum() != len(array):
        raise ValueError(f"the counts of {name} do not add up")
    ends = np.cumsum(counts).tolist()
    return [array[end - count : end] for end, count in zip(ends, counts.tolist(), strict=True)]


def _damaged(path: Path, why: str) -> HnxError:
    return HnxError(
        f"Cannot read records {path}",
        why=f"it is no whole file of records: {' '.join(why.split())[:200]}",
        fix="delete it and evaluate its images again",
    )
