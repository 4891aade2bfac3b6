"""Write a model card: `python -m benchmarks.model_card tools/model_card.yml -o docs/model-card.md`.

The source is YAML: a Markdown text under `text` with places such as `{{weights}}`, and the facts that go there. All
figures come from reports of `hnx eval --json`, all pictures are drawn by a bundle, so the card cannot say what was not
measured. Paths start from the current folder.

    {{weights}}           table of `weights`
    {{evaluation KEY}}    table of one evaluation, a row for each network
    {{pictures KEY}}      contact sheet of overlays
    {{file PATH}}         a text file as a code block
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.accuracy.report import EvalReport, figures, read_report, thin
from benchmarks.card_source import CardSource, Pictures, read_source
from hybridnets.errors import ExitCode, HnxError, did_you_mean, from_os_error, printable
from hybridnets.files import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["evaluation_table", "main", "render", "weights_table"]

_PLACE = re.compile(r"\{\{\s*(\w+)(?:\s+([^{}]+?))?\s*\}\}")
_DETECTION = ("mAP50", "mAP50-95", "R")
_POOLED = "IoU, all pixels"
_MAX_FILE = 1 << 20
Step = Callable[[str], None]


def render(source: CardSource, output: Path, on_step: Step = lambda _: None) -> str:
    """The card as Markdown; pictures are written beside `output`.

    Raises:
        HnxError: a report or bundle is missing or damaged, or the text names what the source does not have.
    """
    makers: dict[str, Callable[[str], str]] = {
        "weights": lambda _: weights_table(source),
        "evaluation": lambda key: evaluation_table(source, _known(source.evaluations, key, "evaluation")),
        "pictures": lambda key: _pictures(_known(source.pictures, key, "pictures"), output, on_step),
        "file": lambda path: _code(source.folder / path),
    }

    def fill(match: re.Match[str]) -> str:
        kind, argument = match[1], match[2] or ""
        if kind not in makers:
            raise HnxError(
                f"The text of {source.path} has a place for {kind!r}",
                why=did_you_mean(kind, makers),
                code=ExitCode.USAGE,
            )
        on_step(f"{kind} {argument}".strip())
        return makers[kind](argument)

    text = _PLACE.sub(fill, source.text)
    return f"<!-- Written by python -m benchmarks.model_card {source.path}; edit that file. -->\n\n{text.strip()}\n"


def _known(values: Mapping[str, Any], key: str, kind: str) -> Any:
    if key not in values:
        raise HnxError(
            f"The text has a place for the {kind} {key!r}, and there are none of that name",
            why=did_you_mean(key, values),
            code=ExitCode.USAGE,
        )
    return values[key]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: int) -> str:
    """A Markdown table; columns from the `right`-th on are aligned to the right."""
    rule = ["---" if number < right else "---:" for number in range(len(columns))]
    cells = [[_cell(text) for text in row] for row in (columns, rule, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|")


def weights_table(source: CardSource) -> str:
    """What is shipped, with its digest and the hours it took."""
    from hybridnets.weights import find

    rows = []
    for one in source.weights:
        entry = find(one.name)
        rows.append(
            [
                f"`{entry.name}`",
                entry.summary,
                str(entry.compound_coef),
                f"{entry.size[0]}x{entry.size[1]}",
                entry.activation,
                one.hours,
                "" if entry.bytes is None else f"{entry.bytes / 1e6:.2f}",
                f"`{(entry.sha256 or '')[:16]}`",
            ]
        )
    columns = ["`-w`", "what", "coefficient", "trained at", "activation", "trained for", "MB", "SHA-256 begins"]
    return _table(columns, rows, 6)


def evaluation_table(source: CardSource, reports: Mapping[str, Path]) -> str:
    """One row for each network and each runtime and precision that ran; figures in percent, with their intervals.

    Raises:
        HnxError: a report is missing, holds no row that ran, is of an untrained network, or of other data or another
            protocol than the others.
    """
    found = {name: read_report(source.folder / path) for name, path in reports.items()}
    for name, report in found.items():
        _check(name, reports[name], report, next(iter(found.values())))
    rows = [(name, report, row) for name, report in found.items() for row in report.measured]
    names = list(dict.fromkeys(key for _, report, row in rows for key in _columns(report, row)))
    cells = [
        [f"`{name}`", f"{row['runtime']}:{row['precision']}", *(_figure(report, row, key) for key in names)]
        for name, report, row in rows
    ]
    first = next(iter(found.values()))
    return f"{_table(['weights', 'run by', *names], cells, 2)}\n\n{_below(first)}"


def _check(name: str, path: Path, report: EvalReport, first: EvalReport) -> None:
    problem = ""
    if not report.measured:
        problem = "no row of it ran"
    elif report.bundle.get("untrained"):
        problem = "its network is untrained"
    elif report.data.get("digest") != first.data.get("digest"):
        problem = "it is of other data than the first report of its table"
    elif report.protocol != first.protocol:
        problem = "it follows another protocol than the first report of its table"
    if problem:
        raise HnxError(f"Cannot use {path} for {name}", why=problem, fix="evaluate again with hnx eval --json")


def _columns(report: EvalReport, row: Mapping[str, Any]) -> list[str]:
    """Figures that have a meaning: those of boxes only where somebody labelled boxes."""
    metrics = row["metrics"]
    names = list(_DETECTION) if metrics.get("labels") else []
    for seg in report.bundle.get("seg_classes") or []:
        names += [f"{seg} IoU", f"{seg} Acc"] if thin(seg) else [f"{seg} IoU", f"{seg} {_POOLED}", f"{seg} mIoU"]
    values = _values(metrics)
    return [name for name in names if name in values]


def _values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Figures by name, with the IoU of the pixels of all images together, as BDD100K counts."""
    pooled = (metrics.get("pooled") or {}).get("IoU") or {}
    return figures(metrics) | {f"{seg} {_POOLED}": value for seg, value in pooled.items() if value is not None}


def _figure(report: EvalReport, row: Mapping[str, Any], key: str) -> str:
    if key not in _columns(report, row):
        return "-"
    value = f"{_values(row['metrics'])[key] * 100:.1f}"
    interval = (row.get("intervals") or {}).get(key)
    return f"{value} [{interval[0] * 100:.1f}, {interval[1] * 100:.1f}]" if interval else value


def _below(report: EvalReport) -> str:
    data, protocol = report.data, report.protocol
    level = round(float(report.settings.get("level", 0.95)) * 100)
    broken = (data.get("broken") or {}).get("count") or 0
    where = "the network's input" if protocol.get("at") == "input" else "the size of the frame"
    return printable(
        f"{int(data.get('images') or 0) - broken} images of the split {data.get('split')}; boxes above a score of "
        f"{protocol.get('conf')}, suppressed at IoU {protocol.get('iou')}; masks compared at {where}. Percent, with "
        f"{level} % bootstrap intervals over images. Digest of the data: `{str(data.get('digest'))[:16]}`."
    )


def _code(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise HnxError(f"{path} is too long for a card", why=f"it has {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8").rstrip()
    except OSError as error:
        raise from_os_error(f"Cannot read {path}", error) from error
    except UnicodeDecodeError as error:
        raise HnxError(f"Cannot read {path}", why="it is no text in UTF-8") from error
    kind = {".sh": "sh", ".py": "python", ".yml": "yaml", ".yaml": "yaml", ".json": "json"}.get(path.suffix, "")
    fence = "````" if "```" in text else "```"
    return f"{fence}{kind}\n{text}\n{fence}"


def _pictures(wanted: Pictures, output: Path, on_step: Step) -> str:
    from benchmarks.contact_sheet import contact_sheet, write_small_jpeg

    target = output.parent / wanted.file
    tiles = _overlays(wanted, on_step)
    size = write_small_jpeg(target, contact_sheet(tiles, columns=wanted.columns, width=wanted.width), wanted.limit)
    on_step(f"{target}: {len(tiles)} pictures, {size / 1e3:.0f} kB")
    link = Path(os.path.relpath(target, output.parent)).as_posix()
    return f"![{printable(wanted.caption)}]({link})\n\n*{printable(wanted.caption)}*"


def _overlays(wanted: Pictures, on_step: Step) -> list[NDArray[np.uint8]]:
    from hybridnets.draw import draw_overlay
    from hybridnets.sources import open_source
    from runtimes.predictor import load

    tiles: list[NDArray[np.uint8]] = []
    seen = 0
    with load(wanted.bundle, wanted.runtime, conf=wanted.conf) as predictor:
        bundle = predictor.runtime.bundle
        if bundle.untrained:
            raise HnxError(f"{wanted.bundle} is untrained", why="its pictures would show nothing", fix="name another")
        for path in wanted.frames:
            with open_source(path) as frames:
                for frame in frames:
                    if len(tiles) == wanted.most:
                        return tiles
                    seen += 1
                    if (seen - 1) % wanted.step == 0:
                        on_step(f"drawing {frame.name}")
                        picture = predictor(frame.image)
                        tiles.append(draw_overlay(frame.image, picture, bundle.classes, bundle.seg_classes))
    return tiles


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs/model-card.md"),
    show_default=True,
)
def command(source: Path, output: Path) -> None:
    """Write the model card described in SOURCE, a YAML file."""
    text = render(read_source(source), output, lambda step: print(step, file=sys.stderr))
    write_bytes(output, text.encode())
    print(output)


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    try:
        command.main(args=arguments, prog_name="python -m benchmarks.model_card", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HnxError as error:
        print(error, file=sys.stderr)
        return error.code
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
