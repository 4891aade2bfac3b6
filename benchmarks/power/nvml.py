"""Energy, temperature and throttling of NVIDIA cards through NVML. Jetson boards have rails instead of NVML's power."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.power.reading import Reading, Unit, Unreadable
from hybridnets.errors import first_line
from runtimes.sysfs import Tree

__all__ = ["Nvml"]

# Cards count energy every 20 to 100 ms; asked for power they give a mean of up to a second.
INTERVAL_S = 0.05
# NVML's bits of what holds the clocks down. Its power cap is left out: a card under load stands at it by design.
_THROTTLED = {
    0x08: "the card slowed itself down in hardware",
    0x20: "its driver saw it become too hot",
    0x40: "its hardware saw it become too hot",
    0x80: "its power supply asked it to brake",
}


class Nvml:
    """The card that CUDA uses first, or all cards where its number cannot be told.

    Raises:
        Unreadable: no pynvml, no driver, or a device without power readings.
    """

    name = "nvml"
    interval_s = INTERVAL_S
    unit: Unit

    def __init__(self, tree: Tree) -> None:
        del tree  # the driver has no files to read
        try:
            self._nvml: Any = importlib.import_module("pynvml")
        except Exception as error:
            raise Unreadable(
                f"pynvml could not be imported: {first_line(error)}", "pip install nvidia-ml-py"
            ) from error
        try:
            self._nvml.nvmlInit()
        except Exception as error:
            raise Unreadable(f"NVML: {first_line(error)}") from error
        try:
            self._cards = self._chosen(os.environ.get("CUDA_VISIBLE_DEVICES"))
            self.unit, self._value = self._way()
            self._start = {name: self._value(card) for name, card in self._cards.items()}
        except Unreadable:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise Unreadable(f"NVML: {first_line(error)}") from error
        self.total = tuple(self._cards)
        self.details: Mapping[str, Any] = {"counts_energy": self.unit == "J"}

    def _chosen(self, visible: str | None) -> dict[str, Any]:
        nvml = self._nvml
        count = int(nvml.nvmlDeviceGetCount())
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        first = (visible or "").split(",")[0].strip()
        if visible is not None and not visible.strip(", "):
            raise Unreadable("CUDA_VISIBLE_DEVICES hides every card")
        if first.startswith("GPU-"):
            handles = [handle for handle in handles if _text(nvml.nvmlDeviceGetUUID(handle)).startswith(first)]
        elif first.isdigit() and os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
            handles = handles[int(first) :][:1]
        # otherwise CUDA's fastest-first numbers are not NVML's: with several cards all of them are added up
        if not handles:
            raise Unreadable("NVML lists no such card")
        return {f"{_text(nvml.nvmlDeviceGetName(h))} {index}": h for index, h in enumerate(handles)}

    def _way(self) -> tuple[Unit, Callable[[Any], float]]:
        """The counter of energy, which Volta and later have, or power."""
        nvml = self._nvml

        def counted(card: Any) -> float:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1e3

        def power(card: Any) -> float:
            return float(nvml.nvmlDeviceGetPowerUsage(card)) / 1e3

        try:
            for card in self._cards.values():
                counted(card)
        except Exception:
            for card in self._cards.values():
                power(card)
            return "W", power
        return "J", counted

    def read(self) -> Reading:
        """See `Source.read`."""
        start = time.monotonic_ns()
        try:
            values = {name: self._value(card) for name, card in self._cards.items()}
        except Exception as error:
            raise Unreadable(f"NVML: {first_line(error)}") from error
        middle = (start + time.monotonic_ns()) // 2
        if self.unit == "J":
            values = {name: value - self._start[name] for name, value in values.items()}
        return Reading(middle, values, self._celsius(), self._throttled())

    def _celsius(self) -> dict[str, float]:
        found = {}
        for name, card in self._cards.items():
            with contextlib.suppress(Exception):  # passively cooled boards without a sensor
                found[name] = float(self._nvml.nvmlDeviceGetTemperature(card, self._nvml.NVML_TEMPERATURE_GPU))
        return found

    def _throttled(self) -> tuple[str, ...]:
        # renamed by driver 535
        ask = getattr(self._nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or getattr(
            self._nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None
        )
        if ask is None:
            return ()
        bits = 0
        for card in self._cards.values():
            with contextlib.suppress(Exception):  # not every card tells
                bits |= int(ask(card))
        return tuple(words for bit, words in _THROTTLED.items() if bits & bit)

    def close(self) -> None:
        """See `Source.close`."""
        with contextlib.suppress(Exception):
            self._nvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    """Older bindings answer with bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
