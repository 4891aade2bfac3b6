"""What a command works on when the user names nothing."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle
    from hybridnets.config import Activation
    from hybridnets.dataset import Split
    from hybridnets.project import Project

__all__ = [
    "UNTRAINED",
    "UPSTREAM_WEIGHTS",
    "Chosen",
    "calibration_source",
    "choose_weights",
    "default_weights",
    "export_default",
    "generated_split",
    "resolve_bundle",
    "resolve_split",
]

# where upstream's scripts expect the released checkpoint
UPSTREAM_WEIGHTS = Path("weights") / "hybridnets.pth"
# what -w takes for the seeded network without training, where trained weights would be the default
UNTRAINED = "untrained"
_UNTRAINED_REMARK = "a seeded, untrained network (timings hold, results mean nothing)"
DEFAULT_SIZE = (640, 384)
# enough to see that rows agree, made in half a minute on two cores; intervals are wide
SCENES = 64
SEED = 0
# other scenes than those that accuracy is measured on
CALIBRATION_SEED = 1


def default_weights() -> Path | None:
    """The checkpoint lying where upstream keeps it, if any."""
    return UPSTREAM_WEIGHTS if UPSTREAM_WEIGHTS.is_file() else None


@dataclass(frozen=True)
class Chosen:
    """The weights a network gets.

    Attributes:
        path: checkpoint; None is the seeded untrained network.
        remark: what to tell the user; empty where there is nothing they do not know.
        size: (width, height) the weights were trained on, where that is known.
    """

    path: Path | None
    remark: str = ""
    size: tuple[int, int] | None = None


def choose_weights(
    given: str | Path | None,
    *,
    compound_coef: int | None = None,
    size: tuple[int, int] | None = None,
    activation: Activation | None = None,
    backbone: str | None = None,
    project: str | None = None,
) -> Chosen:
    """What `-w` names, else the checkpoint where upstream keeps it, else shipped weights that fit, else none.

    Args:
        given: a path, a name of `hnx weights list`, `untrained`, or None.
        compound_coef: asked for; None is the published 3 as far as there are weights for it, else any.
        size: (width, height) asked for, None where the weights may decide.
        activation: asked for, None is swish.
        backbone: a timm encoder, for which no weights are shipped.
        project: name or file of the project asked for: weights for other classes do not fit it.

    Raises:
        HnxError: what was named is nowhere, or is not what it should be; the project cannot be read.
    """
    from hybridnets.carried import carried_size
    from hybridnets.weights import default_entry, entries, resolve_weights, verified

    if given is not None and str(given) == UNTRAINED and not Path(given).is_file():
        return Chosen(None, f"{_UNTRAINED_REMARK}, as asked")
    if given is not None:
        path = resolve_weights(given)
        known = {entry.name: entry for entry in entries()}.get(str(given))
        named = known if known is not None and path != Path(given) else None
        name, trained = (path.name, carried_size(path)) if named is None else (named.name, named.size)
        return Chosen(path, _trained_at(name, trained, size), trained)
    if backbone is not None:
        return Chosen(None, f"no checkpoint given: {_UNTRAINED_REMARK}")
    # upstream's file is of coefficient 3, with swish
    lying = default_weights() if activation in (None, "swish") and compound_coef in (None, 3) else None
    if lying is not None:
        return Chosen(lying, f"no checkpoint given: using {lying}")
    classes, seg_classes = _classes(project)
    entry = default_entry(compound_coef, size=size, activation=activation, classes=classes, seg_classes=seg_classes)
    if entry is None:
        return Chosen(None, f"no checkpoint given: {_UNTRAINED_REMARK}")
    remark = f"no checkpoint given: using {entry.name}, which came with this installation (-w {UNTRAINED} for none)"
    other = _trained_at(entry.name, entry.size, size)
    return Chosen(verified(entry), f"{remark}; {other}" if other else remark, entry.size)


def _trained_at(name: str, trained: tuple[int, int] | None, size: tuple[int, int] | None) -> str:
    """A remark where weights are used at another size than they were trained at, as far as that is known."""
    if trained is None or size is None or size == trained:
        return ""
    was, now = (f"{width}x{height}" for width, height in (trained, size))
    return f"{name} was trained at {was}, and its accuracy at {now} is another"


def _classes(project: str | None) -> tuple[tuple[str, ...], tuple[str, ...]] | tuple[None, None]:
    """Detection and segmentation classes of a project that was named."""
    if project is None:
        return None, None
    from hybridnets.project import load_project

    loaded = load_project(project)
    return loaded.classes, loaded.seg_list


def export_default(given: str | Path | None = None, size: tuple[int, int] | None = None) -> Bundle:
    """Export a network into exports/ with the exporter's defaults.

    Args:
        given: see `choose_weights`.
        size: (width, height); None takes what the weights were trained on, else 640x384.

    Raises:
        HnxError: the weights are nowhere, or this machine cannot export (exit code 4).
    """
    from export.config import ExportConfig
    from export.exporter import export_bundles
    from hnx.console import note, status

    chosen = choose_weights(given, size=size)
    if chosen.remark:
        note(chosen.remark)
    width, height = size or chosen.size or DEFAULT_SIZE
    with status(f"exporting {chosen.path or 'the untrained network'} at {width}x{height}") as step:
        bundle = export_bundles(ExportConfig(sizes=((width, height),), weights=chosen.path), step)[0].bundle
    note(f"made {bundle.path}")
    return bundle


def resolve_bundle(argument: str | None, *, weights: bool = True) -> Bundle:
    """The bundle named, else the newest below exports/, else the default one, made on the fly.

    Args:
        weights: see `open_bundle`.

    Raises:
        HnxError: the bundle named cannot be opened, or none exists and this machine cannot export.
    """
    from hnx.console import note
    from hybridnets.bundle import find_bundles, open_bundle

    if argument is not None:
        bundle = open_bundle(argument, weights=weights)
    elif found := find_bundles():
        bundle = open_bundle(found[0], weights=weights)
        note(f"using the newest bundle, {found[0]}")
    else:
        note("no bundle yet: exporting the default network first")
        try:
            bundle = export_default()
        except HnxError as error:
            if error.code != ExitCode.NOTHING_RAN:
                raise
            raise HnxError(
                "There is no bundle in exports/, and this machine cannot make one",
                why=error.why,
                fix=f"copy a bundle here and name it, or {error.fix}",
                code=error.code,
            ) from error
    for sentence in bundle.notes:
        note(sentence)
    if bundle.untrained:
        note(f"{bundle.name} holds the seeded untrained network: timings hold, boxes and masks mean nothing")
    return bundle


def resolve_split(project: Project, data: Path | None, split: str | None, *, limit: int | None = None) -> Split:
    """The labelled images named, else those where the project says, else a generated set.

    Args:
        limit: no more images than these will be used, so no more scenes are generated; others are not cut.

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
    found = generated_split(project, SCENES if limit is None else min(limit, SCENES))
    note(
        f"no data set in {Path(roots[0]).parent}/: using {len(found)} generated scenes in {found.images.parents[1]}; "
        "name your own with --data DIR"
    )
    return found


def calibration_source(bundle: Bundle, frames: int) -> tuple[Path, str]:
    """Data set and split that calibration frames are chosen from when none are named: datasets/, else generated ones.

    Raises:
        HnxError: none exist and none can be generated.
    """
    from hnx.console import note
    from hybridnets.project import DEFAULT_PROJECT, load_project

    project = load_project(DEFAULT_PROJECT)
    folder = Path(project.dataset.dataroot).parent
    if Path(project.dataset.dataroot).is_dir():
        return folder, project.dataset.train_set
    found = generated_split(project, min(frames, SCENES), seed=CALIBRATION_SEED)
    note(f"no data set in {folder}/: calibrating {bundle.name} on {len(found)} generated scenes; yours: --calib PATH")
    return found.images.parents[1], "val"


def generated_split(project: Project, scenes: int, *, seed: int = SEED) -> Split:
    """The first `scenes` scenes of the generated validation set of a seed, kept in the user's cache.

    Raises:
        HnxError: it cannot be written.
    """
    from dataclasses import replace

    from hnx.console import note, progress
    from hybridnets.dataset import open_split
    from hybridnets.files import read_json
    from tools.synth import VERSION, SynthConfig, SynthProgress, generate

    # another version of the generator makes other scenes; one that was asked for more keeps them all
    folder = _cache() / "synth" / f"v{VERSION}-seed{seed}"
    lying = 0
    with contextlib.suppress(HnxError, KeyError, TypeError, ValueError):
        lying = int(read_json(folder / "manifest.json")["scenes"]["val"])
    config = SynthConfig(folder, train=0, val=max(scenes, lying), seed=seed)
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
    """The user's cache folder, or one that everybody may write."""
    from hybridnets.cache import cache_folder

    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, HnxError):  # a service without a home
        return Path(tempfile.gettempdir()) / f"hnx-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
