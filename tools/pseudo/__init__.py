"""Labels by a teacher: frames without labels, and a trained network that knows the road, to a data set."""

from tools.pseudo.config import PseudoConfig
from tools.pseudo.pipeline import PseudoProgress, PseudoReport, label_frames
from tools.pseudo.teacher import OnnxTeacher, PseudoLabels, Teacher

__all__ = [
    "OnnxTeacher",
    "PseudoConfig",
    "PseudoLabels",
    "PseudoProgress",
    "PseudoReport",
    "Teacher",
    "label_frames",
]
