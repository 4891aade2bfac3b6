"""`hnx build-trt` on a table's TensorRT and a builder made for the purpose; tests/runtimes/tensorrt has real builds."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calibration.variants import NewVariant, add_variants, float_model
from hnx.commands.build_trt import command
from hybridnets.bundle import open_bundle
from hybridnets.errors import ExitCode, HnxError
from runtimes.tensorrt import driver, launch, library
from runtimes.tensorrt.driver import CudaState
from tests.runtimes.tensorrt import scenario
from tests.runtimes.tensorrt.fake_device import state
from tests.runtimes.tensorrt.spec_module import spec_module
from tests.runtimes.tensorrt.test_launch import worker
from tests.runtimes.tensorrt.world import World

ROOT = Path(__file__).parents[2]
Use = Callable[..., None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Pretend that a version is installed on a machine."""

    def pretend(version: str, machine: CudaState | None = None, body: str = "finish()") -> None:
        made = scenario.library(spec_module(version, World()), "rtx" if version.startswith("rtx") else "trt")
        monkeypatch.setattr(library, "load", lambda flavor="auto": made)
        monkeypatch.setattr(driver, "probe", lambda: machine or state())
        monkeypatch.setattr(launch, "build_plan", functools.partial(build_plan, worker=worker(body)))

    build_plan = launch.build_plan
    return pretend


def run(*arguments: str | Path) -> None:
    command.main([str(word) for word in arguments], standalone_mode=False)


def test_a_bundle_becomes_a_plan_beside_its_network(
    use: Use, bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use("10.13.3.9")
    run(bundle_path, "--fp16", "-o", tmp_path, "--verbose-layers")
    (plan,) = tmp_path.glob("*.plan")
    assert plan.name == "hybridnets_128x256-fp16-trt10.13.3-sm_89.plan"
    value = json.loads((tmp_path / f"{plan.name}.json").read_text())
    assert value["command"] == f"hnx build-trt {bundle_path} --fp16"
    assert value["precision"]["executed"] == "fp16"
    output = capsys.readouterr()
    assert "CaskConvolution" in output.out
    assert "convolutions run fp16 (engine inspector)" in output.out
    assert f"built {plan}" in output.out
    assert "hnx bench" in output.out
    assert "a remark" in output.err


@pytest.mark.parametrize(
    ("version", "int8", "fp16"),
    [
        ("8.5.3.1", "weak", "float"),
        ("8.6.1", "weak", "float"),
        ("10.3.0", "weak", "float"),
        ("10.13.3.9", "weak", "float"),
        ("11.4.0.106", "strong", "half"),
        ("rtx-1.7.1.116", "strong", "half"),
    ],
)
def test_each_version_builds_from_its_own_network_of_a_quantised_bundle(
    version: str, int8: str, fp16: str, use: Use, bundle_path: Path, tmp_path: Path
) -> None:
    bundle = open_bundle(shutil.copytree(bundle_path, tmp_path / "bundle"))
    files = {"float": bundle.variants[0].file}
    model = float_model(bundle)
    for label, precision, runtimes in (
        ("openvino", "int8", ("openvino",)),
        ("strong", "int8", ("tensorrt-strong",)),
        ("weak", "int8", ("tensorrt-weak",)),
        ("half", "fp16", ("tensorrt-strong", "onnxruntime-cuda")),
    ):
        model.doc_string = label  # files are named by their digest
        bundle = add_variants(bundle, [NewVariant(precision, label, runtimes, model)])
        files[label] = bundle.variant(precision, runtimes[0]).file
    use(version)
    for word, label in (("--int8", int8), ("--fp16", fp16), ("--fp32", "float")):
        out = tmp_path / word
        run(bundle.path, word, "-o", out)
        (sidecar,) = out.glob("*.plan.json")
        assert json.loads(sidecar.read_text())["onnx"]["file"] == files[label]


def test_a_bundle_that_is_not_quantised_names_the_command(use: Use, bundle_path: Path, tmp_path: Path) -> None:
    for version, word, target in (("10.3.0", "--int8", "tensorrt"), ("11.4.0.106", "--fp16", "fp16")):
        use(version)
        with pytest.raises(HnxError, match="network for TensorRT") as caught:
            run(bundle_path, word, "-o", tmp_path)
        assert f"hnx quantize {bundle_path} --for {target}" in caught.value.fix


def test_a_bare_file_and_a_named_plan(use: Use, bundle_path: Path, tmp_path: Path) -> None:
    use("10.13.3.9")
    onnx = tmp_path / "my.onnx"
    onnx.write_bytes((next(bundle_path.glob("*.onnx"))).read_bytes())
    run(onnx)
    assert (tmp_path / "my-fp32-trt10.13.3-sm_89.plan").is_file()
    run(onnx, "-o", tmp_path / "named.plan")
    assert (tmp_path / "named.plan.json").is_file()


@pytest.mark.parametrize(
    ("version", "words", "message", "code"),
    [
        ("10.13.3.9", ["--int8"], "no int8 network", ExitCode.FAILED),
        ("11.4.0.106", ["--fp16"], "no fp16 network", ExitCode.FAILED),
        ("8.5.3.1", ["--opt-level", "3"], "does not know --opt-level", ExitCode.USAGE),
        ("10.13.3.9", ["--workspace", "much"], "not a workspace size", ExitCode.USAGE),
        ("10.13.3.9", ["--device", "tpu:0"], "Unknown device", ExitCode.USAGE),
        ("10.13.3.9", ["--int8", "--device", "dla:0"], "--int8 on a DLA core", ExitCode.USAGE),
        ("10.13.3.9", ["--min-batch", "4", "--max-batch", "2"], "Batch sizes 4, 4, 2", ExitCode.USAGE),
    ],
)
def test_what_cannot_be_built_is_refused_before_the_build(
    version: str, words: list[str], message: str, code: ExitCode, use: Use, bundle_path: Path, tmp_path: Path
) -> None:
    use(version, body='raise SystemExit("the builder must not be started")')
    with pytest.raises(HnxError, match=message) as caught:
        run(bundle_path, *words, "-o", tmp_path)
    assert caught.value.code == code
    assert caught.value.fix
    assert not list(tmp_path.iterdir())


def test_no_cuda(use: Use, bundle_path: Path) -> None:
    use("10.13.3.9", CudaState("there is no NVIDIA driver here", "install it"))
    with pytest.raises(HnxError, match="no usable CUDA device") as caught:
        run(bundle_path)
    assert caught.value.code == ExitCode.NOTHING_RAN
    use("rtx-1.7.1.116", CudaState("there is no NVIDIA driver here", "install it"), body="sys.exit(7)")
    with pytest.raises(HnxError, match="ended with status 7"):  # it got as far as the builder
        run(bundle_path, "--flavor", "rtx")


def test_a_damaged_file_is_refused(use: Use, tmp_path: Path) -> None:
    use("10.13.3.9")
    for content in (b"", b"no protobuf at all"):
        (tmp_path / "x.onnx").write_bytes(content)
        with pytest.raises(HnxError):
            run(tmp_path / "x.onnx")
    with pytest.raises(HnxError):
        run(tmp_path / "none.onnx")


def test_without_tensorrt_it_is_one_message_and_exit_code_4(bundle_path: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('tensorrt', 'tensorrt_rtx', 'tensorrt_rtx_libs'): sys.modules[name] = None\n"
        "from hnx.commands.build_trt import command\n"
        "from hybridnets.errors import HnxError\n"
        "try: command.main(sys.argv[1:], standalone_mode=False)\n"
        "except HnxError as error: print(error, file=sys.stderr); sys.exit(int(error.code))\n"
    )
    for flavor, words in (("trt", "TensorRT is not installed"), ("rtx", "pip install tensorrt-rtx")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(bundle_path), "--flavor", flavor],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 4
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_help_costs_no_library() -> None:
    text: Any = command.get_help(__import__("click").Context(command, info_name="hnx build-trt"))
    for option in ("--fp16", "--int8", "--flavor", "--workspace", "--timing-cache", "--hardware-compat", "dla:N"):
        assert option in text
