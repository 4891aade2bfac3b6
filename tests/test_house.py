"""Promises about the repository itself: names, directions, packaging, documents."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("hybridnets", "runtimes", "export", "calibration", "benchmarks", "tools", "hnx")
# who may import whom; everybody may import itself
ALLOWED = {
    "hybridnets": set(),
    "runtimes": {"hybridnets"},
    "export": {"hybridnets", "runtimes"},
    "calibration": {"hybridnets", "runtimes"},
    "benchmarks": {"hybridnets", "runtimes"},
    "tools": {"hybridnets"},
    "hnx": {"hybridnets", "runtimes", "export", "calibration", "benchmarks", "tools"},
}
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "cuda",
    "pynvml",
    "jtop",
    "nncf",
    "timm",
    "torchvision",
    "safetensors",
    "pycocotools",
    "matplotlib",
    "tensorboard",
}
TORCH_MODULES = ("hybridnets/network/", "hybridnets/training/", "hybridnets/checkpoint.py")
# the data side of training: usable, and testable, without torch
TORCH_FREE = ("hybridnets/training/augment/", "hybridnets/training/autoanchor.py", "hybridnets/training/schedule.py")
SOURCES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imports(path: Path, *, module_level: bool) -> set[str]:
    """Top-level names a file imports; those below `if TYPE_CHECKING` do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    nodes = tree.body if module_level else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dependencies_point_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    wrong = (imports(path, module_level=False) & set(LAYERS)) - ALLOWED[layer] - {layer}
    assert not wrong, f"{layer} must not import {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_heavy_at_module_level(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if name.startswith(TORCH_MODULES) and not name.startswith(TORCH_FREE):
        return
    assert not imports(path, module_level=True) & HEAVY


def test_no_other_distribution_provides_our_names() -> None:
    owners = packages_distributions()
    present = [layer for layer in (*LAYERS, "tests") if (ROOT / layer).is_dir()]
    foreign = {name: set(owners.get(name, ())) - {"hnx"} for name in present}
    assert not {name: found for name, found in foreign.items() if found}


def test_setup_lists_every_layer_and_extra() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options.packages.find"]["include"].split()
    assert {f"{layer}*" for layer in LAYERS} == set(listed)
    extras = setup["options.extras_require"]
    wanted = {
        "torch",
        "export",
        "onnxruntime",
        "openvino",
        "eval",
        "train",
        "cpu",
        "gpu",
        "cuda",
        "tensorrt",
        "jetson",
        "power",
        "timm",
        "dev",
    }
    assert set(extras) == wanted
    cpu = set(extras["cpu"].split("\n"))
    for part in ("torch", "export", "onnxruntime", "openvino", "eval"):
        assert set(extras[part].split("\n")) <= cpu
    # what runs on a device brings no torch along
    for part in ("tensorrt", "jetson", "power", "onnxruntime", "openvino"):
        assert "torch" not in extras[part]
    base = setup["options"]["install_requires"]
    assert not any(name in base for name in HEAVY)


def test_every_runtime_fix_names_a_real_extra() -> None:
    from runtimes.registry import REGISTRY

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert {row.extra for row in REGISTRY if row.extra} <= set(setup["options.extras_require"])


def test_layers_are_typed() -> None:
    missing = [layer for layer in LAYERS if (ROOT / layer).is_dir() and not (ROOT / layer / "py.typed").exists()]
    assert not missing


def test_importing_the_api_costs_nothing() -> None:
    code = "import sys, hnx; print(sorted({'numpy', 'cv2', 'torch', 'click'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"


def test_documents_name_real_files_and_commands() -> None:
    from hnx.cli import COMMANDS

    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{name} links to {target}"
        for command in re.findall(r"`hnx ([a-z-]+)", text):
            assert command in COMMANDS, f"{name} names hnx {command}"


def test_the_two_commands_of_the_readme_are_what_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    ci = (ROOT / ".ci" / "run").read_text()
    for command in ('pip install -e ".[cpu]" && hnx quickstart', 'pip install -e ".[cpu,dev]" && pytest'):
        assert command in readme
    assert "README.md" in ci


def test_tests_mirror_the_source_tree() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        parts = path.relative_to(ROOT / "tests").parts
        if len(parts) > 1:
            assert (ROOT.joinpath(*parts[:-1])).is_dir(), f"{path} mirrors no folder"
