"""A bundle's network exported once more from its weights, with other exact rewrites of the graph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hybridnets.bundle import UNFUSED, Bundle, GraphForm, open_bundle
from hybridnets.errors import HnxError

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
        sys.executable, "-m", "hnx", "export", "-w", str(bundle.file(bundle.weights)), "--size", f"{width}x{height}",
        "-o", str(folder), "--heads", ",".join(heads), "--rewrite", rewrite, "--no-weights",
        "--opset", str(bundle.manifest.get("variants", [{}])[0].get("opset", 17)), *_form_words(form),
    ]  # fmt: skip
    if isinstance(bundle.input.shape[0], str):
        command.append("--dynamic-batch")
    if "anchors" in bundle.outputs:
        command += ["--layout", "anchors-output"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        raise HnxError(f"hnx export --rewrite {rewrite} failed", why="; ".join(lines[-3:])[:300], fix="run it by hand")
    return open_bundle(next(path for path in folder.iterdir() if path.is_dir()))


def _form_words(form: GraphForm) -> list[str]:
    words = ["--input", form.input, "--seg", form.segmentation]
    if form.detection == "decoded":
        words.append("--decode")
    if form.nms is not None:
        words += ["--nms", "--nms-conf", str(form.nms.conf), "--nms-iou", str(form.nms.iou)]
        words += ["--nms-boxes", str(form.nms.boxes)]
    return words
