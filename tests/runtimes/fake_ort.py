"""ONNX Runtime with a CUDA provider that is its CPU in disguise: everything is computed, and says it was on a GPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as real

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
Change = Callable[[dict[str, Any]], None]


class _Value:
    """OrtValue whose device is the CPU whatever was asked for."""

    def __init__(self, fake: FakeOrt) -> None:
        self._fake = fake

    def ortvalue_from_numpy(self, array: Any, device: str, index: int) -> Any:
        self._fake.devices.add((device, index))
        return real.OrtValue.ortvalue_from_numpy(array.copy(), "cpu", 0)


class _Binding:
    def __init__(self, fake: FakeOrt, binding: Any) -> None:
        self._fake, self.binding = fake, binding

    def bind_output(self, name: str, device: str, index: int) -> None:
        self._fake.devices.add((device, index))
        self._fake.outputs_bound += 1
        self.binding.bind_output(name, "cpu", 0)

    def get_outputs(self) -> list[Any]:
        return [_Copied(value) for value in self.binding.get_outputs()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.binding, name)


class _Copied:
    """On a GPU `numpy` copies to the host."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def numpy(self) -> Any:
        return self._value.numpy().copy()


class _Session:
    def __init__(self, fake: FakeOrt, session: Any) -> None:
        self._fake, self._session = fake, session

    def get_providers(self) -> list[str]:
        return self._fake.started

    def io_binding(self) -> _Binding:
        return _Binding(self._fake, self._session.io_binding())

    def run_with_iobinding(self, binding: _Binding) -> None:
        self._session.run_with_iobinding(binding.binding)

    def run(self, *_: Any) -> None:
        raise AssertionError("inputs and outputs must be bound")

    def end_profiling(self) -> str:
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text())
        for event in events:
            if event.get("cat") == "Node":
                event["args"]["provider"] = self._fake.started[0]
                self._fake.change(event)
        path.write_text(json.dumps(events))
        self._fake.profile = path
        return str(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


class FakeOrt:
    """Takes the place of the module.

    Attributes:
        available: providers the build has.
        started: what a session says it runs on.
        change: done to each event of the profile.
        fails: what making a session raises.
        passed: what the session was made with.
    """

    def __init__(self, folder: Path, available: Sequence[str] = (CUDA, CPU)) -> None:
        self.__version__, self.cuda_version, self.__file__ = "1.23.0", "12.8", str(folder / "__init__.py")
        self.available, self.started = list(available), list(available)
        self.change: Change = lambda event: None
        self.fails: Exception | None = None
        self.passed: dict[str, Any] = {}
        self.devices: set[tuple[str, int]] = set()
        self.severities: list[int] = []
        self.outputs_bound = 0
        self.profile = Path()
        self.OrtValue = _Value(self)

    def get_available_providers(self) -> list[str]:
        return self.available

    def set_default_logger_severity(self, level: int) -> None:
        self.severities.append(level)

    def preload_dlls(self) -> None:
        print("Failed to load libcublasLt.so.12")

    def InferenceSession(self, path: str, options: Any, **words: Any) -> _Session:  # noqa: N802 - the module's name
        self.passed = {"options": options, **words}
        if self.fails is not None:
            raise self.fails
        plain = real.SessionOptions()
        plain.enable_profiling, plain.profile_file_prefix = options.enable_profiling, options.profile_file_prefix
        return _Session(self, real.InferenceSession(path, plain, providers=[CPU]))

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)
