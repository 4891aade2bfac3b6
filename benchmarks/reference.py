"""Upstream's steps around the network, written straightforwardly: what our own are measured against.

No step is made slower than upstream's, and none faster than its plain form: the whole input is converted before it is
resized, every anchor is decoded before the scores are looked at, masks are blended through boolean indices. Where
torch is installed, tensors are made and decoded with it, as upstream does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hybridnets.bundle import Bundle
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import IMAGENET_MEAN, IMAGENET_STD, PAD_VALUE, Letterbox

__all__ = [
    "UpstreamPipeline",
    "draw",
    "has_torch",
    "letterbox",
    "postprocess",
    "preprocess",
    "preprocess_numpy",
    "preprocess_torch",
]

Array = NDArray[Any]
SEG_COLOURS = ((0, 255, 0), (255, 0, 0))


def has_torch() -> bool:
    """The torch variants can run; nothing is imported to find out."""
    return importlib.util.find_spec("torch") is not None


# -- before the network --------------------------------------------------------------------------------------


def letterbox(frame: NDArray[np.uint8], target: tuple[int, int]) -> NDArray[np.uint8]:
    """BGR frame to RGB (H, W, 3) uint8: longer side resized with INTER_AREA, then fitted and padded with 114.

    Args:
        target: (height, width) of the network's input.
    """
    image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    rows, columns = image.shape[:2]
    ratio = max(target) / max(rows, columns)
    if ratio != 1:
        size = (max(1, int(columns * ratio)), max(1, int(rows * ratio)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)
    box = Letterbox.fit((rows, columns), target)
    height, width = box.content
    if image.shape[:2] != box.content:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    bottom, right = target[0] - height - box.top, target[1] - width - box.left
    return np.asarray(
        cv2.copyMakeBorder(
            image, box.top, bottom, box.left, right, cv2.BORDER_CONSTANT, value=(PAD_VALUE, PAD_VALUE, PAD_VALUE)
        ),
        np.uint8,
    )


def preprocess_numpy(frame: NDArray[np.uint8], target: tuple[int, int]) -> NDArray[np.float32]:
    """Network input (1, 3, H, W) float32, normalised with whole-array numpy arithmetic."""
    image = letterbox(frame, target).astype(np.float32) / np.float32(255)
    image = (image - np.asarray(IMAGENET_MEAN, np.float32)) / np.asarray(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(image.transpose(2, 0, 1))[None]


def preprocess_torch(frame: NDArray[np.uint8], target: tuple[int, int]) -> NDArray[np.float32]:
    """The same through torch tensors: channels first, then to [0, 1], then normalised."""
    import torch

    image = torch.from_numpy(letterbox(frame, target)).permute(2, 0, 1).contiguous()
    tensor = image.to(torch.float32).div(255)
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    result: NDArray[np.float32] = tensor.sub_(mean).div_(std).unsqueeze(0).numpy()
    return result


def preprocess(frame: NDArray[np.uint8], target: tuple[int, int]) -> NDArray[np.float32]:
    """The variant that upstream runs: torch's where torch is installed."""
    return preprocess_torch(frame, target) if has_torch() else preprocess_numpy(frame, target)


# -- after it ------------------------------------------------------------------------------------------------


def _boxes_numpy(regression: Array, anchors: Array, target: tuple[int, int]) -> Array:
    """All rows, (A, 4) x1, y1, x2, y2 in input pixels, clipped half-open."""
    height, width = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    centre_y = regression[:, 0] * height + (anchors[:, 0] + anchors[:, 2]) / 2
    centre_x = regression[:, 1] * width + (anchors[:, 1] + anchors[:, 3]) / 2
    half_h, half_w = np.exp(regression[:, 2]) * height / 2, np.exp(regression[:, 3]) * width / 2
    boxes = np.stack([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h], axis=1)
    boxes[:, :2] = np.maximum(boxes[:, :2], 0)
    boxes[:, 2] = np.minimum(boxes[:, 2], target[1] - 1)
    boxes[:, 3] = np.minimum(boxes[:, 3], target[0] - 1)
    return boxes


def _boxes_torch(regression: Array, anchors: Array, target: tuple[int, int]) -> Array:
    import torch

    with torch.inference_mode():
        offsets, prior = torch.from_numpy(regression), torch.from_numpy(anchors)
        height, width = prior[:, 2] - prior[:, 0], prior[:, 3] - prior[:, 1]
        centre_y = offsets[:, 0] * height + (prior[:, 0] + prior[:, 2]) / 2
        centre_x = offsets[:, 1] * width + (prior[:, 1] + prior[:, 3]) / 2
        half_h, half_w = offsets[:, 2].exp() * height / 2, offsets[:, 3].exp() * width / 2
        boxes = torch.stack([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h], dim=1)
        boxes[:, :2].clamp_(min=0)
        boxes[:, 2].clamp_(max=target[1] - 1)
        boxes[:, 3].clamp_(max=target[0] - 1)
        return np.asarray(boxes.numpy())


def _argmax_torch(logits: Array) -> Array:
    import torch

    return np.asarray(torch.from_numpy(logits).max(dim=0).indices.numpy())


def postprocess(
    outputs: Mapping[str, NDArray[np.float32]],
    anchors: NDArray[np.float32],
    box: Letterbox,
    *,
    conf: float = 0.25,
    iou: float = 0.3,
    torch: bool | None = None,
) -> Prediction:
    """Boxes and class map of one frame, in its pixels.

    Args:
        outputs: regression (1, A, 4), classification (1, A, classes), segmentation (1, C, H, W).
        anchors: (1, A, 4) y1, x1, y2, x2.
        box: geometry between frame and input.
        torch: with tensors, as upstream; None where torch is installed.
    """
    tensors = has_torch() if torch is None else torch
    decode: Callable[..., Array] = _boxes_torch if tensors else _boxes_numpy
    boxes = decode(outputs["regression"].reshape(-1, 4), anchors.reshape(-1, 4), box.target)
    scores = outputs["classification"].reshape(len(boxes), -1)
    best, classes = scores.max(axis=1), scores.argmax(axis=1)
    chosen = best > np.float32(conf)
    boxes, best, classes = boxes[chosen], best[chosen], classes[chosen]
    detections = _suppress(boxes, best, classes, iou)
    detections = Detections(_to_frame(detections.boxes, box), detections.scores, detections.classes)

    logits = outputs["segmentation"]
    logits = logits.reshape(logits.shape[-3:])
    labels = _argmax_torch(logits) if tensors else logits.argmax(axis=0)
    mask = np.ascontiguousarray(box.crop(labels).astype(np.uint8))
    mask = np.asarray(cv2.resize(mask, (box.frame[1], box.frame[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
    return Prediction(detections, mask, box)


def _suppress(boxes: Array, scores: Array, classes: Array, iou: float) -> Detections:
    """Class by class; best score first. What the clipping left without an extent overlaps nothing and stays."""
    if not len(boxes):
        return Detections.empty()
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    kept: list[int] = np.flatnonzero(~real).tolist()
    for index in np.unique(classes[real]):
        rows = np.flatnonzero(real & (classes == index))
        sizes = boxes[rows, 2:].astype(np.float64) - boxes[rows, :2].astype(np.float64)
        rectangles = np.concatenate([boxes[rows, :2].astype(np.float64), sizes], axis=1)
        result = cv2.dnn.NMSBoxes(rectangles.tolist(), scores[rows].tolist(), 0.0, iou)
        kept.extend(rows[np.asarray(result, np.int64).ravel()].tolist())
    order = np.asarray(sorted(kept, key=lambda row: (-scores[row], row)), np.int64)
    return Detections(boxes[order].astype(np.float32), scores[order], classes[order])


def _to_frame(boxes: NDArray[np.float32], box: Letterbox) -> NDArray[np.float32]:
    gain_y, gain_x = box.gain
    moved = boxes.copy()
    moved[:, [0, 2]] = ((moved[:, [0, 2]] - box.left) / gain_x).clip(0, box.frame[1])
    moved[:, [1, 3]] = ((moved[:, [1, 3]] - box.top) / gain_y).clip(0, box.frame[0])
    return moved


# -- with the network ----------------------------------------------------------------------------------------


class UpstreamPipeline:
    """All of upstream's steps in a row, the network in PyTorch's eager mode and float32, in three stages.

    Args:
        bundle: holds the weights; with both heads, multiclass segmentation and upstream's normalisation.

    Raises:
        HnxError: it is another one, or torch is not installed (exit code 4).
    """

    def __init__(self, bundle: Bundle) -> None:
        if problem := _unlike_upstream(bundle):
            raise HnxError(
                f"Upstream's pipeline cannot be made of bundle {bundle.name}",
                why=problem,
                fix="name a bundle of both heads with its weights first",
            )
        if not has_torch():
            raise HnxError(
                "Upstream's pipeline runs in PyTorch",
                why="torch is not installed",
                fix='pip install -e ".[torch]"',
                code=ExitCode.NOTHING_RAN,
            )
        from hybridnets.checkpoint import build_model, load_checkpoint

        assert bundle.weights is not None
        assert bundle.model is not None
        self._model = build_model(load_checkpoint(bundle.file(bundle.weights)), bundle.model).eval()
        anchors = bundle.anchors()
        assert anchors is not None
        self._anchors, self._target = anchors, bundle.target

    def preprocess(self, frame: NDArray[Any], /) -> tuple[NDArray[np.float32], Letterbox]:
        """float32 (1, 3, H, W)."""
        box = Letterbox.fit((frame.shape[0], frame.shape[1]), self._target)
        return preprocess(frame, self._target), box

    def network(self, tensor: NDArray[np.float32], /) -> dict[str, NDArray[np.float32]]:
        """Raw outputs by role."""
        import torch

        with torch.no_grad():
            return {name: value.numpy() for name, value in self._model(torch.from_numpy(tensor))._asdict().items()}

    def postprocess(self, outputs: dict[str, NDArray[Any]], box: Letterbox, /) -> Prediction:
        """Boxes and masks at frame size."""
        return postprocess(outputs, self._anchors, box)


def _unlike_upstream(bundle: Bundle) -> str:
    """Why upstream's scripts would not run this network, or ""."""
    if bundle.weights is None or bundle.model is None:
        return "it holds no weights.safetensors"
    if not (bundle.detects and bundle.segments):
        return "it has one head only"
    if bundle.seg_mode != "multiclass":
        return f"its segmentation is {bundle.seg_mode}"
    if (bundle.mean, bundle.std) != (IMAGENET_MEAN, IMAGENET_STD):
        return "its mean and std are not ImageNet's"
    return ""


# -- the picture ---------------------------------------------------------------------------------------------


def draw(frame: NDArray[np.uint8], prediction: Prediction, classes: Sequence[str]) -> NDArray[np.uint8]:
    """A copy of the frame with its masks blended half and half, and labelled rectangles.

    A colour image of the masks is painted first, and all pixels in which it is not black are mixed.
    """
    picture = frame.copy()
    mask = prediction.segmentation
    if mask is not None:
        colours = np.zeros_like(frame)
        for index, colour in enumerate(SEG_COLOURS, 1):
            colours[mask == index] = colour
        painted = colours.mean(axis=2) != 0
        picture[painted] = (picture[painted] * 0.5 + colours[painted] * 0.5).astype(np.uint8)
    thickness = max(1, round(0.002 * sum(frame.shape[:2]) / 2) + 1)
    found = prediction.detections
    for box, score, label in zip(found.boxes.astype(int).tolist(), found.scores, found.classes, strict=True):
        x1, y1, x2, y2 = box
        cv2.rectangle(picture, (x1, y1), (x2, y2), (0, 200, 255), thickness, cv2.LINE_AA)
        text = f"{classes[label]} {score:.2f}"
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, thickness / 3, max(1, thickness - 1))
        cv2.rectangle(picture, (x1, y1), (x1 + width, y1 - height - 3), (0, 200, 255), -1, cv2.LINE_AA)
        cv2.putText(picture, text, (x1, y1 - 2), cv2.FONT_HERSHEY_SIMPLEX, thickness / 3, (20, 20, 20), 1, cv2.LINE_AA)
    return picture
