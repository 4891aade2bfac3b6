"""Whether this is a Jetson, which one, and how it is set up: board, L4T, JetPack, power mode, clocks, DLA."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.jetpack import JetPack, exact_name, jetpack_of
from runtimes.sysfs import Tree

__all__ = ["GpuClock", "Jetson", "detect", "gpu_clock"]

# Orin and Xavier by their GPU's family or as `gpu`; Thor by the clock of its first cluster
_GPU = re.compile(r"[0-9a-f]+\.(gpu|ga10b|gv11b|gp10b|gm20b)|gpu-gpc-0")
_DLA_NODES = (
    "proc/device-tree/host1x*/nvdla*",
    "proc/device-tree/bus@0/host1x*/nvdla*",
    "sys/devices/platform/host1x/*.nvdla?",
    "sys/devices/platform/*host1x/*.nvdla?",
    "sys/devices/platform/bus@0/*host1x/*.nvdla?",
)
# chips that never had one
_NO_DLA = ("tegra210", "tegra186", "tegra264")
_PACKAGES = re.compile(r"nvidia-l4t-core|nvidia-jetpack|libnvinfer\d+|python3-libnvinfer")
NVPMODEL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class GpuClock:
    """The folder that governs the GPU's clock."""

    folder: Path

    def _mhz(self, tree: Tree, name: str) -> float | None:
        hertz = tree.number(self.folder / name)
        return None if not hertz else hertz / 1e6

    def current_mhz(self, tree: Tree) -> float | None:
        """MHz now; None where it is not told, or the GPU sleeps."""
        return self._mhz(tree, "cur_freq")

    def fixed_mhz(self, tree: Tree) -> float | None:
        """MHz it is fixed to, as by jetson_clocks; None where it may move."""
        low, high = self._mhz(tree, "min_freq"), self._mhz(tree, "max_freq")
        return high if low is not None and low == high else None


@dataclass(frozen=True)
class Jetson:
    """What was found. Empty texts and None where the board does not tell, as in most containers.

    Attributes:
        model: as the device tree names it.
        chip: `tegra234` and the like.
        l4t: release, such as `36.4.3`.
        jetpack: its number, or that of its line.
        line: what belongs to that line of JetPack.
        tensorrt: version of the installed library package.
        tensorrt_python: version of the installed Python package of TensorRT.
        power_mode: of nvpmodel, such as `MAXN (0)`.
        cpu_locked, gpu_locked: their clocks are fixed, as by jetson_clocks.
        dla_cores: how many there are.
    """

    model: str
    chip: str = ""
    l4t: str = ""
    jetpack: str = ""
    line: JetPack | None = None
    tensorrt: str = ""
    tensorrt_python: str = ""
    power_mode: str = ""
    cpu_locked: bool | None = None
    gpu_locked: bool | None = None
    dla_cores: int | None = None

    @property
    def clocks_locked(self) -> bool | None:
        """All clocks that are told are fixed; None where none is told."""
        told = [value for value in (self.cpu_locked, self.gpu_locked) if value is not None]
        return all(told) if told else None

    def to_json(self) -> dict[str, Any]:
        """For reports; what is unknown is absent."""
        values = {
            "model": self.model,
            "chip": self.chip,
            "l4t": self.l4t,
            "jetpack": self.jetpack,
            "tensorrt_package": self.tensorrt,
            "tensorrt_python_package": self.tensorrt_python,
            "power_mode": self.power_mode,
            "cpu_clock_locked": self.cpu_locked,
            "gpu_clock_locked": self.gpu_locked,
            "clocks_locked": self.clocks_locked,
            "dla_cores": self.dla_cores,
        }
        return {key: value for key, value in values.items() if value not in (None, "")}


def detect(tree: Tree | None = None) -> Jetson | None:
    """This board, or None where it is none. Takes milliseconds, and a tenth of a second where nvpmodel is asked."""
    tree = tree or Tree()
    model = tree.text("proc/device-tree/model") or ""
    # one string after another, each ended by a zero byte
    compatible = (tree.text("proc/device-tree/compatible") or "").split("\0")
    chip = next((m[0] for name in compatible if (m := re.search(r"tegra\d+[a-z]?", name))), "")
    release = tree.text("etc/nv_tegra_release")
    if release is None and not (chip or "jetson" in model.lower()):
        return None
    packages = _packages(tree)
    l4t = _l4t(release or "") or _number(packages.get("nvidia-l4t-core", ""))
    line = jetpack_of(l4t)
    return Jetson(
        model=model or "a Jetson without a device tree (a container?)",
        chip=chip,
        l4t=l4t,
        # the meta package says it itself, where it was installed
        jetpack=_number(packages.get("nvidia-jetpack", "")) or exact_name(l4t) or (line.name if line else ""),
        line=line,
        tensorrt=_newest(version for name, version in packages.items() if name.startswith("libnvinfer")),
        tensorrt_python=_number(packages.get("python3-libnvinfer", "")),
        power_mode=_power_mode(tree),
        cpu_locked=_cpu_locked(tree),
        gpu_locked=_gpu_locked(tree),
        dla_cores=_dla_cores(tree, chip, model),
    )


def _l4t(release: str) -> str:
    """`36.4.3` out of `# R36 (release), REVISION: 4.3, GCID: ...`; empty where it is not written so."""
    match = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*(\d+(?:\.\d+)*)", release)
    return f"{match[1]}.{match[2]}" if match else ""


def _number(version: str) -> str:
    """The leading number of a package's version: `36.4.3` of `36.4.3-20250107174145`."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return match[0] if match else ""


def _newest(versions: Iterable[str]) -> str:
    numbers = [_number(version) for version in versions]
    return max(numbers, key=lambda text: [int(part) for part in text.split(".") if part], default="")


def _packages(tree: Tree) -> dict[str, str]:
    """Versions of the installed packages that matter here, from dpkg's own file."""
    found: dict[str, str] = {}
    name = installed = ""
    try:
        with (tree.root / "var/lib/dpkg/status").open(errors="replace") as lines:
            for line in lines:
                key, _, value = line.rstrip("\n").partition(": ")
                if key == "Package":
                    name, installed = value, ""
                elif key == "Status":
                    installed = value
                elif key == "Version" and installed.endswith(" installed") and _PACKAGES.fullmatch(name):
                    found[name] = value
    except OSError:
        return found
    return found


def _power_mode(tree: Tree) -> str:
    """Name and number of the power mode: asked of nvpmodel, else from the files it keeps; empty where neither tells."""
    program = tree.which("nvpmodel")
    if program is not None:
        try:
            result = subprocess.run(
                [program, "-q"], capture_output=True, text=True, timeout=NVPMODEL_TIMEOUT_S, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.SubprocessError, ValueError):
            pass
        else:
            match = re.search(r"NV Power Mode:\s*(\S+)\s+(\d+)", result.stdout)
            if match:
                return f"{match[1].removeprefix('MODE_')} ({match[2]})"
    kept = re.search(r"pmode:(\d+)", tree.text("var/lib/nvpmodel/status") or "")
    if kept is None:
        return ""
    number = int(kept[1])
    names = re.findall(r"POWER_MODEL ID=(\d+) NAME=(\S+)", tree.text("etc/nvpmodel.conf") or "")
    name = next((word for mode, word in names if int(mode) == number), "mode")
    return f"{name.removeprefix('MODE_')} ({number})"


def _cpu_locked(tree: Tree) -> bool | None:
    folders = tree.glob("sys/devices/system/cpu/cpufreq/policy*") or tree.glob(
        "sys/devices/system/cpu/cpu[0-9]*/cpufreq"
    )
    pairs = [
        (low, high)
        for folder in folders
        if (low := tree.number(folder / "scaling_min_freq")) and (high := tree.number(folder / "scaling_max_freq"))
    ]
    return all(low == high for low, high in pairs) if pairs else None


def gpu_clock(tree: Tree) -> GpuClock | None:
    """Where a Jetson's GPU clock is governed; None elsewhere."""
    folders = [*tree.glob("sys/class/devfreq/*"), *tree.glob("sys/devices/gpu.0/devfreq/*")]
    return next((GpuClock(folder) for folder in folders if _GPU.fullmatch(folder.name)), None)


def _gpu_locked(tree: Tree) -> bool | None:
    clock = gpu_clock(tree)
    if clock is None or tree.number(clock.folder / "max_freq") is None:
        return None
    return clock.fixed_mhz(tree) is not None


def _dla_cores(tree: Tree, chip: str, model: str) -> int | None:
    for pattern in _DLA_NODES:
        nodes = tree.glob(pattern)
        if nodes:
            return sum(tree.text(node / "status") != "disabled" for node in nodes)
    if chip in _NO_DLA or ("orin" in model.lower() and "nano" in model.lower()):
        return 0
    return None
