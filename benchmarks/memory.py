"""Whether one more row fits into this machine's memory: all rows stay loaded until the last has been measured."""

from __future__ import annotations

from hybridnets.bundle import Bundle

__all__ = ["estimate_mb", "shortage"]

# Peaks of a row, measured with OpenVINO, ONNX Runtime, PyTorch and OpenCV: 370 to 515 MB for c3 at 640x384 (a file of
# 51 MB), 146 to 324 MB for c0 at 256x128 (18 MB), 35 to 60 MB more with a second stream there. The estimate below is
# 616 and 367 MB: a fifth and an eighth above the worst row of each.
IMPORTS_MB = 250.0  # PyTorch alone; the others need 55 to 85
COPIES = 3.0  # of the weights: the file as it is read, the parsed graph, the library's own layout
STREAM_MB = 40.0  # frames, masks, buffers and stacks
BYTES_A_PIXEL = 700.0  # activations alive at the same time, of c3: 173 MB between loading and the peak


def estimate_mb(bundle: Bundle, streams: int) -> float:
    """Peak of one row's process in millions of bytes, rather too much than too little."""
    height, width = bundle.target
    return (
        IMPORTS_MB + COPIES * _largest_file(bundle) / 1e6 + streams * (STREAM_MB + BYTES_A_PIXEL * height * width / 1e6)
    )


def _largest_file(bundle: Bundle) -> int:
    sizes = [0]
    for variant in bundle.variants:
        file = bundle.file(variant.file)
        # weights above 2 GB, or on request, lie beside the graph
        parts = (file, file.with_name(f"{file.name}.data"))
        sizes.append(sum(part.stat().st_size for part in parts if part.is_file()))
    return max(sizes)


def shortage(name: str, needed_mb: float, available_mb: float | None) -> dict[str, str] | None:
    """Reason and fix for a row that would not fit; None when it does, or when the system does not tell.

    Without this the kernel would end the largest process when memory is full, which may be somebody else's.

    >>> shortage("torch:fp32", 600.0, 500.0)["reason"]
    'it needs about 600 MB of memory, 500 MB are left'
    """
    if available_mb is None or needed_mb <= available_mb:
        return None
    return {
        "reason": f"it needs about {needed_mb:.0f} MB of memory, {available_mb:.0f} MB are left",
        "fix": f"close other programs, or measure it alone: --runtime {name}",
    }
