"""Where the files of a split lie: upstream's four folders, imgs, det_annot, da_seg_annot and ll_seg_annot."""

from __future__ import annotations

import contextlib
import hashlib
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from hybridnets.errors import ExitCode, HnxError, from_os_error
from hybridnets.project import Project

__all__ = [
    "IMAGE_SUFFIXES",
    "SampleFiles",
    "Split",
    "SplitFolders",
    "check_regular",
    "find_image",
    "open_split",
    "split_folders",
]

# upstream knows .jpg only; the first that exists is read
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class SampleFiles:
    """The files of one sample, which may be missing; masks in the order of `seg_list`."""

    image: Path
    label: Path
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class SplitFolders:
    """The folders of one split, which may be missing; masks in the order of `seg_list`."""

    split: str
    images: Path
    labels: Path
    masks: tuple[Path, ...]


@dataclass(frozen=True)
class Split:
    """One split of one data set, made by `open_split`.

    Attributes:
        project: gives the classes and the size that boxes are relative to.
        split: its name, such as val.
        images, labels: folders that hold `<name>.jpg` and `<name>.json`.
        masks: folders that hold `<name>.png`, in the order of `seg_list`.
        names: file names without their endings, sorted.
    """

    project: Project
    split: str
    images: Path
    labels: Path
    masks: tuple[Path, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def files(self, name: str) -> SampleFiles:
        """The files of one sample; the image with the first ending of `IMAGE_SUFFIXES` that exists."""
        return SampleFiles(
            find_image(self.images, name),
            self.labels / f"{name}.json",
            tuple(folder / f"{name}.png" for folder in self.masks),
        )

    def shard(self, index: int, count: int) -> Split:
        """Every `count`-th sample from `index` on: the shards of 0 to count - 1 make up the whole.

        Raises:
            HnxError: not 0 <= index < count.
        """
        if not 0 <= index < count:
            raise HnxError(
                f"There is no shard {index} of {count}", why="they count from 0 to count - 1", code=ExitCode.USAGE
            )
        return replace(self, names=self.names[index::count])

    def digest(self) -> str:
        """Hex hash over names, sizes and times of all files, and over what of the project decides the truth.

        It reads no file, 50 us a sample: 0.5 s for 10 000. Equal digests let an interrupted evaluation go on.
        """
        digest = hashlib.sha256()
        project = self.project
        for part in (
            *(self.split, project.classes, project.combine, project.traffic_light_color),
            *(project.seg_list, project.seg_mode, project.dataset.org_img_size),
        ):
            digest.update(f"{part!r}\n".encode())
        for name in self.names:
            files = self.files(name)
            digest.update(f"{name!r}\n".encode())
            for path in (files.image, files.label, *files.masks):
                try:
                    status = path.stat()
                    digest.update(f"{path.suffix} {status.st_size} {status.st_mtime_ns}\n".encode())
                except OSError:
                    digest.update(b"missing\n")
        return digest.hexdigest()


def find_image(folder: Path, name: str) -> Path:
    """`<name>.jpg`, or another ending of `IMAGE_SUFFIXES` where only that exists."""
    for suffix in IMAGE_SUFFIXES:
        path = folder / f"{name}{suffix}"
        with contextlib.suppress(OSError):  # a folder one may not look into: reading says so
            if path.exists():
                return path
    return folder / f"{name}.jpg"


def check_regular(path: Path, what: str = "") -> None:
    """Refuse what reading would wait for without end; everything else shows when it is read.

    Args:
        path: of a file to be read.
        what: what failed, for the error; default "Cannot read <path>".

    Raises:
        HnxError: a pipe, a socket or a device, or a link to one.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise HnxError(
            what or f"Cannot read {path}", why="it is a pipe or a device, not a file", fix="put the file itself there"
        )


def split_folders(project: Project, data: Path | None = None, split: str | None = None) -> SplitFolders:
    """The folders of a split, whether they exist or not.

    Args:
        project: names the roots.
        data: None for the project's own roots relative to the working folder, or a folder DIR: then DIR/<last part
            of each root>, as `hnx data synth DIR` writes them.
        split: None for the project's `test_set`.

    Raises:
        HnxError: `data` is no folder, or `split` leads out of it.
    """
    config = project.dataset
    split = config.test_set if split is None else split
    if not split or Path(split).is_absolute() or ".." in Path(split).parts:
        raise HnxError(
            f"There is no split {split!r}", why="it is the name of a folder, such as val", code=ExitCode.USAGE
        )
    if data is not None and not data.is_dir():
        raise HnxError(
            f"There is no data set {data}",
            why="it is a file" if data.exists() else "no such folder",
            fix="name its folder" if data.exists() else f"check the path, or make one: hnx data synth {data}",
        )
    images, labels, *masks = (
        (Path(root) if data is None else data / Path(root).name) / split
        for root in (config.dataroot, config.labelroot, *config.segroot)
    )
    if len({images, labels, *masks}) != 2 + len(masks):
        raise HnxError(
            f"Project {project.name}: two roots end in the same name",
            why="below one data folder they are told apart by their last part",
            fix="rename one of dataset.dataroot, labelroot and segroot",
        )
    return SplitFolders(split, images, labels, tuple(masks))


def open_split(project: Project, data: Path | None = None, split: str | None = None) -> Split:
    """A split of a data set; its samples are the JSON files of the label folder, as upstream has it, but sorted.

    Args: see `split_folders`.

    Raises:
        HnxError: a folder is missing or unreadable, or there is no label.
    """
    folders = split_folders(project, data, split)
    try:
        for what, folder in (
            ("labels", folders.labels),
            ("images", folders.images),
            *((f"masks of class {name}", folder) for name, folder in zip(project.seg_list, folders.masks, strict=True)),
        ):
            if not folder.is_dir():
                raise HnxError(
                    f"There is no folder {folder}", why=f"the {what} are expected there", fix=_fix(data, split)
                )
        # ._x.json are leftovers of macOS archives
        names = sorted(p.stem for p in folders.labels.iterdir() if p.suffix == ".json" and not p.name.startswith("."))
    except OSError as error:
        raise from_os_error(f"Cannot read the folders of split {folders.split}", error) from error
    if not names:
        raise HnxError(
            f"Split {folders.split} is empty", why=f"no *.json lies in {folders.labels}", fix=_fix(data, split)
        )
    return Split(project, folders.split, folders.images, folders.labels, folders.masks, tuple(names))


def _fix(data: Path | None, split: str | None) -> str:
    place = "datasets" if data is None else str(data)
    option = "" if split is None else f" --split {split}"
    return f"`hnx data check {place}{option}` lists what is missing; `hnx data synth FOLDER` makes a data set"
