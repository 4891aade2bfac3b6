"""Made the files beside it: one invented scene set in the forms of all three generations of BDD100K.

Masks, colour maps and RLEs are drawn by matplotlib and pycocotools as the official tools do, not by the converter, so
that the tests compare two independent drawings. Run it from the root of the repository; needs the extras eval and dev.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from pycocotools import mask as coco

HERE = Path(__file__).parent
H, W = 720, 1280
TO_2020 = {"bike": "bicycle", "motor": "motorcycle", "person": "pedestrian"}
LIGHT_2020 = {"green": "G", "red": "R", "yellow": "Y", "none": "NA"}
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 12, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
LANES = [
    "crosswalk",
    "double other",
    "double white",
    "double yellow",
    "road curb",
    "single other",
    "single white",
    "single yellow",
]
ATTRIBUTES = {"weather": "clear", "scene": "highway", "timeofday": "daytime"}


def scene(name: str, shift: float, *, light: str = "green") -> dict[str, Any]:
    """A road to a vanishing point: ego lane direct, its neighbour alternative, two painted edges each, a curve."""
    s = shift
    boxes = [
        ("car", (520 + s, 380, 610.5 + s, 452.25), {"occluded": False, "truncated": False}),
        ("person", (1100, 350.5, 1131, 470), {"occluded": True, "truncated": False}),
        ("bike", (60, 430, 140, 520.75), {"occluded": False, "truncated": False}),
        ("motor", (200.5, 440, 260, 510), {"occluded": False, "truncated": False}),
        ("truck", (1180 + s, 300, 1280, 480), {"occluded": False, "truncated": True}),
        ("traffic light", (700, 120, 722, 178), {"occluded": False, "truncated": False, "trafficLightColor": light}),
    ]
    areas = [
        (
            "alternative",
            [(760 + s, 400, "L"), (700 + s, 360, "L"), (1270, 640, "L"), (1270, 719, "L"), (1000, 719, "L")],
        ),
        (
            "direct",
            [
                (300, 719, "L"),
                (420 + s, 560, "C"),
                (560 + s, 430, "C"),
                (620 + s, 362, "L"),
                (690 + s, 362, "L"),
                (820, 719, "L"),
            ],
        ),
    ]
    lanes = [
        (
            "single white",
            "parallel",
            "dashed",
            [(300, 719, "L"), (420 + s, 560, "C"), (560 + s, 430, "C"), (620 + s, 362, "L")],
        ),
        (
            "single white",
            "parallel",
            "dashed",
            [(330, 719, "L"), (440 + s, 560, "C"), (570 + s, 430, "C"), (624 + s, 362, "L")],
        ),
        ("double yellow", "parallel", "solid", [(820, 719, "L"), (690 + s, 362, "L")]),
        ("double yellow", "parallel", "solid", [(848, 719, "L"), (694 + s, 362, "L")]),
        ("road curb", "parallel", "solid", [(1270, 650, "L"), (720 + s, 362, "L")]),
        ("crosswalk", "vertical", "solid", [(200, 600, "L"), (900, 610, "L")]),
    ]
    return {"name": name, "boxes": boxes, "areas": areas, "lanes": lanes}


SCENES = {
    "train": [scene("a0000001-00000001", 0), scene("a0000002-00000002", 24, light="none")],
    "val": [scene("b0000001-00000001", -20, light="red"), scene("b0000002-00000002", 10, light="yellow")],
}


def box2d(corners: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))


def v0(item: dict[str, Any]) -> dict[str, Any]:
    objects: list[dict[str, Any]] = []
    for category, corners, attributes in item["boxes"]:
        filled = {"trafficLightColor": "none", **attributes}
        objects.append({"category": category, "id": len(objects), "attributes": filled, "box2d": box2d(corners)})
    for kind, points in item["areas"]:
        name = {"direct": "area/drivable", "alternative": "area/alternative"}[kind]
        objects.append({"category": name, "id": len(objects), "attributes": {}, "poly2d": [list(p) for p in points]})
    for kind, direction, style, points in item["lanes"]:
        attributes = {"direction": direction, "style": style}
        shape = [list(p) for p in points]
        objects.append({"category": f"lane/{kind}", "id": len(objects), "attributes": attributes, "poly2d": shape})
    return {"name": item["name"], "attributes": ATTRIBUTES, "frames": [{"timestamp": 10000, "objects": objects}]}


def poly(points: list[tuple[float, float, str]], closed: bool) -> list[dict[str, Any]]:
    vertices = [[x, y] for x, y, _ in points]
    return [{"vertices": vertices, "types": "".join(t for _, _, t in points), "closed": closed}]


def v1(item: dict[str, Any]) -> dict[str, Any]:
    labels: list[dict[str, Any]] = []

    def add(category: str, attributes: dict[str, Any], **shape: Any) -> None:
        common = {"category": category, "id": len(labels), "manualShape": True, "manualAttributes": True}
        labels.append({**common, "attributes": attributes, **shape})

    for category, corners, attributes in item["boxes"]:
        add(category, {"trafficLightColor": "none", **attributes}, box2d=box2d(corners))
    for kind, points in item["areas"]:
        add("drivable area", {"areaType": kind}, poly2d=poly(points, True))
    for kind, direction, style, points in item["lanes"]:
        attributes = {"laneDirection": direction, "laneStyle": style, "laneTypes": kind}
        add("lane", attributes, poly2d=poly(points, False))
    return {"name": item["name"] + ".jpg", "attributes": ATTRIBUTES, "timestamp": 10000, "labels": labels}


def frame(item: dict[str, Any], labels: list[dict[str, Any]]) -> dict[str, Any]:
    numbered = [{"id": str(i), **label} for i, label in enumerate(labels)]
    return {"name": item["name"] + ".jpg", "attributes": ATTRIBUTES, "timestamp": 10000, "labels": numbered}


def det_20(item: dict[str, Any]) -> dict[str, Any]:
    labels = []
    for category, corners, attributes in item["boxes"]:
        light = LIGHT_2020[attributes.get("trafficLightColor", "none")]
        filled = {**attributes, "trafficLightColor": light}
        labels.append({"category": TO_2020.get(category, category), "attributes": filled, "box2d": box2d(corners)})
    plain = {"occluded": False, "truncated": False, "trafficLightColor": "NA"}
    labels.append({"category": "other vehicle", "attributes": plain, "box2d": box2d((10, 300, 40, 340))})
    return frame(item, labels)


def drivable(item: dict[str, Any]) -> dict[str, Any]:
    return frame(item, [{"category": k, "attributes": {}, "poly2d": poly(p, True)} for k, p in item["areas"]])


def lane(item: dict[str, Any]) -> dict[str, Any]:
    labels = []
    for kind, direction, style, points in item["lanes"]:
        attributes = {"laneDirection": direction, "laneStyle": style, "laneTypes": kind}
        labels.append({"category": kind, "attributes": attributes, "poly2d": poly(points, False)})
    return frame(item, labels)


def canvas() -> Any:
    figure = plt.figure(figsize=(W / 100, H / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_xlim(0, W)
    axes.set_ylim(H, 0)
    return figure, axes


def drawn(points: list[tuple[float, float, str]], *, closed: bool) -> np.ndarray:
    """Pixels of an outline as matplotlib draws it: filled, or a line of width 1 at 100 dpi (3 px)."""
    codes = [{"L": Outline.LINETO, "C": Outline.CURVE4}[t] for _, _, t in points]
    codes[0] = Outline.MOVETO
    vertices = [(x, y) for x, y, _ in points]
    if closed:
        vertices.append(vertices[0])
        codes.append(Outline.LINETO)
    if not closed and len(points) == 4 and any(t == "C" for _, _, t in points):
        codes[1:] = [Outline.CURVE4] * 3
    figure, axes = canvas()
    style = {"facecolor": "black", "edgecolor": "none", "lw": 0} if closed else {"fill": False, "lw": 1}
    axes.add_patch(PathPatch(Outline(vertices, codes), antialiased=False, **style))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0] < 128
    plt.close(figure)
    assert pixels.shape == (H, W)
    return pixels


def write(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, np.ndarray):
        options = [cv2.IMWRITE_PNG_COMPRESSION, 9] if path.suffix == ".png" else JPEG
        cv2.imwrite(str(path), data, options)
    else:
        path.write_text(json.dumps(data, separators=(",", ":")) + "\n")


def picture(item: dict[str, Any]) -> np.ndarray:
    image = np.full((H, W, 3), (190, 150, 110), np.uint8)
    image[350:] = (70, 90, 80)
    for _, points in item["areas"]:
        image[drawn(points, closed=True)] = (95, 95, 95)
    for kind, _, _, points in item["lanes"]:
        image[drawn(points, closed=False)] = (60, 200, 230) if "yellow" in kind else (230, 230, 230)
    for _, corners, _ in item["boxes"]:
        x1, y1, x2, y2 = map(int, corners)
        cv2.rectangle(image, (x1, y1), (x2, y2), (60, 60, 160), -1)
    return image


def main() -> None:
    for split, items in SCENES.items():
        rles = []
        for item in items:
            name = item["name"]
            write(HERE / "images/100k" / split / f"{name}.jpg", picture(item))
            write(HERE / "v0/labels/100k" / split / f"{name}.json", v0(item))
            ids = np.full((H, W), 2, np.uint8)
            for kind, points in item["areas"]:  # alternative first, then direct
                ids[drawn(points, closed=True)] = ("direct", "alternative").index(kind)
            write(HERE / "v2020/labels/drivable/masks" / split / f"{name}.png", ids)
            old = np.array([1, 2, 0], np.uint8)[ids]
            write(HERE / "v1/drivable_maps/labels" / split / f"{name}_drivable_id.png", old)
            labels = []
            for code, kind in enumerate(("direct", "alternative")):
                rle = coco.encode(np.asfortranarray((ids == code).astype(np.uint8)))
                shape = {"counts": rle["counts"].decode(), "size": [H, W]}
                labels.append({"category": kind, "attributes": {}, "rle": shape})
            rles.append(frame(item, labels))
            bits = np.full((H, W), 255, np.uint8)
            for kind, direction, style, points in item["lanes"]:
                code = LANES.index(kind) + 32 * (direction == "vertical") + 16 * (style == "dashed")
                bits[drawn(points, closed=False)] = code
            write(HERE / "v2020/labels/lane/masks" / split / f"{name}.png", bits)
        write(HERE / "v1/labels" / f"bdd100k_labels_images_{split}.json", [v1(item) for item in items])
        write(HERE / "v2020/labels/det_20" / f"det_{split}.json", [det_20(item) for item in reversed(items)])
        write(HERE / "v2020/labels/drivable/rles" / f"drivable_{split}.json", rles)
        polygons = {"frames": [drivable(item) for item in items], "config": {"imageSize": {"width": W, "height": H}}}
        write(HERE / "v2020/labels/drivable/polygons" / f"drivable_{split}.json", polygons)
        write(HERE / "v2020/labels/lane/polygons" / f"lane_{split}.json", [lane(item) for item in items])


if __name__ == "__main__":
    main()
