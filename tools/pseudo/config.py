"""What is asked for, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hybridnets.errors import ExitCode, HnxError
from hybridnets.project import Project

__all__ = ["PseudoConfig"]


@dataclass(frozen=True)
class PseudoConfig:
    """Frames to be labelled, and where the data set goes.

    Attributes:
        sources: pictures, folders, patterns or videos, as `hybridnets.sources.open_source` takes them.
        folder: of the data set; frames are added to what it holds.
        project: names the folders and the segmentation classes.
        split: which part of the data set.
        every: take every n-th frame of a video.
        limit: at most so many frames of each source.
        overwrite: label frames again that are there.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    sources: tuple[str, ...]
    folder: Path
    project: Project
    split: str = "train"
    every: int = 1
    limit: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.sources:
            raise HnxError("No frames to label", fix="name pictures, a folder or a video", code=ExitCode.USAGE)
        for name, value in (("every", self.every), ("limit", self.limit)):
            if value is not None and value < 1:
                raise HnxError(f"--{name} is {value}", why="it counts frames, from 1 on", code=ExitCode.USAGE)
        if not self.split or Path(self.split).name != self.split or self.split in (".", ".."):
            raise HnxError(
                f"There can be no split {self.split!r}", why="it is the name of a folder, such as train", fix="",
                code=ExitCode.USAGE,
            )  # fmt: skip
