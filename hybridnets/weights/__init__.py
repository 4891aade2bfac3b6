"""Trained weights by name: those that come with the installation, and upstream's from the web."""

from hybridnets.weights.local import default_entry, download_folder, local_path, pin, resolve_weights, verified
from hybridnets.weights.registry import UPSTREAM, WeightsEntry, entries, find, shipped

__all__ = [
    "UPSTREAM",
    "WeightsEntry",
    "default_entry",
    "download_folder",
    "entries",
    "find",
    "local_path",
    "pin",
    "resolve_weights",
    "shipped",
    "verified",
]
