"""What each JetPack brings, as data, and what follows from it for this project."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JETPACKS", "JetPack", "exact_name", "jetpack_of"]


@dataclass(frozen=True)
class JetPack:
    """One line of releases.

    Attributes:
        name: for people.
        first, last: L4T releases it holds, as (major, minor), both included.
        cuda, tensorrt, python: versions that belong to it.
        opset: largest ONNX opset that its parser takes.
        dla: what its TensorRT does with DLA cores, in words.
        supported: this project can run on its TensorRT.
    """

    name: str
    first: tuple[int, int]
    last: tuple[int, int]
    cuda: str
    tensorrt: str
    python: str
    opset: int
    dla: str
    supported: bool = True


_DLA = "FP16 through hnx build-trt --device dla:0"

# Ordered by release.
JETPACKS: tuple[JetPack, ...] = (
    JetPack("4", (32, 0), (32, 99), "10.2", "7.1 to 8.2", "3.6", 13, "not with this TensorRT", supported=False),
    JetPack("5", (34, 0), (35, 99), "11.4", "8.5", "3.8", 17, _DLA),
    JetPack("6.0", (36, 0), (36, 3), "12.2", "8.6", "3.10", 17, _DLA),
    JetPack("6.1 and later", (36, 4), (36, 99), "12.6", "10.3", "3.10", 20, _DLA),
    JetPack(
        "7", (38, 0), (39, 99), "13.x", "10.13 to 10.16", "3.12", 24,
        "none: TensorRT 10.13 to 10.16 has no DLA on JetPack 7; 11.4.1 has it again on AGX Orin from JetPack 7.2.2 on",
    ),
)  # fmt: skip

# NVIDIA numbers JetPack and L4T apart; what is not listed here is named by its line alone.
_EXACT = {
    "32.6.1": "4.6", "32.7.1": "4.6.1", "32.7.2": "4.6.2", "32.7.3": "4.6.3", "32.7.4": "4.6.4", "32.7.5": "4.6.5",
    "32.7.6": "4.6.6", "34.1.0": "5.0 DP", "34.1.1": "5.0.1 DP", "35.1.0": "5.0.2", "35.2.1": "5.1", "35.3.1": "5.1.1",
    "35.4.1": "5.1.2", "35.5.0": "5.1.3", "35.6.0": "5.1.4", "36.2.0": "6.0 DP", "36.3.0": "6.0", "36.4.0": "6.1",
    "36.4.3": "6.2", "36.4.4": "6.2.1", "36.5.0": "6.2.2", "36.5.2": "6.2.3", "38.2.0": "7.0", "38.2.1": "7.0",
    "38.4.0": "7.1", "39.2.0": "7.2", "39.2.1": "7.2.1",
}  # fmt: skip


def jetpack_of(l4t: str) -> JetPack | None:
    """The line an L4T release such as `36.4.3` belongs to; None for one before or after those known.

    >>> jetpack_of("36.4.3").tensorrt
    '10.3'
    """
    numbers = [int(part) for part in l4t.split(".") if part.isdigit()]
    if len(numbers) < 2:
        return None
    release = (numbers[0], numbers[1])
    return next((row for row in JETPACKS if row.first <= release <= row.last), None)


def exact_name(l4t: str) -> str:
    """JetPack's own number for an L4T release; empty where it is not known.

    >>> exact_name("36.4.3")
    '6.2'
    """
    return _EXACT.get(l4t if l4t.count(".") > 1 else f"{l4t}.0", "")
