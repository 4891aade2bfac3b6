"""Measuring: the loops with a clock of our own, the orchestration with runtimes of our own, real children that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

import hybridnets.bundle
from benchmarks import latency, worker
from benchmarks.latency import BenchConfig, Progress, load_frames, planned_rows, run_bench
from benchmarks.report import Report
from benchmarks.worker import (
    ChildWorker,
    Session,
    StopRule,
    WarmUpRule,
    WorkerDiedError,
    checked,
    collect,
    collect_parallel,
    warm_up,
)
from hybridnets.anchors import AnchorRule, anchor_count
from hybridnets.bundle import Bundle, Variant
from hybridnets.errors import ExitCode, HnxError
from hybridnets.onnx_header import TensorSpec
from runtimes import registry
from runtimes.base import Arrays, Execution, Probe, Runtime
from runtimes.registry import RuntimeEntry

SIZE = (128, 256)
ANCHORS = anchor_count(SIZE[1], SIZE[0])


# -- runtimes of our own -------------------------------------------------------------------------------------


class Steady(Runtime):
    """Answers at once and prints where it must not."""

    name = "steady"
    extra = ""
    stored: ClassVar[dict[str, str]] = {"fp32": "fp32", "bf16": "fp32", "fp16": "fp32"}

    @classmethod
    def probe(cls) -> Probe:
        print("a library talks")
        os.write(1, b"so does its C code\n")
        return Probe(version="1", precisions={"fp32": "", "bf16": "", "fp16": "this CPU has no native fp16"})

    def _open(self) -> Execution:
        shapes = {spec.name: spec.shape for spec in self.bundle.outputs.values()}
        self._outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        return Execution(self.options.precision, "CPU", self.options.thread_count, "steady 1", {"answer": 42})

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        return self._outputs

    def _close(self) -> None: ...


class Fallback(Steady):
    """Runs fp32 whatever is asked for."""

    name = "fallback"

    def _open(self) -> Execution:
        super()._open()
        return Execution("fp32", "CPU", 1, "fallback 1")


class Broken(Steady):
    """NaN out."""

    name = "broken"

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        return {name: np.full_like(array, np.nan) for name, array in self._outputs.items()}


class Greedy(Steady):
    """Memory runs out."""

    name = "greedy"

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        raise MemoryError


class Mortal(Steady):
    """The process is killed from outside in the middle of the work."""

    name = "mortal"
    calls = 0

    def _infer(self, state: Any, inputs: Arrays) -> dict[str, Any]:
        Mortal.calls += 1
        if Mortal.calls > 20:
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return self._outputs


def rows_of(*classes: type[Runtime], precisions: tuple[str, ...] = ("fp32",)) -> tuple[RuntimeEntry, ...]:
    return tuple(RuntimeEntry(cls.name, __name__, cls.__name__, "", (cls.name,), precisions) for cls in classes)


def fake_bundle() -> Bundle:
    height, width = SIZE
    return Bundle(
        path=Path("fake.onnx"),
        input=TensorSpec("input", "float32", (1, 3, height, width)),
        outputs={
            "regression": TensorSpec("regression", "float32", (1, ANCHORS, 4)),
            "classification": TensorSpec("classification", "float32", (1, ANCHORS, 1)),
            "segmentation": TensorSpec("segmentation", "float32", (1, 3, height, width)),
        },
        classes=("car",),
        seg_classes=("road", "lane"),
        seg_mode="multiclass",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        variants=(Variant("fp32", "fake.onnx"),),
        anchors_file=None,
        anchor_rule=AnchorRule(),
    )


def serve() -> None:
    """What a real child of these tests runs: the ordinary loop with our runtimes."""
    registry.REGISTRY = rows_of(Steady, Mortal)
    hybridnets.bundle.open_bundle = lambda path, verify=True: fake_bundle()  # type: ignore[assignment]
    worker.main()


CHILD = ("-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_latency as t; t.serve()")


class LocalWorker:
    """A session in this process; what passes is passed as JSON, as between processes."""

    def __init__(self, log: list[tuple[str, str]] | None = None) -> None:
        self.session, self.log, self.name = Session(), log, ""
        self.closed = False

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        if command == "open":
            self.name = f"{arguments['runtime']}:{arguments['precision']}"
        if self.log is not None:
            self.log.append((self.name, arguments.get("kind", command)))
        message = json.loads(json.dumps({"command": command, **arguments}))
        return checked(json.loads(json.dumps(self.session.handle(message), default=str)))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put runtimes into the registry and the fake bundle behind every path."""
    threads = cv2.getNumThreads()
    monkeypatch.setattr(hybridnets.bundle, "open_bundle", lambda path, verify=True: fake_bundle())
    monkeypatch.setattr(worker, "wait_idle", lambda: True)

    def put(*classes: type[Runtime], precisions: tuple[str, ...] = ("fp32",)) -> None:
        monkeypatch.setattr(registry, "REGISTRY", rows_of(*classes, precisions=precisions))

    yield put
    cv2.setNumThreads(threads)


def config(**changes: Any) -> BenchConfig:
    values: dict[str, Any] = {
        "bundle": fake_bundle(),
        "preset": "fast",
        "iterations": 6,
        "duration_s": 0.01,
        "rounds": 3,
        "threads": 1,
    }
    return BenchConfig(**{**values, **changes})


def measured(report: Report, name: str) -> dict[str, Any]:
    return next(dict(row) for row in report.rows if f"{row['runtime']}:{row['precision']}" == name)


# -- the loops -----------------------------------------------------------------------------------------------


class Clock:
    """Nanoseconds that pass only when a step takes them."""

    def __init__(self, *durations: float) -> None:
        self.now, self._durations, self.calls = 0, durations, 0

    def __call__(self) -> int:
        return self.now

    def step(self) -> tuple[int, int]:
        start = self.now
        self.now += round(self._durations[min(self.calls, len(self._durations) - 1)] * 1e9)
        self.calls += 1
        return start, self.now


@pytest.mark.parametrize(
    ("duration", "rule", "count"),
    [
        (0.1, StopRule(10, 0.5, 60), 10),  # the count is reached last
        (0.1, StopRule(3, 2.0, 60), 20),  # the time is reached last
        (3.0, StopRule(10, 1.0, 7.0), 3),  # the limit ends it below both
        (3.0, StopRule(10, 1.0, 0.1), 1),  # one sample is always taken
    ],
)
def test_stops_at_both_minima_or_at_the_limit(duration: float, rule: StopRule, count: int) -> None:
    clock = Clock(duration)
    stamps = collect(clock.step, rule, clock)
    assert len(stamps) == count
    assert all(end - start == round(duration * 1e9) for start, end in stamps)


def test_warm_up_ends_when_two_windows_agree() -> None:
    clock = Clock(9, 5, 3, 2, 1.5, *[1.0] * 100)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=1e6), clock)
    assert stable
    # medians of the window before the last, from 10 samples on: 3, 2, 1.5, and at 13 samples 1.0
    assert len(samples) == 13
    assert samples[0] == 9_000_000_000


def test_warm_up_gives_up_by_count_and_by_time() -> None:
    growing = [1.3**index for index in range(60)]
    clock = Clock(*growing)
    samples, stable = warm_up(clock.step, WarmUpRule(iterations=20, seconds=1e9), clock)
    assert (len(samples), stable) == (20, False)
    clock = Clock(*growing)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=100.0), clock)
    assert not stable
    assert sum(samples[:-1]) / 1e9 < 100 <= sum(samples) / 1e9


def test_a_slow_network_may_fill_its_windows() -> None:
    clock = Clock(3.0)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=10.0), clock)
    assert (len(samples), stable) == (10, True)
    clock = Clock(20.0)
    samples, stable = warm_up(clock.step, WarmUpRule(seconds=10.0), clock)
    assert (len(samples), stable) == (2, False)


def test_parallel_streams_count_what_all_finish_together() -> None:
    def step() -> tuple[int, int]:
        start = time.perf_counter_ns()
        time.sleep(0.002)
        return start, time.perf_counter_ns()

    samples, per_second = collect_parallel([step] * 3, StopRule(30, 0.0, 20.0))
    assert len(samples) >= 30
    assert per_second > 0


def test_an_error_in_one_stream_ends_all() -> None:
    def bad() -> tuple[int, int]:
        raise HnxError("no")

    def good() -> tuple[int, int]:
        time.sleep(0.001)
        return 0, 1

    with pytest.raises(HnxError, match="no"):
        collect_parallel([good, bad], StopRule(10**9, 0.0, 60.0))


def test_memory_is_known_here() -> None:
    peak = worker.peak_memory_mb()
    assert peak is not None
    assert peak > 10


# -- configuration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iterations": 0}, "--iterations 0"),
        ({"threads": -1}, "--threads -1"),
        ({"duration_s": float("nan")}, "--duration nan"),
        ({"max_time_s": 0.0}, "--max-time 0"),
        ({"scenario": "offlin"}, "did you mean 'offline'"),
        ({"preset": "slow"}, "Unknown preset"),
        ({"streams": 2}, "without --scenario multi"),
        ({"runtimes": "opnvino"}, "did you mean 'openvino'"),
        ({"runtimes": "openvino:fp12"}, "Unknown precision"),
        ({"runtimes": "openvino", "baseline": "onnxruntime"}, "is not measured"),
    ],
)
def test_bad_configurations_are_refused_before_any_work(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HnxError) as caught:
        config(**changes)
    assert message in str(caught.value)
    assert caught.value.code == ExitCode.USAGE


def test_rows_in_order_without_repetitions() -> None:
    assert planned_rows("ov:half,onnxruntime,ov") == [
        ("openvino", "fp16"),
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "bf16"),
    ]
    assert config(runtimes="ort,ov", baseline="ort").baseline_row == ("onnxruntime", "fp32")


def test_streams_and_threads_of_scenarios() -> None:
    assert config().stream_count == 1
    assert config(scenario="multi", streams=3).stream_count == 3
    assert config(scenario="offline").stream_count == latency.available_cores()
    assert config(threads=None).thread_count == latency.available_cores()


# -- frames --------------------------------------------------------------------------------------------------


def test_jpeg_bytes_are_taken_as_they_are(road_image: Path, tmp_path: Path) -> None:
    assert load_frames(None)[0].tobytes() == load_frames(road_image)[0].tobytes() == road_image.read_bytes()
    cv2.imwrite(str(tmp_path / "b.png"), cv2.imread(str(road_image)))
    (tmp_path / "a.jpg").write_bytes(road_image.read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    frames = load_frames(tmp_path)
    assert [bytes(frame[:2]) for frame in frames] == [b"\xff\xd8"] * 2
    assert frames[0].tobytes() == road_image.read_bytes()


def test_videos_are_sampled_evenly(road_video: Path) -> None:
    frames = load_frames(road_video)
    assert len(frames) == latency.MAX_FRAMES
    assert worker.decode_jpeg(frames[-1]).shape == (720, 1280, 3)


def test_missing_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(HnxError, match=r"nowhere\.jpg"):
        load_frames(tmp_path / "nowhere.jpg")


# -- the run -------------------------------------------------------------------------------------------------


def test_a_report_holds_everything(use: Callable[..., None]) -> None:
    use(Steady)
    steps: list[Progress] = []
    report = run_bench(config(), steps.append, start=LocalWorker)
    json.dumps(report.to_json(), allow_nan=False)
    row = measured(report, "steady:fp32")
    assert row["executed"] == "fp32"
    assert row["execution"] == {"device": "CPU", "threads": 1, "library": "steady 1", "details": {"answer": 42}}
    assert row["forward_ms"].keys() >= {"count", "min", "mean", "std", "p50", "p90", "p95", "p99", "max"}
    assert list(row["stages_ms"]) == ["decode", "preprocess", "network", "postprocess"]
    assert row["load_ms"] > 0
    assert row["memory_mb"].keys() == {"before_load", "after_load", "peak"}
    assert len(row["samples_ms"]["forward"]) == 3
    assert sum(map(len, row["samples_ms"]["forward"])) == row["forward_ms"]["count"] >= 6
    assert len(row["samples_ms"]["warmup"]) >= 10
    assert row["ratio"] == {"baseline": "steady:fp32", "forward": 1.0, "end_to_end": 1.0}
    assert report.settings["threads"] == 1
    assert len(report.settings["input_sha256"]) == 64
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].total == 1 + 3


def test_stages_add_up_to_the_whole(use: Callable[..., None]) -> None:
    use(Steady)
    samples = measured(run_bench(config(), start=LocalWorker), "steady:fp32")["samples_ms"]
    for index, whole in enumerate(samples["end_to_end"]):
        parts = [samples[stage][index] for stage in worker.STAGES]
        assert np.allclose(np.sum(parts, axis=0), whole, rtol=0, atol=1e-9)


def test_rows_take_turns_and_the_order_alternates(use: Callable[..., None]) -> None:
    use(Steady, Fallback)
    log: list[tuple[str, str]] = []
    run_bench(config(), start=lambda: LocalWorker(log))
    a, b = "steady:fp32", "fallback:fp32"
    turns = [(name, kind) for name, kind in log if kind in latency.KINDS]
    pair = [("forward"), ("end_to_end")]
    expected = [(name, kind) for name in (a, b, b, a, a, b) for kind in pair]
    assert turns == expected
    loads = [(name, kind) for name, kind in log if kind in ("open", "warm_up")]
    assert loads == [(a, "open"), (a, "warm_up"), (b, "open"), (b, "warm_up")]


def test_rows_that_cannot_run_stay_with_their_reason(use: Callable[..., None]) -> None:
    use(Steady, Fallback, Greedy, precisions=("fp32", "bf16", "fp16"))
    workers: list[LocalWorker] = []

    def start() -> LocalWorker:
        workers.append(LocalWorker())
        return workers[-1]

    report = run_bench(config(runtimes="steady,fallback:bf16,greedy:fp32"), start=start)
    assert [f"{row['runtime']}:{row['precision']}" for row in report.rows] == [
        "steady:fp32",
        "steady:bf16",
        "steady:fp16",
        "fallback:bf16",
        "greedy:fp32",
    ]
    assert measured(report, "steady:fp16")["skipped"] == {
        "reason": "this CPU has no native fp16",
        "fix": "use one of: fp32, bf16",
    }
    assert "would run fp32" in measured(report, "fallback:bf16")["skipped"]["reason"]
    assert "Not enough memory" in measured(report, "greedy:fp32")["skipped"]["reason"]
    for row in report.skipped:
        assert row.keys() == {"runtime", "precision", "valid", "skipped"}
        assert row["valid"] is False
    assert len(report.measured) == 2
    assert all(worker.closed for worker in workers)


def test_a_missing_library_is_a_skipped_row(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Steady)
    row = RuntimeEntry("absent", "no_such_module_at_all", "Absent", "absent", ("absent",), ("fp32",))
    monkeypatch.setattr(registry, "REGISTRY", (*registry.REGISTRY, row))
    skipped = measured(run_bench(config(), start=LocalWorker), "absent:fp32")["skipped"]
    assert "could not be imported" in skipped["reason"]
    assert "pip install" in skipped["fix"]


def test_outputs_that_are_not_finite_make_a_row_invalid(use: Callable[..., None]) -> None:
    use(Broken)
    row = measured(run_bench(config(), start=LocalWorker), "broken:fp32")
    assert not row["valid"]
    assert any("NaN" in reason for reason in row["reasons"])


def test_another_input_tensor_is_not_measured(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Steady)
    monkeypatch.setattr(latency, "tensor_sha256", lambda tensor: "0" * 64)
    assert "another input tensor" in run_bench(config(), start=LocalWorker).rows[0]["skipped"]["reason"]


def test_several_streams(use: Callable[..., None]) -> None:
    use(Steady)
    report = run_bench(config(scenario="multi", streams=3), start=LocalWorker)
    row = measured(report, "steady:fp32")
    assert row["frames_per_second"]["end_to_end"] > 0
    assert report.settings["streams"] == 3


class Slow:
    """A worker that claims 3 s for every inference."""

    def __init__(self, sha256: str) -> None:
        self.sha256, self.seconds = sha256, 0.0

    def call(self, command: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        if command == "probe":
            return {"reason": "", "fix": "", "precisions": {"fp32": ""}, "runnable": ["fp32"]}
        if command == "open":
            execution = {"precision": "fp32", "device": "CPU", "threads": 1, "library": "slow", "details": {}}
            head = {"load_ms": 1.0, "first_inference_ms": 1.0, "memory_mb": {}, "finite": True}
            return {**head, "input_sha256": self.sha256, "execution": execution}
        if command == "warm_up":
            self.seconds += 30
            return {"samples_ns": [3_000_000_000] * 10, "stable": True, "idle": True}
        if command == "measure":
            self.seconds += 3 * arguments["discard"]
            clock = Clock(3.0)
            rule = StopRule(arguments["count"], arguments["seconds"], arguments["limit"])
            count = len(collect(clock.step, rule, clock))
            self.seconds += 3 * count
            one = [3_000_000_000] * count
            stages = {f"{stage}_ns": one for stage in worker.STAGES} if arguments["kind"] == "end_to_end" else {}
            return {
                "total_ns": one,
                "per_second": None,
                "wall_s": 3.0 * count,
                "foreign_s": 0.0,
                "idle": True,
                **stages,
            }
        return {"peak_mb": 1.0, "finite": True}

    def close(self) -> None: ...


def test_a_row_of_three_seconds_an_inference_ends(use: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    use(Steady)
    monkeypatch.setattr(latency, "tensor_sha256", lambda tensor: "same")
    slow = Slow("same")
    report = run_bench(BenchConfig(fake_bundle(), threads=1), start=lambda: slow)
    row = measured(report, "steady:fp32")
    assert slow.seconds <= 180 + 12  # the last slice may be finished
    assert row["hit_time_limit"] is True
    assert row["forward_ms"]["count"] >= 10
    assert row["forward_ms"]["p50"] == 3000.0


# -- real children -------------------------------------------------------------------------------------------


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


def test_a_silent_child_is_given_up() -> None:
    child = ChildWorker(("-c", "import time; time.sleep(600)"))
    with pytest.raises(WorkerDiedError, match="silent"):
        child.call("probe", 0.2, runtime="openvino")
    assert not alive(child.pid)


def test_a_child_that_talks_nonsense_is_given_up() -> None:
    child = ChildWorker(("-c", "print('hello'); input()"))
    with pytest.raises(WorkerDiedError, match="nonsense"):
        child.call("probe", 30, runtime="openvino")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_children_die_with_a_parent_that_is_killed() -> None:
    root = Path(latency.__file__).parent.parent
    code = (
        "import os, signal; from benchmarks.worker import ChildWorker; child = ChildWorker(); "
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
