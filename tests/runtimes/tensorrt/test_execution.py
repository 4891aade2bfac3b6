"""Buffers, graphs and times of an inference, on a device made of host memory."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridnets.errors import HnxError
from runtimes.device_times import DeviceTimes
from runtimes.tensorrt.engine import load_engine
from runtimes.tensorrt.execution import PlanContext
from tests.runtimes.tensorrt import scenario
from tests.runtimes.tensorrt.fake_device import ORIN, FakeDevice, state
from tests.runtimes.tensorrt.spec_module import spec_module
from tests.runtimes.tensorrt.world import SHAPE, World

IMAGE = np.arange(np.prod(SHAPE), dtype=np.float16).reshape(SHAPE)


class Rig:
    """An engine of the table's 10.3, and a device."""

    def __init__(self, folder: Path, **device: Any) -> None:
        self.world = World()
        self.module = spec_module("10.3.0", self.world)
        self.library = scenario.library(self.module)
        plan = folder / "x.plan"
        plan.write_bytes(b"fakeplan")
        self.engine = load_engine(self.library, state(), 0, plan, scenario.sidecar(self.library, plan))
        self.device = FakeDevice(**device)
        self.driver: Any = self.device.driver

    def launches(self) -> int:
        return self.module.calls.count("IExecutionContext.execute_async_v3")


def test_one_warm_run_then_a_graph(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    context = PlanContext(rig.engine, rig.device)
    for _ in range(3):
        assert context.infer({"images": IMAGE})["boxes"].shape == SHAPE
    assert context.graph
    assert not context.graph_problem
    # for each of the two sets of buffers: one warm run, one capture; after that only graph launches
    assert rig.driver.log.count("begin_capture") == 2
    assert rig.driver.log.count("launch") == 3
    assert rig.launches() == 4
    assert rig.device.streams[0].log[:2] == ["synchronize", "synchronize"]
    assert context.times == DeviceTimes(1.0, 0.0, 2.0)
    assert context.times.total == 3.0
    # pinned inputs hold what was given
    np.testing.assert_array_equal(rig.device.buffers[0].host, IMAGE)
    context.close()
    context.close()
    assert not rig.driver.alive


def test_everything_is_gone_after_closing(tmp_path: Path) -> None:
    """The device's context goes next: what TensorRT or pycuda freed after that would end the process."""
    rig = Rig(tmp_path)
    context = PlanContext(rig.engine, rig.device)
    context.infer({"images": IMAGE})
    inner, stream = weakref.ref(context._context), weakref.ref(context._stream)
    rig.device.streams.clear()
    context.close()
    assert inner() is None
    assert stream() is None
    with pytest.raises(HnxError, match="is closed"):
        context.infer({"images": IMAGE})


def test_a_new_shape_captures_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    context = PlanContext(rig.engine, rig.device)
    context.infer({"images": IMAGE})
    two = (2, *SHAPE[1:])
    rig.module.answers["IExecutionContext.get_tensor_shape"] = lambda _: two
    assert context.infer({"images": np.zeros(two, np.float16)})["boxes"].shape == two
    assert rig.driver.log.count("begin_capture") == 4
    assert len(rig.driver.alive) == 4  # two graphs and their executables; the old ones are gone
    context.close()
    assert not rig.driver.alive


@pytest.mark.parametrize("fail", ["begin_capture", "end_capture", "instantiate"])
def test_plain_launches_where_capture_fails(fail: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path, fail=fail)
    context = PlanContext(rig.engine, rig.device)
    for _ in range(3):
        context.infer({"images": IMAGE})
    assert not context.graph
    assert fail in context.graph_problem
    assert "launch" not in rig.driver.log
    assert rig.driver.log.count("begin_capture") == 1  # it is not tried again
    assert not rig.driver.alive
    assert not rig.driver.capturing


def test_a_launch_that_fails_inside_a_capture_ends_the_capture(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.module.answers["IExecutionContext.execute_async_v3"] = lambda _: not rig.driver.capturing
    context = PlanContext(rig.engine, rig.device)
    assert context.infer({"images": IMAGE})["boxes"].shape == SHAPE
    assert not context.graph
    assert "could not launch" in context.graph_problem
    assert not rig.driver.capturing
    assert not rig.driver.alive


def test_without_a_graph_when_not_asked_for(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    context = PlanContext(rig.engine, rig.device, use_graph=False)
    context.infer({"images": IMAGE})
    assert "begin_capture" not in rig.driver.log
    assert context.graph_problem == "not asked for"


def test_two_inferences_overlap_and_a_third_must_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    context = PlanContext(rig.engine, rig.device)
    first, second = context.submit({"images": IMAGE}), context.submit({"images": IMAGE + 1})
    with pytest.raises(HnxError, match="Two inferences are in flight"):
        context.submit({"images": IMAGE})
    with pytest.raises(HnxError, match="shape changed"):
        context.submit({"images": np.zeros((2, *SHAPE[1:]), np.float16)})
    one, two = context.collect(first)["boxes"], context.collect(second)["boxes"]
    assert not np.shares_memory(one, two)  # results stay valid during the next inference
    np.testing.assert_array_equal(rig.device.buffers[2].host, IMAGE + 1)


def test_zero_copy_where_memory_is_shared(tmp_path: Path) -> None:
    rig = Rig(tmp_path, gpu=ORIN)
    context = PlanContext(rig.engine, rig.device)
    context.infer({"images": IMAGE})
    assert all(buffer.mapped for buffer in rig.device.buffers)


@pytest.mark.parametrize(
    ("label", "answer", "message"),
    [
        ("IExecutionContext.set_input_shape", lambda *_: False, "does not take images of shape 1x3x8x8"),
        ("IExecutionContext.infer_shapes", lambda _: ["mask"], "needs further inputs: mask"),
        ("IExecutionContext.set_tensor_address", lambda _: False, "refuses the buffer of images"),
        ("IExecutionContext.execute_async_v3", lambda _: False, "could not launch"),
        ("ICudaEngine.create_execution_context", lambda _: None, "No memory on the GPU"),
    ],
)
def test_every_refusal_is_noticed(label: str, answer: Any, message: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.module.answers[label] = answer
    with pytest.raises(HnxError, match=message):
        PlanContext(rig.engine, rig.device).infer({"images": IMAGE})


def test_unaligned_buffers_are_refused(tmp_path: Path) -> None:
    rig = Rig(tmp_path, alignment=64)
    with pytest.raises(HnxError, match="not aligned"):
        PlanContext(rig.engine, rig.device).infer({"images": IMAGE})


@pytest.mark.parametrize(
    ("label", "member"),
    [("ICudaEngine.get_tensor_location", "HOST"), ("ICudaEngine.get_tensor_dtype", "BF16")],
)
def test_tensors_we_cannot_serve(label: str, member: str, tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    kind = "TensorLocation" if "location" in label else "DataType"
    rig.module.answers[label] = lambda _: getattr(rig.module, kind)[member]
    plan = tmp_path / "x.plan"
    with pytest.raises(HnxError, match="cannot serve: images"):
        load_engine(rig.library, state(), 0, plan, scenario.sidecar(rig.library, plan))


def test_a_plan_tensorrt_refuses(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.module.answers["Runtime.deserialize_cuda_engine"] = lambda _: None
    plan = tmp_path / "x.plan"
    with pytest.raises(HnxError, match=r"refuses x\.plan") as caught:
        load_engine(rig.library, state(), 0, plan, scenario.sidecar(rig.library, plan))
    assert "hnx build-trt" in caught.value.fix
