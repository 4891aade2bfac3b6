"""Names and shapes of an ONNX file's inputs and outputs, read without any ONNX library.

An edge device opens ONNX files made by somebody else with nothing but numpy and one runtime. The few fields needed
are walked directly in the protobuf encoding (protobuf.dev/programming-guides/encoding, onnx.proto): weights are
skipped by their length, so a file of 2 GB costs as much as one of 2 kB.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hybridnets.errors import HnxError, from_os_error

__all__ = ["OnnxHeader", "TensorSpec", "read_onnx_header"]

_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Buffer = bytes | memoryview


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: a shape entry is a number, or a name where the size is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class OnnxHeader:
    """What a consumer must know of an ONNX file before loading it.

    Attributes:
        external: files that weights lie in, relative to the model's folder, as the model names them.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external: tuple[str, ...] = ()


def read_onnx_header(path: Path) -> OnnxHeader:
    """Inputs (without initializers, which old files list among them) and outputs of a model.

    Raises:
        HnxError: unreadable, truncated, or not an ONNX model.
    """
    try:
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise HnxError(f"Cannot read {path}", why="the file is empty", fix="export it again")
            # freed with its last view: closing it by hand fails while slices of it are alive
            header = _model(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise HnxError(
            f"Cannot read {path}",
            why=f"it is not a complete ONNX model ({error})",
            fix="export it again, or check the download",
        ) from error
    if header is None or not header.inputs or not header.outputs:
        raise HnxError(f"Cannot read {path}", why="it holds no graph with inputs and outputs", fix="export it again")
    return header


def _model(view: Buffer) -> OnnxHeader | None:
    header = None
    for number, value in _fields(view):
        if number == 7 and isinstance(value, memoryview):  # ModelProto.graph
            header = _graph(value)
    return header


def _graph(view: Buffer) -> OnnxHeader:
    initializers: set[str] = set()
    external: set[str] = set()
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for number, value in _fields(view):
        if not isinstance(value, memoryview):
            continue
        if number == 5:  # initializer: TensorProto.name is field 8, external_data field 13
            for field, item in _fields(value):
                if field == 8:
                    initializers.add(_text(item))
                elif field == 13:
                    external.update(_locations(_raw(item)))
        elif number == 11:
            inputs.append(_value_info(bytes(value)))
        elif number == 12:
            outputs.append(_value_info(bytes(value)))
    kept = tuple(s for s in inputs if s.name not in initializers)
    return OnnxHeader(kept, tuple(outputs), tuple(sorted(external)))


def _locations(entry: bytes) -> list[str]:
    """The value of a StringStringEntryProto whose key is `location`."""
    texts = {number: _text(value) for number, value in _fields(entry) if number in (1, 2)}
    return [texts.get(2, "")] if texts.get(1) == "location" else []


def _value_info(data: bytes) -> TensorSpec:
    name, dtype, shape = "", "unknown", []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:  # TypeProto
            for type_number, tensor in _fields(_raw(value)):
                if type_number != 1:  # tensor_type
                    continue
                for field, item in _fields(_raw(tensor)):
                    if field == 1 and isinstance(item, int):
                        dtype = _DTYPES.get(item, f"onnx type {item}")
                    elif field == 2:
                        shape = [_dimension(_raw(v)) for n, v in _fields(_raw(item)) if n == 1]
    return TensorSpec(name, dtype, tuple(shape))


def _dimension(data: bytes) -> int | str:
    for number, value in _fields(data):
        if number == 1 and isinstance(value, int):
            return value
        if number == 2:
            return _text(value)
    return "?"


def _text(value: int | memoryview) -> str:
    return _raw(value).decode("utf-8")


def _raw(value: int | memoryview) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes are expected")
    return bytes(value)


def _fields(data: Buffer) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) pairs of one protobuf message; lengths are checked against the buffer."""
    view = memoryview(data)
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(view, position)
            yield number, value
        elif kind == _BYTES:
            length, position = _varint(view, position)
            if length > len(view) - position:
                raise ValueError("it ends in the middle of a field")
            yield number, view[position : position + length]
            position += length
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
            if position > len(view):
                raise ValueError("it ends in the middle of a field")
        else:
            raise ValueError(f"wire type {kind} does not occur in ONNX")


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise ValueError("it ends in the middle of a number")
        byte = view[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number is longer than 10 bytes")
