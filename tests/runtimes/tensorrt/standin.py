"""NVIDIA's real bindings of one version on stand-in native libraries, and the scenario run on them.

`python -m tests.runtimes.tensorrt.standin FOLDER REPORT`, in a process of its own: FOLDER holds the wheel's module
`tensorrt_bindings`, which `.ci/trt` fetches. The bindings' own argument checks, overloads and removed members are the
test; what TensorRT would do with the calls is not. Needs g++, nm, readelf and Linux on x86-64.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.runtimes.tensorrt.world import Member, World

SOURCE = Path(__file__).with_name("standin.cpp")
CHILD, VALUE, SHAPE = 0, 1, 2
# calls whose first argument is a name; the others' is a number
NAMED = {
    "ICudaEngine.get_tensor_mode",
    "ICudaEngine.get_tensor_dtype",
    "ICudaEngine.get_tensor_location",
    "ICudaEngine.get_tensor_shape",
    "IExecutionContext.get_tensor_shape",
}
# symbols that libc, libstdc++ and Python provide
SYSTEM = re.compile(r"_?Py|_Z(?!N\d+nv)|_?_cxa|_Unwind|__|dl|pthread|_ITM")


def make_libraries(module: Path, folder: Path) -> list[Path]:
    """Stand-ins for the libraries that a bindings module asks for, the one with the symbols first."""
    headers = _output("readelf", "-d", str(module))
    names = re.findall(r"NEEDED.*\[(libnv[^\]]+)\]", headers)
    wanted = set(re.findall(r"^\s+U (\w+)$", _output("nm", "-D", "--undefined-only", str(module)), re.MULTILINE))
    text = SOURCE.read_text()
    others = sorted(
        name for name in wanted if not SYSTEM.match(name) and re.match(r"create|get\w+_INTERNAL|_ZN|getNv|init", name)
    )
    more = [f'extern "C" void* {name}() {{ return nullptr; }}' for name in others if f" {name}(" not in text]
    source = folder / "standin.cpp"
    source.write_text("\n".join([text, *more, ""]))
    made = []
    for name in sorted(names, key=lambda name: not name.startswith("libnvinfer.so")):
        content = str(source) if name.startswith("libnvinfer.so") else "/dev/null"
        language = ["-x", "c++", content]
        target = folder / name
        flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}"]
        _output("g++", *flags, *language, "-o", str(target))
        made.append(target)
    return made


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Native:
    """Answers the stand-in's calls, after having learned which virtual function each Python call ends in."""

    def __init__(self, libraries: list[Path], world: World) -> None:
        # preloaded under their own names: the loader then takes them for the ones the module asks for
        self._loaded = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in libraries]
        self.world, self.answers = world, world.answers()
        self.trt: Any = None
        self.slots: dict[tuple[int, int], str] = {}
        self.kinds: dict[tuple[int, int], int] = {}
        self.plain = {3}  # kinds without a destructor in front: the ONNX parser and its errors
        self.trace: list[tuple[int, int]] = []
        self.learning = False
        self._texts: list[Any] = []
        number = ctypes.POINTER(ctypes.c_int64)
        self._hook = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, number, number)(self._answer)
        major = int(libraries[0].name.rsplit(".", 1)[-1])
        self._loaded[0].standin_start(self._hook, int(major >= 10))

    def _answer(self, kind: int, slot: int, arguments: Any, result: Any) -> int:
        if slot < 2 and kind not in self.plain:
            return VALUE  # destructors
        place = (kind, slot)
        self.trace.append(place)
        label = self.slots.get(place)
        if label is None:
            if self.learning:
                return VALUE  # zero
            result[0] = self._child(place)
            return CHILD
        argument: Any = arguments[0] & 0xFFFFFFFF
        if label in NAMED:
            argument = ctypes.string_at(arguments[0]).decode()
        self.world.look(label, argument)
        if label not in self.answers:
            result[0] = self._child(place)
            return CHILD
        return self._encode(self.answers[label](argument), result)

    def _encode(self, value: Any, result: Any) -> int:
        if isinstance(value, Member):
            value = int(getattr(self.trt, value.enumeration).__members__[value.name])
        if isinstance(value, tuple):
            self._loaded[0].standin_shape(len(value), (ctypes.c_int64 * len(value))(*value))
            return SHAPE
        if isinstance(value, str):
            self._texts.append(ctypes.create_string_buffer(value.encode()))
            value = ctypes.addressof(self._texts[-1])
        result[0] = len(value) if isinstance(value, list) else int(value)
        return VALUE

    def _child(self, place: tuple[int, int]) -> int:
        return self.kinds.setdefault(place, 100 + len(self.kinds))

    # -- learning --------------------------------------------------------------------------------------------

    def made_by(self, call: Callable[[], Any], label: str = "") -> Any:
        """The object a call returns; its place gets a name."""
        self.trace.clear()
        made = call()
        if label:
            self.slots[self.trace[-1]] = label
        return made

    def same_kind(self, call: Callable[[], Any], like: Callable[[], Any], label: str = "") -> None:
        """What `call` returns is of the kind of what `like` returns."""
        self.trace.clear()
        like()
        kind = self._child(self.trace[-1])
        self.trace.clear()
        call()
        self.kinds[self.trace[-1]] = kind
        if label:
            self.slots[self.trace[-1]] = label

    def learn(self, label: str, call: Callable[[], Any]) -> None:
        """The last virtual function that `call` ends in is `label`."""
        self.trace.clear()
        self.learning = True
        try:
            with contextlib.suppress(ValueError, BufferError, SystemError, MemoryError):
                call()
        finally:
            self.learning = False
        if not self.trace:
            raise AssertionError(f"{label} reached no virtual function")
        self.slots[self.trace[-1]] = label

    def learn_all(self, trt: Any) -> None:
        """Every call of `World.answers`."""
        self.trt = trt
        from runtimes.tensorrt.library import adopt

        self.library = adopt(trt, "trt")
        logger = self.library.log.logger
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        config = builder.create_builder_config()
        parser = trt.OnnxParser(network, logger)
        self.learn("Builder.num_DLA_cores", lambda: builder.num_DLA_cores)
        self.learn("OnnxParser.parse_from_file", lambda: parser.parse_from_file("x"))
        self.learn("OnnxParser.num_errors", lambda: parser.num_errors)
        self._learn_errors(parser)
        for name in ("num_layers", "num_inputs", "num_outputs"):
            self.learn(f"INetworkDefinition.{name}", lambda name=name: getattr(network, name))
        layer = self.made_by(lambda: network.get_layer(0), "INetworkDefinition.get_layer")
        tensor = self.made_by(lambda: network.get_input(0), "INetworkDefinition.get_input")
        self.same_kind(lambda: network.get_output(0), lambda: network.get_input(0), "INetworkDefinition.get_output")
        self.same_kind(lambda: layer.get_input(0), lambda: network.get_input(0))
        self.learn("ILayer.type", lambda: layer.type)
        for name in ("name", "dtype", "shape"):
            self.learn(f"ITensor.{name}", lambda name=name: getattr(tensor, name))
        self._learn_memory(lambda: builder.build_serialized_network(network, config))
        cache = config.create_timing_cache(b"")
        self.same_kind(cache.serialize, lambda: builder.build_serialized_network(network, config))
        self.same_kind(config.get_timing_cache, lambda: config.create_timing_cache(b""))
        self._learn_engine(trt, logger)

    def _learn_errors(self, parser: Any) -> None:
        error = self.made_by(lambda: parser.get_error(0))
        self.plain.add(self._child(self.trace[-1]))
        for name in ("node", "desc", "node_name", "node_operator"):
            if hasattr(error, name):
                self.learn(f"ParserError.{name}", lambda name=name: getattr(error, name)())

    def _learn_memory(self, make: Callable[[], Any]) -> None:
        """The buffer protocol of IHostMemory asks for its type, size, type again, and data."""
        content = ctypes.create_string_buffer(b"fakeplan", 8)
        self._texts.append(content)
        self.answers["IHostMemory.size"] = lambda _: 8
        self.answers["IHostMemory.data"] = lambda _: ctypes.addressof(content)
        self.answers["IHostMemory.type"] = lambda _: Member("DataType", "INT8")
        memory = make()
        self.learn("IHostMemory.size", lambda: memory.nbytes)
        size = next(place for place, label in self.slots.items() if label == "IHostMemory.size")
        self.learn("IHostMemory.data", lambda: memoryview(memory))
        data = self.trace[-1]
        for place in set(self.trace) - {size, data}:
            self.slots[place] = "IHostMemory.type"

    def _learn_engine(self, trt: Any, logger: Any) -> None:
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(b"x")
        context = engine.create_execution_context()
        inspector = engine.create_engine_inspector()
        self.learn("ICudaEngine.num_io_tensors", lambda: engine.num_io_tensors)
        # named, so that it is no null pointer while infer_shapes, which asks it for its tensors, is learned
        self.same_kind(
            lambda: context.engine, lambda: runtime.deserialize_cuda_engine(b"x"), "IExecutionContext.engine"
        )
        self.learn("ICudaEngine.get_tensor_name", lambda: engine.get_tensor_name(0))
        for name in ("mode", "location", "dtype", "shape"):
            self.learn(
                f"ICudaEngine.get_tensor_{name}", lambda name=name: getattr(engine, f"get_tensor_{name}")("images")
            )
        self.learn("IExecutionContext.get_tensor_shape", lambda: context.get_tensor_shape("images"))
        self.learn("IExecutionContext.infer_shapes", context.infer_shapes)
        self.learn(
            "EngineInspector.get_engine_information",
            lambda: inspector.get_engine_information(trt.LayerInformationFormat.JSON),
        )


def check(folder: Path) -> dict[str, Any]:
    """The scenario, and each guard removed, on the bindings in `folder`."""
    from tests.runtimes.tensorrt import scenario

    world = World()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        module = next(folder.glob("tensorrt_bindings/tensorrt.so"))
        native = Native(make_libraries(module, work), world)
        sys.path.insert(0, str(folder))
        warnings.simplefilter("ignore")
        import tensorrt_bindings as trt

        native.learn_all(trt)
        made = native.library
        seen = scenario.whole(made, world, work)
        removed = {}
        for guard in scenario.lacking(made.can):
            try:
                scenario.without_guard(made, guard, world, work)
                removed[guard] = ""
            except (AttributeError, TypeError) as error:
                removed[guard] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return {
            "version": trt.__version__,
            "typing": made.typing,
            "plan": seen["int8"].plan.decode(),
            "tensors": [[t.name, t.mode, t.dtype, list(t.shape)] for t in seen["int8"].tensors],
            "precision": seen["int8"].layers[0].precision,
            "outputs": {key: list(value.shape) for key, value in seen["outputs"].items()},
            "graph": seen["graph"],
            "not_there": seen["not there"],
            "refused": seen["refused"].why,
            "without_guard": removed,
        }


if __name__ == "__main__":
    try:
        Path(sys.argv[2]).write_text(json.dumps(check(Path(sys.argv[1]))))
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # the things have no real destructors
