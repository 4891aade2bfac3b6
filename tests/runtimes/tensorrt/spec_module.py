"""A module with exactly the members, signatures and enumerations of one TensorRT version.

They come from tests/data/tensorrt/api.json. What that version lacks is an AttributeError here, as it is there; so is
setting a property it has not; a wrong number, name or type of argument is a TypeError. It does nothing: a `World` says
what calls return.
"""

from __future__ import annotations

import enum
import functools
import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.runtimes.tensorrt.world import Member, World

TABLE = Path(__file__).parents[2] / "data" / "tensorrt" / "api.json"

# not in the table, because no call takes it: kinds of layers the parser makes
LayerType = enum.Enum(  # type: ignore[misc]
    "LayerType", "CONVOLUTION DECONVOLUTION MATRIX_MULTIPLY QUANTIZE DEQUANTIZE ACTIVATION"
)
_ALIASES = {
    "nvonnxparser::IParserError": "ParserError",
    "nvinfer1::IEngineInspector": "EngineInspector",
    "ILogger.Severity": "Severity",
}


@functools.lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The file."""
    value: dict[str, Any] = json.loads(TABLE.read_text())
    return value


def versions() -> list[str]:
    """All versions in it."""
    return list(table()["versions"])


def spec_module(version: str, world: World) -> Any:
    """A new module of a version that believes in `world`; `calls` lists what was called, in order."""
    index = str(versions().index(version))
    module: Any = types.ModuleType("tensorrt")
    module.__version__ = version.removeprefix("rtx-")
    module.LayerType, module.answers, module.calls, module.world = LayerType, world.answers(), [], world
    for name, entry in table()["classes"].items():
        forms = {
            member: form
            for member, found in entry["members"].items()
            for form, where in found.items()
            if index in where
        }
        if not forms:
            continue
        if entry["enum"]:
            setattr(module, name, enum.Enum(name, {member: i for i, member in enumerate(forms)}, type=_Integer))
        else:
            setattr(module, name, _make_class(module, name, forms))
    for word in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        setattr(module.ILogger, word, getattr(module.ILogger.Severity, word))
    module.Severity = module.ILogger.Severity
    return module


class _Integer:
    """Enumerations of the bindings convert to int and are none."""

    def __new__(cls, value: int) -> _Integer:
        made = object.__new__(cls)
        made._value_ = value
        return made

    def __int__(self) -> int:
        return int(self._value_)


def _make_class(module: Any, name: str, forms: dict[str, str]) -> type:
    settable = {member for member, form in forms.items() if form.startswith("property settable")}

    def set_attribute(self: Any, attribute: str, value: Any) -> None:
        # a Python class derived from one of the bindings has attributes of its own; theirs have not
        if type(self).__module__ == "tensorrt":
            if attribute not in settable:
                raise AttributeError(f"'{name}' object has no settable attribute '{attribute}'")
            kind = forms[attribute].split(": ", 1)[1]
            if not _fits(module, kind, value):
                raise TypeError(f"{name}.{attribute}: {value!r} is no {kind}")
            module.calls.append(f"{name}.{attribute}=")
        object.__setattr__(self, "_set_" + attribute if attribute in settable else attribute, value)

    body: dict[str, Any] = {"__module__": "tensorrt", "__setattr__": set_attribute}
    for member, form in forms.items():
        if form.startswith("enum: "):
            body[member] = enum.Enum(member, {word: i for i, word in enumerate(form[6:].split())}, type=_Integer)
        elif form.startswith("property"):
            body[member] = property(_getter(module, name, member, form.split(": ", 1)[1]))
        else:
            body[member] = _method(module, name, member, form.split(" | "))
    if name == "IHostMemory":
        body["__bytes__"] = lambda self: b"fakeplan"
    return type(name, (), body)


def _getter(module: Any, name: str, member: str, kind: str) -> Callable[[Any], Any]:
    def get(self: Any) -> Any:
        label = f"{name}.{member}"
        module.calls.append(label)
        module.world.look(label, None)
        if label in module.answers:
            return _value(module, module.answers[label](None))
        return self.__dict__.get("_set_" + member, _default(module, kind))

    return get


def _method(module: Any, name: str, member: str, signatures: list[str]) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        label = f"{name}.{member}"
        problems = [_mismatch(module, signature, args, kwargs) for signature in signatures]
        if all(problems):
            raise TypeError(f"{label}{args}{kwargs or ''}: incompatible function arguments: {signatures}: {problems}")
        module.calls.append(label)
        argument = args[0] if args else None
        module.world.look(label, argument)
        if label in module.answers:
            return _value(module, module.answers[label](argument))
        result = re.search(r"-> (.*)$", signatures[problems.index("")])
        return None if result is None else _default(module, result[1])

    return call


def _value(module: Any, result: Any) -> Any:
    return getattr(module, result.enumeration)[result.name] if isinstance(result, Member) else result


def _mismatch(module: Any, signature: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Why arguments do not fit a signature of pybind11's; "" when they do."""
    if signature == "?":
        return ""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")] if "(" in signature else ""
    parameters = [part for part in _split(inside) if not part.startswith(("self", "this"))]
    given = dict(kwargs)
    for position, value in enumerate(args):
        if position >= len(parameters):
            return "too many arguments"
        given[parameters[position].split(":")[0].strip()] = value
    for parameter in parameters:
        name, _, rest = parameter.partition(":")
        kind, default, _ = rest.strip().partition(" = ")
        if name.strip() not in given:
            if not default:
                return f"{name} is missing"
            continue
        value = given.pop(name.strip())
        if not _fits(module, kind, value):
            return f"{name}: {value!r} is no {kind}"
    return f"unknown {sorted(given)}" if given else ""


def _split(text: str) -> list[str]:
    """At commas outside brackets."""
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += {"[": 1, "<": 1, "(": 1, "]": -1, ">": -1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [*parts, current.strip()] if current.strip() else parts


def _fits(module: Any, kind: str, value: Any) -> bool:
    kind = _ALIASES.get(kind.strip(), kind.strip())
    if kind == "int":
        return hasattr(value, "__int__") and not isinstance(value, float)
    if kind in ("str", "bool"):
        return isinstance(value, str if kind == "str" else bool)
    if kind in ("Dims", "tuple", "list"):
        return isinstance(value, tuple | list if kind == "Dims" else tuple if kind == "tuple" else list)
    if kind == "buffer":
        return isinstance(value, bytes | bytearray | memoryview)
    known = getattr(module, kind.rsplit(".", 1)[-1], None)
    return True if known is None else value is None or isinstance(value, known)


def _default(module: Any, kind: str) -> Any:
    kind = _ALIASES.get(kind.strip(), kind.strip())
    if kind in ("int", "bool", "str"):
        return {"int": 1, "bool": True, "str": ""}[kind]
    if kind == "Dims":
        return (1, 3, 8, 8)
    if kind.startswith("list"):
        return []
    known = getattr(module, kind.rsplit(".", 1)[-1], None)
    if known is None:
        return None
    if isinstance(known, enum.EnumMeta):
        return next(iter(known))
    return known.__new__(known)
