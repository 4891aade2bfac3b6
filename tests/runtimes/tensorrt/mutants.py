"""Guards of `runtimes.tensorrt` taken out of its source, in a copy: the contract tests must notice every one of them.

Two kinds: guards around calls that some TensorRT does not have, which the bindings of that version then refuse; and
guards that keep TensorRT from being touched where it would end the process, each with the test that notices.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Mutant:
    """One guard, removed.

    Attributes:
        guard: field of `Capabilities`, or what it keeps away.
        module: file of `runtimes/tensorrt` without its ending.
        written, without: its source, and what stands there in the copy.
        noticed: test file and name of the test that fails without it; empty for a capability, which the scenario needs.
    """

    guard: str
    module: str
    written: str
    without: str
    noticed: tuple[str, str] = ("", "")

    def __str__(self) -> str:
        return f"{self.guard.replace(' ', '-')}-{self.module}"

    def source(self) -> str:
        """The module without the guard."""
        text = (ROOT / "runtimes" / "tensorrt" / f"{self.module}.py").read_text()
        assert text.count(self.written) == 1, (
            f"{self.written!r} stands {text.count(self.written)} times in {self.module}"
        )
        return text.replace(self.written, self.without)


# around a call that not every version has; `test_each_guard_is_missing_somewhere` says that no field is left out
CAPABILITIES = (
    Mutant("explicit_batch", "network", "if can.explicit_batch:", "if True:"),
    Mutant("precision_flags", "builder", "if library.can.precision_flags:", "if True:"),
    Mutant("progress_monitor", "builder", "if library.can.progress_monitor:", "if True:"),
    Mutant("optimization_level", "builder", "(config.opt_level is not None, can.optimization_level,", "(False, True,"),
    Mutant(
        "hardware_compatibility", "builder", '(config.compat != "none", can.hardware_compatibility,', "(False, True,"
    ),
    Mutant("same_cc", "builder", '(config.compat == "same-cc", can.same_cc,', "(False, True,"),
    Mutant("version_compatible", "builder", "(config.version_compatible, can.version_compatible,", "(False, True,"),
    Mutant(
        "version_compatible",
        "engine",
        "if sidecar.version_compatible and library.can.version_compatible:",
        "if True:",
    ),
    Mutant("node_names", "network", "if library.can.node_names:", "if True:"),
)

_LIBRARY, _PLAN, _EXECUTION = "test_library.py", "test_plan.py", "test_execution.py"
SAFETY = (
    Mutant(
        "a Builder without a driver",
        "builder",
        "    library.guard(state, building=True)\n",
        "",
        (_LIBRARY, "test_nothing_is_made_without_a_driver"),
    ),
    Mutant(
        "a Runtime on an old driver",
        "engine",
        "    library.guard(state, building=False)\n",
        "",
        (_LIBRARY, "test_nothing_is_made_where_the_driver_is_too_old"),
    ),
    Mutant(
        "an old driver", "driver", "if self.driver_cuda < cuda:", "if False:", (_LIBRARY, "a_driver_that_is_too_old")
    ),
    Mutant("a failed build", "builder", "if host is None:", "if False:", (_LIBRARY, "test_a_failed_build_says_why")),
    Mutant("a refused plan", "engine", "if engine is None:", "if False:", (_EXECUTION, "test_a_plan_tensorrt_refuses")),
    Mutant(
        "a plan from elsewhere",
        "plan",
        "if problem := mismatch(sidecar, here):",
        "if (problem := mismatch(sidecar, here)) and not problem:",
        (_PLAN, "test_another_version_or_gpu_is_named"),
    ),
    Mutant(
        "a truncated plan", "plan", "if size != sidecar.bytes:", "if False:", (_PLAN, "test_truncated_and_tampered")
    ),
    Mutant(
        "a tampered plan",
        "plan",
        "if sha256_file(plan) != sidecar.sha256:",
        "if False:",
        (_PLAN, "test_truncated_and_tampered"),
    ),
)


def tree(folder: Path, mutant: Mutant | None = None) -> Path:
    """A copy of what the contract tests need, without a guard; its root."""
    hidden = shutil.ignore_patterns("__pycache__")
    root = folder / "tree"
    for name in ("runtimes", "tests/runtimes/tensorrt", "tests/data/tensorrt"):
        shutil.copytree(ROOT / name, root / name, ignore=hidden)
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "hybridnets").symlink_to(ROOT / "hybridnets")
    if mutant is not None:
        (root / "runtimes" / "tensorrt" / f"{mutant.module}.py").write_text(mutant.source())
    return root
