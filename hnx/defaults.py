"""What a command works on when the user names nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hybridnets.errors import ExitCode, HnxError

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle

__all__ = ["UPSTREAM_WEIGHTS", "default_weights", "resolve_bundle"]

# where upstream's scripts expect the released checkpoint
UPSTREAM_WEIGHTS = Path("weights") / "hybridnets.pth"
DEFAULT_SIZE = (640, 384)


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
