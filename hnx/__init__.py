"""hnx: the edge-deployment compiler and benchmarking toolkit for HybridNets.

>>> import hnx                                                        # doctest: +SKIP
>>> model = hnx.load("exports/hybridnets_c3_384x640", "openvino")    # doctest: +SKIP
>>> result = model(cv2.imread("road.jpg"))                            # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybridnets.version import __version__

__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from runtimes.predictor import load


def __getattr__(name: str) -> Any:
    # numpy and OpenCV take 0.2 s to import: `hnx --help` must not pay for them.
    if name == "load":
        from runtimes.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
