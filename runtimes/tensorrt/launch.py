"""Build a plan in a process of its own and put it, with its sidecar, in its place: whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from hybridnets.cache import cache_folder
from hybridnets.errors import ExitCode, HnxError
from hybridnets.files import atomic_path, sha256_file, temporary_directory, write_json
from hybridnets.version import __version__
from runtimes.tensorrt.choose import network_digest
from runtimes.tensorrt.config import PlanConfig
from runtimes.tensorrt.layers import Layer, executed_precision, summarise
from runtimes.tensorrt.plan import Sidecar, TensorForm, plan_name, sidecar_path

__all__ = ["BuildProgress", "build_plan", "timing_cache_folder"]

_TICK_S = 1.0
_STOP_S = 5.0  # a builder with a progress monitor stops at its next step; the others are killed
WORKER = ("-m", "runtimes.tensorrt.worker")


@dataclass(frozen=True)
class BuildProgress:
    """Told at least once a second, so that a silent builder is not taken for a dead one.

    Attributes:
        phase: TensorRT's name of what it does.
        done, total: steps; total 0 when unknown, as before TensorRT 10.
        seconds: since the start.
    """

    phase: str
    done: int
    total: int
    seconds: float

    def __str__(self) -> str:
        steps = f" {self.done}/{self.total}" if self.total else ""
        return f"{self.phase}{steps}, {self.seconds:.0f} s"


def timing_cache_folder() -> Path | None:
    """Where timing caches lie unless one is named; None where no cache can be written."""
    try:
        folder = cache_folder() / "tensorrt"
        folder.mkdir(parents=True, exist_ok=True)
        return folder if os.access(folder, os.W_OK) else None
    except (HnxError, OSError):
        return None


def build_plan(
    config: PlanConfig,
    target: str,
    output: Path,
    show: Callable[[BuildProgress], None],
    *,
    worker: Sequence[str] = WORKER,
) -> tuple[Path, Sidecar, tuple[str, ...]]:
    """Build, and write `x.plan` and `x.plan.json`.

    Args:
        target: what the user named, for the command that builds it again.
        output: a file ending in `.plan`, or a folder: the name then says precision, version and GPU.
        worker: arguments of the interpreter, for tests.

    Returns:
        The plan, its sidecar, and notes for the user.

    Raises:
        HnxError: see `runtimes.tensorrt.builder.build`; also when the builder's process died.
        KeyboardInterrupt: Ctrl-C; nothing is left behind.
    """
    digest = network_digest(config.onnx)
    # the builder works in another folder
    named = None if config.timing_cache is None else config.timing_cache.resolve()
    config = replace(config, onnx=config.onnx.resolve(), timing_cache=named)
    with temporary_directory("hnx-build-") as folder:
        cache = timing_cache_folder()
        job = {"config": config.to_json(), "folder": str(folder), "cache_dir": None if cache is None else str(cache)}
        result = _run(job, show, worker)
        made = folder / "plan"
        layers = [_layer(value) for value in result["layers"]]
        gpu = result["gpu"]
        device = "any" if gpu is None else gpu["sm"] if config.dla_core is None else f"dla{config.dla_core}"
        path = output
        if output.suffix != ".plan":
            stem = config.onnx.stem
            path = output / plan_name(stem, config.precision, result["flavor"], result["version"], device)
        sidecar = Sidecar(
            plan=path.name,
            bytes=made.stat().st_size,
            sha256=sha256_file(made),
            flavor=result["flavor"],
            version=result["version"],
            typing=result["typing"],
            gpu="" if gpu is None else gpu["name"],
            capability=None if gpu is None else tuple(gpu["capability"]),
            onnx=config.onnx.name,
            onnx_sha256=digest,
            asked=config.asked,
            executed=executed_precision(layers, config.precision),
            version_compatible=config.version_compatible,
            compat=config.compat,
            tensors=tuple(TensorForm(n, mode, dtype, tuple(shape)) for n, mode, dtype, shape in result["tensors"]),
            command=config.command(target),
            summary=summarise(layers),
            layers=tuple(layer.to_json() for layer in layers),
            layers_from=result["layers_from"],
            options={
                **{key: value for key, value in config.to_json().items() if key != "onnx"},
                "workspace": result["workspace"],
                "timing_cache": None if result["timing_cache"] is None else Path(result["timing_cache"]).name,
            },
            timing_s={key: round(float(value), 3) for key, value in result["timing_s"].items()},
            machine={"system": platform.platform(), "driver_cuda": result["driver_cuda"], "hnx": __version__},
        )
        # the plan last: a sidecar without its plan is useless, a plan beside an older sidecar would be refused
        with atomic_path(path) as temporary:
            shutil.move(made, temporary)
            write_json(sidecar_path(path), sidecar.to_json())
    return path, sidecar, tuple(result["notes"])


def _layer(value: dict[str, Any]) -> Layer:
    lists = {key: tuple(value[key]) for key in ("inputs", "outputs", "weights")}
    return Layer(value["name"], value["kind"], value["precision"], **lists)


def _run(job: dict[str, Any], show: Callable[[BuildProgress], None], worker: Sequence[str]) -> dict[str, Any]:
    """The worker's result."""
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=root,  # -m puts the current folder first on the path: a numpy.py of the user's there would break us
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the builder in order
        )
        try:
            return _listen(process, job, show, errors)
        finally:
            _end(process)


def _listen(
    process: subprocess.Popen[bytes], job: dict[str, Any], show: Callable[[BuildProgress], None], errors: IO[bytes]
) -> dict[str, Any]:
    assert process.stdin is not None
    start = time.monotonic()
    with contextlib.suppress(BrokenPipeError):  # it died at once; the end of its output says so
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
    phase, done, total = "starting", 0, 0
    for line in _lines(process):
        if line is not None:
            value = json.loads(line)
            if "result" in value:
                return dict(value["result"])
            if "error" in value:
                error = value["error"]
                raise HnxError(error["what"], why=error["why"], fix=error["fix"], code=ExitCode(error["code"]))
            phase, done, total = value["phase"], value["done"], value["total"]
        show(BuildProgress(phase, done, total, time.monotonic() - start))
    raise _death(process.wait(), errors)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[bytes | None]:
    """Lines of the child's output, None for each second without one, until it ends."""
    stream = process.stdout
    assert stream is not None
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(ValueError, OSError):  # closed under our hands
            for line in stream:
                lines.put(line)
        lines.put(b"")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=_TICK_S)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        yield line


def _death(code: int, errors: IO[bytes]) -> HnxError:
    """Why a builder's process ended without an answer."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = [line.strip() for line in errors.read().decode(errors="replace").splitlines() if line.strip()]
    last = f"; its last words: {lines[-1][:200]}" if lines else ""
    if code == -signal.SIGKILL:
        return HnxError(
            "The builder was killed",
            why="most likely the system ran out of memory" + last,
            fix="close other programs, add swap, or give less scratch memory: --workspace 512MiB",
        )
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return HnxError(
            f"TensorRT ended its process ({name})",
            why=f"a crash inside the library{last}",
            fix="check that driver, CUDA and TensorRT fit together: hnx doctor",
        )
    return HnxError(f"The builder ended with status {code}", why=(lines or [""])[-1][:300], fix="hnx doctor")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then wait a little, then kill; the process is gone afterwards, whatever happens."""
    try:
        if process.poll() is None and process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                process.stdin.write(b"stop\n")
                process.stdin.flush()
                process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
