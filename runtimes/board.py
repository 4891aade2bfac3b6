"""A Jetson looked over for `hnx doctor`: what JetPack brings, what of it is there, and what is left to do."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from runtimes.jetson import Jetson

__all__ = ["Finding", "look_over"]


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        what: name for people.
        found: how it stands.
        fix: what to do about it; empty where nothing is to be done.
    """

    what: str
    found: str
    fix: str = ""

    def to_json(self) -> dict[str, str]:
        """For reports."""
        return {"what": self.what, "found": self.found, "fix": self.fix}


def look_over(board: Jetson, python: str = "") -> list[Finding]:
    """Everything that decides whether this project runs on a board, and how fast.

    Args:
        python: version of Python, `3.10`; default this one's.
    """
    python = python or ".".join(platform.python_version_tuple()[:2])
    return [_jetpack(board), _tensorrt(board), _module(board, python), _dla(board), _mode(board), _clocks(board)]


def _jetpack(board: Jetson) -> Finding:
    line = board.line
    if line is None:
        found = (
            f"L4T {board.l4t}, of no JetPack known here" if board.l4t else "not told: a container, or another system"
        )
        return Finding("JetPack", found, "cat /etc/nv_tegra_release; docs/jetson.md lists what is known")
    brings = f"CUDA {line.cuda}, TensorRT {line.tensorrt}, Python {line.python}, ONNX opset {line.opset} at most"
    return Finding("JetPack", f"{board.jetpack} (L4T {board.l4t}): {brings}")


def _tensorrt(board: Jetson) -> Finding:
    line = board.line
    if line is not None and not line.supported:
        return Finding(
            "TensorRT",
            f"{board.tensorrt or line.tensorrt}: hnx needs 8.5",
            "JetPack 5 where the board takes it; else hnx export --opset 13 on another machine, and ONNX Runtime here",
        )
    if board.tensorrt:
        return Finding("TensorRT", f"{board.tensorrt} is installed")
    return Finding("TensorRT", "no package of it is installed", "sudo apt install nvidia-jetpack")


def _module(board: Jetson, python: str) -> Finding:
    line, version = board.line, board.tensorrt_python
    if line is not None and not line.supported:
        return Finding("TensorRT in Python", "not used on this JetPack")
    if line is not None and line.python != python:
        return Finding(
            "TensorRT in Python",
            f"JetPack {line.name} has it for Python {line.python}, this is {python}",
            f"docs/jetson.md: {'build the module for 3.10' if line.python == '3.8' else f'use python{line.python}'}",
        )
    if version:
        return Finding(
            "TensorRT in Python", f"{version} is installed; a virtual environment sees it with --system-site-packages"
        )
    return Finding("TensorRT in Python", "its package is not installed", "sudo apt install python3-libnvinfer")


def _dla(board: Jetson) -> Finding:
    if board.dla_cores is None:
        return Finding("DLA", "not told")
    if board.dla_cores == 0:
        return Finding("DLA", "this board has none")
    cores = f"{board.dla_cores} core{'s' if board.dla_cores > 1 else ''}"
    return Finding("DLA", f"{cores}; {board.line.dla}" if board.line else cores)


def _mode(board: Jetson) -> Finding:
    if not board.power_mode:
        return Finding("power mode", "not told", "sudo nvpmodel -q")
    fastest = board.power_mode.upper().startswith("MAXN")
    fix = "" if fastest else "sudo nvpmodel -m 0 is the fastest (-m 2 on a Super board)"
    return Finding("power mode", board.power_mode, fix)


def _clocks(board: Jetson) -> Finding:
    words = {True: "fixed", False: "may move", None: "not told"}
    found = f"CPU {words[board.cpu_locked]}, GPU {words[board.gpu_locked]}"
    return Finding("clocks", found, "" if board.clocks_locked else "sudo jetson_clocks before measuring")
