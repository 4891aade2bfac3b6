"""Loading from a cache stands beside loading for the first time, and never in its place."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest

import hybridnets.bundle
from benchmarks import latency, worker
from benchmarks.latency import run_bench
from benchmarks.report import csv_text
from hybridnets.errors import HnxError
from runtimes import registry
from runtimes.base import Execution
from tests.benchmarks.fakes import LocalWorker, Steady, config, fake_bundle, measured, report_of, report_row, rows_of


class Keeping(Steady):
    """Keeps what it compiles."""

    name = "keeping"
    caches = True
    opened: list[str]

    def _open(self) -> Execution:
        execution = super()._open()
        folder = self.options.cache_dir
        state = "off" if folder is None else "read" if folder.exists() else "written"
        if folder is not None:
            assert folder.parent.exists()
            folder.mkdir(exist_ok=True)
        type(self).opened.append(state)
        return Execution(execution.precision, "CPU", 1, "keeping 1", {"cache": state})


class Forgetting(Keeping):
    """Its cache cannot be written."""

    name = "forgetting"

    def _open(self) -> Execution:
        super()._open()
        return Execution("fp32", "CPU", 1, "forgetting 1", {"cache": "not kept: the disk is nearly full"})


class Failing(Keeping):
    """It cannot open with a cache."""

    name = "failing"

    def _open(self) -> Execution:
        if self.options.cache_dir is not None:
            raise HnxError("No")
        return super()._open()


@pytest.fixture(autouse=True)
def _bundle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = cv2.getNumThreads()
    monkeypatch.setattr(hybridnets.bundle, "open_bundle", lambda path, verify=True: fake_bundle())
    monkeypatch.setattr(worker, "wait_idle", lambda: True)
    monkeypatch.setattr(latency, "EXTENSION", 1)
    monkeypatch.setattr(Keeping, "opened", [], raising=False)
    yield
    cv2.setNumThreads(threads)


@pytest.mark.parametrize(
    ("kind", "order", "found"),
    [
        (Keeping, ["written", "read", "off"], True),
        (Forgetting, ["written", "read", "off"], False),
        (Failing, ["off"], False),
        (Steady, [], False),
    ],
)
def test_what_is_measured_knows_of_no_cache(
    monkeypatch: pytest.MonkeyPatch, kind: type[Steady], order: list[str], found: bool
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", rows_of(kind))
    workers: list[LocalWorker] = []

    def start() -> LocalWorker:
        workers.append(LocalWorker())
        return workers[-1]

    row = measured(run_bench(config(), start=start), f"{kind.name}:fp32")
    assert Keeping.opened == order
    assert all(worker.closed for worker in workers)
    assert row["load_ms"] > 0
    assert (row["cached"] is not None) == found
    if found:
        assert row["cached"].keys() == {"load_ms", "first_inference_ms"}
        assert row["execution"]["details"] == {"cache": "off"}


def test_in_tables_only_where_there_is_one(tmp_path: Path) -> None:
    cached: dict[str, Any] = {"load_ms": 40.2, "first_inference_ms": 9.5}
    report = report_of(report_row(cached=cached), report_row("torch", cached=None))
    first, second = csv.DictReader(io.StringIO(csv_text(report)))
    assert (first["load_ms"], first["cached_load_ms"], first["cached_first_inference_ms"]) == ("123.4", "40.2", "9.5")
    assert second["cached_load_ms"] == ""
