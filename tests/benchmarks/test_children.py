"""Real processes that crash, fall silent, talk nonsense, or lose their parent."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import children
from benchmarks.children import ChildWorker, WorkerDiedError, probe_apart
from benchmarks.latency import Progress, run_bench
from runtimes import registry
from tests.benchmarks.fakes import CHILD, Mortal, Steady, alive, config, measured, rows_of


def test_a_killed_child_costs_its_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", rows_of(Steady, Mortal))
    started: list[ChildWorker] = []

    def start() -> ChildWorker:
        started.append(ChildWorker(CHILD))
        return started[-1]

    report = run_bench(config(iterations=40), start=start)
    assert measured(report, "steady:fp32")["forward_ms"]["count"] >= 40
    reason = measured(report, "mortal:fp32")["skipped"]["reason"]
    assert "signal SIGKILL" in reason
    assert "last words" in reason
    assert "round 1" in reason or "loading" in reason
    for child in started:
        assert not alive(child.pid)


def test_a_crash_while_the_library_is_imported() -> None:
    crash = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    report = run_bench(config(runtimes="opencv-dnn"), start=lambda: ChildWorker(crash))
    assert "signal SIGSEGV" in report.rows[0]["skipped"]["reason"]


def test_a_library_that_dies_on_import_is_a_finding_of_the_doctor() -> None:
    crash = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    found = probe_apart("opencv-dnn", lambda: ChildWorker(crash))
    assert "signal SIGILL" in found["reason"]
    assert found["fix"]
    assert found["runnable"] == []
    assert probe_apart("opencv-dnn")["runnable"] == ["fp32"]


def test_a_silent_child_is_given_up() -> None:
    child = ChildWorker(("-c", "import time; time.sleep(600)"))
    with pytest.raises(WorkerDiedError, match="silent"):
        child.call("probe", 0.2, runtime="openvino")
    assert not alive(child.pid)


def test_a_child_that_talks_nonsense_is_given_up() -> None:
    child = ChildWorker(("-c", "print('hello'); input()"))
    with pytest.raises(WorkerDiedError, match="nonsense"):
        child.call("probe", 30, runtime="openvino")


def test_children_die_with_a_parent_that_is_killed() -> None:
    root = Path(children.__file__).parent.parent
    code = (
        "import os, signal; from benchmarks.children import ChildWorker; child = ChildWorker(); "
        "child.call('probe', 60, runtime='opencv-dnn'); print(child.pid, flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    end = time.monotonic() + 30
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(pid)


def test_ctrl_c_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REGISTRY", rows_of(Steady))
    started: list[ChildWorker] = []

    def start() -> ChildWorker:
        started.append(ChildWorker(CHILD))
        return started[-1]

    def interrupt(progress: Progress) -> None:
        if progress.text.startswith("round"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(config(), interrupt, start=start)
    assert started
    assert not any(alive(child.pid) for child in started)


def test_what_a_library_forks_is_no_hindrance() -> None:
    # OpenVINO's telemetry does this when it is imported; a forked child closes sys.stdin
    code = (
        "import multiprocessing\n"
        "from benchmarks.serving import serve\n"
        "def handle(message):\n"
        "    process = multiprocessing.get_context('fork').Process(target=int)\n"
        "    process.start()\n"
        "    process.join(20)\n"
        "    return {'exit': process.exitcode}\n"
        "serve(handle)\n"
    )
    child = ChildWorker(("-c", code))
    assert child.call("anything", 60) == {"exit": 0}
    child.close()


def test_what_a_child_leaves_behind_goes_with_it() -> None:
    code = (
        "import json, os, time\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    time.sleep(600)\n"
        "print(json.dumps({'pid': pid}), flush=True)\n"
        "time.sleep(600)\n"
    )
    child = ChildWorker(("-c", code))
    pid = child.call("anything", 60)["pid"]
    child.close()
    end = time.monotonic() + 30
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(pid)
    assert not alive(child.pid)


def test_a_death_is_noticed_although_a_fork_holds_the_pipe() -> None:
    code = "import os, time\nif os.fork():\n    os._exit(3)\ntime.sleep(600)\n"
    child = ChildWorker(("-c", code))
    with pytest.raises(WorkerDiedError, match="died") as error:
        child.call("anything", 300)
    assert "exit status 3" in error.value.why
    child.close()
