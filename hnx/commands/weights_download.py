"""`hnx weights download`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from hnx.finite import FiniteRange

__all__ = ["command"]

_STEPS = 10  # lines for a whole file where there is no terminal


@click.command(
    short_help="Fetch weights from the web; goes on where it was cut off.",
    epilog="""\b
Examples:
  hnx weights download hybridnets-v1
  https_proxy=http://proxy:3128 hnx weights download hybridnets-v1 --output /data/weights

Without network: fetch the file on another machine, copy it to the folder that the error names, and every command
finds it there. The folder is `weights` in $HNX_CACHE, else in $XDG_CACHE_HOME/hnx or ~/.cache/hnx.""",
)
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder to put the file into.  [default: the cache, where -w NAME finds it]",
)
@click.option("--again", is_flag=True, help="Fetch it though it is there.")
@click.option("--retries", type=click.IntRange(0, 100), default=4, show_default=True, help="Further tries in a row.")
@click.option("--timeout", type=FiniteRange(1, 3600), default=30.0, show_default=True, help="Seconds without a byte.")
def command(name: str, output: Path | None, again: bool, retries: int, timeout: float) -> None:
    """Fetch the weights NAME, check them, and print where they lie."""
    from hnx.console import note
    from hybridnets.weights import find
    from hybridnets.weights.download import Policy, download

    entry = find(name)
    if entry.is_shipped and output is None:
        note(f"{name} came with this installation: there is nothing to download")
    policy = Policy(attempts=retries + 1, timeout_s=timeout)
    with _bar(entry.file) as show:
        path = download(entry, output, again=again, policy=policy, on_progress=show, on_note=note)
    if entry.sha256 is None:
        from hybridnets.weights import pin

        note(f"nobody has published a digest of {entry.file}; that of this download is kept in {pin(path)}")
    print(path)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on stderr; a line for each tenth where there is no terminal."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
        return
    said = -1

    def show(done: int, total: int | None) -> None:
        nonlocal said
        step = done * _STEPS // total if total else -1
        if step > said and total:
            said = step
            print(f"{title}: {done / 1e6:.1f} of {total / 1e6:.1f} MB", file=sys.stderr, flush=True)

    yield show
