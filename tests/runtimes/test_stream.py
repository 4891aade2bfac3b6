"""The overlapped pipeline: order, ends of every kind, and no thread left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from hybridnets.errors import HnxError
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from hybridnets.sources import Frame
from runtimes import stream
from runtimes.stream import Result, StopStream, StreamInterrupted, StreamSummary, run_stages, run_stream

LIMIT_S = 20.0  # far above what any of these needs; only a hang reaches it


class Preprocess:
    """Puts the frame's number into a buffer that it reuses, as the real one does."""

    def __init__(self) -> None:
        self.tensor = np.zeros((1, 1), np.float32)

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, Letterbox]:
        self.tensor[...] = frame[0, 0, 0]
        return self.tensor, Letterbox.fit((2, 2), (128, 128))


class Network:
    """Returns its input in an output that the next call overwrites."""

    def __init__(self, wait: Callable[[int], float] = lambda n: 0.0, fail_at: int = -1, fail_post: int = -1) -> None:
        self.wait, self.fail_at, self.fail_post = wait, fail_at, fail_post
        self.output = np.zeros(1, np.float32)

    def network(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        number = int(tensor[0, 0])
        time.sleep(self.wait(number))
        if int(tensor[0, 0]) != number:
            raise AssertionError("the tensor was overwritten while in use")
        if number == self.fail_at:
            raise RuntimeError("network")
        self.output[0] = number
        return {"x": self.output}

    def postprocess(self, outputs: dict[str, np.ndarray], box: Letterbox) -> Prediction:
        if int(outputs["x"][0]) == self.fail_post:
            raise RuntimeError("postprocess")
        return Prediction(
            Detections(np.zeros((1, 4), np.float32), outputs["x"].copy(), np.zeros(1, np.int64)), None, box
        )


def frames(count: int | None, fail_at: int = -1) -> Iterator[Frame]:
    number = 0
    while count is None or number < count:
        if number == fail_at:
            raise HnxError("reader")
        yield Frame(np.full((2, 2, 3), number % 250, np.uint8), "x", number)
        number += 1


def finish(call: Callable[[], Any]) -> Any:
    """Run in a thread with a limit; afterwards no thread of the stream is alive."""
    box: list[Any] = []

    def body() -> None:
        try:
            box.append(call())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "the stream hangs"
    assert not [t.name for t in threading.enumerate() if t.name.startswith("hnx_")]
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 3, 60])
def test_every_frame_once_and_in_order(workers: int, count: int) -> None:
    seen: list[tuple[int, int]] = []

    def consume(result: Result) -> None:
        seen.append((result.frame.index, int(result.prediction.detections.scores[0])))

    # later frames are faster than earlier ones: workers overtake each other
    networks = [Network(lambda n: 0.004 * (n % 3 == 0)) for _ in range(workers)]
    summary: StreamSummary = finish(lambda: run_stages(frames(count), Preprocess, networks, consume))
    assert seen == [(i, i) for i in range(count)]
    assert (summary.frames, summary.interrupted) == (count, False)
    assert set(summary.stage_ms) == {"decode", "preprocess", "network", "postprocess", "write"}
    assert summary.fps >= 0


def test_a_slow_worker_does_not_pile_up_results() -> None:
    produced = 0

    def counted() -> Iterator[Frame]:
        nonlocal produced
        for frame in frames(100):
            produced += 1
            yield frame

    ahead: list[int] = []
    networks = [Network(lambda n: 0.3 * (n == 0)) for _ in range(2)]
    finish(lambda: run_stages(counted(), Preprocess, networks, lambda r: ahead.append(produced - r.frame.index)))
    assert max(ahead) <= 2 * stream.QUEUE_SIZE + 2 + 1


def test_large_frames_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MEMORY_BUDGET", 24)  # two frames of 12 bytes
    produced = 0

    def counted() -> Iterator[Frame]:
        nonlocal produced
        for frame in frames(20):
            produced += 1
            yield frame

    ahead: list[int] = []

    def consume(result: Result) -> None:
        time.sleep(0.002)
        ahead.append(produced - result.frame.index)

    finish(lambda: run_stages(counted(), Preprocess, [Network()], consume))
    assert len(ahead) == 20
    assert max(ahead) <= 3
    monkeypatch.setattr(stream, "MEMORY_BUDGET", 1)  # smaller than one frame: still one at a time
    assert finish(lambda: run_stages(frames(5), Preprocess, [Network()], lambda r: None)).frames == 5


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [0, 1, 30])
def test_error_in_the_reader(workers: int, at: int) -> None:
    seen: list[int] = []
    with pytest.raises(HnxError, match="reader"):
        finish(
            lambda: run_stages(
                frames(None, fail_at=at),
                Preprocess,
                [Network() for _ in range(workers)],
                lambda r: seen.append(r.frame.index),
            )
        )
    assert seen == list(range(at))  # what was read before is kept


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("stage", "at"), [("network", 0), ("network", 20), ("postprocess", 20)])
def test_error_in_a_worker_while_the_reader_is_blocked(workers: int, stage: str, at: int) -> None:
    def network() -> Network:
        wait = lambda n: 0.002  # noqa: E731 - the queue before it fills
        return Network(wait, fail_at=at) if stage == "network" else Network(wait, fail_post=at)

    with pytest.raises(RuntimeError, match=stage):
        finish(lambda: run_stages(frames(None), Preprocess, [network() for _ in range(workers)], lambda result: None))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("at", [0, 20])
def test_error_in_the_writer_while_all_queues_are_full(workers: int, at: int) -> None:
    def consume(result: Result) -> None:
        time.sleep(0.002)
        if result.frame.index == at:
            raise OSError("writer")

    with pytest.raises(OSError, match="writer"):
        finish(lambda: run_stages(frames(None), Preprocess, [Network() for _ in range(workers)], consume))


def test_error_in_the_preprocessing() -> None:
    def broken() -> Preprocess:
        raise ValueError("preprocess")

    with pytest.raises(ValueError, match="preprocess"):
        finish(lambda: run_stages(frames(3), broken, [Network()], lambda r: None))

    def fails(frame: np.ndarray) -> tuple[np.ndarray, Letterbox]:
        raise ValueError("frame")

    with pytest.raises(ValueError, match="frame"):
        finish(lambda: run_stages(frames(None), lambda: fails, [Network()], lambda r: None))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_consumer_has_seen_enough(workers: int) -> None:
    seen: list[int] = []

    def consume(result: Result) -> None:
        if len(seen) == 5:
            raise StopStream
        seen.append(result.frame.index)

    networks = [Network() for _ in range(workers)]
    summary = finish(lambda: run_stages(frames(None), Preprocess, networks, consume))
    assert seen == [0, 1, 2, 3, 4]
    assert (summary.frames, summary.interrupted) == (5, False)


def test_many_short_runs() -> None:
    for count in range(12):
        assert finish(lambda count=count: run_stages(frames(count), Preprocess, [Network()] * 2, lambda r: None))


@pytest.mark.skipif(not hasattr(os, "kill"), reason="needs signals")
def test_ctrl_c() -> None:
    seen: list[int] = []

    def consume(result: Result) -> None:
        if result.frame.index == 9:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # a join that is interrupted must not take this thread for ended
        seen.append(result.frame.index)

    with pytest.raises(StreamInterrupted) as caught:
        run_stages(frames(None), Preprocess, [Network(lambda n: 0.001)], consume)
    summary = caught.value.summary
    assert isinstance(caught.value, KeyboardInterrupt)
    assert summary.interrupted
    assert summary.frames == len(seen) >= 10
    assert seen == list(range(len(seen)))
    assert not [t.name for t in threading.enumerate() if t.name.startswith("hnx_")]


def predictor(name: str) -> Any:
    return SimpleNamespace(
        runtime=SimpleNamespace(name=name), bundle=SimpleNamespace(preprocessor=Preprocess), pipeline=Network
    )


@pytest.mark.parametrize(("name", "inside"), [("openvino", 1), ("opencv-dnn", 2)])
def test_opencv_threads_are_limited_and_restored(name: str, inside: int) -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        seen: list[int] = []
        summary = finish(lambda: run_stream(predictor(name), frames(3), lambda r: seen.append(cv2.getNumThreads())))
        assert seen == [inside] * 3
        assert summary.frames == 3
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_workers_count_from_one() -> None:
    with pytest.raises(HnxError, match="0 workers"):
        run_stream(predictor("openvino"), frames(1), lambda r: None, workers=0)
