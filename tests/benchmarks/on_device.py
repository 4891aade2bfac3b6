"""A runtime with a device whose clock can be read."""

from __future__ import annotations

from typing import Any

from runtimes.base import Execution
from runtimes.device_times import DeviceTimes
from runtimes.registry import RuntimeEntry
from tests.benchmarks.fakes import Steady


class OnDevice(Steady):
    """A clock of its own, and no graph."""

    name = "on-device"
    compiles = True
    runs = 0

    def _open(self) -> Execution:
        super()._open()
        details = {"compiled": self.options.compile, "no_graph_because": "aten::nonzero needs the CPU"}
        return Execution(self.options.precision, "GPU", 1, "on-device 1", details)

    def _infer(self, state: Any, inputs: Any) -> dict[str, Any]:
        self.runs += 1
        return self._outputs

    def device_times(self) -> list[DeviceTimes]:
        return [DeviceTimes(9.0, 9.0, 9.0), DeviceTimes(0.25, self.runs, 0.5)] if self.runs else []


ENTRY = RuntimeEntry(OnDevice.name, __name__, "OnDevice", "", ("on-device",), ("fp32",))
