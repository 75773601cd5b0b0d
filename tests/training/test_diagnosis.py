"""What was found, as a table, as a summary and as JSON."""

import json
import math

from d2pd.data.cleaning import CleaningReport, Drop
from d2pd.training.diagnosis.diagnosis import (
    HIGHEST_LOSSES,
    TABLE_LINES,
    Diagnosis,
    Finding,
    ImageResult,
)

NAN, INF = math.nan, math.inf
DROP = Drop("degenerate_box", "b", 1, 7, (5.0, 5.0, 5.0, 9.0), False, "b, row 7: no area")


def no_area(row, image="b", **changes):
    values = {"box": 1, "bbox_xyxy": (5.0, 5.0, 5.0, 9.5), "dropped_as": "degenerate_box"}
    return Finding(row, image, "box_without_area", "no area", **(values | changes))


def losses(total, **others):
    return {"total_loss": total, **others}


def diagnosis(*images, num_images=None, num_training_images=None, labels_only=False):
    count = len(images) if num_images is None else num_images
    left = count if num_training_images is None else num_training_images
    conditions = {"labels_only": labels_only, "weights": "a.pth"}
    return Diagnosis(count, left, CleaningReport((DROP,), (), 3), conditions, list(images))


def test_table_has_a_line_for_each_finding_with_the_loss_of_its_image():
    told = diagnosis(
        ImageResult(0, "a", (), losses(1.0)),
        ImageResult(1, "b", (no_area(1), no_area(1, box=2)), losses(12.3456)),
        ImageResult(10, "c", (Finding(10, "c", "loss_not_finite", "loss_cls inf"),), losses(INF)),
        ImageResult(11, "d", (Finding(11, "d", "unreadable_image", "gone"),)),
    ).table()
    assert told.split("\n") == [
        "row  image  rule              box (x1 y1 x2 y2)  cleaning drops it  loss",
        "  1  b      box_without_area  5 5 5 9.5          degenerate_box     12.35",
        "  1  b      box_without_area  5 5 5 9.5          degenerate_box     12.35",
        " 10  c      loss_not_finite                                         inf",
        " 11  d      unreadable_image",
    ]


def test_long_table_is_cut_and_says_how_much_is_missing():
    images = [ImageResult(row, "b", (no_area(row),)) for row in range(TABLE_LINES + 1234)]
    lines = diagnosis(*images).table().split("\n")
    assert len(lines) == 1 + TABLE_LINES + 1
    assert lines[-1] == "... and 1,234 more"
    assert lines[-2].split()[0] == str(TABLE_LINES - 1)


def test_summary_says_how_many_of_what_and_what_training_would_not_have_seen():
    sliver = no_area(2, dropped_as=None)
    told = diagnosis(
        ImageResult(1, "b", (no_area(1), Finding(1, "b", "loss_not_finite", "")), losses(INF)),
        ImageResult(2, "c", (sliver,), losses(1.0)),
        ImageResult(3, "d", (), losses(1.0)),
        num_training_images=2,
    )
    lines = told.report().split("\n\n")[1].split("\n")
    assert lines == [
        "2 of 3 training images are at fault: box_without_area 2, loss_not_finite 1",
        "training would not have seen 1 of these 2 boxes: cleaning drops them (degenerate_box 1)",
        "rows count the 3 images before cleaning; it leaves 2 to train on",
        "cleaning before training: degenerate_box: 1 dropped (the box has no area; its regression "
        "target is log(0)); first: b, row 7: no area",
        "cleaning before training: clipped: 3 boxes reached outside their image",
        "losses are those of a.pth",
    ]


def test_nothing_found_is_said_without_a_table_and_a_look_cut_short_too():
    clean = ImageResult(0, "a", ())
    assert (
        diagnosis(clean, labels_only=True)
        .report()
        .startswith("nothing found in 1 training images\ncleaning")
    )
    assert "losses are" not in diagnosis(clean, labels_only=True).report()
    lines = diagnosis(clean, num_images=9).report().split("\n")
    assert lines[0] == "cut short: 1 training images of 9 were looked at"
    assert lines[1] == "nothing found in 1 training images"


def test_losses_that_are_mostly_not_finite_point_at_the_weights():
    bad = [
        ImageResult(row, "a", (Finding(row, "a", "loss_not_finite", "nan"),), losses(NAN))
        for row in range(3)
    ]
    fine = [ImageResult(row, "a", (), losses(1.0)) for row in range(3, 6)]
    hint = "look at the weights first"
    assert hint in diagnosis(*bad, *fine[:2]).report()
    assert hint not in diagnosis(*bad, *fine).report()


def test_highest_losses_are_finite_and_fall_and_ties_keep_their_order():
    values = [3.0, INF, 5.0, NAN, *[1.0] * 20, 5.0]
    images = [ImageResult(row, "a", (), losses(value)) for row, value in enumerate(values)]
    images.append(ImageResult(99, "unread", ()))
    rows = [image.row for image in diagnosis(*images).highest_losses]
    assert rows == [2, 24, 0, *range(4, 4 + HIGHEST_LOSSES - 3)]


def test_json_holds_strings_for_numbers_that_are_not_finite():
    image = ImageResult(4, "b", (no_area(4, bbox_xyxy=(NAN, 1.0, -INF, 2.0)),), losses(INF, a=1.0))
    told = diagnosis(image, num_images=3).as_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["rows"] == [4]
    assert told["findings"][0]["bbox_xyxy"] == ["nan", 1.0, "-inf", 2.0]
    assert told["images"] == [
        {
            "row": 4,
            "image": "b",
            "rules": ["box_without_area"],
            "losses": {"total_loss": "inf", "a": 1.0},
        }
    ]
    assert (told["complete"], told["num_images"], told["num_looked_at"]) == (False, 3, 1)
    assert told["cleaning"] == {"degenerate_box": 1, "clipped": 3}
    assert told["weights"] == "a.pth"
