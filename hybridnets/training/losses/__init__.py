"""What training minimises, equal to upstream's losses to the noise of float32."""

from hybridnets.training.losses.detection import (
    Assignment,
    DetectionLoss,
    assign,
    detection_losses,
)
from hybridnets.training.losses.segmentation import (
    SegmentationLoss,
    focal_loss,
    segmentation_losses,
    tversky_loss,
)
from hybridnets.training.losses.total import HybridLoss, LossParts

__all__ = [
    "Assignment",
    "DetectionLoss",
    "HybridLoss",
    "LossParts",
    "SegmentationLoss",
    "assign",
    "detection_losses",
    "focal_loss",
    "segmentation_losses",
    "tversky_loss",
]
