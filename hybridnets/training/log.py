"""What a run writes down while it goes: CSV for every reader, TensorBoard where it is installed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hybridnets.errors import HnxError, from_os_error
from hybridnets.files import write_bytes

__all__ = ["CsvLog", "TensorBoard", "open_tensorboard"]

# our names to upstream's scalar groups, spelling and all, so that its users' dashboards go on
_TAGS = {
    "loss": "Loss",
    "reg": "Regression_loss",
    "cls": "Classfication_loss",
    "seg": "Segmentation_loss",
}


class CsvLog:
    """A table on disk, one row at a time; after a resume it holds no row twice.

    Args:
        path: the file.
        columns: names, `step` and `epoch` among them.
        after: (epoch, step) of an earlier part of the run, behind which its last rows are dropped; None starts a new
            table.
    """

    def __init__(self, path: Path, columns: Sequence[str], after: tuple[int, int] | None) -> None:
        self.path, self.columns = path, tuple(columns)
        self.rows: list[dict[str, str]] = []
        if after is not None and path.is_file():
            self.rows = [row for row in _read(path) if all(row.get(name, "").isdigit() for name in ("step", "epoch"))]
            # from the end: where an epoch had another number of steps before, steps of earlier rows may be larger
            while self.rows and (int(self.rows[-1]["epoch"]), int(self.rows[-1]["step"])) > after:
                self.rows.pop()
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows)
        write_bytes(path, text.getvalue().encode())

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; what is not finite is left empty.

        Raises:
            HnxError: the file cannot be written.
        """
        texts = {key: _text(row.get(key)) for key in self.columns}
        self.rows.append(texts)
        try:
            with self.path.open("a", newline="") as stream:
                csv.DictWriter(stream, self.columns).writerow(texts)
        except OSError as error:
            raise from_os_error(f"Cannot write {self.path}", error) from error


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as stream:
            return [{str(k): v or "" for k, v in row.items() if isinstance(v, str)} for row in csv.DictReader(stream)]
    except (OSError, csv.Error):
        return []


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.8g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)


class _Writer(Protocol):
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Scalars under upstream's names; nothing where `writer` is None."""

    def __init__(self, writer: _Writer | None) -> None:
        self._writer = writer

    def scalars(self, phase: str, step: int, values: Mapping[str, float | None]) -> None:
        """Add the values of one step: `loss` of phase `train` becomes `Loss/train`, `lr` `learning_rate`."""
        if self._writer is None:
            return
        for name, value in values.items():
            if value is None or not math.isfinite(value):
                continue
            tag = "learning_rate" if name == "lr" else f"{_TAGS.get(name, name)}/{phase}"
            self._writer.add_scalar(tag, float(value), step)

    def close(self) -> None:
        """Write out what is left."""
        if self._writer is not None:
            self._writer.close()


def open_tensorboard(folder: Path, purge_step: int | None) -> TensorBoard:
    """A writer below `folder`.

    Args:
        purge_step: TensorBoard hides what an earlier part of the run wrote from this step on; None hides nothing.

    Raises:
        HnxError: the package is missing, or the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise HnxError(
            "TensorBoard logs are left out", why=f"{error}", fix="pip install tensorboard; log.csv holds the same"
        ) from error
    try:
        return TensorBoard(SummaryWriter(str(folder), purge_step=purge_step))
    except OSError as error:
        raise from_os_error(f"Cannot write {folder}", error) from error
