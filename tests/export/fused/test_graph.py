"""Every form of the graph against the same steps outside of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from benchmarks.agreement import match_boxes
from hybridnets.anchors import make_anchors
from hybridnets.bundle import UNFUSED, GraphForm, NmsForm, open_bundle
from hybridnets.config import SegMode
from hybridnets.data import read_demo_frame
from hybridnets.errors import HnxError
from hybridnets.fused import apply_form, decoded
from hybridnets.postprocess import Postprocessor, Prediction, class_map
from hybridnets.preprocess import Preprocessor
from runtimes.base import RuntimeOptions
from runtimes.opening import open_runtime
from runtimes.predictor import Predictor
from runtimes.registry import entry, probe
from tests.fused import FORMS, MEAN, SIZE, STD, fused, lively_bundle, name_of, toy

TARGET = (SIZE[1], SIZE[0])


def run(model: onnx.ModelProto, given: NDArray) -> dict[str, NDArray]:
    """Outputs by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": given}), strict=True))


def canvas(seed: int = 0, batch: int = 1) -> NDArray[np.uint8]:
    """Letterboxed pictures, (N, H, W, 3) BGR."""
    return np.random.default_rng(seed).integers(0, 256, (batch, *TARGET, 3), np.uint8)


def normalised(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the plain graph gets of them."""
    preprocess = Preprocessor(TARGET, MEAN, STD)
    return np.concatenate([preprocess.normalise(picture).copy() for picture in pictures])


# -- on real frames, the whole network --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(road_image: Path) -> list[NDArray[np.uint8]]:
    """A 16:9 frame, one with borders above and below of which the mask needs another part, and a tall one."""
    frame = read_demo_frame()
    second = cv2.imread(str(Path(__file__).parents[2] / "data/frames/solidWhiteCurve.jpg"))
    return [frame, second, np.ascontiguousarray(frame[:, 400:800])]


def predictions(runtime: str, folder: Path, frames: list[NDArray[np.uint8]]) -> list[Prediction]:
    """As users get them."""
    with Predictor(open_runtime(runtime, open_bundle(folder), RuntimeOptions(threads=1))) as predictor:
        return [predictor(frame) for frame in frames]


@pytest.fixture(scope="module")
def unfused(
    bundle_path: Path, tmp_path_factory: pytest.TempPathFactory, frames: list[NDArray[np.uint8]]
) -> list[Prediction]:
    """Boxes and masks of the plain graph."""
    folder = tmp_path_factory.mktemp("plain") / "bundle"
    lively_bundle(folder, UNFUSED, bundle_path)
    found = predictions("onnxruntime", folder, frames)
    assert all(len(item.detections) > 20 for item in found)
    assert all(len(np.unique(item.segmentation)) == 3 for item in found)
    return found


def assert_same(found: list[Prediction], expected: list[Prediction]) -> None:
    """Same boxes, and the same mask but for ties."""
    for a, b in zip(found, expected, strict=True):
        assert len(a.detections) == len(b.detections)
        assert match_boxes(b.detections, a.detections, 0.99) == len(b.detections)
        assert np.abs(np.sort(a.detections.scores) - np.sort(b.detections.scores)).max() < 1e-4
        assert (np.diff(a.detections.scores) <= 0).all()
        assert a.segmentation is not None
        assert b.segmentation is not None
        assert np.count_nonzero(a.segmentation != b.segmentation) <= 1e-4 * a.segmentation.size


@pytest.mark.parametrize("form", FORMS, ids=name_of)
def test_every_combination_gives_the_same_boxes_and_masks(
    form: GraphForm, bundle_path: Path, tmp_path: Path, frames: list[NDArray[np.uint8]], unfused: list[Prediction]
) -> None:
    lively_bundle(tmp_path / "bundle", form, bundle_path)
    assert_same(predictions("onnxruntime", tmp_path / "bundle", frames), unfused)


# every pair of an input, a map and boxes among them; `slow` has the rest
PAIRS = [form for index, form in enumerate(FORMS) if index // 9 == (index // 3 % 3 + index % 3) % 2]
OTHERS = {"openvino": PAIRS, "opencv-dnn": PAIRS[1::3], "torch": PAIRS[2::3]}


@pytest.mark.parametrize(
    ("runtime", "form"),
    [
        pytest.param(
            runtime,
            form,
            id=f"{runtime}-{name_of(form)}",
            marks=() if form in quick else pytest.mark.slow,
        )
        for runtime, quick in OTHERS.items()
        for form in FORMS
    ],
)
def test_other_runtimes_give_them_too(
    runtime: str,
    form: GraphForm,
    bundle_path: Path,
    tmp_path: Path,
    frames: list[NDArray[np.uint8]],
    unfused: list[Prediction],
) -> None:
    lively_bundle(tmp_path / "bundle", form, bundle_path)
    assert_same(predictions(runtime, tmp_path / "bundle", frames), unfused)


def test_half_precision_ends_where_the_pipeline_begins(
    bundle_path: Path, tmp_path: Path, frames: list[NDArray[np.uint8]]
) -> None:
    # 8 bits of mantissa are 2 pixels of 400: boxes decoded in bf16 would differ by more than the network's own rounding
    if "bf16" not in probe(entry("openvino")).runnable():
        pytest.skip("this CPU has no bf16")
    options = RuntimeOptions("bf16", threads=1)
    form = GraphForm(detection="decoded")
    plain = lively_bundle(tmp_path / "plain", UNFUSED, bundle_path)
    inside = lively_bundle(tmp_path / "inside", form, bundle_path)
    anchors = plain.anchors()
    assert anchors is not None
    tensor = plain.preprocessor()(frames[0])[0]
    with open_runtime("openvino", plain, options) as first, open_runtime("openvino", inside, options) as second:
        raw, found = first.infer({"input": tensor}), second.infer({"input": tensor})
        expected = decoded(raw["regression"], anchors, TARGET)
        assert np.abs(found["boxes"] - expected).max() < 1e-3 * np.abs(expected).max()
        assert np.abs(found["boxes"] - expected).max() < 0.05


# -- the steps one by one, on a toy -----------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 20])
@pytest.mark.parametrize(("mode", "channels"), [("multiclass", 3), ("multiclass", 7), ("binary", 1), ("multilabel", 4)])
def test_class_maps(mode: SegMode, channels: int, opset: int) -> None:
    made = fused(toy(channels=channels, opset=opset), GraphForm(segmentation="classmap"), mode)
    found = run(made.tapped, normalised(canvas()))
    expected = apply_form(
        {"segmentation": found["segmentation_logits"]},
        GraphForm(segmentation="classmap"),
        anchors=None,
        target=TARGET,
        seg_mode=mode,
    )["segmentation"]
    assert found["segmentation"].dtype == np.uint8
    assert np.array_equal(found["segmentation"], expected)
    assert len(np.unique(expected)) == (channels if mode == "multiclass" else 2)
    assert [output.name for output in made.model.graph.output] == ["regression", "classification", "segmentation"]


@pytest.mark.parametrize("opset", [11, 13, 18, 20])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize(
    "settings", [NmsForm(), NmsForm(0.0, 0.5, 3840, 600), NmsForm(0.5, 0.0), NmsForm(0.25, 0.3, 64, 5)]
)
def test_suppression_is_the_one_outside(settings: NmsForm, classes: int, opset: int) -> None:
    form = GraphForm(detection="nms", nms=settings)
    made = fused(toy(classes=classes, opset=opset), form)
    found = run(made.tapped, normalised(canvas()))
    expected = apply_form(found, form, anchors=make_anchors(*SIZE), target=TARGET, seg_mode="multiclass")["detections"]
    rows = found["detections"]
    assert rows.shape == expected.shape == (1, settings.boxes, 6)
    assert np.array_equal(rows[0, :, 4], expected[0, :, 4])
    count = int((expected[0, :, 4] > 0).sum())
    assert count >= min(settings.boxes, 15)
    order = [np.lexsort((*array[0, :count, :4].T.round(1), array[0, :count, 4])) for array in (rows, expected)]
    a, b = (array[0, index] for array, index in zip((rows, expected), order, strict=True))
    assert np.allclose(a[:, :4], b[:, :4], atol=1e-3)
    assert np.array_equal(a[:, 5], b[:, 5])
    assert not rows[0, count:].any()


def test_suppressed_boxes_are_those_of_the_postprocessor() -> None:
    raw = run(toy(classes=3), normalised(canvas()))
    form = GraphForm(detection="nms", nms=NmsForm())
    rows = run(fused(toy(classes=3), form).model, normalised(canvas()))["detections"]
    outside = Postprocessor(make_anchors(*SIZE), TARGET).boxes(raw)
    inside = Postprocessor(None, TARGET, form=form).boxes({"detections": rows})
    assert len(inside) == len(outside) > 20
    assert match_boxes(outside, inside, 0.99) == len(outside)


def test_boxes_of_negative_size_suppress_nothing() -> None:
    # most of them lie beyond the right edge: clipped there, they have a negative width
    model = toy()
    for tensor in model.graph.initializer:
        if tensor.name == "offsets":
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[..., 1] += 12
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    form = GraphForm(detection="nms", nms=NmsForm())
    found = run(fused(model, form).tapped, normalised(canvas()))
    outside = Postprocessor(make_anchors(*SIZE), TARGET).boxes(found)
    inside = Postprocessor(None, TARGET, form=form).boxes(found | {"regression": None})
    negative = outside.boxes[:, 2] <= outside.boxes[:, 0]
    assert 50 < np.count_nonzero(negative) < len(outside)
    assert len(inside) == len(outside)
    assert match_boxes(outside, inside, 0.99) == len(outside)


@pytest.mark.parametrize("border", [False, True])
def test_the_canvas_is_normalised_inside(border: bool) -> None:
    model = toy(border=border)
    made = fused(model, GraphForm(input="uint8"))
    pictures = canvas(3)
    a, b = run(made.model, pictures)["segmentation"], run(model, normalised(pictures))["segmentation"]
    assert np.abs(a - b).max() < 2e-5
    kinds = [node.op_type for node in made.model.graph.node]
    assert kinds[:3] == ["Cast", "Transpose", "Sub"]  # the rest went into the weights
    assert "Gather" not in kinds


def test_images_that_several_nodes_read_are_normalised_in_the_graph() -> None:
    model = toy()
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["input"], ["brightness"], "b", axes=[1, 2, 3]))
    model.graph.node.append(onnx.helper.make_node("Add", ["segmentation", "brightness"], ["brighter"], "add"))
    model.graph.output[2].name = "brighter"
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                names[index] = {"segmentation": "inner", "brighter": "segmentation"}.get(name, name)
    model.graph.output[2].name = "segmentation"
    pictures = canvas(4)
    a = run(fused(model, GraphForm(input="uint8")).model, pictures)["segmentation"]
    assert np.abs(a - run(model, normalised(pictures))["segmentation"]).max() < 2e-5


@pytest.mark.parametrize("form", [form for form in FORMS if form.nms is None], ids=name_of)
def test_a_free_batch_stays_free(form: GraphForm) -> None:
    model = toy(batch="batch")
    made = fused(model, form)
    pictures = canvas(5, batch=3)
    given = pictures if form.input == "uint8" else normalised(pictures)
    found, plain = run(made.model, given), run(model, normalised(pictures))
    assert all(len(array) == 3 for array in found.values())
    assert made.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    if form.segmentation == "classmap":
        assert (found["segmentation"] == np.stack([class_map(image) for image in plain["segmentation"]])).mean() > 0.999


def test_what_is_not_needed_is_not_computed() -> None:
    made = fused(toy(), GraphForm(segmentation="lowres", detection="nms", nms=NmsForm()))
    assert "Resize" not in {node.op_type for node in made.model.graph.node}
    assert "Resize" in {node.op_type for node in made.tapped.graph.node}
    assert [output.name for output in made.model.graph.output] == ["detections", "segmentation"]
    assert made.taps == {
        "regression": "regression", "classification": "classification", "segmentation": "segmentation_logits",
    }  # fmt: skip


def test_a_network_that_ends_otherwise_has_no_small_logits() -> None:
    model = toy()
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    resize.attribute[1].s = b"half_pixel"
    with pytest.raises(HnxError, match="does not end with an enlargement") as caught:
        fused(model, GraphForm(segmentation="lowres"))
    assert "--seg logits" in caught.value.fix


def test_not_a_number_makes_no_box_and_no_crash() -> None:
    model = toy()
    for tensor in model.graph.initializer:
        if tensor.name == "scores":
            value = np.full_like(onnx.numpy_helper.to_array(tensor), np.nan)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    form = GraphForm(segmentation="classmap", detection="nms", nms=NmsForm())
    found = run(fused(model, form).model, normalised(canvas()))
    assert len(Postprocessor(None, TARGET, form=form).boxes(found)) == 0
