"""Boards made of files: what the system shows of a Jetson, under another root than `/`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["agx_orin", "desktop", "nano", "orin_nano", "program", "thor", "write", "xavier"]

CPU = "sys/devices/system/cpu/cpufreq/policy0"
THERMAL = "sys/class/thermal"


def write(root: Path, files: dict[str, str]) -> None:
    """Write files below a root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def program(root: Path, name: str, script: str) -> None:
    """Put a shell script into the root's /usr/bin."""
    path = root / "usr/bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def dpkg(**versions: str) -> str:
    """dpkg's status file; underscores in names stand for hyphens, one package among them is not installed."""
    stanzas = ["Package: libnvinfer99\nStatus: deinstall ok config-files\nVersion: 99.0-1\n"]
    for name, version in versions.items():
        package = name.replace("_", "-")
        stanzas.append(f"Package: {package}\nStatus: install ok installed\nArchitecture: arm64\nVersion: {version}\n")
    return "\n".join(stanzas)


def _ina(place: str, *rails: tuple[str, int, int]) -> dict[str, str]:
    """The hwmon driver's files: label, millivolts and milliamperes of each channel."""
    folder = f"sys/bus/i2c/devices/{place}"
    files = {f"{folder}/name": "ina3221\n"}
    for channel, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files[f"{folder}/in{channel}_label"] = f"{label}\n"
        files[f"{folder}/in{channel}_input"] = f"{millivolts}\n"
        files[f"{folder}/curr{channel}_input"] = f"{milliamperes}\n"
    return files | {f"{folder}/in7_label": "sum of shunt voltages\n", f"{folder}/in7_input": "12\n"}


def _zone(index: int, name: str, milli: str) -> dict[str, str]:
    return {f"{THERMAL}/thermal_zone{index}/type": f"{name}\n", f"{THERMAL}/thermal_zone{index}/temp": f"{milli}\n"}


def _cooling(index: int, name: str, state: int) -> dict[str, str]:
    place = f"{THERMAL}/cooling_device{index}"
    return {f"{place}/type": f"{name}\n", f"{place}/cur_state": f"{state}\n"}


def _clocks(gpu: str, low: int, high: int, *, cpu: tuple[int, int]) -> dict[str, str]:
    return {
        f"{CPU}/scaling_min_freq": f"{cpu[0]}\n",
        f"{CPU}/scaling_max_freq": f"{cpu[1]}\n",
        f"sys/class/devfreq/{gpu}/min_freq": f"{low}\n",
        f"sys/class/devfreq/{gpu}/max_freq": f"{high}\n",
        f"sys/class/devfreq/{gpu}/cur_freq": f"{high}\n",
        "sys/class/devfreq/15340000.vic/min_freq": "1\n",
    }


def nano(root: Path) -> Path:
    """Jetson Nano, JetPack 4.6.1: power through the old driver."""
    iio = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    rails = {0: ("POM_5V_IN", 2450), 1: ("POM_5V_GPU", 40), 2: ("POM_5V_CPU", 610)}
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210\0",
        "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64\n",
        **_zone(0, "CPU-therm", "41500"),
        **_zone(1, "PMIC-Die", "50000"),
        **_clocks("57000000.gpu", 76800000, 921600000, cpu=(102000, 1479000)),
    }
    for channel, (name, milliwatts) in rails.items():
        files[f"{iio}/rail_name_{channel}"] = f"{name}\n"
        files[f"{iio}/in_power{channel}_input"] = f"{milliwatts}\n"
    write(root, files)
    return root


def xavier(root: Path) -> Path:
    """AGX Xavier, JetPack 5.1.2: no rail that holds the others, two DLA cores, the L4T release from dpkg alone."""
    files = {
        "proc/device-tree/model": "Jetson-AGX\0",
        "proc/device-tree/compatible": "nvidia,p2972-0000\0nvidia,tegra194\0",
        "proc/device-tree/host1x/nvdla0@15880000/status": "okay\0",
        "proc/device-tree/host1x/nvdla1@158c0000/status": "okay\0",
        "var/lib/dpkg/status": dpkg(nvidia_l4t_core="35.4.1-20230801124926", libnvinfer8="8.5.2-1+cuda11.4"),
        "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\nX\n< POWER_MODEL ID=2 NAME=MODE_15W >\n",
        **_ina("1-0040/hwmon/hwmon3", ("GPU", 19000, 60), ("CPU", 19000, 20), ("SOC", 19000, 130)),
        **_ina("1-0041/hwmon/hwmon4", ("CV", 19000, 0), ("VDDRQ", 19000, 10), ("SYS5V", 5000, 538)),
        **_zone(0, "CPU-therm", "44000"),
        **_zone(1, "GPU-therm", "43500"),
        **_clocks("17000000.gv11b", 114750000, 1377000000, cpu=(1190400, 2265600)),
    }
    write(root, files)
    return root


def orin_nano(root: Path) -> Path:
    """Orin Nano, JetPack 6.2, clocks fixed by jetson_clocks."""
    rails = (("VDD_IN", 5000, 1016), ("VDD_CPU_GPU_CV", 5000, 150), ("VDD_SOC", 5000, 290))
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        "var/lib/dpkg/status": dpkg(
            nvidia_jetpack="6.2+b77", libnvinfer10="10.3.0.30-1+cuda12.5", python3_libnvinfer="10.3.0.30-1+cuda12.5"
        ),
        **_ina("1-0040/hwmon/hwmon1", *rails),
        **_zone(0, "cpu-thermal", "49250"),
        **_zone(1, "gpu-thermal", "-256000"),
        **_zone(2, "tj-thermal", "50125"),
        **_cooling(0, "pwm-fan", 2),
        **_cooling(1, "cpu-throttle-alert", 0),
        **_clocks("17000000.gpu", 1020000000, 1020000000, cpu=(1728000, 1728000)),
    }
    write(root, files)
    program(root, "nvpmodel", "echo 'NV Power Mode: MAXN_SUPER'; echo 2")
    return root


def agx_orin(root: Path) -> Path:
    """AGX Orin, JetPack 6.1: a second monitor with unused channels."""
    rails = (("VDD_GPU_SOC", 20000, 157), ("VDD_CPU_CV", 20000, 40), ("VIN_SYS_5V0", 5000, 994))
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0",
        "proc/device-tree/bus@0/host1x@13e00000/nvdla0@15880000/status": "okay\0",
        "proc/device-tree/bus@0/host1x@13e00000/nvdla1@158c0000/status": "okay\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64\n",
        **_ina("1-0040/hwmon/hwmon1", *rails),
        **_ina("1-0041/hwmon/hwmon2", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 80), ("NC", 0, 0)),
    }
    write(root, files)
    return root


def thor(root: Path) -> Path:
    """AGX Thor, JetPack 7.0: an INA238 at its supply holds everything; a rail's offset makes it negative at rest."""
    supply = "sys/bus/i2c/devices/2-0044/hwmon/hwmon5"
    rails = (("VDD_GPU", 20000, -20), ("VDD_CPU_SOC_MSS", 20000, 325), ("VIN_SYS_5V0", 5000, 1304))
    files = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
        "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n",
        **_ina("2-0040/hwmon/hwmon4", *rails),
        f"{supply}/name": "ina238\n",
        f"{supply}/in1_label": "VIN\n",
        f"{supply}/in1_input": "20000\n",
        f"{supply}/curr1_input": "1150\n",
        f"{supply}/power1_input": "23000000\n",
        **_clocks("gpu-gpc-0", 315000000, 1575000000, cpu=(972000, 2601000)),
    }
    write(root, files)
    return root


def desktop(root: Path, *, limit: int = 262143328850) -> Path:
    """An x86 machine with one package and its memory."""
    base = "sys/class/powercap"
    zones = {
        "intel-rapl:0": ("package-0", 1_000_000), "intel-rapl:0:0": ("core", 500_000),
        "intel-rapl:0:1": ("dram", 200_000), "intel-rapl:1": ("psys", 9_000_000),
        "intel-rapl-mmio:0": ("package-0", 1_000_000),
    }  # fmt: skip
    files = {f"{base}/intel-rapl/enabled": "1\n"}
    for folder, (name, microjoules) in zones.items():
        files[f"{base}/{folder}/name"] = f"{name}\n"
        files[f"{base}/{folder}/energy_uj"] = f"{microjoules}\n"
        files[f"{base}/{folder}/max_energy_range_uj"] = f"{limit}\n"
    write(root, files)
    return root
