from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.errors import MissingFileError
from d2pd.reporting import gallery
from d2pd.reporting.gallery import choose_images, draw_batch, draw_detections, draw_faults
from d2pd.reporting.sheet import (
    CAPTION,
    DETECTION,
    HEADING_LINE,
    LABEL,
    MARGIN,
    RING,
    Mark,
    Tile,
    draw_sheet,
    place_texts,
    shorten,
)

GREEN, ORANGE, RED = (90, 220, 61), (28, 159, 255), (75, 75, 255)  # BGR, as OpenCV reads
TOP = 2 * MARGIN + HEADING_LINE + CAPTION  # of the first tile, under a heading of one line
SIDE = st.floats(0, 500)


def extent_of(picture: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """XYXY of the pixels that have about this colour."""
    rows, columns = np.nonzero((np.abs(picture.astype(int) - colour) < 45).all(axis=2))
    return [int(v) for v in (columns.min(), rows.min(), columns.max(), rows.max())]


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - colour) < 45).all(axis=2).any())


def sample(image, boxes=(), ignore=(), k=0):
    instances = SimpleNamespace(
        gt_boxes=SimpleNamespace(tensor=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
    )
    return {
        "image": image,
        "instances": instances,
        "ignore_boxes": torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
        "k": k,
        "file_name": "set00/V000/visible/I00001.jpg",
    }


def plain(colour=(0, 0, 0), height=560, width=560) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).reshape(3, 1, 1).expand(3, height, width).clone()


@pytest.fixture
def record(tmp_path: Path) -> dict:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((560, 560, 3), 20, np.uint8))
    label = {"bbox": [100, 50, 300, 250], "bbox_mode": 0, "category_id": 0, "ignore": 0}
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": 1,
        "height": 560,
        "width": 560,
        "annotations": [label],
    }


def test_box_stands_where_the_sample_says(tmp_path):
    draw_batch([sample(plain(), [[100, 50, 300, 250]])], ["person"], tmp_path / "b.png")
    picture = cv2.imread(str(tmp_path / "b.png"))
    # This narrow sheet wraps its heading: measured from below, where only the margin follows.
    bottom = picture.shape[0] - MARGIN - 560
    found = extent_of(picture, GREEN)
    expected = [MARGIN + 100, bottom + 50, MARGIN + 300, bottom + 250]
    assert np.abs(np.subtract(found, expected)).max() <= 2


def test_small_images_are_enlarged_with_their_boxes(tmp_path):
    small = sample(plain(height=28, width=56), [[14, 7, 42, 21]])
    draw_batch([small], ["person"], tmp_path / "b.png")
    picture = cv2.imread(str(tmp_path / "b.png"))
    x1, y1, x2, y2 = extent_of(picture, GREEN)
    assert abs((x2 - x1) - 280) <= 3
    assert abs((y2 - y1) - 140) <= 3


@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_colours_are_true_in_either_order(tmp_path, image_format):
    red = (0, 0, 255) if image_format == "BGR" else (255, 0, 0)
    draw_batch([sample(plain(red))], ["person"], tmp_path / "b.png", image_format)
    picture = cv2.imread(str(tmp_path / "b.png"))
    assert picture[-200, 300].tolist() == [0, 0, 255]


def test_ignore_regions_are_hatched_and_not_green(tmp_path):
    draw_batch([sample(plain(), ignore=[[100, 100, 300, 300]])], ["person"], tmp_path / "b.png")
    picture = cv2.imread(str(tmp_path / "b.png"))
    region = picture[-MARGIN - 560 + 110 : -MARGIN - 560 + 290, MARGIN + 110 : MARGIN + 290]
    assert 0.02 < (region > 150).all(axis=2).mean() < 0.5
    assert not has(picture, GREEN)


def test_eight_samples_fill_two_rows_of_four(tmp_path):
    samples = [sample(plain(), [[9, 9, 50, 50]], k=k) for k in range(8)]
    draw_batch(samples, ["person", "cyclist"], tmp_path / "new" / "b.png")
    height, width = cv2.imread(str(tmp_path / "new" / "b.png")).shape[:2]
    assert width == 4 * 560 + 5 * MARGIN
    assert height == TOP + 560 + MARGIN + CAPTION + 560 + MARGIN


def test_pair_is_drawn_twice_with_the_boxes_on_both(tmp_path):
    image = torch.cat([plain((0, 0, 255)), torch.full((1, 560, 560), 200, dtype=torch.uint8)])
    draw_batch([sample(image, [[100, 50, 300, 250]])], ["person"], tmp_path / "b.png")
    picture = cv2.imread(str(tmp_path / "b.png"))
    assert picture.shape[1] == 2 * 560 + 3 * MARGIN
    assert picture[-200, 300].tolist() == [0, 0, 255]
    assert picture[-200, 300 + 560 + MARGIN].tolist() == [200, 200, 200]
    top = picture.shape[0] - MARGIN - 560
    for left in (MARGIN, 2 * MARGIN + 560):
        half = picture[:, left - 5 : left + 560]
        found = extent_of(half, GREEN)
        assert np.abs(np.subtract(found, [105, top + 50, 305, top + 250])).max() <= 2


@pytest.fixture
def sheet(monkeypatch):
    """Heading, tiles and columns that are handed to the drawing, instead of a file."""
    drawn: dict = {}

    def draw_sheet(tiles, path, **others):
        drawn.update(others, tiles=tiles)

    monkeypatch.setattr(gallery, "draw_sheet", draw_sheet)
    return drawn


def test_heading_promises_the_order_of_the_channels_and_not_their_colours(sheet):
    draw_batch([sample(plain())], ["person"], "b.png", "RGB")
    colours = "augmented, RGB (channels in the right order, colours as augmented).  Green"
    assert colours in sheet["heading"]
    assert "true colours" not in sheet["heading"]
    draw_batch([sample(plain()[:1])], ["person"], "b.png", "RGB")
    assert sheet["heading"].startswith("What the model gets: augmented.  Green")


def test_heading_says_what_becomes_of_small_labels_where_there_are_masks(sheet):
    told = "is painted into the cell that holds its own centre."
    draw_batch([sample(plain())], ["person"], "b.png")
    assert told not in sheet["heading"]
    draw_batch([sample(plain())], ["person"], "b.png", masks=[{"conv7": np.zeros((2, 2), int)}])
    assert told in sheet["heading"]


@pytest.mark.parametrize(("channels", "maps", "columns"), [(3, 1, 4), (3, 2, 6), (4, 2, 8)])
def test_two_samples_with_masks_fill_a_row(sheet, channels, maps, columns):
    image = torch.zeros(channels, 56, 56, dtype=torch.uint8)
    masks = {f"map {number}": np.zeros((2, 2), int) for number in range(maps)}
    draw_batch([sample(image)] * 8, ["person"], "b.png", masks=[masks] * 8)
    assert sheet["columns"] == columns
    assert len(sheet["tiles"]) == 4 * columns


@pytest.mark.parametrize(
    ("count", "drawn", "caption"),
    [
        (1, 1, "1 detection"),
        (20, 20, "20 detections"),
        (200, 20, "200 detections, the best 20 drawn"),
    ],
)
def test_the_best_detections_are_drawn_and_all_are_counted(sheet, record, count, drawn, caption):
    found = [
        {"image_id": 1, "category_id": 0, "bbox": [number, 9, 5, 5], "score": 0.5 + number / 1000}
        for number in range(count)
    ]
    draw_detections([record], found, ["person"], "d.png")
    tile = sheet["tiles"][1]
    boxes = [mark.bbox[0] for mark in tile.marks if mark.kind == DETECTION]
    assert boxes == list(range(count))[::-1][:drawn]
    assert tile.caption == caption


def test_masks_stand_at_the_right_of_their_sample(tmp_path):
    mask = np.zeros((4, 4), np.int64)
    mask[1, 2], mask[3, 0] = 1, 255
    samples = [sample(plain()), sample(plain())]
    masks = [{"conv4_3": mask, "conv7": mask.T}, {"conv4_3": mask * 0, "conv7": mask * 0}]
    draw_batch(samples, ["person"], tmp_path / "b.png", masks=masks)
    picture = cv2.imread(str(tmp_path / "b.png"))
    assert picture.shape[1] == 6 * 560 + 7 * MARGIN
    bottom = picture.shape[0] - MARGIN
    blue, amber, black = (
        [round(0.6 * v) for v in c] for c in ((255, 150, 64), (32, 176, 255), (0, 0, 0))
    )

    def cell(tile, row, column):
        y = bottom - 560 + round((row + 0.5) * 140)
        return picture[y, MARGIN + tile * (560 + MARGIN) + round((column + 0.5) * 140)].tolist()

    assert (cell(1, 1, 2), cell(1, 3, 0), cell(1, 2, 1)) == (blue, amber, black)
    assert (cell(2, 2, 1), cell(2, 0, 3), cell(2, 1, 2)) == (blue, amber, black)


def test_detections_stand_at_the_right_of_the_labels(tmp_path, record):
    found = {"image_id": 1, "category_id": 0, "bbox": [400, 300, 100, 120], "score": 0.8}
    faint = found | {"bbox": [10, 10, 50, 50], "score": 0.4}
    other = found | {"image_id": 2}
    draw_detections([record], [found, faint, other], ["person"], tmp_path / "d.png")
    picture = cv2.imread(str(tmp_path / "d.png"))
    labels, detections = np.split(picture[:, : 2 * (picture.shape[1] // 2)], 2, axis=1)
    assert has(labels, GREEN)
    assert not has(labels, ORANGE)
    assert has(detections, GREEN)
    x1, _, x2, y2 = extent_of(detections, ORANGE)
    top = picture.shape[0] - MARGIN - 560
    left = MARGIN + 560 + MARGIN - detections.shape[1]
    expected = [left + 400, left + 500, top + 420]
    assert np.abs(np.subtract([x1, x2, y2], expected)).max() <= 3


def test_thermal_image_is_drawn_on_when_asked_for(tmp_path, record):
    cv2.imwrite(str(tmp_path / "warm.png"), np.full((560, 560), 200, np.uint8))
    record["lwir_file_name"] = str(tmp_path / "warm.png")
    draw_detections([record], [], ["person"], tmp_path / "d.png", modality="lwir")
    assert cv2.imread(str(tmp_path / "d.png"))[-100, 100].tolist() == [200, 200, 200]


def test_detections_of_a_pair_stand_on_both_images(tmp_path, record):
    cv2.imwrite(str(tmp_path / "warm.png"), np.full((560, 560), 200, np.uint8))
    record["lwir_file_name"] = str(tmp_path / "warm.png")
    found = {"image_id": 1, "category_id": 0, "bbox": [400, 300, 100, 120], "score": 0.8}
    draw_detections([record], [found], ["person"], tmp_path / "d.png", modality="both")
    tiles = np.split(
        cv2.imread(str(tmp_path / "d.png"))[:, MARGIN // 2 : -(MARGIN // 2)], 4, axis=1
    )
    assert [tile[-50, 50].tolist()[0] for tile in tiles] == [20, 20, 200, 200]
    assert [has(tile, ORANGE) for tile in tiles] == [False, True, False, True]
    assert all(has(tile, GREEN) for tile in tiles)


def test_faults_of_a_pair_are_drawn_though_one_image_is_gone(tmp_path, record):
    record["lwir_file_name"] = str(tmp_path / "gone.png")
    (path,) = draw_faults([(record, "", {0: ""})], ["person"], tmp_path, "f", modality="both")
    picture = cv2.imread(str(path))
    assert picture[-50, MARGIN + 50].tolist() == [20, 20, 20]
    assert picture[-50, 2 * MARGIN + 610].tolist() == [96, 96, 96]
    assert all(has(half, RED) for half in np.split(picture[:, : 2 * (picture.shape[1] // 2)], 2, 1))


def test_missing_image_is_named(tmp_path, record):
    Path(record["file_name"]).unlink()
    with pytest.raises(MissingFileError, match=r"a\.png"):
        draw_detections([record], [], ["person"], tmp_path / "d.png")


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no picture to draw"):
        draw_batch([], ["person"], tmp_path / "b.png")


@given(labelled=st.lists(st.booleans(), min_size=1, max_size=40), count=st.integers(1, 10))
def test_chosen_images_are_different_in_order_and_have_something_to_see(labelled, count):
    records = [{"image_id": i, "annotations": [1] if has else []} for i, has in enumerate(labelled)]
    chosen = [record["image_id"] for record in choose_images(records, {0}, count)]
    telling = {i for i, has in enumerate(labelled) if has} | {0}
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= telling
    assert len(chosen) == min(count, len(telling))


@given(corners=st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=6))
def test_texts_stay_inside_the_picture(corners):
    marks = [
        Mark([min(a, c), min(b, d), max(a, c), max(b, d)], LABEL, "person")
        for a, b, c, d in corners
    ]
    places = [place for _, place in place_texts(marks, (500, 500), 1.0)]
    assert len(places) == len(marks)
    assert all(0 <= x <= 500 and 0 <= y <= 500 for x, y in places)


def test_texts_of_the_same_box_do_not_cover_each_other():
    marks = [Mark([100, 100, 200, 200], LABEL, "person")] * 4
    places = [place for _, place in place_texts(marks, (500, 500), 1.0)]
    assert len(set(places)) == 4


def test_long_captions_are_cut_in_the_middle():
    assert shorten("short", 10) == "short"
    assert shorten("0123456789abcdef", 10) == "012…abcdef"


def test_heading_wraps_on_a_narrow_sheet(tmp_path):
    tile = Tile(np.zeros((10, 10, 3), np.uint8), "")
    draw_sheet([tile], tmp_path / "n.png", heading="word " * 60, columns=1, tile_width=200)
    draw_sheet([tile], tmp_path / "m.png", heading="word", columns=1, tile_width=200)
    narrow, plain_sheet = (cv2.imread(str(tmp_path / name)).shape for name in ("n.png", "m.png"))
    assert narrow[1] == plain_sheet[1]
    assert narrow[0] >= plain_sheet[0] + 10 * HEADING_LINE


@pytest.mark.parametrize(
    ("bbox", "centre"),
    [
        ([300, 200, 300, 201], (300, 200)),
        ([700, 100, 800, 200], (560, 150)),
        ([-50, -50, -5, -5], (0, 0)),
        ([float("nan")] * 4, (0, 0)),
        ([300, 200, float("inf"), 200.5], (430, 200)),
    ],
)
def test_fault_that_shows_nothing_has_a_ring_at_its_nearest_place(tmp_path, record, bbox, centre):
    record["annotations"].append({"bbox": bbox, "category_id": 7, "ignore": 0})
    (path,) = draw_faults([(record, "row 3", {1: ""})], ["person"], tmp_path, "faults")
    assert path == tmp_path / "faults_1.png"
    picture = cv2.imread(str(path))
    assert has(picture, GREEN)
    x1, y1, x2, y2 = extent_of(picture, RED)
    left, top = MARGIN, picture.shape[0] - MARGIN - 560
    found = ((x1 + x2) / 2 - left, (y1 + y2) / 2 - top)
    assert np.abs(np.subtract(found, centre)).max() <= 2
    assert y2 - y1 == pytest.approx(RING, abs=4)


def test_label_that_reaches_outside_does_not_shrink_the_picture_beside_a_ring(tmp_path, record):
    record["annotations"][0]["bbox"] = [100, 50, 900, 250]
    record["annotations"].append({"bbox": [300, 400, 300, 400], "category_id": 0, "ignore": 0})
    (path,) = draw_faults([(record, "", {1: ""})], ["person"], tmp_path, "faults")
    picture = cv2.imread(str(path))
    assert picture[-MARGIN - 5, -MARGIN - 5].tolist() == [20, 20, 20]


def test_fault_that_is_seen_has_no_ring(tmp_path, record):
    (path,) = draw_faults([(record, "", {0: ""})], ["person"], tmp_path, "faults")
    picture = cv2.imread(str(path))
    top = picture.shape[0] - MARGIN - 560
    expected = [MARGIN + 100, top + 50, MARGIN + 300, top + 250]
    assert np.abs(np.subtract(extent_of(picture, RED), expected)).max() <= 2
    assert not has(picture, GREEN)


def test_faults_fill_sheets_of_eight_though_a_picture_is_gone(tmp_path, record):
    Path(record["file_name"]).unlink()
    paths = draw_faults([(record, "", {0: "bad"})] * 9, ["person"], tmp_path, "faults")
    assert [path.name for path in paths] == ["faults_1.png", "faults_2.png"]
    full, rest = (cv2.imread(str(path)) for path in paths)
    assert full.shape[1] == 4 * 560 + 5 * MARGIN
    assert rest.shape[1] == 560 + 2 * MARGIN
    assert rest[-MARGIN - 10, MARGIN + 10].tolist() == [96, 96, 96]
