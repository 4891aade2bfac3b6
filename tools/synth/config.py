"""What is generated, and the manifest that says so in the folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridnets.dataset.workers import available_cores
from hybridnets.errors import ExitCode, HnxError
from tools.synth.randoms import VERSION
from tools.synth.scene import LANE_WIDTH, SIZE

__all__ = ["FOLDERS", "MANIFEST", "SPLITS", "SynthConfig", "folder_identity"]

MANIFEST = "manifest.json"
SPLITS = ("train", "val")
# what lies where, and with which ending; labels last: upstream's list of samples is the listing of this folder, so a
# scene is complete when its label file exists
FOLDERS: Mapping[str, str] = {"imgs": ".jpg", "da_seg_annot": ".png", "ll_seg_annot": ".png", "det_annot": ".json"}
_MOST = 1_000_000  # names have six digits
_SIDES = (96, 4096)


@dataclass(frozen=True)
class SynthConfig:
    """Checked when it is made.

    Attributes:
        folder: of the data set.
        train, val: scenes of each split.
        seed: 0 or more; scene i of a split depends on nothing but (seed, split, i) and the generator's version.
        workers: processes; None is one for each core this process may use.
        size: rows, columns.
        lane_width: of lane labels, pixels of a 720-row picture, the same in both splits. BDD's masks have 8 px in
            train and 2 px in val, which caps a perfect network's lane IoU at about 0.5; set it to 2 to mimic its val.
        overwrite: remove the generated data set that lies in the folder, even where it is the same.
    """

    folder: Path
    train: int
    val: int
    seed: int = 0
    workers: int | None = None
    size: tuple[int, int] = SIZE
    lane_width: float = LANE_WIDTH
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        for name, value in (("train", self.train), ("val", self.val)):
            if not 0 <= value <= _MOST:
                raise _usage(f"--{name} {value}", f"it counts scenes, 0 to {_MOST}", f"for example --{name} 200")
        if self.train + self.val == 0:
            raise _usage(
                "There is nothing to generate", "--train and --val are both 0", "for example --train 1000 --val 200"
            )
        if not 0 <= self.seed < 2**63:
            raise _usage(f"--seed {self.seed}", "it is a number from 0 to 2^63 - 1", "for example --seed 1")
        if self.workers is not None and self.workers < 1:
            raise _usage(f"--workers {self.workers}", "it counts processes", "for example --workers 2")
        if not all(_SIDES[0] <= side <= _SIDES[1] for side in self.size):
            rows, columns = self.size
            raise _usage(
                f"Size {columns}x{rows}", f"sides are {_SIDES[0]} to {_SIDES[1]} pixels", "for example 1280x720"
            )
        if not 1 <= self.lane_width <= 64:
            raise _usage(
                f"--lane-width {self.lane_width:g}", "it is a width of 1 to 64 pixels", "for example --lane-width 8"
            )

    @property
    def counts(self) -> dict[str, int]:
        """Scenes of each split."""
        return {"train": self.train, "val": self.val}

    @property
    def processes(self) -> int:
        """Workers, never more than scenes."""
        return max(1, min(self.workers or available_cores(), self.train + self.val))

    @property
    def identity(self) -> dict[str, Any]:
        """What two runs must share so that their scenes may lie in one folder."""
        return {
            "generator": "hnx data synth",
            "generator_version": VERSION,
            "seed": self.seed,
            "size": list(self.size),
            "lane_width_px": self.lane_width,
        }

    def path(self, folder: str, split: str, name: str) -> Path:
        """The file of a scene in one of FOLDERS."""
        return self.folder / folder / split / f"{name}{FOLDERS[folder]}"


def folder_identity(manifest: Any) -> dict[str, Any] | None:
    """The identity in a manifest; None when it is not one of ours."""
    if not isinstance(manifest, dict) or manifest.get("generator") != "hnx data synth":
        return None
    keys = ("generator", "generator_version", "seed", "size", "lane_width_px")
    return {key: manifest.get(key) for key in keys}


def _usage(what: str, why: str, fix: str) -> HnxError:
    return HnxError(what, why=why, fix=fix, code=ExitCode.USAGE)
