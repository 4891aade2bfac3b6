"""What a command works on when the user names nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle
    from hybridnets.dataset import Split
    from hybridnets.project import Project

__all__ = ["UPSTREAM_WEIGHTS", "default_weights", "generated_split", "resolve_bundle", "resolve_split"]

# where upstream's scripts expect the released checkpoint
UPSTREAM_WEIGHTS = Path("weights") / "hybridnets.pth"
DEFAULT_SIZE = (640, 384)
# enough to see that rows agree, made in half a minute on two cores; intervals are wide
SCENES = 64
SEED = 0


def default_weights() -> Path | None:
    """The checkpoint lying where upstream keeps it, if any."""
    return UPSTREAM_WEIGHTS if UPSTREAM_WEIGHTS.is_file() else None


def resolve_bundle(argument: str | None) -> Bundle:
    """The bundle named, else the newest below exports/, else the default one, made on the fly.

    Raises:
        HnxError: the bundle named cannot be opened, or none exists and this machine cannot export.
    """
    from hnx.console import note, status
    from hybridnets.bundle import find_bundles, open_bundle

    if argument is not None:
        bundle = open_bundle(argument)
    elif found := find_bundles():
        bundle = open_bundle(found[0])
        note(f"using the newest bundle, {found[0]}")
    else:
        from export.config import ExportConfig
        from export.exporter import export_bundles

        weights = default_weights()
        try:
            with status("no bundle yet: exporting the default network at 640x384 first"):
                bundle = export_bundles(ExportConfig(sizes=(DEFAULT_SIZE,), weights=weights))[0].bundle
        except HnxError as error:
            if error.code != ExitCode.NOTHING_RAN:
                raise
            raise HnxError(
                "There is no bundle in exports/, and this machine cannot make one",
                why=error.why,
                fix=f"copy a bundle here and name it, or {error.fix}",
                code=error.code,
            ) from error
        note(f"made {bundle.path}")
    for sentence in bundle.notes:
        note(sentence)
    if bundle.untrained:
        note(f"{bundle.name} holds the seeded untrained network: timings hold, boxes and masks mean nothing")
    return bundle


def resolve_split(project: Project, data: Path | None, split: str | None) -> Split:
    """The labelled images named, else those where the project says, else a generated set.

    Raises:
        HnxError: the data named cannot be opened, or none exist and none can be generated.
    """
    from hnx.console import note
    from hybridnets.dataset import open_split
    from hybridnets.project import DEFAULT_PROJECT

    roots = (project.dataset.dataroot, project.dataset.labelroot, *project.dataset.segroot)
    generated = project.name == DEFAULT_PROJECT and split in (None, "val")
    if data is not None or any(Path(root).exists() for root in roots) or not generated:
        return open_split(project, data, split)
    found = generated_split(project, SCENES)
    note(
        f"no data set in {Path(roots[0]).parent}/: using {len(found)} generated scenes in {found.images.parents[1]}; "
        "name your own with --data DIR"
    )
    return found


def generated_split(project: Project, scenes: int) -> Split:
    """The first `scenes` scenes of the generated validation set, kept in the user's cache.

    Raises:
        HnxError: it cannot be written.
    """
    from dataclasses import replace

    from hnx.console import note, progress
    from hybridnets.dataset import open_split
    from hybridnets.files import read_json
    from tools.synth import VERSION, SynthConfig, SynthProgress, generate

    # another version of the generator makes other scenes; one that was asked for more keeps them all
    folder = _cache() / "synth" / f"v{VERSION}-seed{SEED}"
    lying = 0
    with contextlib.suppress(HnxError, KeyError, TypeError, ValueError):
        lying = int(read_json(folder / "manifest.json")["scenes"]["val"])
    config = SynthConfig(folder, train=0, val=max(scenes, lying), seed=SEED)
    with progress() as bar:
        task = bar.add_task("generating", total=config.val, extra="scenes")

        def show(state: SynthProgress) -> None:
            if state.done == state.kept < state.total:
                note(f"making {state.total - state.kept} labelled scenes in {folder}, once")
            bar.update(task, completed=state.done, total=state.total)

        generate(config, show)
    split = open_split(project, folder, "val")
    return replace(split, names=split.names[:scenes])


def _cache() -> Path:
    """The user's cache folder as the XDG base directory rules say, or one that everybody may write."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hnx"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # a service without a home
        return Path(tempfile.gettempdir()) / f"hnx-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
