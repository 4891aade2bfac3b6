"""`hnx data convert`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tools.convert.config import ConvertConfig
    from tools.convert.plan import Plan
    from tools.convert.report import SplitReport

__all__ = ["command"]

_LANE_TYPES = (
    "crosswalk, double other, double white, double yellow, road curb, single other, single white, single yellow"
)
_PLACE = "or a path; {split} in it stands for train and val."


class LaneWidth(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on, not before
    """A number for both splits, or `train=8,val=2`."""

    name = "PX"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, int]:
        """`8` to {"train": 8, "val": 8}."""
        if isinstance(value, dict):
            return value
        text = str(value).replace(" ", "")
        if re.fullmatch(r"\d{1,3}", text):
            return {"train": int(text), "val": int(text)}
        found = dict(re.findall(r"(train|val)=(\d{1,3})(?:,|$)", text))
        if not found or ",".join(f"{k}={v}" for k, v in found.items()) != text:
            self.fail(f"{value!r} is neither a width such as 8 nor train=8,val=2", param, ctx)
        return {key: int(width) for key, width in found.items()}


@click.command(
    short_help="Bring BDD100K downloads, COCO or YOLO boxes into this layout.",
    epilog="Examples:  hnx data convert downloads/bdd100k datasets   |   hnx data convert downloads datasets --split "
    "val --lane-width 8   |   hnx data convert frames mine --split train --boxes coco boxes.json --empty-masks",
)
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--split",
    "splits",
    type=click.Choice(["train", "val"]),
    multiple=True,
    help="Only this split; repeatable.  [default: those with images]",
)
@click.option("--image-dir", metavar="DIR", help="Folder of images; {split} in it stands for train and val.")
@click.option(
    "--boxes",
    nargs=2,
    type=(click.Choice(["bdd", "coco", "yolo"]), str),
    metavar="KIND PATH",
    default=None,
    help="Boxes: bdd FILE or DIR (any generation), coco FILE, or yolo DIR.  [default: found below ROOT, 2020 first]",
)
@click.option("--names", "class_names", type=click.Path(path_type=Path), help="Class names of YOLO labels.")
@click.option(
    "--category-names",
    type=click.Choice(["2018", "keep"]),
    default="2018",
    show_default=True,
    help="Names of 2018 as the projects use them (pedestrian becomes person), or as they are.",
)
@click.option(
    "--ignored",
    type=click.Choice(["drop", "mark"]),
    default="drop",
    show_default=True,
    help="Other vehicles, other persons, trailers and crowds.",
)
@click.option(
    "--drivable",
    type=click.Choice(["direct+alternative", "direct"]),
    default="direct+alternative",
    show_default=True,
    help="What counts as road.",
)
@click.option(
    "--drivable-from",
    metavar="WHAT",
    default="auto",
    show_default=True,
    help=f"masks, rles, polygons, labels (those of 2018), {_PLACE}",
)
@click.option(
    "--drivable-ids",
    type=click.Choice(["auto", "2018", "2020"]),
    default="auto",
    show_default=True,
    help="Numbers in drivable masks: 2018 0 background, 1 direct, 2 alternative; 2020 0 direct, 1 alternative, "
    "2 background.",
)
@click.option(
    "--lanes-from",
    metavar="WHAT",
    default="auto",
    show_default=True,
    help=f"polygons, labels (those of 2018), masks, {_PLACE}",
)
@click.option(
    "--lane-types",
    metavar="LIST",
    help=f"With commas, or `all`.  [default: all but crosswalk; of {_LANE_TYPES}]",
)
@click.option(
    "--lane-direction",
    type=click.Choice(["both", "parallel", "vertical"]),
    default="both",
    show_default=True,
    help="To the driving direction.",
)
@click.option(
    "--lane-width",
    type=LaneWidth(),
    default="train=8,val=2",
    show_default=True,
    help="Width of drawn lane lines in px: one for both splits, or each.",
)
@click.option(
    "--lane-pairs/--no-lane-pairs",
    default=True,
    show_default=True,
    help="Join the two annotated edges of a painted line to its centre line.",
)
@click.option("--empty-boxes", is_flag=True, help="Images without an entry in the boxes have none.")
@click.option("--empty-masks", is_flag=True, help="Images without drivable area or lanes get empty masks.")
@click.option(
    "--images",
    type=click.Choice(["hardlink", "copy", "link"]),
    default="hardlink",
    show_default=True,
    help="How images come into the target; hard links become copies where the disk has none.",
)
@click.option("--workers", type=int, help="Processes; 0 is none beside this one.  [default: one for each core]")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier conversion with other options left.")
@click.option("--dry-run", is_flag=True, help="Only say what is there and what would be done.")
def command(
    root: Path,
    target: Path,
    splits: tuple[str, ...],
    image_dir: str | None,
    boxes: tuple[str, str] | None,
    class_names: Path | None,
    category_names: str,
    ignored: str,
    drivable: str,
    drivable_from: str,
    drivable_ids: str,
    lanes_from: str,
    lane_types: str | None,
    lane_direction: str,
    lane_width: dict[str, int],
    lane_pairs: bool,
    empty_boxes: bool,
    empty_masks: bool,
    images: str,
    workers: int | None,
    overwrite: bool,
    dry_run: bool,
) -> None:
    """Convert the official BDD100K downloads below ROOT to upstream's layout in TARGET.

    All three generations of labels are understood and found by themselves: one JSON per image (before 2018-08-28), the
    single JSON of 2018, and the files of 2020 with polygons, run lengths or masks. Frames that lack a part are left out
    and listed in TARGET/conversion.json. A run that was stopped goes on where it was.
    """
    from hybridnets.dataset.workers import available_cores
    from tools.convert import ConvertConfig, make_plan
    from tools.convert.categories import LANE_TYPES
    from tools.convert.config import DEFAULT_WIDTHS

    types = tuple(name for name in LANE_TYPES if name != "crosswalk")
    if lane_types is not None:
        types = LANE_TYPES if lane_types == "all" else tuple(filter(None, map(str.strip, lane_types.split(","))))
    config = ConvertConfig(
        root=root,
        target=target,
        splits=splits,
        image_dir=image_dir,
        boxes_kind=boxes[0] if boxes else "bdd",
        boxes=boxes[1] if boxes else None,
        class_names=class_names,
        drivable_from=drivable_from,
        lanes_from=lanes_from,
        drivable=drivable,
        drivable_ids=drivable_ids,
        lane_types=types,
        lane_directions=("parallel", "vertical") if lane_direction == "both" else (lane_direction,),
        lane_widths={**DEFAULT_WIDTHS, **lane_width},
        lane_pairs=lane_pairs,
        ignored=ignored,
        names=category_names,
        empty_boxes=empty_boxes,
        empty_masks=empty_masks,
        images=images,
        workers=available_cores() if workers is None else workers,
        overwrite=overwrite,
    )
    from hnx.console import note, success

    with _Reading() as reading:
        plan = make_plan(config, reading.told)
    _print_plan(plan, drivable)
    for remark in plan.notes:
        note(remark)
    if dry_run:
        return
    reports = _run(config, plan)
    for report in reports:
        _print_report(report)
    success(f"{sum(report.frames for report in reports)} frames in {target}; hnx data check {target} looks at them all")


class _Reading:
    """A line on stderr while large JSONs are indexed: 400 MB take 4 s."""

    def __enter__(self) -> _Reading:
        from hnx.console import status

        self._status = status("looking at the downloads")
        self._update = self._status.__enter__()
        self._path: Path | None = None
        self._bytes = self._shown = 0
        return self

    def told(self, path: Path, count: int) -> None:
        """Of `count` more bytes of `path`."""
        if path != self._path:
            self._path, self._bytes, self._shown = path, 0, 0
        self._bytes += count
        if self._bytes - self._shown >= 100 << 20:  # one line for 100 MB where there is no terminal
            self._shown = self._bytes
            self._update(f"reading {path.name}: {self._bytes >> 20} MB")

    def __exit__(self, *failure: object) -> None:
        self._status.__exit__(None, None, None)


def _run(config: ConvertConfig, plan: Plan) -> list[SplitReport]:
    from hnx.console import note, progress
    from tools.convert import convert

    with progress() as bar:
        tasks = {
            split.recipe.split: bar.add_task(split.recipe.split, total=len(split.names), extra="")
            for split in plan.splits
        }
        try:
            return convert(config, plan, lambda split, done, _: bar.update(tasks[split], completed=done))
        except KeyboardInterrupt:
            note("what is written stays: the same command goes on from here")
            raise


def _print_plan(plan: Plan, drivable: str) -> None:
    # lines, not a table: paths are long, and a table would break them
    for split in plan.splits:
        for role, source in split.report.sources.items():
            _say(f"{split.recipe.split:5}  {role:8}  {source['frames']:6}  {source['kind']}, {source['path']}")
    for split in plan.splits:
        text = f"{split.recipe.split}: {len(split.names)} frames, road = {drivable}, lanes {split.recipe.width} px wide"
        left_out = _left_out(split.report)
        _say(text + (f"; left out: {left_out}" if left_out else ""))


def _say(text: str) -> None:
    from hybridnets.errors import printable

    click.echo(printable(text))


def _print_report(report: SplitReport) -> None:
    from tools.convert.report import COUNTS

    kept = f" ({report.kept} of them by an earlier run)" if report.kept else ""
    _say(f"{report.split}: {report.frames} frames written{kept}")
    for key, sentence in COUNTS.items():
        if report.counts[key]:
            _say(f"  {report.counts[key]} {sentence}")
    left_out = _left_out(report)
    if left_out:
        _say(f"  left out: {left_out}; names and details in conversion.json")


def _left_out(report: SplitReport) -> str:
    from tools.convert.report import REASONS

    return ", ".join(f"{len(names)} ({REASONS[reason]})" for reason, names in report.dropped.items())
