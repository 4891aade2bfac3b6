"""The environment is recorded as far as it can be, and never stops a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import environment
from benchmarks.environment import (
    Stopwatch,
    available_memory_mb,
    describe_environment,
    system_busy_seconds,
    throttle_counters,
    throttled_since,
)
from tests import boards


def test_here_it_is_strict_json_with_the_essentials() -> None:
    found = describe_environment()
    json.dumps(found, allow_nan=False)
    assert {"hnx", "python", "os", "cpu", "libraries"} <= found.keys()
    assert found["cpu"]["available_cores"] >= 1
    assert "numpy" in found["libraries"]


def test_an_empty_machine_tells_little_and_nothing_fails(tmp_path: Path) -> None:
    found = describe_environment(tmp_path)
    assert "memory" not in found
    assert "temperatures_c" not in found
    assert "container" not in found
    assert "jetson" not in found
    assert system_busy_seconds(tmp_path) is None
    assert available_memory_mb(tmp_path) is None
    assert throttle_counters(tmp_path) == {}


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_jetson_is_described_with_what_decides_its_speed(tmp_path: Path) -> None:
    boards.orin_nano(tmp_path)
    write(tmp_path, {f"sys/class/hwmon/hwmon7/oc{index}_event_cnt": f"{index}\n" for index in (1, 2, 3)})
    board = describe_environment(tmp_path)["jetson"]
    assert {key: board[key] for key in ("l4t", "jetpack", "power_mode", "clocks_locked", "dla_cores")} == {
        "l4t": "36.4.3", "jetpack": "6.2", "power_mode": "MAXN_SUPER (2)", "clocks_locked": True, "dla_cores": 0,
    }  # fmt: skip
    assert throttle_counters(tmp_path) == {"current": 6}
    assert throttled_since({"current": 6}, {"current": 8}) == ["it drew more current than its supply allows (2 times)"]


def test_reads_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = "sys/devices/system/cpu"
    write(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  1000000 kB\nMemAvailable: 500000 kB\n",
            "proc/1/cgroup": "0::/kubepods/besteffort/pod1\n",
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
            f"{cpu}/intel_pstate/no_turbo": "1\n",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/cpu0/thermal_throttle/package_throttle_count": "4\n",
            "sys/fs/cgroup/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_periods 9\nnr_throttled 2\n",
            "sys/class/thermal/thermal_zone0/temp": "48500\n",
            "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone1/temp": "broken\n",
        },
    )
    monkeypatch.setattr(environment, "cpu_model", lambda: "Example 9000")
    monkeypatch.setattr(environment, "cpu_flags", lambda: frozenset(["fpu", "avx2", "amx_bf16", "avx512f", "sse2"]))
    found = describe_environment(tmp_path)
    assert found["cpu"]["model"] == "Example 9000"
    assert found["cpu"]["flags"] == ["amx_bf16", "avx2", "avx512f"]
    assert found["cpu"]["frequency"] == {"governor": "powersave", "current_mhz": 1800.0, "boost": False}
    assert found["cpu"]["quota"] == "200000 100000"
    assert found["memory"] == {"total_mb": 1024.0, "available_mb": 512.0}
    assert found["temperatures_c"] == {"thermal_zone0 x86_pkg_temp": 48.5}
    assert available_memory_mb(tmp_path) == 512.0
    assert found["container"] == "kubepods"
    assert throttle_counters(tmp_path) == {"heat": 7, "quota": 2}


def test_busy_time_counts_only_our_cores_and_no_idling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"proc/stat": "cpu  9 9 9 9\ncpu0 100 20 30 9999 500 4 5 41 7 8\ncpu1 9000 0 0 0 0 0 0 0 0 0\n"})
    monkeypatch.setattr(environment, "_affinity", lambda: [0])
    monkeypatch.setattr(environment.os, "sysconf", lambda name: 100)
    assert system_busy_seconds(tmp_path) == 2.0


def test_what_others_did_is_what_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    busy: list[float | None] = [10.0, 13.0]
    monkeypatch.setattr(environment, "system_busy_seconds", lambda: busy.pop(0))
    own = iter([1.0, 2.0])
    monkeypatch.setattr(environment.time, "process_time", lambda: next(own))
    wall, others = Stopwatch().stop()
    assert wall >= 0
    assert others == 2.0


def test_others_stay_unknown_where_nobody_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "system_busy_seconds", lambda: None)
    assert Stopwatch().stop()[1] is None


def test_throttling_in_words() -> None:
    words = throttled_since({"heat": 1, "quota": 5}, {"heat": 4, "quota": 5, "new": 9})
    assert words == ["it became too hot (3 times)"]


def test_broken_parts_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no")

    for name in ("_cpu", "_memory", "_temperatures", "_container", "_versions", "_os_name"):
        monkeypatch.setattr(environment, name, broken)
    found = describe_environment()
    assert "cpu" not in found
    assert "python" in found
