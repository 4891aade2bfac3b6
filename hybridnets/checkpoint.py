"""Checkpoints: read every layout in circulation, refuse everything else, write safetensors.

Reading never runs code of the file: pickles go through torch's weights-only reader, and the numpy values that
published `_best` files contain are decoded here in Python instead of by numpy.

Safetensors written by `save_safetensors` carry these metadata keys, each a JSON text:

    hnx_format_version   1; 2 where tensors are float16 and those that no forward pass reads are left out, see
                         `hybridnets.network.compact`
    compound_coef        0 to 7
    seg_mode             "binary", "multiclass" or "multilabel"
    activation           "swish", "hardswish" or "relu"
    backbone             name of the timm model that is the encoder; absent for EfficientNet
    classes              names of the detection classes, in the order of the outputs
    seg_classes          names of the foreground segmentation classes
    anchors              {"scales": [...], "ratios": [[width, height], ...]}
    mean, std            three numbers each, RGB, of pixels in 0..1
    size                 [width, height] of the input it was trained with; absent where that is not known
"""

from __future__ import annotations

import errno
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hybridnets.config import ModelConfig
from hybridnets.errors import HnxError, from_os_error, kind_and_line
from hybridnets.files import sha256_file, write_bytes
from hybridnets.fitting import check_fit, infer_config
from hybridnets.network import HybridNets
from hybridnets.network.compact import compact_state, complete_state

__all__ = [
    "FORMAT_VERSION",
    "Checkpoint",
    "build_model",
    "infer_config",
    "load_checkpoint",
    "save_safetensors",
]

FORMAT_VERSION = 2  # the newest that is read
_PLAIN, _COMPACT = 1, 2

_CONTAINERS = ("model", "state_dict")
_PREFIXES = ("module.", "model.", "_orig_mod.")


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file.

    Attributes:
        state: state dict of the network, names without prefixes; floating tensors are float32, all on the CPU.
        metadata: of a safetensors file its metadata, decoded; of a torch file the plain values beside the
            tensors (`epoch`, `step`, `best_fitness`).
        layout: how the tensors lay in the file, for reports: "plain", "under 'model'", "safetensors",
            followed by the prefix removed from the names, if any.
        sha256: hex digest of the file.
    """

    state: dict[str, Tensor]
    metadata: dict[str, Any]
    layout: str
    sha256: str


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a .pth, .pt or .safetensors file; the content decides which it is, not the name.

    Raises:
        HnxError: no such file, a folder, empty, cut short, not a checkpoint, a pickle that asks for anything
            but tensors, or a tensor with a NaN or an infinity.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError as error:
        raise from_os_error(f"Cannot read the checkpoint {path}", error) from error
    if not head:
        raise _unreadable(path, "it is empty (0 bytes)")
    if head[8:9] == b"{":  # after an 8-byte length: the JSON header of safetensors
        tensors, metadata = _read_safetensors(path)
        layout = "safetensors"
    else:
        tensors, metadata, layout = _find_state(path, _read_torch(path))
    tensors, prefix = _strip_prefixes(tensors)
    state = {name: _checked(path, name, value) for name, value in tensors.items()}
    if metadata.get("hnx_format_version") == _COMPACT:
        state = complete_state(state, infer_config(state, metadata=metadata))
    note = f", prefix {prefix!r} removed" if prefix else ""
    return Checkpoint(state, metadata, layout + note, sha256_file(path))


def build_model(checkpoint: Checkpoint, config: ModelConfig | None = None) -> HybridNets:
    """The network with the tensors of a checkpoint, in eval mode on the CPU; it shares no memory with them.

    Args:
        checkpoint: what `load_checkpoint` returned.
        config: what the tensors are expected to fit; None takes it from them.

    Raises:
        HnxError: tensors are missing, unknown or of other shapes; names the first and the likely cause.
    """
    if config is None:
        config = infer_config(checkpoint.state, metadata=checkpoint.metadata)
    with torch.device("meta"):  # shapes only: no time for weights that are replaced
        model = HybridNets(config)
    check_fit(model.state_dict(), checkpoint.state, config)
    model.load_state_dict({key: value.clone() for key, value in checkpoint.state.items()}, assign=True)
    return model.eval()


def save_safetensors(
    path: Path, model: HybridNets, metadata: Mapping[str, Any], *, compact: bool = False, eighths: int = 0
) -> None:
    """Write a network with what is needed to use it. Whole or not at all.

    Args:
        path: the file, usually `*.safetensors`.
        model: its configuration fills the keys `compound_coef`, `seg_mode`, `activation` and `backbone`.
        metadata: the other keys listed at the top of this module, as JSON values; further ones are kept.
        eighths: so many of the largest convolutions go into 8 bits, where it is compact.
        compact: as float16 and without what no forward pass reads, see `hybridnets.network.compact`; the format
            version rises, so that older releases say that they are too old.

    Raises:
        HnxError: the metadata contradicts the network or is no JSON, or the file cannot be written.
    """
    config = model.config
    values = {
        **metadata,
        "hnx_format_version": _COMPACT if compact else _PLAIN,
        "compound_coef": config.compound_coef,
        "seg_mode": config.seg_mode,
        "activation": config.activation,
        **({} if config.backbone is None else {"backbone": config.backbone}),
    }
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    infer_config(state, metadata=values)
    if compact:
        state = compact_state(state, config, eighths=eighths).state
    try:
        texts = {key: json.dumps(value, allow_nan=False) for key, value in values.items()}
    except (TypeError, ValueError) as error:
        raise HnxError(
            f"Cannot write {path}",
            why=f"the metadata is not plain JSON: {error}",
            fix="pass numbers, strings, lists and dictionaries",
        ) from error
    write_bytes(Path(path), _in_order(safetensors.torch.save(state, metadata=texts)))


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata sorted: the library writes them in another order each time."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


# --- reading ---------------------------------------------------------------------------------------------


def _unreadable(path: Path, why: str) -> HnxError:
    return HnxError(
        f"Cannot read the checkpoint {path}",
        why=why,
        fix="download or copy it again and compare its SHA-256; expected is a .pth, .pt or .safetensors file",
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            texts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise from_os_error(f"Cannot read the checkpoint {path}", error) from error
    except Exception as error:  # the reader of a foreign file may fail in any way
        raise _unreadable(path, f"its safetensors header or data is broken: {kind_and_line(error)}") from error
    metadata = {key: _decode(text) for key, text in texts.items()}
    version = metadata.get("hnx_format_version", _PLAIN)
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise HnxError(
            f"Cannot read the checkpoint {path}",
            why=f"its format version is {version!r}, this release knows up to {FORMAT_VERSION}",
            fix="update hnx",
        )
    return tensors, metadata


def _decode(text: str) -> Any:
    """The JSON value of a metadata text; the text itself where other programs wrote no JSON."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(cast(list[Any], _NUMPY_GLOBALS)):
            warnings.simplefilter("ignore")  # about unusual pickles: what they hold is checked here
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)|unrecognized function (\S+)", str(error))
        if refused is None:
            raise _unreadable(path, "it is not a torch checkpoint, or it is damaged") from error
        name = next(group for group in refused.groups() if group)
        raise HnxError(
            f"Refused to read the checkpoint {path}",
            why=f"its pickle asks for {name}, and a checkpoint needs nothing but tensors; nothing was run",
            fix="do not open this file with other tools unless you trust its author; ask for a safetensors file",
        ) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # torch looks for the directory of a zip file before its start
            raise _unreadable(path, "it is cut short") from error
        raise from_os_error(f"Cannot read the checkpoint {path}", error) from error
    except Exception as error:  # the reader of a foreign file may fail in any way
        why = f"it is not a torch checkpoint, or it is damaged: {kind_and_line(error)}"
        raise _unreadable(path, why) from error


def _find_state(path: Path, content: Any) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Tensors, plain values beside them, and the layout."""
    if not isinstance(content, dict):
        raise _unreadable(path, f"it holds a {type(content).__name__}, not a dictionary of tensors")
    for key in _CONTAINERS:
        inner = content.get(key)
        if isinstance(inner, dict):
            plain = {str(k): _plain(v) for k, v in content.items() if k != key}
            return inner, {k: v for k, v in plain.items() if v is not None}, f"under {key!r}"
    return content, {}, "plain"


def _plain(value: Any) -> int | float | str | None:
    if isinstance(value, _NumpyArray):
        return value.single
    return value if isinstance(value, (int, float, str)) else None


def _strip_prefixes(tensors: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Remove what wrappers put before every name, from outside to inside."""
    removed = ""
    while tensors:
        prefix = next((p for p in _PREFIXES if all(isinstance(k, str) and k.startswith(p) for k in tensors)), None)
        if prefix is None:
            break
        tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
        removed += prefix
    return tensors, removed


def _checked(path: Path, name: Any, value: Any) -> Tensor:
    """The tensor as dense float32 (or its integer type) on the CPU."""
    if not isinstance(name, str):
        raise _unreadable(path, f"its entry {name!r} has no name")
    if not isinstance(value, Tensor):
        raise _unreadable(path, f"its entry {name!r} is a {type(value).__name__}, not a tensor")
    value = value.detach()
    if value.layout != torch.strided or value.is_quantized or value.is_complex() or value.device.type != "cpu":
        raise _unreadable(path, f"its tensor {name} is not dense and real")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        # strides of zero can claim any size: copying such a tensor could take all memory
        raise _unreadable(path, f"its tensor {name} claims more values than the file holds")
    if value.is_floating_point():
        value = value.to(torch.float32)
        if not bool(torch.isfinite(value).all()):
            raise HnxError(
                f"Refused the checkpoint {path}",
                why=f"its tensor {name} contains NaN or infinity, so every output would",
                fix="take an earlier checkpoint of that training run, or download the file again",
            )
    return value.contiguous()


# Published `_best` files hold their fitness as a numpy array. Its pickle names these functions of numpy; torch is
# handed the substitutes below in their place, so that no bytes of the file reach numpy's own reconstruction.


class _NumpyDtype:
    def __init__(self, code: object = "", *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        pass  # byte order and alignment; published files are little-endian


class _NumpyArray:
    """A numpy array or scalar; `single` is its value if it is one float32 or float64 number."""

    def __init__(self, *_: object) -> None:
        self.single: float | None = None

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            self._read(state[2], state[4])

    def _read(self, dtype: object, data: object) -> None:
        code = dtype.code if isinstance(dtype, _NumpyDtype) else None
        layout = {"f8": "<d", "f4": "<f"}.get(code) if isinstance(code, str) else None
        if layout and isinstance(data, bytes) and len(data) == struct.calcsize(layout):
            self.single = float(struct.unpack(layout, data)[0])


def _numpy_reconstruct(*_: object) -> _NumpyArray:
    return _NumpyArray()


def _numpy_scalar(dtype: object = None, data: object = None) -> _NumpyArray:
    value = _NumpyArray()
    value._read(dtype, data)
    return value


def _latin1(text: object, encoding: object = "latin1") -> bytes:
    """Bytes, as Python 2 compatible pickles write them. No other codec is looked up."""
    return text.encode("latin1") if isinstance(text, str) else b""


_NUMPY_GLOBALS: list[tuple[Any, str]] = [
    (_NumpyArray, "numpy.ndarray"),
    (_NumpyDtype, "numpy.dtype"),
    (_latin1, "_codecs.encode"),
    *(
        (function, f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")
        for function, name in ((_numpy_reconstruct, "_reconstruct"), (_numpy_scalar, "scalar"))
    ),
]
