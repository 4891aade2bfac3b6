"""Energy counters of x86 processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.power.rapl import Counter, Rapl
from benchmarks.power.reading import Unreadable
from runtimes.sysfs import Tree
from tests import boards

BASE = "sys/class/powercap"


def test_packages_and_memory_add_up_and_nothing_counts_twice(tmp_path: Path) -> None:
    source = Rapl(Tree(boards.desktop(tmp_path)))
    assert source.total == ("package-0", "package-0/dram")
    assert set(source.read().rails) == {"package-0", "package-0/core", "package-0/dram", "psys"}
    (tmp_path / BASE / "intel-rapl:0/energy_uj").write_text("3500000\n")
    (tmp_path / BASE / "intel-rapl:0:1/energy_uj").write_text("700000\n")
    rails = source.read().rails
    assert rails["package-0"] == 2.5
    assert rails["package-0/dram"] == 0.5
    assert rails["psys"] == 0.0
    source.close()


def test_a_full_counter_begins_again(tmp_path: Path) -> None:
    boards.desktop(tmp_path, limit=10_000_000)
    energy = tmp_path / BASE / "intel-rapl:0/energy_uj"
    energy.write_text("9000000\n")
    source = Rapl(Tree(tmp_path))
    told = []
    for value in (9_500_000, 1_500_000, 9_999_999, 500_000):
        energy.write_text(f"{value}\n")
        told.append(source.read().rails["package-0"])
    assert told == pytest.approx([0.5, 2.5, 10.999999, 11.5])


def test_a_counter_that_goes_back_without_a_range_is_refused() -> None:
    counter = Counter(None, 100)
    assert counter.joules(1_000_100) == 1.0
    with pytest.raises(Unreadable, match="went back"):
        counter.joules(50)
    with pytest.raises(Unreadable, match="more than its range"):
        Counter(10, 100).joules(5)


def test_without_counters_or_with_closed_ones_there_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Unreadable, match="no RAPL"):
        Rapl(Tree(tmp_path))
    boards.desktop(tmp_path)
    read = Tree.read

    def closed(self: Tree, path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(self, path)

    monkeypatch.setattr(Tree, "read", closed)
    with pytest.raises(Unreadable, match="root alone") as caught:
        Rapl(Tree(tmp_path))
    assert "chmod" in caught.value.fix


def test_a_zone_that_vanishes_is_a_reason(tmp_path: Path) -> None:
    source = Rapl(Tree(boards.desktop(tmp_path)))
    (tmp_path / BASE / "intel-rapl:0:0/energy_uj").unlink()
    with pytest.raises(Unreadable, match="package-0/core"):
        source.read()


def test_a_platform_counter_alone_is_better_than_nothing(tmp_path: Path) -> None:
    zone = tmp_path / BASE / "intel-rapl:0"
    boards.write(zone, {"name": "psys\n", "energy_uj": "5\n", "max_energy_range_uj": "100\n"})
    assert Rapl(Tree(tmp_path)).total == ("psys",)
