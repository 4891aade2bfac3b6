"""Boxes in COCO's JSON."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tools.convert.geometry import number
from tools.convert.index import InlineBoxes, NamedIndex, other_kind
from tools.convert.jsonstream import Place, elements, read_place
from tools.convert.labels import frame_size

__all__ = ["CocoIndex"]


class CocoIndex(NamedIndex):
    """COCO's JSON of boxes, in arrays of 45 bytes a box (90 while they are sorted): 1.3 million boxes take 58 MB.

    Raises:
        HnxError: not JSON, or without images, annotations and categories.
    """

    def __init__(self, path: Path, on_read: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self.path, self.description, self.holds = path, "COCO JSON", {"box"}
        self._rows: dict[str, int] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._categories: dict[Any, str] = {}
        self._row_of: dict[Any, int] = {}
        rows, kinds, crowd, corners = array("q"), array("i"), array("b"), array("d")
        kind_of_id: dict[Any, int] = {}
        seen = set()
        for element in elements(path, on_read):
            value = element.value
            if element.index is None:
                continue
            seen.add(element.key)
            if not isinstance(value, dict):
                continue
            if element.key == "images":
                self._add_image(value, element.offset, element.length)
            elif element.key == "categories":
                self._categories[_key(value.get("id"))] = str(value.get("name"))
            elif element.key == "annotations" and value.get("bbox") is not None:
                box = value["bbox"]
                four = box if isinstance(box, list) and len(box) == 4 else [None] * 4
                corners.extend(x if (x := number(v)) is not None else float("nan") for v in four)
                rows.append(self._row(value.get("image_id")))
                kinds.append(kind_of_id.setdefault(_key(value.get("category_id")), len(kind_of_id)))
                crowd.append(value.get("iscrowd") in (1, True))
        if not {"images", "annotations", "categories"} <= seen:
            missing = ", ".join(sorted({"images", "annotations", "categories"} - seen))
            raise other_kind(path, f"it is no COCO JSON of boxes: no {missing}", "check --boxes coco FILE")
        order = np.argsort(np.asarray(rows), kind="stable")
        self._sorted: NDArray[np.int64] = np.asarray(rows, np.int64)[order]
        self._kinds = np.asarray(kinds)[order]
        self._crowd = np.asarray(crowd)[order]
        self._corners = np.asarray(corners).reshape(-1, 4)[order]
        self._labels = [self._categories.get(key, "") for key in kind_of_id]

    def _row(self, image_id: Any) -> int:
        return self._row_of.setdefault(_key(image_id), len(self._row_of))

    def _add_image(self, value: dict[str, Any], offset: int, length: int) -> None:
        name = value.get("file_name")
        if isinstance(name, str) and not name.isascii():
            name = read_place(Place(self.path, offset, length)).get("file_name")
        stem = self.accept(name, self._rows, folders=True)
        if stem is None:
            return
        row = self._rows[stem] = self._row(value.get("id"))
        size = frame_size({"size": value})
        if size is not None:
            self._sizes[row] = size

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, stem: str, /) -> bool:
        return stem in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def ref(self, stem: str) -> InlineBoxes:
        """The boxes themselves: an image has few."""
        row = self._rows[stem]
        first, last = np.searchsorted(self._sorted, [row, row + 1])
        boxes = tuple(
            (*map(float, self._corners[i]), self._labels[self._kinds[i]], bool(self._crowd[i]))
            for i in range(int(first), int(last))
        )
        return InlineBoxes(boxes, self._sizes.get(row))


def _key(value: Any) -> Any:
    """An id that can be a key, whatever stands there."""
    return value if isinstance(value, (int, str)) else repr(value)
