"""Make a trained network ship with the package: `python -m tools.pack_weights BEST.safetensors --name c0-384x256 ...`.

Writes float16 without what no forward pass reads, holds the result against the float32 network on pictures, and enters
it in the list that `hnx weights list` shows. Nothing else is needed to ship weights.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from hybridnets.config import check_size
from hybridnets.data import read_demo_frame
from hybridnets.difference import difference
from hybridnets.errors import ExitCode, HnxError, did_you_mean
from hybridnets.files import sha256_file, write_bytes, write_json
from hybridnets.preprocess import Preprocessor
from hybridnets.sources import open_source
from hybridnets.weights import registry
from hybridnets.weights.registry import WeightsEntry

if TYPE_CHECKING:
    from hybridnets.network import HybridNets

__all__ = ["LIMITS", "OUTPUTS", "PackConfig", "PackResult", "pack", "remove"]

OUTPUTS = ("regression", "classification", "segmentation")
MB = 1_000_000
# float16 of coefficient 0 is 9.05 MB of values and 0.09 of header, of coefficient 3 25.9 and 0.15
LIMITS = {0: 9.0 * MB, 3: 28.0 * MB}
_MOST_EIGHTHS = 4  # convolutions in 8 bits; more would be another kind of network


@dataclass(frozen=True)
class PackConfig:
    """One network to ship.

    Attributes:
        weights: float32 checkpoint; one of `save_safetensors`, whose metadata names classes and anchors.
        name: what `-w` will take.
        size: (width, height) it was trained on; pictures are compared at this size.
        summary: one sentence of what it is.
        licence: it is given under.
        frames: pictures to compare on, files or folders; empty takes the picture of the package.
        max_frames: at most so many.
        tolerance: largest accepted relative L2 difference of an output. Rounding to 11 bits changes each weight by up
            to 4.9e-4 of itself; two trained networks of coefficient 0 came to 0.5e-3 to 2.2e-3.
        limit: largest accepted file in bytes; None takes that of the coefficient. Where float16 is larger, up to four
            convolutions are stored in 8 bits, the largest first.

    Raises:
        HnxError: a value is out of range (exit code 2).
    """

    weights: Path
    name: str
    size: tuple[int, int]
    summary: str
    licence: str = "MIT"
    frames: tuple[Path, ...] = ()
    max_frames: int = 16
    tolerance: float = 1e-2
    limit: float | None = None

    def __post_init__(self) -> None:
        check_size(*self.size)
        if self.name == registry.UPSTREAM.name or not registry.NAME.fullmatch(self.name):
            raise HnxError(
                f"{self.name!r} cannot be the name of shipped weights",
                why="names consist of small letters, digits, dots and dashes, and one is upstream's",
                fix="for example c0-384x256-hardswish",
                code=ExitCode.USAGE,
            )
        if not self.summary.strip() or not self.licence.strip():
            raise HnxError(
                "Shipped weights need a summary and a licence", fix="--summary TEXT --licence MIT", code=ExitCode.USAGE
            )
        if not 0 < self.tolerance < 1 or self.max_frames < 1 or (self.limit is not None and self.limit <= 0):
            raise HnxError("A tolerance, a limit or a number of frames is out of range", code=ExitCode.USAGE)


@dataclass(frozen=True)
class PackResult:
    """What `pack` has written.

    Attributes:
        entry: as it stands in the list.
        path: the file.
        worst: output to its largest relative L2 difference over the frames.
        agreement: share of pixels with the same segmentation class, least over the frames.
        frames: compared.
        kept: tensors that stay float32.
        vanished: values that became 0.
        eighths: tensors that are stored in 8 bits.
    """

    entry: WeightsEntry
    path: Path
    worst: dict[str, float]
    agreement: float
    frames: int
    kept: list[str]
    vanished: int
    eighths: list[str]


def pack(config: PackConfig, on_step: Callable[[str], None] = lambda _: None) -> PackResult:
    """Write the file and its entry; an entry of that name is replaced, and its file removed last.

    Raises:
        HnxError: the checkpoint or a picture cannot be used, the result is too large or too far from the float32
            network (exit code 3), or it cannot be written. Then nothing has changed.
    """
    from hybridnets.checkpoint import build_model, load_checkpoint, save_safetensors
    from hybridnets.network.compact import compact_state

    on_step(f"reading {config.weights}")
    checkpoint = load_checkpoint(config.weights)
    _check_metadata(config.weights, checkpoint.metadata)
    model = build_model(checkpoint)
    older = registry.shipped()
    with tempfile.TemporaryDirectory(prefix="hnx-pack-") as folder:
        draft = Path(folder) / "weights.safetensors"
        limit = LIMITS.get(model.config.compound_coef, math.inf) if config.limit is None else config.limit
        for eighths in range(_MOST_EIGHTHS + 1):
            save_safetensors(draft, model, checkpoint.metadata, compact=True, eighths=eighths)
            if draft.stat().st_size <= limit:
                break
        data, digest = draft.read_bytes(), sha256_file(draft)
        _check_bytes(config.name, len(data), limit)
        compact = compact_state(model.state_dict(), model.config, eighths=eighths)
        worst, agreement, frames = _compare(
            config, checkpoint.metadata, model, build_model(load_checkpoint(draft)), on_step
        )
    _check_difference(config, worst)
    entry = WeightsEntry(
        name=config.name,
        compound_coef=model.config.compound_coef,
        size=config.size,
        activation=model.config.activation,
        classes=tuple(checkpoint.metadata["classes"]),
        seg_classes=tuple(checkpoint.metadata["seg_classes"]),
        licence=config.licence,
        summary=config.summary,
        # the digest is in the name, so the list names no file of other content, whenever this is stopped
        file=f"{config.name}-{digest[:8]}.safetensors",
        bytes=len(data),
        sha256=digest,
    )
    write_bytes(registry.FILES / entry.file, data)
    _write_list([entry if found.name == entry.name else found for found in older], entry)
    return PackResult(
        entry, registry.FILES / entry.file, worst, agreement, frames, compact.kept, compact.vanished, compact.eighths
    )


def remove(name: str) -> None:
    """Take shipped weights out of the list, and remove their file.

    Raises:
        HnxError: there are none of that name, or the list cannot be written.
    """
    older = registry.shipped()
    if name not in {entry.name for entry in older}:
        known = [entry.name for entry in older]
        raise HnxError(f"No weights {name!r} are shipped", why=did_you_mean(name, known), code=ExitCode.USAGE)
    _write_list([entry for entry in older if entry.name != name])


def _write_list(found: list[WeightsEntry], new: WeightsEntry | None = None) -> None:
    """The list, and then no file that it does not name."""
    if new is not None and new not in found:
        found = [*found, new]
    values = {"schema_version": registry.SCHEMA_VERSION, "weights": [entry.to_json() for entry in found]}
    write_json(registry.FILES / registry.INDEX, values)
    named = {entry.file for entry in found}
    for path in registry.FILES.glob("*.safetensors"):
        if path.name not in named:
            path.unlink()


def _check_metadata(path: Path, metadata: dict[str, Any]) -> None:
    missing = [key for key in ("classes", "seg_classes", "anchors", "mean", "std") if key not in metadata]
    if missing:
        raise HnxError(
            f"Cannot ship {path}",
            why=f"its metadata lack {', '.join(missing)}: nobody could use it without a project file",
            fix="take the best.safetensors of a training run",
        )


def _check_bytes(name: str, size: int, limit: float) -> None:
    if size > limit:
        raise HnxError(
            f"{name} would be {size / MB:.2f} MB",
            why=f"at most {limit / MB:.2f} MB are to be shipped",
            fix="a network of coefficient 0 or 3 without timm backbone fits",
            code=ExitCode.GATE_FAILED,
        )


def _check_difference(config: PackConfig, worst: dict[str, float]) -> None:
    above = {name: value for name, value in worst.items() if not value <= config.tolerance}
    if above:
        raise HnxError(
            f"{config.name} does not compute in float16 what it computes in float32",
            why=", ".join(f"{name} differs by {value:.1e} relative L2" for name, value in above.items())
            + f"; accepted is {config.tolerance:.1e}",
            fix="ship another checkpoint; --tolerance where you know why",
            code=ExitCode.GATE_FAILED,
        )


def _frames(config: PackConfig) -> Iterator[NDArray[np.uint8]]:
    if not config.frames:
        yield read_demo_frame()
        return
    for path in config.frames:
        with open_source(path) as source:
            for frame in source:
                yield frame.image


def _compare(
    config: PackConfig,
    metadata: dict[str, Any],
    model: HybridNets,
    packed: HybridNets,
    on_step: Callable[[str], None],
) -> tuple[dict[str, float], float, int]:
    """Largest relative L2 difference of each output, least share of equal segmentation pixels, number of frames."""
    import torch

    width, height = config.size
    preprocess = Preprocessor((height, width), metadata["mean"], metadata["std"])
    worst, agreement, count = dict.fromkeys(OUTPUTS, 0.0), 1.0, 0
    for frame in itertools.islice(_frames(config), config.max_frames):
        count += 1
        on_step(f"comparing picture {count}")
        tensor = torch.from_numpy(preprocess(frame)[0])
        with torch.inference_mode():
            reference, found = (
                {name: value.numpy() for name, value in zip(OUTPUTS, network(tensor), strict=True)}
                for network in (model, packed)
            )
        for name in OUTPUTS:
            worst[name] = max(worst[name], difference(found[name], reference[name]).rel_l2)
        same = _classes(found["segmentation"], model.config.seg_mode) == _classes(
            reference["segmentation"], model.config.seg_mode
        )
        agreement = min(agreement, float(same.mean()))
    if not count:
        raise HnxError("There is no picture to compare on", fix="name pictures with --frames", code=ExitCode.USAGE)
    return worst, agreement, count


def _classes(logits: NDArray[np.float32], mode: str) -> NDArray[Any]:
    return logits.argmax(1) if mode == "multiclass" else logits > 0


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="What -w will take, such as c0-384x256.")
@click.option("--size", required=True, metavar="WxH", help="What it was trained on.")
@click.option("--summary", required=True, help="One sentence of what it is.")
@click.option("--licence", default="MIT", show_default=True, help="It is given under.")
@click.option("--frames", multiple=True, type=click.Path(path_type=Path), help="Pictures or folders to compare on.")
@click.option("--max-frames", default=16, show_default=True, type=int, help="At most so many.")
@click.option("--tolerance", default=1e-2, show_default=True, type=float, help="Largest relative L2 difference.")
@click.option("--limit-mb", type=float, help="Largest file.  [default: 9 for coefficient 0, 28 for 3]")
def command(
    weights: Path,
    name: str,
    size: str,
    summary: str,
    licence: str,
    frames: tuple[Path, ...],
    max_frames: int,
    tolerance: float,
    limit_mb: float | None,
) -> None:
    """Make the float32 checkpoint WEIGHTS ship with the package, as float16."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)
    if match is None:
        raise click.UsageError(f"{size!r} is not a size such as 384x256")
    config = PackConfig(
        weights,
        name,
        (int(match[1]), int(match[2])),
        summary,
        licence,
        frames,
        max_frames,
        tolerance,
        None if limit_mb is None else limit_mb * MB,
    )
    result = pack(config, lambda text: print(text, file=sys.stderr))
    print(f"{result.path}  {len(result.path.read_bytes()) / MB:.2f} MB  sha256 {result.entry.sha256}")
    for output, value in result.worst.items():
        print(f"{output:15} relative L2 to float32 {value:.2e}, worst of {result.frames} picture(s)")
    print(f"pixels of the same class at least {result.agreement:.4%}; {result.vanished} values became 0")
    if result.eighths:
        print(f"stored in 8 bits: {', '.join(result.eighths)}")
    if result.kept:
        print(f"kept as float32: {', '.join(result.kept)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    try:
        command.main(args=arguments, prog_name="python -m tools.pack_weights", standalone_mode=False)
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
