"""A build in a process of its own: results, errors, crashes, silence and Ctrl-C, with a worker made for the purpose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import sha256_file
from runtimes.tensorrt import launch
from runtimes.tensorrt.config import PlanConfig
from runtimes.tensorrt.launch import BuildProgress, build_plan
from runtimes.tensorrt.plan import check, read_sidecar
from tests.runtimes.tensorrt.test_plan import ADA, Here

ROOT = Path(__file__).parents[3]
RESULT = {
    "flavor": "trt", "version": "10.13.3", "typing": "weak", "driver_cuda": 13000, "workspace": 1 << 30,
    "gpu": {"name": "RTX 4090", "capability": [8, 9], "sm": "sm_89"}, "timing_cache": None,
    "tensors": [["input", "input", "float32", [1, 3, 128, 256]]], "layers_from": "engine inspector",
    "layers": [{"name": "conv", "kind": "CaskConvolution", "precision": "fp16", "inputs": ["fp16"], "outputs": ["fp16"],
                "weights": []}],
    "timing_s": {"build": 1.25}, "notes": ["a remark"],
}  # fmt: skip


def worker(body: str) -> list[str]:
    """An interpreter's arguments: reads the job, then runs `body`."""
    head = """
    import json, os, signal, sys, time
    job = json.loads(sys.stdin.readline())
    def say(**value): print(json.dumps(value), flush=True)
    def finish():
        open(os.path.join(job["folder"], "plan"), "wb").write(b"a plan")
        say(result=RESULT)
    """
    return ["-c", f"RESULT = {RESULT!r}\n" + textwrap.dedent(head) + textwrap.dedent(body)]


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"a network")
    return path


def run(onnx: Path, body: str, output: Path | None = None) -> tuple[Path, list[BuildProgress]]:
    told: list[BuildProgress] = []
    config = PlanConfig(onnx, fp16=True)
    path, sidecar, notes = build_plan(config, "net.onnx", output or onnx.parent, told.append, worker=worker(body))
    assert read_sidecar(path) == sidecar
    assert notes == ("a remark",)
    check(path, sidecar, Here("trt", "10.13.3", ADA))
    return path, told


def test_plan_and_sidecar_are_put_in_place(onnx: Path) -> None:
    path, told = run(onnx, 'say(phase="Tactics", done=2, total=5)\nfinish()')
    assert path.name == "net-fp16-trt10.13.3-sm_89.plan"
    assert path.read_bytes() == b"a plan"
    assert (told[0].phase, told[0].done, told[0].total) == ("Tactics", 2, 5)
    assert str(told[0]).startswith("Tactics 2/5, ")
    sidecar = read_sidecar(path)
    assert sidecar.onnx_sha256 == sha256_file(onnx)
    assert sidecar.executed == "fp16"
    assert sidecar.summary == {"CaskConvolution": {"fp16": 1}}
    assert sidecar.command == "hnx build-trt net.onnx --fp16"
    assert str(onnx.parent) not in json.dumps(sidecar.to_json())  # no paths of this machine travel along
    # the same again replaces both
    assert run(onnx, "finish()")[0] == path
    assert run(onnx, "finish()", onnx.parent / "named.plan")[0].name == "named.plan"


def test_a_silent_builder_is_still_reported(onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_TICK_S", 0.05)
    _, told = run(onnx, 'say(phase="building", done=0, total=0)\ntime.sleep(0.5)\nfinish()')
    silent = [state for state in told if state.phase == "building"]
    assert len(silent) >= 3
    assert silent[-1].seconds > silent[0].seconds


@pytest.mark.parametrize(
    ("body", "what", "why"),
    [
        ('say(error={"what": "no DLA", "why": "none", "fix": "cuda:0", "code": 4})', "no DLA", "none"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "The builder was killed", "out of memory"),
        ('print("CUDA is gone", file=sys.stderr)\nsys.stderr.flush()\nos.kill(os.getpid(), signal.SIGSEGV)',
         "ended its process (SIGSEGV)", "its last words: CUDA is gone"),
        ("sys.exit(3)", "ended with status 3", ""),
        ('raise RuntimeError("broken")', "ended with status 1", "RuntimeError: broken"),
    ],
)  # fmt: skip
def test_every_end_of_the_builder_is_one_clear_error(body: str, what: str, why: str, onnx: Path) -> None:
    with pytest.raises(HnxError) as caught:
        run(onnx, body)
    assert what in caught.value.what
    assert why in caught.value.why
    assert caught.value.code == (ExitCode.NOTHING_RAN if "DLA" in what else ExitCode.FAILED)
    assert [path.name for path in onnx.parent.iterdir()] == ["net.onnx"]


def test_a_missing_network_and_a_folder_that_cannot_be_written(tmp_path: Path, onnx: Path) -> None:
    with pytest.raises(HnxError, match="Cannot read"):
        run(tmp_path / "none.onnx", "finish()")
    with pytest.raises(HnxError, match="Cannot write"):
        run(onnx, "finish()", onnx / "below-a-file")


@pytest.mark.parametrize("body", ["time.sleep(60)", "sys.stdin.readline()\nsys.exit(1)"])
def test_ctrl_c_ends_the_builder(body: str, onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_STOP_S", 0.2)
    pids: list[int] = []

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def show(state: BuildProgress) -> None:
        if state.phase.startswith("pid") and not pids:
            pids.append(int(state.phase[3:]))
            threading.Timer(0.1, stop).start()

    with pytest.raises(KeyboardInterrupt):
        build_plan(
            PlanConfig(onnx), "x", onnx.parent, show,
            worker=worker('say(phase=f"pid{os.getpid()}", done=0, total=0)\n' + body),
        )  # fmt: skip
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert [path.name for path in onnx.parent.iterdir()] == ["net.onnx"]


def test_the_builder_dies_with_its_parent(tmp_path: Path) -> None:
    """The real worker: a parent that was killed leaves no builder and no folder behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "runtimes.tensorrt.worker"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert process.stdin is not None
    # a TensorRT that never comes back
    (tmp_path / "tensorrt.py").write_text("import time\ntime.sleep(60)\n")
    job = {"config": PlanConfig(tmp_path / "x.onnx", flavor="trt").to_json(), "folder": str(folder), "cache_dir": None}
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    time.sleep(0.5)
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == 1
    assert not folder.exists()


def test_the_real_worker_without_tensorrt(onnx: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(blocked))
    with pytest.raises(HnxError, match="cannot be loaded") as caught:
        build_plan(PlanConfig(onnx, flavor="trt"), "x", onnx.parent, lambda state: None)
    assert caught.value.code == ExitCode.NOTHING_RAN
    assert "libnvinfer" in caught.value.why


def test_no_cache_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert launch.timing_cache_folder() == tmp_path / "hnx" / "tensorrt"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert launch.timing_cache_folder() is None
