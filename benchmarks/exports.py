"""A bundle's network exported once more from its weights, with other exact rewrites of the graph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.surroundings import ROOT, with_root
from hybridnets.bundle import UNFUSED, Bundle, GraphForm, open_bundle
from hybridnets.errors import ExitCode, HnxError

__all__ = ["export_again"]


def export_again(bundle: Bundle, folder: Path, rewrite: str, form: GraphForm = UNFUSED) -> Bundle:
    """Run `hnx export`, which proves what it writes against PyTorch, in a process of its own: PyTorch's threads and
    memory would be in the way of what is timed next.

    Args:
        folder: for the new bundle, which holds no weights.
        rewrite: as `hnx export --rewrite` takes it.
        form: what the graph does beside the network.

    Raises:
        HnxError: the bundle has no weights, or the export fails.
    """
    if bundle.weights is None:
        raise HnxError(
            f"Bundle {bundle.name} cannot be exported again",
            why="it holds no weights.safetensors",
            fix="export it without --no-weights",
        )
    height, width = bundle.target
    heads = [head for head, there in (("det", bundle.detects), ("seg", bundle.segments)) if there]
    command = [
        sys.executable, "-m", "hnx", "export", "-w", str(bundle.file(bundle.weights).resolve()),
        "--size", f"{width}x{height}", "-o", str(folder.resolve()), "--heads", ",".join(heads), "--rewrite", rewrite,
        "--no-weights", "--opset", str(bundle.manifest.get("variants", [{}])[0].get("opset", 17)), *_form_words(form),
    ]  # fmt: skip
    if isinstance(bundle.input.shape[0], str):
        command.append("--dynamic-batch")
    if "anchors" in bundle.outputs:
        command += ["--layout", "anchors-output"]
    if (tolerance := _tolerance(bundle)) is not None:
        command += ["--tolerance", str(tolerance)]
    # -m puts the current folder first on the path: one of the user's with a file export.py would break us
    env = with_root(PYTHONIOENCODING="utf-8")
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, cwd=ROOT, env=env)
    if result.returncode:
        raise _failed(f"The network cannot be exported with rewrites {rewrite}", result.returncode, result.stderr)
    return open_bundle(next(path for path in folder.iterdir() if path.is_dir()))


def _tolerance(bundle: Bundle) -> float | None:
    """That the bundle itself was proved with."""
    proof = bundle.manifest.get("proof")
    value = proof.get("tolerance_rel_l2") if isinstance(proof, dict) else None
    return value if isinstance(value, float) and 0 < value < 1 else None


def _failed(what: str, code: int, errors: str) -> HnxError:
    """The user's error for what `hnx export` printed: its first sentence, its reason and its fix, and its exit code."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    fix = next((line[5:] for line in lines if line.startswith("fix: ")), "")
    told = [line.removeprefix("hnx: ").removeprefix("why: ") for line in lines if not line.startswith("fix: ")]
    known = {int(c) for c in ExitCode}
    return HnxError(
        what, why="; ".join(told[-2:])[:300], fix=fix, code=ExitCode(code) if code in known else ExitCode.FAILED
    )


def _form_words(form: GraphForm) -> list[str]:
    words = ["--input", form.input, "--seg", form.segmentation]
    if form.detection == "decoded":
        words.append("--decode")
    if form.nms is not None:
        words += ["--nms", "--nms-conf", str(form.nms.conf), "--nms-iou", str(form.nms.iou)]
        words += ["--nms-boxes", str(form.nms.boxes)]
    return words
