"""The page that lists the pictures: one HTML file with relative links, no scripts and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from benchmarks.accuracy.choose import VISIBLE, WORKING_CONF, Choice

__all__ = ["MARKER", "Section", "page"]

# how an earlier run's folder is told from somebody else's
MARKER = '<meta name="generator" content="hnx eval --pictures">'

# system colours follow the reader's light or dark setting
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem; max-width: 1960px;
       background: Canvas; color: CanvasText; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid GrayText; padding-bottom: .3rem; }
h3 { margin: 1.8rem 0 .4rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
.text { white-space: normal; }
.scroll { overflow-x: auto; }
small { opacity: .75; }
.down { font-weight: 600; }
figure { margin: 1rem 0 2rem; } figcaption { margin-bottom: .35rem; }
img { max-width: 100%; height: auto; border-radius: 4px; }
"""


@dataclass(frozen=True)
class Section:
    """One row of the report and its pictures.

    Attributes:
        row: its name.
        frames: how many were scored.
        means, baseline_means: part to its mean over all frames.
        pictures: choice and file name, the worst first, then the most changed.
    """

    row: str
    frames: int
    means: Mapping[str, float]
    baseline_means: Mapping[str, float] | None
    pictures: Sequence[tuple[Choice, str]]


def page(sections: Sequence[Section], baseline: str | None, curves: Sequence[str]) -> str:
    """The whole page.

    Args:
        baseline: name of the row in the middle, None without one.
        curves: relative paths of further pictures.
    """
    against = f" against {escape(baseline)}" if baseline is not None else ""
    body = [f"<h1>Frames of hnx eval{against}</h1>", f"<p>{_INTRODUCTION}</p>"]
    if len(sections) > 1:
        links = "".join(f'<li><a href="#row{k}">{escape(s.row)}</a></li>' for k, s in enumerate(sections))
        body.append(f"<ul>{links}</ul>")
    for number, section in enumerate(sections):
        body.append(f'<h2 id="row{number}">{escape(section.row)}</h2>')
        body.append(_means(section, baseline))
        body.append(_part(section, "worst", "Worst frames", "No frame: every one is perfect."))
        if baseline is not None:
            body.append(_part(section, "changed", "Most changed frames", "No frame differs from the baseline."))
    if not sections:
        body.append("<p>No row was scored.</p>")
    if curves:
        body.append("<h2>Curves</h2>")
        body += [f'<figure><img loading="lazy" src="{quote(path)}" alt="{escape(path)}"></figure>' for path in curves]
    head = f'<meta charset="utf-8">{MARKER}<meta name="viewport" content="width=device-width">'
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}\n<title>hnx eval{against}</title>\n<style>{_STYLE}</style>'
        "</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


_INTRODUCTION = (
    f"Boxes count above confidence {WORKING_CONF} and match at IoU 0.5. A frame's score is the mean of F1 of its "
    "boxes and IoU of each segmentation class; its change is the mean of the absolute differences of these parts. "
    "In the pictures, yellow is false, black and white is missed: dashed boxes, striped pixels."
)


def _step(new: float, old: float | None) -> str:
    """The difference in brackets where it shows in two decimals; a drop stands out."""
    if old is None or abs(new - old) < VISIBLE:
        return ""
    style = ' class="down"' if new < old else ""
    return f" <small{style}>({new - old:+.2f})</small>"


def _means(section: Section, baseline: str | None) -> str:
    """Means over all frames: what the chosen ones are to be seen against."""
    heads = "".join(f"<th>{escape(part)}</th>" for part in section.means)
    rows = [("candidate" if baseline is not None else "row", section.row, section.means, section.baseline_means)]
    if baseline is not None and section.baseline_means is not None:
        rows.insert(0, ("baseline", baseline, section.baseline_means, None))
    lines = []
    for role, name, means, others in rows:
        cells = "".join(
            f"<td>{value:.3f}{_step(value, None if others is None else others.get(part))}</td>"
            for part, value in means.items()
        )
        lines.append(f"<tr><td>{escape(name)} <small>{role}</small></td>{cells}</tr>")
    return (
        f'<div class="scroll"><table><tr><th>mean of all {section.frames} frames</th>{heads}</tr>'
        f"{''.join(lines)}</table></div>"
    )


def _part(section: Section, kind: str, title: str, none: str) -> str:
    pictures = [(choice, file) for choice, file in section.pictures if choice.kind == kind]
    if not pictures:
        return f"<h3>{title}</h3>\n<p>{none}</p>"
    parts = list(pictures[0][0].candidate.parts)
    boxes = "F1" in parts
    heads = ["frame", "score", *(("found", "missed", "false") if boxes else ()), *parts]
    if kind == "changed":
        heads.insert(1, "change")
    lines = [_line(choice, file, boxes) for choice, file in pictures]
    table = "".join(f"<th>{escape(head)}</th>" for head in heads)
    figures = [
        f'<figure id="{escape(_anchor(file))}"><figcaption><b>{choice.rank}. {escape(choice.name)}</b> &mdash; '
        f'{escape(choice.reason)}</figcaption><a href="{quote(file)}">'
        f'<img loading="lazy" src="{quote(file)}" alt="{escape(choice.name)}"></a></figure>'
        for choice, file in pictures
    ]
    return (
        f'<h3>{title}</h3>\n<div class="scroll"><table><tr>{table}</tr>\n' + "\n".join(lines) + "</table></div>\n"
    ) + "\n".join(figures)


def _anchor(file: str) -> str:
    return file.rsplit(".", 1)[0]


def _line(choice: Choice, file: str, boxes: bool) -> str:
    new, old = choice.candidate, choice.baseline
    cells = [f"<td>{new.score:.2f}{_step(new.score, None if old is None else old.score)}</td>"]
    if choice.kind == "changed" and old is not None:
        cells.insert(0, f"<td>{new.change(old):.2f}</td>")
    if boxes:
        pairs: list[tuple[int, int | None]] = [
            (getattr(new, key), None if old is None else getattr(old, key)) for key in ("found", "missed", "false")
        ]
        cells += [f"<td>{count}{_count_step(count, other)}</td>" for count, other in pairs]
    cells += [
        f"<td>{value:.2f}{_step(value, None if old is None else old.parts[part])}</td>"
        for part, value in new.parts.items()
    ]
    link = f'<a href="#{quote(_anchor(file))}">{choice.rank}. {escape(choice.name)}</a>'
    return f"<tr><td>{link}</td>{''.join(cells)}</tr>"


def _count_step(new: int, old: int | None) -> str:
    return "" if old is None or new == old else f" <small>({new - old:+d})</small>"
