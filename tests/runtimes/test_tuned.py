"""Where a kept setting holds, and where it is left alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.bundle.tuning import TunedRow, Tuning, store_tuning
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import RuntimeOptions
from runtimes.tuned import LookUp, look_up, place_here, tuned_options


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Bundle:
    return open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle"))


def tuned(bundle: Bundle, **changes: Any) -> Bundle:
    file = bundle.variants[0].file
    row = TunedRow("fp32", 3, 2, 1.0, (1.0, 1.0, 1.0), {}, "chosen")
    found = Tuning(
        "fp32",
        3,
        2,
        file,
        str(bundle.manifest["files"][file]["sha256"]),
        "throughput",
        "labels",
        0.5,
        10,
        "scenes",
        place_here("openvino"),
        (row,),
        "2026-01-01T00:00:00",
    )
    store_tuning(bundle, "openvino", replace(found, **changes))
    return open_bundle(bundle.path)


def test_nothing_kept(bundle: Bundle) -> None:
    assert look_up(bundle, "openvino") == LookUp()
    with pytest.raises(HnxError, match="not tuned for openvino") as caught:
        tuned_options(bundle, "openvino", RuntimeOptions())
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "hnx tune" in caught.value.fix


def test_it_holds_here(bundle: Bundle) -> None:
    found = look_up(tuned(bundle), "openvino").tuning
    assert found is not None
    assert (found.threads, found.streams) == (3, 2)
    options = tuned_options(tuned(bundle), "openvino", RuntimeOptions("fp32", 8, streams=1))
    assert (options.precision, options.threads, options.streams) == ("fp32", 3, 1)
    # never more threads than were allowed
    assert tuned_options(tuned(bundle), "openvino", RuntimeOptions("fp32", 2)).threads == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cpu": "another"}, "CPU: another then"),
        ({"cores": 999}, "cores: 999 then"),
        ({"library": "2020.1"}, "library version: 2020.1 then"),
        ({"instructions": ("mmx",)}, "instruction sets: mmx then"),
    ],
)
def test_another_machine_or_library(change: dict[str, Any], text: str, bundle: Bundle) -> None:
    there = replace(place_here("openvino"), **change)
    opened = tuned(bundle, place=there)
    assert text in look_up(opened, "openvino").problem
    with pytest.raises(HnxError, match="not tuned") as caught:
        tuned_options(opened, "openvino", RuntimeOptions())
    assert text in caught.value.why


def test_a_network_that_was_replaced(bundle: Bundle) -> None:
    assert "has been replaced" in look_up(tuned(bundle, sha256="0" * 64), "openvino").problem
    assert "has been replaced" in look_up(tuned(bundle, file="gone.onnx"), "openvino").problem


@pytest.mark.parametrize(("precision", "threads", "text"), [("fp7", 3, "no precision"), ("fp32", 10**6, "threads is")])
def test_values_that_cannot_be(precision: str, threads: int, text: str, bundle: Bundle) -> None:
    row = TunedRow(precision, threads, 2, 1.0, (1.0, 1.0, 1.0), None, "chosen")
    opened = tuned(bundle, precision=precision, threads=threads, rows=(row,))
    assert text in look_up(opened, "openvino").problem


def test_the_place_names_the_library_without_importing_it() -> None:
    from importlib.metadata import version

    assert place_here("openvino").library == version("openvino")
    assert place_here("openvino").devices == ()
