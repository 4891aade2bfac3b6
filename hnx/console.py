"""What the commands print: progress on stderr, results on stdout, plain text where there is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from hybridnets.errors import HnxError

__all__ = ["note", "note_problems", "plain_table", "progress", "status", "stdout", "steps", "success"]

# shown one by one; a folder of thousands of damaged files is told by its number
_SHOWN_PROBLEMS = 10


def stdout() -> Console:
    """Console of results. Wide where there is no terminal, so that tables in files are not broken."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def plain_table(*columns: str) -> Table:
    """An empty table without a frame; escape cells that may hold square brackets (rich.markup.escape)."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(*columns, box=SIMPLE_HEAD, pad_edge=False)


def note(text: str) -> None:
    """A remark on stderr."""
    from hybridnets.errors import printable

    print("note: " + "\n".join(map(printable, text.splitlines())), file=sys.stderr)


def note_problems(problems: Sequence[HnxError]) -> None:
    """What of a source could not be read: the first ones, and how many more."""
    for problem in problems[:_SHOWN_PROBLEMS]:
        note(str(problem))
    if len(problems) > _SHOWN_PROBLEMS:
        note(f"and {len(problems) - _SHOWN_PROBLEMS} more")


def success(text: str) -> None:
    """A result line; the tick only where a terminal can show it."""
    from hybridnets.errors import printable

    print(f"{'✔ ' if sys.stdout.isatty() else ''}{printable(text)}")


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """A spinner on stderr while something long runs; the yielded function changes its text.

    Where there is no terminal each text becomes one plain line.
    """
    console = _stderr()
    if console.is_terminal:
        with console.status(text) as spinner:
            yield spinner.update
    else:
        print(text, file=sys.stderr)
        yield lambda line: print(line, file=sys.stderr)


def progress() -> Progress:
    """A progress bar on stderr, silent where there is no terminal; use it in a with statement."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = _stderr()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[extra]}"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def steps() -> Iterator[Callable[[str, int, int, str], None]]:
    """A bar of a few long steps on stderr; where there is no terminal each step becomes one plain line.

    The yielded function takes the work, how many steps are done, how many there are, and what comes next.
    """
    with progress() as bar:
        task = bar.add_task("", total=None, extra="")

        def show(work: str, done: int, total: int, following: str) -> None:
            if bar.disable:
                print(f"{work}: {done + 1} of {total}: {following}", file=sys.stderr)
            else:
                bar.update(task, description=work, completed=done, total=total, extra=following)

        yield show
