"""The loader and its processes: order, memory, broken samples, deaths and interrupts."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybridnets.dataset import BrokenSample, Sample, SampleLoader, SampleReader, open_split
from hybridnets.dataset.workers import ordered_map
from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import load_project
from tests.processes import alive, children

DATA = Path(__file__).parents[2] / "data" / "parity" / "dataset"


def reader() -> SampleReader:
    split = open_split(load_project(str(DATA / "project_nc1_multiclass.yml")), DATA)
    return SampleReader(split, (128, 256), frame_target=True)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_samples_arrive_in_order_and_whole(workers: int) -> None:
    names = [*reader().split.names, "nobody", "val_03"]
    found = list(SampleLoader(reader(), names, workers=workers))
    assert [sample.name for sample in found] == names
    assert isinstance(found[-2], BrokenSample)
    assert "nobody.json" in str(found[-2].error)
    expected = reader().read("val_03")
    last = found[-1]
    assert isinstance(last, Sample)
    assert last.letterbox == expected.letterbox
    assert last.categories == expected.categories
    for array in ("frame", "boxes", "target", "frame_target"):
        assert np.array_equal(getattr(last, array), getattr(expected, array))


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), cv2.error("(-215) Assertion failed")])
def test_no_failure_of_a_sample_ends_the_others(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(self: SampleReader, name: str) -> Sample:
        raise failure

    monkeypatch.setattr(SampleReader, "read", fail)
    (found,) = SampleLoader(reader(), ["val_00"])
    assert isinstance(found, BrokenSample)
    assert "val_00" in found.error.what
    assert found.error.why


def test_a_loader_can_be_walked_through_twice() -> None:
    loader = SampleLoader(reader(), ["val_00", "val_01"], workers=1)
    assert [s.name for s in loader] == [s.name for s in loader] == ["val_00", "val_01"]
    assert len(loader) == 2


@pytest.mark.parametrize(("workers", "prefetch"), [(-1, None), (3, 2)])
def test_impossible_numbers(workers: int, prefetch: int | None) -> None:
    with pytest.raises(HnxError) as caught:
        SampleLoader(reader(), [], workers=workers, prefetch=prefetch)
    assert caught.value.code == ExitCode.USAGE


def test_no_names_no_process() -> None:
    assert list(SampleLoader(reader(), [], workers=2)) == []


def test_memory_is_bounded(tmp_path: Path) -> None:
    # each result leaves a file: what was made and not yet taken can be counted
    made = [tmp_path / str(i) for i in range(12)]
    results = ordered_map(Path.mkdir, made, workers=2, prefetch=4)
    for taken, _ in enumerate(results):
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            assert sum(path.exists() for path in made) <= taken + 4
    assert all(path.exists() for path in made)


def test_what_the_function_raises_arrives() -> None:
    results = ordered_map(operator.neg, [1, "a", 2], workers=1, prefetch=1)
    assert next(results) == -1
    with pytest.raises(TypeError):
        next(results)


def test_a_killed_worker_is_one_clear_error() -> None:
    # exit status -SIGKILL, in the middle of an item
    results = ordered_map(
        eval, ["1", "__import__('os').kill(__import__('os').getpid(), 9)", "3"], workers=1, prefetch=2
    )
    assert next(results) == 1
    with pytest.raises(HnxError, match="died while it was working on") as caught:
        next(results)
    assert "SIGKILL" in caught.value.why
    assert children() == set()


def test_an_idle_worker_that_is_killed_is_noticed() -> None:
    results = ordered_map(operator.neg, range(50), workers=1, prefetch=1)
    next(results)
    (child,) = children()
    os.kill(child, signal.SIGKILL)
    with pytest.raises(HnxError, match="worker process died"):
        list(results)


def test_leaving_early_leaves_no_process() -> None:
    results = iter(SampleLoader(reader(), ["val_00"] * 20, workers=2))
    next(results)
    assert len(children()) == 2
    results.close()
    assert children() == set()


def test_items_are_taken_when_they_are_needed() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = ordered_map(operator.neg, source(), workers=2, prefetch=4)
    assert [next(results) for _ in range(10)] == [-item for item in range(10)]
    assert len(taken) <= 14
    results.close()


def test_what_is_begun_may_be_finished(tmp_path: Path) -> None:
    ready, done = tmp_path / "ready", tmp_path / "done"
    slow = f"__import__('pathlib').Path({str(ready)!r}).touch(), __import__('time').sleep(0.5), "
    slow += f"__import__('pathlib').Path({str(done)!r}).touch()"
    for grace, finished in ((0.0, False), (30.0, True)):
        results = ordered_map(eval, ["1", slow], workers=1, prefetch=2, grace_s=grace)
        assert next(results) == 1
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        results.close()
        assert done.exists() == finished
        assert children() == set()
        ready.unlink()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str) -> None:
    script = (
        "import pathlib, numpy as np\n"
        "from hybridnets.dataset.workers import ordered_map\n"
        "found = [int(a.sum()) for a in ordered_map(np.ones, [10**5, 7], workers=1, prefetch=1)]\n"
        f"pathlib.Path({str(tmp_path / 'found')!r}).write_text(str(found))\n"
    )
    (tmp_path / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run(
        ["sh", "-c", f'"{sys.executable}" "{tmp_path}/script.py" {closed}'],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    assert (tmp_path / "found").read_text() == "[100000, 7]"


SCRIPT = textwrap.dedent("""
    import operator, sys, time
    from hybridnets.dataset.workers import ordered_map
    print("child of an unguarded script")
    for _ in ordered_map(operator.neg, range(1000), workers=2, prefetch=2):
        print("started", flush=True)
        time.sleep(60)
""")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_its_parent(number: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "child of an unguarded script\n"
    assert parent.stdout.readline() == "started\n"
    family = children(parent.pid)
    assert len(family) == 2
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=30)
    assert parent.returncode == -number
    # one traceback at most: the parent's own; the children say nothing
    assert errors.count("Traceback") <= 1
    deadline = time.monotonic() + 30
    while any(map(alive, family)):
        assert time.monotonic() < deadline, "children are left"
        time.sleep(0.01)


def test_relative_paths_and_a_hostile_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('imported from the working folder')")
    (tmp_path / "data").symlink_to(DATA)
    monkeypatch.chdir(tmp_path)
    split = open_split(load_project(str(DATA / "project_nc1_binary.yml")), Path("data"))
    (sample,) = SampleLoader(SampleReader(split, (128, 256)), split.names[:1], workers=1)
    assert isinstance(sample, Sample)
