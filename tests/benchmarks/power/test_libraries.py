"""NVML and jtop, with modules of our own in their place."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from benchmarks.power.jtop import Jtop
from benchmarks.power.nvml import Nvml
from benchmarks.power.reading import Unreadable
from runtimes.sysfs import Tree


def nvml_module(**changes: Any) -> types.ModuleType:
    """Two cards that have drawn energy, the second twice as much."""
    module = types.ModuleType("pynvml")
    state = {"energy": 1000.0}

    def count_up(card: int) -> float:
        state["energy"] += 500.0
        return state["energy"] * (card + 1)

    values = {
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda card: b"NVIDIA Example",
        "nvmlDeviceGetUUID": lambda card: f"GPU-{card}abc",
        "nvmlDeviceGetTotalEnergyConsumption": count_up,
        "nvmlDeviceGetPowerUsage": lambda card: 70_500,
        "nvmlDeviceGetTemperature": lambda card, sensor: 40 + card,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda card: 0x04,
        **changes,
    }
    for name, value in values.items():
        if value is not None:
            setattr(module, name, value)
    return module


@pytest.fixture(autouse=True)
def _no_choice_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


def refuse(*arguments: object) -> Any:
    raise RuntimeError("Not Supported\nstack")


def test_energy_is_counted_from_when_it_was_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module(nvmlDeviceGetCount=lambda: 1))
    source = Nvml(Tree())
    assert source.unit == "J"
    assert source.total == ("NVIDIA Example 0",)
    first, second = source.read(), source.read()
    assert first.rails == {"NVIDIA Example 0": 0.5}
    assert second.rails == {"NVIDIA Example 0": 1.0}
    assert second.time_ns >= first.time_ns
    assert first.celsius == {"NVIDIA Example 0": 40.0}
    assert first.throttled == ()  # a power cap is not throttling
    source.close()


def test_cards_without_a_counter_tell_power(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvml_module(nvmlDeviceGetTotalEnergyConsumption=refuse, nvmlDeviceGetTemperature=refuse)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    source = Nvml(Tree())
    assert source.unit == "W"
    reading = source.read()
    assert reading.rails == {"NVIDIA Example 0": 70.5, "NVIDIA Example 1": 70.5}
    assert reading.celsius == {}


@pytest.mark.parametrize(
    ("visible", "order", "cards"),
    [
        (None, None, [0, 1]),
        ("1", None, [0, 1]),
        ("1", "PCI_BUS_ID", [1]),
        ("GPU-1abc,GPU-0abc", None, [1]),
    ],
)
def test_the_card_that_cuda_uses(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, order: str | None, cards: list[int]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module())
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(name, value)
    celsius = Nvml(Tree()).read().celsius
    assert sorted(celsius.values()) == [40 + card for card in cards]


@pytest.mark.parametrize(("visible", "words"), [("", "hides every card"), ("GPU-9", "no such card")])
def test_no_card_is_a_reason(monkeypatch: pytest.MonkeyPatch, visible: str, words: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(Unreadable, match=words):
        Nvml(Tree())


def test_throttling_by_either_name_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
        changes: dict[str, Any] = {"nvmlDeviceGetCurrentClocksThrottleReasons": None, name: lambda card: 0x60}
        monkeypatch.setitem(sys.modules, "pynvml", nvml_module(**changes))
        assert len(Nvml(Tree()).read().throttled) == 2
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module(nvmlDeviceGetCurrentClocksThrottleReasons=None))
    assert Nvml(Tree()).read().throttled == ()


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount"])
def test_no_driver_is_a_reason(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml_module(**{call: refuse}))
    with pytest.raises(Unreadable, match="Not Supported"):
        Nvml(Tree())


def test_a_driver_that_goes_away_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvml_module()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    source = Nvml(Tree())
    module.nvmlDeviceGetTotalEnergyConsumption = refuse  # type: ignore[attr-defined]
    module.nvmlShutdown = refuse  # type: ignore[attr-defined]
    with pytest.raises(Unreadable, match="Not Supported"):
        source.read()
    source.close()


@pytest.mark.parametrize(("name", "source"), [("pynvml", Nvml), ("jtop", Jtop)])
def test_a_library_that_is_not_installed_is_a_reason(monkeypatch: pytest.MonkeyPatch, name: str, source: Any) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(Unreadable, match="could not be imported") as caught:
        source(Tree())
    assert "pip install" in caught.value.fix


# -- jtop ----------------------------------------------------------------------------------------------------


class Client:
    """jtop's client: answers three times, then its service has ended."""

    def __init__(self, power: Any, *, starts: bool = True) -> None:
        self.power, self.starts, self.answers, self.closed = power, starts, 3, 0
        self.temperature = {"tj": {"temp": 51.5, "online": True}, "gpu": {"temp": -256, "online": False}}

    def start(self) -> None:
        if not self.starts:
            raise RuntimeError("The jtop.service is not active")

    def ok(self) -> bool:
        self.answers -= 1
        return self.answers >= 0

    def close(self) -> None:
        self.closed += 1


def use_jtop(monkeypatch: pytest.MonkeyPatch, power: Any, **changes: Any) -> Client:
    client = Client(power, **changes)
    module = types.ModuleType("jtop")
    module.jtop = lambda interval: client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jtop", module)
    return client


def rail(milliwatts: int) -> dict[str, Any]:
    return {"power": milliwatts, "avg": 1, "volt": 5000, "curr": 2, "online": True}


def test_jtop_with_a_rail_that_holds_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    power = {"rail": {"VDD_SOC": rail(1450)}, "tot": {**rail(5080), "name": "VDD_IN"}}
    client = use_jtop(monkeypatch, power)
    source = Jtop(Tree())
    assert source.total == ("VDD_IN",)
    reading = source.read()
    assert reading.rails == {"VDD_SOC": 1.45, "VDD_IN": 5.08}
    assert reading.celsius == {"tj": 51.5}
    source.read()
    with pytest.raises(Unreadable, match="service has ended"):
        source.read()
    source.close()
    assert client.closed == 1


def test_jtop_that_loses_a_rail_for_a_moment_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    client = use_jtop(monkeypatch, {"rail": {"GPU": rail(1155), "CPU": rail(385)}, "tot": {}})
    source = Jtop(Tree())
    client.power = {"rail": {"GPU": rail(1155)}, "tot": {}}
    with pytest.raises(Unreadable, match="lacks CPU"):
        source.read()


def test_jtop_without_one_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    use_jtop(monkeypatch, {"rail": {"GPU": rail(1155), "CPU": rail(385)}, "tot": {"power": 1540, "avg": 1540}})
    source = Jtop(Tree())
    assert source.total == ("CPU", "GPU")
    assert source.read().rails == {"GPU": 1.155, "CPU": 0.385}


@pytest.mark.parametrize(
    ("power", "starts", "words"),
    [
        ({}, False, "not active"),
        ((1, {"VDD_IN": {}}), True, "cannot be used"),
        ({"rail": {}, "tot": {}}, True, "no power rails"),
        ({"rail": {"GPU": {}}}, True, "cannot be used"),
    ],
)
def test_jtop_that_does_not_answer_is_a_reason(
    monkeypatch: pytest.MonkeyPatch, power: Any, starts: bool, words: str
) -> None:
    client = use_jtop(monkeypatch, power, starts=starts)
    with pytest.raises(Unreadable, match=words):
        Jtop(Tree())
    assert client.closed == 1
