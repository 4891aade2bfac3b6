from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import ExitCode, HnxError
from tests.processes import alive, children
from tests.tools.convert.builders import det_frame, dump, outputs, own_frames, run
from tools.convert import engine
from tools.convert import journal as module
from tools.convert.frame import FrameTask, Outcome, Recipe, convert_frame
from tools.convert.journal import JOURNAL, MANIFEST, Journal

ROOT = Path(__file__).parents[3]
NAMES = [f"{i:03}" for i in range(6)]
OPTIONS: dict[str, Any] = {"empty_masks": True}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the frames that are really converted."""
    done: list[str] = []

    def note(recipe: Recipe, task: FrameTask) -> Outcome:
        done.append(task.name)
        return convert_frame(recipe, task)

    monkeypatch.setattr(engine, "convert_frame", note)
    monkeypatch.setattr(engine, "_BATCH", 2)
    return done


def test_a_second_run_has_nothing_to_do(tmp_path: Path, work: list[str]) -> None:
    root = own_frames(tmp_path / "in", NAMES)
    first = run(root, tmp_path / "out", **OPTIONS)["val"]
    before = outputs(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    work.clear()
    second = run(root, tmp_path / "out", **OPTIONS)["val"]
    assert work == []
    assert (second.kept, second.frames, second.counts) == (6, 6, first.counts)
    assert outputs(tmp_path / "out") == before
    assert json.loads((tmp_path / "out" / MANIFEST).read_text()) == manifest


def test_missing_files_are_made_again(tmp_path: Path, work: list[str]) -> None:
    root = own_frames(tmp_path / "in", NAMES)
    first = run(root, tmp_path / "out", **OPTIONS)["val"]
    before = outputs(tmp_path / "out")
    (tmp_path / "out/ll_seg_annot/val/002.png").unlink()
    (tmp_path / "out/imgs/val/004.jpg").unlink()
    work.clear()
    assert run(root, tmp_path / "out", **OPTIONS)["val"].counts == first.counts
    assert work == ["002", "004"]
    assert outputs(tmp_path / "out") == before


def test_a_stopped_run_goes_on(tmp_path: Path, work: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = own_frames(tmp_path / "in", NAMES)
    run(root, tmp_path / "whole", **OPTIONS)

    def stop(self: Journal, split: str, outcomes: list[Outcome]) -> None:
        add(self, split, outcomes)
        if self.frames[split] >= 4:
            raise KeyboardInterrupt

    add = Journal.add
    monkeypatch.setattr(Journal, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out" / MANIFEST).exists()
    monkeypatch.setattr(Journal, "add", add)
    # what a kill in the middle of a line and of a file leaves
    with (tmp_path / "out" / JOURNAL).open("a") as stream:
        stream.write('{"split": "val", "name": "00')
    leftover = tmp_path / "out/det_annot/val/.005.abcd1234.tmp.json"
    leftover.write_text("{")
    work.clear()
    report = run(root, tmp_path / "out", **OPTIONS)["val"]
    assert work == ["004", "005"]
    assert (report.kept, report.frames) == (4, 6)
    assert not leftover.exists()
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_other_options_are_refused_or_replace(tmp_path: Path, work: list[str]) -> None:
    root = own_frames(tmp_path / "in", NAMES)
    run(root, tmp_path / "out", **OPTIONS)
    before = outputs(tmp_path / "out")
    with pytest.raises(HnxError, match="other options") as caught:
        run(root, tmp_path / "out", names="keep", **OPTIONS)
    assert "--overwrite" in caught.value.fix
    assert caught.value.code == ExitCode.USAGE
    assert outputs(tmp_path / "out") == before
    shutil.rmtree(root / "images")  # fewer frames: the others must not stay in the index
    own_frames(root, NAMES[:2])
    run(root, tmp_path / "out", names="keep", overwrite=True, **OPTIONS)
    assert len(outputs(tmp_path / "out")) == 2 * 4
    assert work == [*NAMES, *NAMES[:2]]


def test_splits_are_independent(tmp_path: Path) -> None:
    root = own_frames(own_frames(tmp_path / "in", NAMES, "val"), ["t"], "train")
    run(root, tmp_path / "out", splits=("val",), **OPTIONS)
    widths = {"train": 5, "val": 2}  # the width of train is nothing to val
    both = run(root, tmp_path / "out", lane_widths=widths, **OPTIONS)
    assert (both["val"].kept, both["train"].kept) == (6, 0)
    assert len(outputs(tmp_path / "out")) == 7 * 4


def test_changed_input_is_noticed(tmp_path: Path) -> None:
    root = own_frames(tmp_path / "in", NAMES)
    run(root, tmp_path / "out", **OPTIONS)
    dump(root / "labels/det_20/det_val.json", [det_frame(f"{name}.jpg", ()) for name in NAMES])
    with pytest.raises(HnxError, match="from other files"):
        run(root, tmp_path / "out", empty_boxes=True, **OPTIONS)


def test_data_of_others_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "out/det_annot/val/mine.json"
    dump(mine, {})
    with pytest.raises(HnxError, match="did not make"):
        run(own_frames(tmp_path / "in", NAMES), tmp_path / "out", overwrite=True, **OPTIONS)
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [mine]


def test_a_journal_cannot_name_files_elsewhere(tmp_path: Path) -> None:
    root = own_frames(tmp_path / "in", NAMES)
    run(root, tmp_path / "out", **OPTIONS)
    victim = dump(tmp_path / "out/victim.json", {})
    lines = [{"split": "val", "name": "../../victim", "counts": {}}, {"split": [], "key": 1}, [], 5, {"split": "val"}]
    with (tmp_path / "out" / JOURNAL).open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
        stream.write("\0\0\xff\n" + "[" * 5000 + "\n")
    report = run(root, tmp_path / "out", overwrite=True, names="keep", **OPTIONS)["val"]
    assert report.frames == 6
    assert victim.exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first = Journal(tmp_path / "out", {"val": ("key", [])}, overwrite=False)
    with pytest.raises(HnxError, match="Another conversion"):
        Journal(tmp_path / "out", {"val": ("key", [])}, overwrite=False)
    first.close()
    Journal(tmp_path / "out", {"val": ("key", [])}, overwrite=False).close()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "out", {"val": ("key", [])}, overwrite=False)
    assert journal._stream is not None
    journal._stream.close()
    with contextlib.suppress(OSError), Path("/dev/full").open("w") as full:  # closing it fails too
        monkeypatch.setattr(journal, "_stream", full)
        with pytest.raises(HnxError, match="disk is full"):
            journal.add("val", [Outcome("a")])
    journal.close()


def test_a_target_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", "out")

    monkeypatch.setattr(module.Path, "mkdir", refuse)
    with pytest.raises(HnxError, match="Cannot write") as caught:
        Journal(tmp_path / "out", {"val": ("key", [])}, overwrite=False)
    assert "read-only" in caught.value.why


_SLOWLY = """
import sys, time
from pathlib import Path
from tools.convert import ConvertConfig, convert, make_plan
if __name__ == "__main__":
    config = ConvertConfig(Path(sys.argv[1]), Path(sys.argv[2]), empty_masks=True, workers=1)
    convert(config, make_plan(config), lambda *args: (print(*args, flush=True), time.sleep(0.2)))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_kill_9_leaves_whole_files_and_no_workers(tmp_path: Path) -> None:
    root = own_frames(tmp_path / "in", [f"{i:04}" for i in range(120)])
    (tmp_path / "slowly.py").write_text(_SLOWLY)
    command = [sys.executable, str(tmp_path / "slowly.py"), str(root), str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        workers = children(child.pid)
        assert len(workers) == 1
        child.send_signal(signal.SIGKILL)
        child.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    # nothing is half written: labels are whole, and each has its other files
    labels = [path for path in (tmp_path / "out/det_annot/val").iterdir() if not path.name.startswith(".")]
    assert 0 < len(labels) < 120
    for path in labels:
        engine.read_back(tmp_path / "out", "val", path.stem)
    report = run(root, tmp_path / "out", **OPTIONS)["val"]
    assert 0 < report.kept < 120
    run(root, tmp_path / "whole", **OPTIONS)
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
