"""`hnx.load` and what it gives, used as a program uses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hybridnets.errors import ExitCode, HnxError
from hybridnets.sources import read_image
from runtimes.predictor import load


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bundle", None),
        ("bundle", 3),
        ("runtime", None),
        ("precision", None),
        ("threads", "2"),
        ("threads", 2.0),
        ("threads", True),
        ("conf", "a"),
        ("iou", [0.3]),
    ],
)
def test_arguments_of_another_type_are_named(bundle_path: Path, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"bundle": bundle_path, name: value}
    with pytest.raises(HnxError, match=f"{name}=") as caught:
        load(**arguments)
    assert caught.value.code == ExitCode.USAGE
    assert f"type {type(value).__name__}" in caught.value.why


def test_frames_masks_and_closing(bundle_path: Path, road_image: Path) -> None:
    frame = read_image(road_image)
    model = load(str(bundle_path), "onnxruntime", threads=1, conf=1)
    found = model(frame)
    assert found.mask(1).shape == frame.shape[:2]
    with pytest.raises(HnxError, match="no segmentation class 9"):
        found.mask(9)
    with pytest.raises(HnxError, match="the frame is None"):
        model(None)  # type: ignore[arg-type]  # what cv2.imread gives
    model.close()
    for call in (lambda: model(frame), model.pipeline):
        with pytest.raises(HnxError, match="is closed"):
            call()
