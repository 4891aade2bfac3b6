"""Which sources are opened: names, preference, and reasons."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.power import registry
from benchmarks.power.config import PowerConfig
from benchmarks.power.registry import SOURCES, SourceEntry, open_sources, parse_sources, survey
from hybridnets.errors import ExitCode, HnxError
from runtimes.sysfs import Tree
from tests import boards
from tests.benchmarks.power.test_libraries import nvml_module


@pytest.fixture(autouse=True)
def _no_vendor_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pynvml", "jtop"):
        monkeypatch.setitem(sys.modules, name, None)


def opened(text: str, root: Path) -> list[str]:
    found = open_sources(text, Tree(root))
    for source in found.sources:
        source.close()
    return [source.name for source in found.sources]


def test_auto_takes_what_covers_a_board_and_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module())
    boards.desktop(boards.orin_nano(tmp_path))
    boards.program(tmp_path, "tegrastats", "echo 'VDD_IN 1/1'\nexec sleep 60")
    assert opened("auto", tmp_path) == ["ina3221"]
    assert opened("tegrastats", tmp_path) == ["tegrastats"]


def test_auto_adds_up_card_and_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module())
    boards.desktop(tmp_path)
    assert opened("auto", tmp_path) == ["nvml", "rapl"]
    assert opened("rapl", tmp_path) == ["rapl"]
    assert opened("nvml, RAPL", tmp_path) == ["nvml", "rapl"]
    assert opened("off", tmp_path) == []


def test_auto_without_anything_has_a_reason_for_each(tmp_path: Path) -> None:
    found = open_sources("auto", Tree(tmp_path))
    assert found.sources == []
    assert set(found.missing) == {row.name for row in SOURCES}
    assert found.fixes["nvml"] == "pip install nvidia-ml-py"
    assert "ina3221" not in found.fixes


def test_a_source_that_breaks_in_any_way_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = SourceEntry("broken", "no_such_module_at_all", "X", "cpu", "nothing")
    monkeypatch.setattr(registry, "SOURCES", (row,))
    assert "no_such_module" in open_sources("broken", Tree(tmp_path)).missing["broken"]
    assert survey(Tree(tmp_path), board=False)[0].reason


def test_survey_says_what_can_be_read(tmp_path: Path) -> None:
    rows = {row.name: row for row in survey(Tree(boards.nano(tmp_path)), board=True)}
    assert list(rows) == ["ina3221", "tegrastats", "jtop"]
    assert [row.name for row in survey(Tree(tmp_path), board=False)] == ["nvml", "rapl"]
    assert rows["ina3221"].reason == ""
    assert "could not be imported" in rows["jtop"].reason
    assert rows["tegrastats"].reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raple", "did you mean 'rapl'"),
        ("", "Known: auto, off"),
        ("auto,rapl", "Known"),
        ("ina3221,tegrastats", "measure the same"),
        ("ina3221,rapl", "measure the same"),
    ],
)
def test_unusable_names_are_usage_errors(text: str, words: str) -> None:
    with pytest.raises(HnxError, match=words) as caught:
        parse_sources(text)
    assert caught.value.code == ExitCode.USAGE
    with pytest.raises(HnxError, match=words):
        PowerConfig(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"idle_s": -1.0}, "--idle"),
        ({"idle_s": float("nan")}, "--idle"),
        ({"cool_down_c": 0.0}, "--cool-down"),
        ({"cool_down_c": float("inf")}, "--cool-down"),
    ],
)
def test_numbers_are_checked_first(values: dict[str, float], words: str) -> None:
    with pytest.raises(HnxError, match=words) as caught:
        PowerConfig("auto", **values)  # type: ignore[arg-type]
    assert caught.value.code == ExitCode.USAGE
