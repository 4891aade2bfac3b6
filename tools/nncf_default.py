"""INT8 by NNCF's default settings, to be compared with ours: `python tools/nncf_default.py BUNDLE FRAMES OUT.xml`.

Nothing of hnx needs it. NNCF lives in an environment of its own: `pip install nncf openvino opencv-python-headless`
beside what a device needs. `python -m benchmarks.int8 table BUNDLE --nncf OUT.xml` puts the result beside ours.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from an environment without hnx

from hybridnets.bundle import Bundle, open_bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.sources import open_source

__all__ = ["main", "quantise", "tensors"]


def tensors(bundle: Bundle, frames: Path, count: int) -> Iterator[NDArray[np.float32]]:
    """Inputs of the network, preprocessed as for inference.

    Args:
        frames: picture, folder, pattern or video.
        count: at most.
    """
    preprocess = bundle.preprocessor()
    with open_source(frames) as source:
        for frame in itertools.islice(source, count):
            yield preprocess(frame.image)[0].copy()


def quantise(bundle: Bundle, items: list[NDArray[np.float32]]) -> Any:
    """The float network of a bundle after `nncf.quantize` with nothing but a data set.

    Raises:
        HnxError: NNCF or OpenVINO is not installed (exit code 4), or there is no frame.
    """
    try:
        import nncf
        import openvino as ov
    except ImportError as error:
        raise HnxError(
            "NNCF cannot be imported", why=str(error), fix="pip install nncf openvino", code=ExitCode.NOTHING_RAN
        ) from error
    if not items:
        raise HnxError("There is no frame to calibrate on", fix="name a folder of pictures or a video")
    model = ov.convert_model(str(bundle.file(bundle.variant("fp32", "openvino").file)))
    return nncf.quantize(model, nncf.Dataset(items), subset_size=len(items))


def main(arguments: list[str] | None = None) -> int:
    """Quantise and write OpenVINO IR; the path ends in .xml, weights lie beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="exported with --rewrite none for a stock network")
    parser.add_argument("frames", type=Path, help="picture, folder or video to calibrate on")
    parser.add_argument("output", type=Path, help="for example stock-nncf.xml")
    parser.add_argument("--count", type=int, default=300, help="frames at most (NNCF's own default: 300)")
    options = parser.parse_args(arguments)
    if options.output.suffix != ".xml" or options.count < 1:
        parser.error("the output ends in .xml, and --count counts from 1")
    try:
        bundle = open_bundle(options.bundle)
        items = list(tensors(bundle, options.frames, options.count))
        model = quantise(bundle, items)
        import openvino as ov

        options.output.parent.mkdir(parents=True, exist_ok=True)
        ov.save_model(model, options.output, compress_to_fp16=False)
    except HnxError as error:
        print(error, file=sys.stderr)
        return int(error.code)
    print(f"{options.output}: NNCF's default INT8 of {bundle.name}, calibrated on {len(items)} frames")
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
