"""Other graphs of a bundle's network for `hnx tune`: the exact rewrites it has, without one of them or without all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hybridnets.bundle import Bundle

__all__ = ["check_graphs", "graph_lists", "make_graphs", "rewrites_of"]


def rewrites_of(bundle: Bundle) -> dict[str, int]:
    """Name of each rewrite that a bundle was exported with -> places it changed; {} where the manifest tells none."""
    stored = bundle.manifest.get("rewrites")
    entries = [entry for entry in stored if isinstance(entry, dict)] if isinstance(stored, list) else []
    places = {str(entry.get("name")): entry.get("places") for entry in entries}
    return {name: count if isinstance(count, int) else 0 for name, count in places.items()}


def graph_lists(done: Mapping[str, int], known: Iterable[str]) -> dict[str, str]:
    """What a graph is called -> value of `hnx export --rewrite` that makes it.

    Args:
        done: see `rewrites_of`.
        known: names of all rewrites.

    >>> graph_lists({"a": 1, "b": 0, "c": 2}, ["a", "b", "c"])
    {'none': 'none', 'all but a': 'b,c', 'all but c': 'a,b'}
    >>> graph_lists({}, ["a", "b"])
    {'all': 'all', 'all but a': 'b', 'all but b': 'a'}
    """
    names = list(known)
    # a rewrite that found nothing makes no difference; of those that were not run nobody knows
    idle = {name for name in names if done.get(name) == 0}
    found = {"none": frozenset[str](), "all": frozenset(names) - idle}
    found |= {f"all but {name}": frozenset(names) - idle - {name} for name in names if name not in idle}
    seen = {frozenset(done) - idle}
    lists = {}
    for title, rewrites in found.items():
        if rewrites not in seen:
            seen.add(rewrites)
            lists[title] = title if title in ("none", "all") else ",".join(n for n in names if n in rewrites | idle)
    return lists


def check_graphs(bundle: Bundle, runtime: str) -> None:
    """Refuse what no other graph can be made for, before anything is measured.

    Raises:
        HnxError: the runtime runs no graph of the bundle, or the bundle holds no weights (exit code 2); a package is
            missing (exit code 4).
    """
    from export.exporter import require_packages
    from hybridnets.errors import ExitCode, HnxError

    what = "Other rewrites cannot be tried"
    for name, runs in (("torch", "the weights"), ("tensorrt", "plans")):
        if runtime.startswith(name):
            raise HnxError(
                what, why=f"{runtime} runs {runs}, not a graph", fix="leave --rewrites out", code=ExitCode.USAGE
            )
    if bundle.weights is None:
        bare = not bundle.manifest
        raise HnxError(
            what,
            why=f"{bundle.name} {'is a bare ONNX file' if bare else 'holds no weights.safetensors'}, and they are "
            "exported from weights",
            fix=("make a bundle with `hnx export -w FILE`" if bare else "export it without --no-weights")
            + ", or leave --rewrites out",
            code=ExitCode.USAGE,
        )
    require_packages()


def make_graphs(
    bundle: Bundle, folder: Path, say: Callable[[str], None], on_step: Callable[[str], None] = lambda _: None
) -> dict[str, Bundle]:
    """Export and prove the other graphs.

    Args:
        folder: an empty one.
        say: told of graphs that cannot be made, which are left out.
    """
    from benchmarks.exports import export_again
    from export.rewrites import REWRITES
    from hybridnets.errors import HnxError

    found = {}
    for index, (title, rewrite) in enumerate(graph_lists(rewrites_of(bundle), REWRITES).items()):
        on_step(f"exporting, rewrites: {title}")
        try:
            found[title] = export_again(bundle, folder / str(index), rewrite, bundle.form)
        except HnxError as error:
            say(f"{error.what}: {error.why}")
    return found
