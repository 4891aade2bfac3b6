"""What of a bundle is lost when an export takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["lost"]

# where options stand in a manifest, and what to call them; a list is told by its items
_OPTIONS = {
    "heads": ("model", "heads"),
    "activation": ("model", "activation"),
    "input": ("inputs",),
    "outputs": ("outputs",),
    "classes": ("classes",),
    "segmentation": ("segmentation",),
    "anchors": ("anchors", "rule"),
    "mean": ("preprocess", "mean"),
    "std": ("preprocess", "std"),
}


def lost(old: Any, new: Mapping[str, Any]) -> tuple[str, ...]:
    """A phrase for each thing that a bundle has and the one in its place has not: none for the same export again.

    Args:
        old: manifest of the bundle that is there; anybody may have written it.
        new: manifest of the one that replaces it.
    """
    if not isinstance(old, dict):
        return ()
    found = [
        f"{name}: {_words(before)}, now {_words(after)}"
        for name, path in _OPTIONS.items()
        if (before := _at(old, path)) != (after := _at(new, path))
    ]
    found += _weights(old, new) + _form(old, new)
    if (before := _opset(old)) != (after := _opset(new)):
        found.append(f"opset {before}, now {after}")
    if (names := _rewrites(old)) != (after_names := _rewrites(new)):
        found.append(f"rewrites: {_words(names)}, now {_words(after_names)}")
    return (*found, *_files(old, new), *_networks(old), *_tuning(old))


def _at(manifest: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        manifest = manifest.get(key) if isinstance(manifest, dict) else None
    return manifest


def _items(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _words(value: Any) -> str:
    """A value of a manifest in a few words: a tensor by its name and form, a table by its entries."""
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return ",".join(map(_words, value))
    if isinstance(value, dict) and {"name", "dtype", "shape"} <= value.keys() and isinstance(value["shape"], list):
        return f"{value['name']} {value['dtype']} {'x'.join(map(str, value['shape']))}"
    if isinstance(value, dict):
        return " ".join(f"{key} {_words(item)}" for key, item in value.items())
    return str(value)


def _weights(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    before, after = (_at(manifest, ("model", "source")) for manifest in (old, new))
    if before == after:
        return []
    names = [_at(source, ("file",)) or "the untrained network" for source in (before, after)]
    same = "another of this name" if names[0] == names[1] else names[1]
    return [f"weights: {names[0]}, now {same}"]


def _form(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Steps in the graph; those that a bundle's name tells are equal in both."""
    before, after = (_at(manifest, ("pipeline",)) for manifest in (old, new))
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []  # manifests of earlier versions have none
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {_words(before.get(key))}, now {_words(after.get(key))}" for key in keys]


def _opset(manifest: Mapping[str, Any]) -> Any:
    return next((item.get("opset") for item in _items(_at(manifest, ("variants",)))), None)


def _rewrites(manifest: Mapping[str, Any]) -> list[str]:
    return [str(item.get("name")) for item in _items(_at(manifest, ("rewrites",)))]


def _files(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Files beside the networks, such as weights.safetensors."""
    before, after = (_at(manifest, ("files",)) or {} for manifest in (old, new))
    networks = [str(item.get("file")) for item in _items(_at(old, ("variants",)))]
    gone = sorted(set(before) - set(after)) if isinstance(before, dict) else []
    return [name for name in gone if not any(name.startswith(network) for network in networks)]


def _networks(old: Mapping[str, Any]) -> list[str]:
    found = [item for item in _items(_at(old, ("variants",))) if item.get("precision") != "fp32"]
    named = [f"{item.get('precision')} for {_words(item.get('runtimes'))}" for item in found]
    return [f"networks of hnx quantize: {'; '.join(named)}"] if named else []


def _tuning(old: Mapping[str, Any]) -> list[str]:
    kept = old.get("tuning")
    return [f"settings of hnx tune: {_words(sorted(kept))}"] if isinstance(kept, dict) and kept else []
