"""The list of passes, and running them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.rewrites.editing import GraphEditor
from export.rewrites.fusion_weights import fold_fusion_weights
from export.rewrites.hard_sigmoid import clip_hard_sigmoids
from export.rewrites.max_pool import unpad_max_pools
from export.rewrites.parallel_convolutions import merge_parallel_convolutions
from export.rewrites.segmentation_head import fold_segmentation_head
from export.rewrites.statistics import Statistics, statistics
from hybridnets.errors import ExitCode, HnxError, did_you_mean, first_line

if TYPE_CHECKING:
    import onnx

__all__ = ["REWRITES", "PassReport", "Rewrite", "apply_rewrites", "parse_rewrites"]


@dataclass(frozen=True)
class Rewrite:
    """One pass.

    Attributes:
        name: as in `--rewrite NAME`.
        summary: one line for help texts.
        apply: changes the graph, and returns in how many places.
    """

    name: str
    summary: str
    apply: Callable[[GraphEditor], int]


@dataclass(frozen=True)
class PassReport:
    """What one pass did.

    Attributes:
        name: of the pass.
        places: how many places it changed; 0 means the graph is as before.
        before: statistics of the whole graph.
        after: the same when the pass had run.
    """

    name: str
    places: int
    before: Statistics
    after: Statistics

    def __str__(self) -> str:
        a, b = self.before, self.after
        return (
            f"{self.name}: {self.places} place(s), nodes {a.nodes} -> {b.nodes}, "
            f"GMAC {a.macs / 1e9:.3f} -> {b.macs / 1e9:.3f}, "
            f"activations {a.activation_bytes / 1e6:.1f} -> {b.activation_bytes / 1e6:.1f} MB, "
            f"weights {a.weight_bytes / 1e6:.2f} -> {b.weight_bytes / 1e6:.2f} MB"
        )

    def to_json(self) -> dict[str, Any]:
        """As it stands in a manifest."""
        return {
            "name": self.name,
            "places": self.places,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


_ALL = (
    Rewrite(
        "segmentation-head",
        "take the segmentation head through the last enlargement into each branch of the decoder",
        fold_segmentation_head,
    ),
    Rewrite(
        "fusion-weights",
        "take weights of the BiFPN's sums into the convolutions that make the summands",
        fold_fusion_weights,
    ),
    Rewrite(
        "hard-sigmoid",
        "hard sigmoids behind a convolution become clips, which runtimes compute inside it",
        clip_hard_sigmoids,
    ),
    Rewrite(
        "max-pool",
        "pool without writing the map once more with zeros around it",
        unpad_max_pools,
    ),
    Rewrite(
        "parallel-convolutions",
        "1x1 convolutions of one input become one",
        merge_parallel_convolutions,
    ),
)

# in the order in which they run
REWRITES: dict[str, Rewrite] = {rewrite.name: rewrite for rewrite in _ALL}


def parse_rewrites(text: str) -> tuple[str, ...]:
    """Names of passes from `all`, `none`, or a list of names with commas, in the order in which they run.

    Raises:
        HnxError: an unknown name, or `all` or `none` beside others (exit code 2).

    >>> parse_rewrites("none")
    ()
    >>> parse_rewrites("all") == tuple(REWRITES)
    True
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["all"]:
        return tuple(REWRITES)
    if words == ["none"]:
        return ()
    for word in words:
        if word in ("all", "none"):
            raise HnxError(
                f"{word!r} cannot stand beside other rewrites",
                why=f"the list is {text!r}",
                fix=f"give {word} alone, or names",
                code=ExitCode.USAGE,
            )
    if not words:
        raise HnxError(
            "No rewrite is named", why=f"the list is {text!r}", fix="give all, none or names", code=ExitCode.USAGE
        )
    _check(words)
    return tuple(name for name in REWRITES if name in words)


def apply_rewrites(model: onnx.ModelProto, names: Sequence[str]) -> tuple[onnx.ModelProto, tuple[PassReport, ...]]:
    """Run passes on a copy of a model.

    Args:
        model: a valid model; it stays as it is.
        names: keys of `REWRITES`, in any order.

    Returns:
        The rewritten model, and a report of each pass in the order in which they ran.

    Raises:
        HnxError: an unknown name (exit code 2), or a model that cannot be analysed.
    """
    import onnx

    _check(names)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    reports: list[PassReport] = []
    try:
        before = statistics(copy)
        for rewrite in (REWRITES[name] for name in REWRITES if name in names):
            editor = GraphEditor(copy)
            places = rewrite.apply(editor)
            if places:
                editor.finish()
            after = statistics(copy) if places else before
            reports.append(PassReport(rewrite.name, places, before, after))
            before = after
        onnx.checker.check_model(copy)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise HnxError(
            "This graph cannot be rewritten",
            why=first_line(error),
            fix="leave the rewrites out with --rewrite none, and report this",
        ) from error
    return copy, tuple(reports)


def _check(names: Sequence[str]) -> None:
    for name in names:
        if name not in REWRITES:
            raise HnxError(
                f"Unknown rewrite {name!r}",
                why=did_you_mean(name, ["all", "none", *REWRITES]),
                fix="choose one of these",
                code=ExitCode.USAGE,
            )
