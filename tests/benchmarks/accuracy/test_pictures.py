"""Which frames are shown, what their pictures say, and that a folder of pictures is whole or absent."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from benchmarks.accuracy import pictures
from benchmarks.accuracy.choose import FrameFigures, choose, frame_figures
from benchmarks.accuracy.names import safe_name
from benchmarks.accuracy.panels import FALSE, PANEL_WIDTH, label_panel, prediction_panel
from benchmarks.accuracy.pictures import PictureRow, check_folder, write_pictures
from benchmarks.accuracy.records import ImageRecord
from benchmarks.accuracy.sheet import Panel, sheet
from benchmarks.accuracy.shown import Truth, match, pack, truth
from hybridnets.dataset import Sample
from hybridnets.draw import seg_colour
from hybridnets.errors import ExitCode, HnxError
from hybridnets.postprocess import Detections, Prediction
from hybridnets.preprocess import Letterbox
from tests.benchmarks.accuracy.simulated import record_of, scene

SEG = ("road", "lane")
GREY = 100


def record(
    name: str,
    labels: Sequence[int] = (),
    scores: Sequence[float] = (),
    hits: Sequence[int] = (),
    seg: Sequence[Sequence[int]] = ((8, 1, 1, 0), (1, 0, 0, 9), (1, 0, 0, 9)),
) -> ImageRecord:
    """A record with the parts that the pictures read."""
    return ImageRecord(
        name=name,
        input_sha256="",
        labels=np.array(labels, np.uint8),
        scores=np.array(scores, np.float32),
        classes=np.zeros(len(scores), np.uint8),
        hits=np.array(hits, np.uint8),
        seg=np.array(seg, np.int64).reshape(-1, 4),
    )


def figures(name: str, **parts: float) -> FrameFigures:
    return FrameFigures(name, 0, 0, 0, parts)


def detections(boxes: Sequence[Sequence[float]], scores: Sequence[float], classes: Sequence[int]) -> Detections:
    rows = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(rows, np.array(scores, np.float32), np.array(classes, np.int64))


def grey(height: int = 360, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def label(
    boxes: Sequence[Sequence[float]] = (), classes: Sequence[int] | None = None, index: np.ndarray | None = None
) -> Truth:
    rows = np.array(boxes, np.float64).reshape(-1, 4)
    kinds = np.zeros(len(rows), np.int64) if classes is None else np.array(classes, np.int64)
    return Truth(grey(), rows, kinds, index)


def prediction(
    found: Detections | None = None, segmentation: np.ndarray | None = None, size: tuple[int, int] = (360, 640)
) -> Prediction:
    return Prediction(found or Detections.empty(), segmentation, Letterbox.fit(size, (384, 640)))


# -- figures and choice --------------------------------------------------------------------------------------


def test_figures_of_a_frame_by_hand() -> None:
    # three labels; above 0.25 one hit and one false box, exactly 0.25 is not above, 0.1 is below
    seen = record("a", [0, 0, 0], [0.9, 0.6, 0.25, 0.1], [7, 0, 10, 10], [[5, 5, 5, 5], [3, 1, 2, 4], [0, 0, 0, 9]])
    result = frame_figures(seen, boxes=True, seg_classes=SEG)
    assert (result.found, result.missed, result.false) == (1, 2, 1)
    assert result.parts == pytest.approx({"F1": 2 / 5, "road IoU": 3 / 6, "lane IoU": 1.0})
    assert result.score == pytest.approx((0.4 + 0.5 + 1) / 3)


def test_heads_that_a_row_lacks_have_no_part() -> None:
    seen = record("a", [0], [], [], [[3, 1, 0, 0]])
    assert frame_figures(seen, boxes=False, seg_classes=("road",)).parts == {"road IoU": 0.75}
    assert frame_figures(record("a", [0], [], [], []), boxes=True, seg_classes=()).parts == {"F1": 0.0}
    empty = frame_figures(record("a", seg=[]), boxes=True, seg_classes=())
    assert empty.parts == {"F1": 1.0}
    assert empty.score == 1
    assert frame_figures(record("a", seg=[]), boxes=False, seg_classes=()).score == 1


def test_worst_come_first_and_perfect_frames_never() -> None:
    rows = [figures("b", F1=0.2), figures("c", F1=1.0), figures("a", F1=0.2), figures("d", F1=0.1)]
    assert [(c.kind, c.rank, c.name) for c in choose(rows, None, 9)] == [
        ("worst", 1, "d"),
        ("worst", 2, "a"),
        ("worst", 3, "b"),
    ]
    assert [c.name for c in choose(rows, None, 1)] == ["d"]


def test_most_changed_adds_amounts_and_knows_direction() -> None:
    old = [figures("a", F1=0.5, lane=0.5), figures("b", F1=0.5, lane=0.5), figures("c", F1=1.0, lane=1.0)]
    new = [figures("a", F1=0.9, lane=0.1), figures("b", F1=0.5, lane=0.2), figures("c", F1=1.0, lane=1.0)]
    changed = [choice for choice in choose(new, old, 5) if choice.kind == "changed"]
    assert [choice.name for choice in changed] == ["a", "b"]  # -0.4 and +0.4 do not make up for each other
    assert changed[0].reason == "worse and better: F1 0.50 to 0.90, lane 0.50 to 0.10"
    assert changed[1].reason == "worse: lane 0.50 to 0.20"
    (single,) = choose([figures("a", F1=1.0)], [figures("a", F1=0.75)], 1)
    assert (single.kind, single.reason) == ("changed", "better: F1 0.75 to 1.00")


def test_frames_without_a_partner_are_never_changed() -> None:
    chosen = choose([figures("a", F1=0.5)], [figures("b", F1=1.0)], 3)
    assert [(choice.kind, choice.baseline) for choice in chosen] == [("worst", None)]


# -- matching ------------------------------------------------------------------------------------------------


def test_match_gives_a_label_to_the_most_confident_of_its_boxes() -> None:
    truths = label([[0, 0, 100, 100], [200, 0, 300, 100]], [0, 1])
    found = detections(
        # a poor overlap of 0.6 with the best score, the exact box, the right place with the wrong class, nothing
        [[0, 0, 100, 60], [0, 0, 100, 100], [200, 0, 300, 100], [0, 0, 100, 49]],
        [0.9, 0.8, 0.7, 0.6],
        [0, 0, 0, 0],
    )
    assert match(truths, found).tolist() == [0, -1, -1, -1]
    assert match(label(), found).tolist() == [-1] * 4
    assert match(truths, Detections.empty()).tolist() == []


@pytest.mark.parametrize("seed", range(20))
def test_match_finds_what_the_scorer_counts(seed: int) -> None:
    made = scene(np.random.default_rng(seed), classes=2, ties=seed % 2 == 0)
    truths = Truth(grey(), made.labels.astype(np.float64), made.number, None)
    counted = record_of("a", made, classes=2)
    assert np.array_equal(match(truths, made.found) >= 0, counted.hits > 0)
    # what lies below a confidence takes no label from what lies above it
    kept = pack(prediction(made.found)).detections
    assert np.array_equal(match(truths, kept) >= 0, counted.hits[counted.scores > 0.25] > 0)


@pytest.mark.parametrize("mode", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("at_frame", [True, False])
def test_truth_reads_every_kind_of_target(mode: str, at_frame: bool) -> None:
    place = Letterbox.fit((720, 1280), (384, 640))
    road, lane = np.zeros((2, 384, 640), np.uint8)
    road[212:312, 100:200], lane[252:262, 100:200] = 1, 1
    small = {
        "multiclass": np.where(lane, 2, road).astype(np.uint8),
        "binary": road[None],
        "multilabel": np.stack([1 - (road | lane), road, lane]),
    }[mode]
    large = np.ascontiguousarray(place.crop(small)).repeat(2, axis=-2).repeat(2, axis=-1)
    boxes = np.array([[100.0, 112, 200, 162, 1]])
    sample = Sample("a", grey(720, 1280), place, boxes, ("car",), small, large if at_frame else None)
    result = truth(sample, segmentation=True)
    assert result.boxes.tolist() == [[200, 200, 400, 300]]
    assert result.classes.tolist() == [1]
    assert result.index is not None
    assert result.index.shape == (720, 1280)
    assert [result.index[y, x] for y, x in ((410, 300), (490, 300), (10, 10))] == [1, 1 if mode == "binary" else 2, 0]
    assert truth(sample, segmentation=False).index is None


def test_pack_keeps_masks_and_boxes_above_the_working_confidence() -> None:
    road, lane = np.zeros((2, 360, 640), np.uint8)
    road[100:200], lane[150:160] = 1, 1
    seen = detections([[0, 0, 9, 9], [5, 5, 9, 9]], [0.8, 0.25], [0, 0])
    packed = pack(prediction(seen, np.stack([road, lane])))
    assert packed.detections.scores.tolist() == pytest.approx([0.8])
    assert packed.index is not None
    assert np.array_equal(packed.index, np.where(lane, 2, road))
    assert pack(prediction(seen)).index is None


# -- panels --------------------------------------------------------------------------------------------------


def test_panels_tell_right_from_missed_from_false() -> None:
    truth_index, found_index = np.zeros((2, 360, 640), np.uint8)
    truth_index[200:300, 0:400] = 1
    found_index[200:300, 200:600] = 1
    truth_index[240:260, 300:320] = 2  # a lane taken for road: missed
    found_index[240:260, 340:360] = 2  # road taken for a lane: false
    panel = prediction_panel(label(index=truth_index), pack(prediction(None, found_index)), ("car",), SEG)
    assert panel.shape == (360, PANEL_WIDTH, 3)
    right = (np.array(seg_colour(0, "road")) + GREY) / 2
    wrong = np.array(FALSE) * 0.65 + GREY * 0.35
    dark, light = GREY * 0.35, 255 * 0.65 + GREY * 0.35

    def striped(area: np.ndarray) -> bool:
        flat = np.unique(area.reshape(-1, 3).astype(int), axis=0)
        return all(min(abs(row - dark).max(), abs(row - light).max()) <= 1 for row in flat) and len(flat) == 2

    assert np.abs(panel[200:240, 200:300] - right).max() <= 1
    assert np.abs(panel[200:300, 400:600] - wrong).max() <= 1
    assert np.abs(panel[240:260, 340:360] - wrong).max() <= 1
    assert striped(panel[200:300, 0:200])
    assert striped(panel[240:260, 300:320])
    assert (panel[:200] == GREY).all()
    assert np.abs(label_panel(label(index=truth_index), SEG)[200:240, 0:400] - right).max() <= 1


def test_found_missed_and_false_boxes_look_different() -> None:
    truths = label([[50, 100, 150, 200], [250, 100, 350, 200]])
    found = detections([[50, 100, 150, 200], [450, 100, 550, 200]], [0.9, 0.8], [0, 0])
    panel = prediction_panel(truths, pack(prediction(found)), ("car",), ())

    def colours(left: int) -> set[tuple[int, ...]]:
        edge = panel[110:190, left - 3 : left + 4].reshape(-1, 3)
        return {tuple(row) for row in edge.tolist()} - {(GREY,) * 3}

    assert (233, 180, 86) in colours(50)
    assert {(0, 0, 0), (255, 255, 255)} <= colours(250)
    assert FALSE in colours(450)
    assert FALSE not in colours(50) | colours(250)
    assert (panel[210:] == GREY).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (20, 30), (1280, 720), (2160, 3840)])
def test_every_size_gives_a_panel(size: tuple[int, int]) -> None:
    height, width = size
    index = np.ones(size, np.uint8)
    truths = Truth(grey(height, width), np.array([[0.0, 0, width, height]]), np.zeros(1, np.int64), index)
    seen = detections([[0, 0, width, height], [-5, -5, 2 * width, 9e9], [0, np.nan, 9, 9]], [0.9, 0.8, 0.7], [0, 7, 0])
    panel = prediction_panel(truths, pack(prediction(seen, index, size)), ("car", "truck"), SEG)
    assert panel.shape == label_panel(truths, SEG).shape
    assert panel.shape[1] == PANEL_WIDTH
    assert 120 <= panel.shape[0] <= 480


def test_a_sheet_holds_long_names_and_many_figures() -> None:
    image = grey()
    many = tuple(f"class {number} IoU 0.50 (+0.10)" for number in range(20))
    names = [f"class {number}" for number in range(30)]
    drawn = sheet("ä" * 500, "x" * 500, [Panel("\x1b[31m" * 99, many, image)] * 3, boxes=True, seg_classes=names)
    plain = sheet("a", "b", [Panel("c", (), image)] * 2, boxes=True, seg_classes=())
    assert drawn.shape[1] == 3 * 640 + 2 * 12 + 2 * 8
    assert plain.shape[1] == 2 * 640 + 2 * 12 + 8
    assert drawn.shape[0] > plain.shape[0]
    for canvas in (drawn, plain):
        border = np.concatenate([canvas[:, -11:].reshape(-1, 3), canvas[-6:].reshape(-1, 3)])
        assert (border == 30).all()


# -- the folder ----------------------------------------------------------------------------------------------


class Reader:
    """Stands for a SampleReader: one road, one lane, one car in every frame."""

    def __init__(self) -> None:
        self.read_names: list[str] = []

    def read(self, name: str) -> Sample:
        self.read_names.append(name)
        index = np.zeros((360, 640), np.uint8)
        index[200:], index[200:, 300:310] = 1, 2
        place = Letterbox.fit((360, 640), (384, 640))
        boxes = np.array([[50.0, 62, 150, 162, 0]])
        return Sample(name, grey(), place, boxes, ("car",), np.zeros((384, 640), np.uint8), index)


class Links(HTMLParser):
    """Everything a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.sources += [value for key in ("src", "srcset", "data") if (value := values.get(key))]
        self.links += [value for value in [values.get("href")] if value]
        self.ids += [value for value in [values.get("id")] if value]


def row(name: str, frames: dict[str, float], asked: list[list[str]] | None = None) -> PictureRow:
    """A row whose lane IoU of every frame is given."""

    def predict(names: Sequence[str]) -> Iterator[Prediction]:
        if asked is not None:
            asked.append(list(names))
        for _ in names:
            index = np.zeros((360, 640), np.uint8)
            index[210:] = 1
            yield prediction(detections([[60, 55, 150, 150]], [0.9], [0]), index)

    records = [
        record(frame, [0], [0.9], [5], [[9, 0, 0, 0], [9, 0, 0, 0], [round(100 * lane), 0, 100 - round(100 * lane), 0]])
        for frame, lane in frames.items()
    ]
    return PictureRow(name, records, predict)


def write(folder: Path, rows: Sequence[PictureRow], **options: Any) -> pictures.PictureSummary:
    settings = {"classes": ("car",), "seg_classes": SEG, "baseline": None, "count": 2} | options
    return write_pictures(folder, rows, settings.pop("reader", Reader()), **settings)


def test_write_pictures_draws_the_chosen_frames_and_lists_them(tmp_path: Path) -> None:
    asked: dict[str, list[list[str]]] = {"fp32": [], "int8": []}
    base = row("fp32", {"a": 0.9, "b": 0.9, "c": 0.9, "d": 0.9}, asked["fp32"])
    candidate = row("int8", {"a": 0.2, "b": 0.9, "c": 0.5, "d": 0.89}, asked["int8"])
    reader, steps = Reader(), []
    summary = write(
        tmp_path / "pics",
        [base, candidate],
        baseline="fp32",
        reader=reader,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    folder = tmp_path / "pics"
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "index.html",
        "int8_changed_01_a.jpg",
        "int8_changed_02_c.jpg",
        "int8_worst_01_a.jpg",
        "int8_worst_02_c.jpg",
    ]
    assert asked == {"fp32": [["a", "c"]], "int8": [["a", "c"]]}  # each row once, chosen frames only
    assert reader.read_names == ["a", "c"]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (summary.index, summary.sheets) == (folder / "index.html", 4)
    picture = cv2.imread(str(folder / names[1]))
    assert picture.shape[1] == 3 * 640 + 2 * 12 + 2 * 8
    text = summary.index.read_text("utf-8")
    page = Links(text)
    assert sorted(page.sources) == [name for name in names if name.endswith(".jpg")]
    targets = [link for link in page.links if not link.startswith("#")]
    assert sorted(targets) == sorted(page.sources)
    assert {unquote(link[1:]) for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "worse: lane IoU 0.90 to 0.20" in text
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "http" not in text


def test_a_generator_of_predictions_is_closed_whatever_happens(tmp_path: Path) -> None:
    events: list[str] = []

    def predict(names: Sequence[str]) -> Iterator[Any]:
        events.append("start")
        try:
            yield prediction(None, np.zeros((360, 640), np.uint8))
            yield bad
        finally:
            events.append("end")

    records = [record("a", [0]), record("b", [0])]
    bad: Any = prediction(None, np.zeros((360, 640), np.uint8))
    write(tmp_path / "pics", [PictureRow("r", records, predict)])
    assert events == ["start", "end"]
    bad = None
    with pytest.raises(AttributeError):
        write(tmp_path / "more", [PictureRow("r", records, predict)])
    assert events == ["start", "end"] * 2


def test_a_row_on_its_own_has_two_panels(tmp_path: Path) -> None:
    for baseline in (None, "fp32", "no such row"):
        write(tmp_path / "pics", [row("fp32", {"a": 0.5})], baseline=baseline)
        files = [path.name for path in (tmp_path / "pics").glob("*.jpg")]
        assert files == ["fp32_worst_01_a.jpg"]
        assert cv2.imread(str(tmp_path / "pics" / files[0])).shape[1] == 2 * 640 + 2 * 12 + 8


def test_names_cannot_leave_the_folder_or_write_html(tmp_path: Path) -> None:
    evil = ["../../etc/x", '<img src=x onerror="1">', "\x1b[2J", "a" * 400, "a" * 401, "\udcff", "ü", "..", 'q" y']
    summary = write(tmp_path / "pics", [row("r<b>/..", dict.fromkeys(evil, 0.5))], count=20)
    files = sorted(path.name for path in (tmp_path / "pics").glob("*.jpg"))
    assert len(files) == len(evil) == summary.sheets
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name) for name in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pics"]
    page = Links(summary.index.read_bytes().decode("utf-8"))
    assert sorted(page.sources) == files
    assert "b" in page.tags  # ours around the rank
    assert "<b>/" not in summary.index.read_text("utf-8")


@pytest.mark.parametrize("text", ["", "...", "a/b", "x" * 300, "é\n", "-rf", "CON"])
def test_safe_names(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", safe_name(text))


@pytest.mark.parametrize("heads", ["det", "seg"])
def test_bundles_of_one_head(tmp_path: Path, heads: str) -> None:
    def predict(names: Sequence[str]) -> list[Prediction]:
        return [prediction(None, None if heads == "det" else np.zeros((360, 640), np.uint8)) for _ in names]

    seen = record("a", [0] if heads == "det" else [], [], [], [] if heads == "det" else [[0, 0, 5, 5]])
    options = {"classes": ("car",), "seg_classes": ()} if heads == "det" else {"classes": (), "seg_classes": ("road",)}
    summary = write(tmp_path / "pics", [PictureRow("r", [seen], predict)], **options)
    text = summary.index.read_text("utf-8")
    assert summary.sheets == 1
    assert ("<th>F1</th>" in text, "<th>road IoU</th>" in text) == (heads == "det", heads == "seg")


def test_nothing_to_show_still_gives_a_page(tmp_path: Path) -> None:
    rows = [PictureRow("a", [], lambda names: []), PictureRow("b", [], lambda names: [])]
    assert "every one is perfect" in write(tmp_path / "1", rows, baseline="a").index.read_text("utf-8")
    assert "No row was scored" in write(tmp_path / "2", []).index.read_text("utf-8")
    same = [row("a", {"x": 0.5}), row("b", {"x": 0.5})]
    assert "No frame differs" in write(tmp_path / "3", same, baseline="a").index.read_text("utf-8")


def test_curves_are_shown_on_the_page(tmp_path: Path) -> None:
    def curves(inside: Path) -> list[Path]:
        (inside / "curve_car.png").write_bytes(b"x")
        return [inside / "curve_car.png"]

    summary = write(tmp_path / "pics", [row("r", {"a": 0.5})], curves=curves)
    assert "curve_car.png" in Links(summary.index.read_text("utf-8")).sources


def test_folders_of_others_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("<html>my page</html>")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "mine", tmp_path / "file"):
        with pytest.raises(HnxError) as caught:
            write(path, [row("r", {"a": 0.5})])
        assert caught.value.code == ExitCode.USAGE
    assert (tmp_path / "mine" / "index.html").read_text() == "<html>my page</html>"
    (tmp_path / "empty").mkdir()
    check_folder(tmp_path / "empty")
    check_folder(tmp_path / "absent")


def test_an_earlier_run_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path / "pics", [row("old", {"a": 0.5})])
    write(tmp_path / "pics", [row("new", {"a": 0.5})])
    assert sorted(path.name for path in (tmp_path / "pics").iterdir()) == ["index.html", "new_worst_01_a.jpg"]


def test_failures_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = PictureRow("r", [record("a", [0])], lambda names: [])
    with pytest.raises(HnxError, match="r gave 0 of 1 predictions"):
        write(tmp_path / "pics", [short])
    other = PictureRow("r", [record("a", [0])], lambda names: [prediction(size=(720, 1280))])
    with pytest.raises(HnxError, match="not the one that was evaluated"):
        write(tmp_path / "pics", [other])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pictures, "write_image", full)
    with pytest.raises(HnxError, match="disk is full"):
        write(tmp_path / "pics", [row("r", {"a": 0.5})])
    assert list(tmp_path.iterdir()) == []
