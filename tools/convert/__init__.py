"""Official BDD100K downloads of all generations, and boxes in COCO and YOLO form, to upstream's data layout."""

from tools.convert.config import ConvertConfig
from tools.convert.engine import convert
from tools.convert.plan import make_plan

__all__ = ["ConvertConfig", "convert", "make_plan"]
