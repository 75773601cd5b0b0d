"""Every rule finds what it is for, and nothing else."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d2pd.data.annotations.labels import IGNORE_REGION
from d2pd.data.audit.audit import audit_table, with_picture_sizes
from d2pd.data.audit.findings import Finding
from d2pd.data.audit.rules import CLEANED, RULES
from d2pd.data.label_table.table import UNKNOWN_CATEGORY, LabelTable, MalformedRow

HEIGHT, WIDTH = 480.0, 640.0
CLASSES = ("person", "rare")


class Draft:
    """A label file in the making: images and boxes that can be changed and added."""

    def __init__(self, num_images: int = 0) -> None:
        self.names = [f"set00/V000/I{number:05}" for number in range(num_images)]
        self.boxes: list[list] = []  # image, [x1, y1, x2, y2], category, is_region
        self.words: dict[int, str] = {}
        self.malformed: list[MalformedRow] = []
        self.repeated: dict[int, int] = {}

    def add_image(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def add_box(self, image: int, box, category: int = 0, is_region: bool = False) -> int:
        self.boxes.append([image, list(box), category, is_region])
        return len(self.boxes) - 1

    def table(self) -> LabelTable:
        images, boxes, categories, regions = (
            zip(*self.boxes, strict=True) if self.boxes else [()] * 4
        )
        count = len(self.names)
        return LabelTable(
            path=Path("labels.json"),
            format="kaist",
            box_format="xywh",
            image_names=self.names,
            image_ids=list(range(count)),
            image_rows=np.arange(count),
            heights=np.full(count, HEIGHT),
            widths=np.full(count, WIDTH),
            box_images=np.array(images, dtype=np.int64),
            boxes_xyxy=np.array(boxes, dtype=np.float64).reshape(-1, 4),
            box_rows=np.arange(len(boxes)),
            categories=np.array(categories, dtype=np.int64),
            class_names=CLASSES,
            category_words=self.words,
            is_region=np.array(regions, dtype=bool),
            occlusion=np.full(len(boxes), -1, dtype=np.int8),
            malformed=self.malformed,
            repeated=self.repeated,
        )


def one_box(box, category: int = 0, is_region: bool = False) -> LabelTable:
    draft = Draft(1)
    draft.add_box(0, box, category, is_region)
    return draft.table()


def found(table: LabelTable, **options) -> list[tuple[str, int | None]]:
    return [(finding.rule, finding.row) for finding in audit_table(table, **options).findings]


# Planted faults. In a clean file no side is more than exp(0.3) times its usual length, too little
# for an outlier; of the class "rare" there are too few boxes for one.

NUM_IMAGES, NUM_RARE = 40, 12


def clean_draft(rng: np.random.Generator) -> Draft:
    draft = Draft(NUM_IMAGES)
    for number in range(3 * NUM_IMAGES + NUM_RARE):
        width, height = np.array([40.0, 80.0]) * np.exp(rng.uniform(-0.3, 0.3, 2))
        x, y = rng.uniform(0, [WIDTH - 300, HEIGHT - height])
        category = 0 if number < 3 * NUM_IMAGES else 1
        draft.add_box(number % NUM_IMAGES, [x, y, x + width, y + height], category)
    return draft


def plant_not_finite(draft, box, rng):
    draft.boxes[box][1][rng.integers(4)] = rng.choice([np.nan, np.inf, -np.inf])
    return {("not_finite", box)}


def plant_degenerate(draft, box, rng):
    corners = draft.boxes[box][1]
    side = rng.integers(2)
    corners[2 + side] = corners[side] - rng.choice([0.0, 3.5])
    draft.boxes[box][3] = bool(rng.integers(2))  # regions too
    return {("degenerate_box", box)}


def plant_tiny(draft, box, rng):
    corners = draft.boxes[box][1]
    side = rng.integers(2)
    corners[2 + side] = corners[side] + 0.75
    draft.boxes[box][2] = 1
    return {("tiny_box", box)}


def plant_outside(draft, box, rng):
    corners = draft.boxes[box][1]
    width, height = corners[2] - corners[0], corners[3] - corners[1]
    corners[:] = [
        [-5.0, corners[1], width - 5, corners[3]],
        [corners[0], -5.0, corners[2], height - 5],
        [WIDTH + 5 - width, corners[1], WIDTH + 5, corners[3]],
        [corners[0], HEIGHT + 5 - height, corners[2], HEIGHT + 5],
    ][rng.integers(4)]
    return {("outside_image", box)}


def plant_centre_outside(draft, box, rng):
    corners = draft.boxes[box][1]
    width, height = corners[2] - corners[0], corners[3] - corners[1]
    corners[:] = [
        [-0.75 * width, corners[1], 0.25 * width, corners[3]],
        [corners[0], HEIGHT + 20, corners[2], HEIGHT + 20 + height],
    ][rng.integers(2)]
    return {("outside_image", box), ("centre_outside_image", box)}


def plant_unknown(draft, box, rng):
    draft.boxes[box][2] = UNKNOWN_CATEGORY
    draft.words[box] = "lamp post"
    return {("unknown_category", box)}


def plant_duplicate_box(draft, box, rng):
    image, corners, category, is_region = draft.boxes[box]
    return {("duplicate_box", draft.add_box(image, corners, category, is_region))}


def plant_duplicate_image(draft, box, rng):
    image = draft.add_image(draft.names[rng.integers(NUM_IMAGES)])
    draft.add_box(image, [10, 10, 50, 90])
    return {("duplicate_image", image)}


def plant_no_object(draft, box, rng):
    return {("no_object", draft.add_image(f"set01/V000/I{len(draft.names):05}"))}


def plant_ignore_only(draft, box, rng):
    image = draft.add_image(f"set01/V000/I{len(draft.names):05}")
    draft.add_box(image, [10, 10, 50, 90], IGNORE_REGION, is_region=True)
    return {("ignore_only", image)}


def plant_malformed(draft, box, rng):
    row = int(rng.integers(1000))
    draft.malformed.append(MalformedRow(row, "annotation", f"annotation {row}: no bbox", None))
    return {("malformed_row", row)}


def plant_area(draft, box, rng):
    x, y, right, bottom = draft.boxes[box][1]
    draft.boxes[box][1][2:] = [x + (right - x) / 5, y + (bottom - y) / 5]
    return {("outlier_area", box)}


def plant_aspect(draft, box, rng):
    x, y, right, bottom = draft.boxes[box][1]
    draft.boxes[box][1][2:] = [x + (right - x) * 5, y + (bottom - y) / 5]
    return {("outlier_aspect", box)}


def plant_whole_image(draft, box, rng):
    draft.boxes[box][1:3] = [[0.0, 0.0, WIDTH, HEIGHT - 12.0], 1]
    return {("whole_image_box", box)}


PLANTERS = [value for name, value in globals().items() if name.startswith("plant_")]
OF_PICTURES = {"missing_image", "unreadable_image", "size_mismatch", "missing_modality"}


def findings_of(draft: Draft) -> set[tuple[str, int | None]]:
    listed = found(draft.table())
    assert len(listed) == len(set(listed))
    return set(listed)


def test_a_clean_file_has_no_findings():
    for seed in range(10):
        assert findings_of(clean_draft(np.random.default_rng(seed))) == set()


@pytest.mark.parametrize("plant", PLANTERS)
def test_a_planted_fault_is_found_and_nothing_else_is(plant):
    for seed in range(15):
        rng = np.random.default_rng(seed)
        draft = clean_draft(rng)
        assert findings_of(draft) == set()
        expected = plant(draft, int(rng.integers(3 * NUM_IMAGES)), rng)
        assert findings_of(draft) == expected


@pytest.mark.parametrize("seed", range(15))
def test_many_planted_faults_are_all_found_and_nothing_else_is(seed):
    rng = np.random.default_rng(seed)
    draft = clean_draft(rng)
    planters = rng.choice(PLANTERS, 20)
    # One box an image: no image loses its last object, as no_object would rightly tell.
    boxes = rng.choice(NUM_IMAGES, len(planters), replace=False)
    expected: set = set()
    for plant, box in zip(planters, boxes.tolist(), strict=True):
        expected |= plant(draft, box, rng)
    assert findings_of(draft) == expected


def test_every_rule_that_labels_alone_can_break_is_planted():
    rng = np.random.default_rng(0)
    planted = {rule for plant in PLANTERS for rule, _ in plant(clean_draft(rng), 0, rng)}
    assert planted == set(RULES) - OF_PICTURES


# The rules of boxes, one box at a time in plain Python.

NUMBERS = st.sampled_from([-30.0, -0.5, 0.0, 0.5, 1.0, 20.0, 320.0, 620.0, 640.0, 700.0]) | (
    st.floats(width=32)
)


def rules_of_box(box, category, is_region) -> set[str]:
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, box)):
        return {"not_finite"}
    if x2 <= x1 or y2 <= y1:
        return {"degenerate_box"}
    rules = set()
    if x2 - x1 < 1 or y2 - y1 < 1:
        rules.add("tiny_box")
    if x1 < -1e-6 or y1 < -1e-6 or x2 > WIDTH + 1e-6 or y2 > HEIGHT + 1e-6:
        rules.add("outside_image")
    x, y = x1 / 2 + x2 / 2, y1 / 2 + y2 / 2
    if not (-1e-6 <= x <= WIDTH + 1e-6 and -1e-6 <= y <= HEIGHT + 1e-6):
        rules.add("centre_outside_image")
    if category == UNKNOWN_CATEGORY:
        rules.add("unknown_category")
    inner = max(0.0, min(x2, WIDTH) - max(x1, 0.0)) * max(0.0, min(y2, HEIGHT) - max(y1, 0.0))
    if inner >= 0.95 * WIDTH * HEIGHT and not is_region:
        rules.add("whole_image_box")
    return rules


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.tuples(*[NUMBERS] * 4), st.integers(-2, 1), st.booleans()),
        max_size=12,
    )
)
@example(
    [
        (0, (1.0, 1.0, 20.0, 20.0), category, is_region)
        for category, is_region in ((0, False), (0, True), (1, False), (-1, True), (0, True))
    ]
)
@settings(max_examples=150, deadline=None)
def test_boxes_break_the_rules_that_plain_python_says(rows):
    draft = Draft(3)
    expected = set()
    first_of: dict = {}
    for image, box, category, is_region in rows:
        row = draft.add_box(image, box, category, is_region)
        draft.words[row] = "?"
        rules = rules_of_box(box, category, is_region)
        if not rules & {"not_finite", "degenerate_box"}:
            earlier = first_of.setdefault((image, box, category, is_region), row)
            rules |= {"duplicate_box"} if earlier != row else set()
        expected |= {(rule, row) for rule in rules}
    listed = audit_table(draft.table()).findings
    assert {(finding.rule, finding.row) for finding in listed if finding.box} == expected


def test_findings_are_in_the_order_of_the_rules_and_of_the_file():
    draft = Draft(2)
    for box in ([-1, 0, 20, 20], [3, 3, 3, 9], [0, 0, math.nan, 5], [-2, 0, 20, 20]):
        draft.add_box(0, box)
    assert found(draft.table()) == [
        ("not_finite", 2),
        ("degenerate_box", 1),
        ("outside_image", 0),
        ("outside_image", 3),
        ("no_object", 1),
    ]


def test_a_finding_names_image_row_box_class_and_whether_it_is_a_region():
    draft = Draft(2)
    draft.add_box(0, [0, 0, 20, 20])
    draft.add_box(1, [620, 308, 620, 309], 1, is_region=True)
    (finding,) = audit_table(draft.table()).of_rule("degenerate_box")
    assert finding == Finding(
        "degenerate_box",
        "set00/V000/I00001",
        1,
        (620.0, 308.0, 620.0, 309.0),
        "rare",
        "has no area (0 x 1 px)",
        True,
    )
    assert str(finding) == (
        "set00/V000/I00001, row 1: [620, 308, 620, 309] has no area (0 x 1 px) (a region to ignore)"
    )


@pytest.mark.parametrize(
    ("box", "rule", "message"),
    [
        ([math.inf, 0, 9, 9], "not_finite", "a coordinate is not finite"),
        ([5, 5, 4, 9], "degenerate_box", "has no area (-1 x 4 px)"),
        ([5, 5, 5.5, 9], "tiny_box", "is 0.5 x 4 px, under 1"),
        (
            [-2, 5, 650, 9],
            "outside_image",
            "reaches 2 px beyond the left, 10 px beyond the right of the 640 x 480 image",
        ),
        (
            [600, 470, 660, 530],
            "centre_outside_image",
            "has its centre (630, 500) beyond the rim of the 640 x 480 image",
        ),
        ([0, 0, 640, 480], "whole_image_box", "covers 100 % of its image"),
    ],
)
def test_messages_say_what_is_wrong_with_a_box(box, rule, message):
    (finding,) = audit_table(one_box(box)).of_rule(rule)
    assert finding.message == message


def test_an_unknown_category_is_told_as_the_file_says_it():
    draft = Draft(1)
    draft.words[draft.add_box(0, [0, 0, 9, 9], UNKNOWN_CATEGORY)] = "Person\n"
    (finding,) = audit_table(draft.table()).findings
    assert finding.message == "category 'Person\\n' is not among the classes"
    assert finding.category is None


def test_least_size_is_the_caller_s():
    table = one_box([10, 10, 14, 60])
    assert found(table) == []
    assert found(table, min_box_size=4.0) == []
    assert found(table, min_box_size=4.5) == [("tiny_box", 0)]


def test_rounding_of_x_plus_width_reaches_nowhere():
    assert 639.9 + 0.1 <= 640.0 < 0.1 + 639.9000000000001
    assert found(one_box([0.1, 0, 0.1 + 639.9000000000001, 40])) == []
    assert found(one_box([600, 0, 640.001, 40])) == [("outside_image", 0)]


def test_without_a_size_only_the_left_and_the_top_are_borders():
    draft = Draft(1)
    draft.add_box(0, [-3, 0, 90, 90])
    draft.add_box(0, [5000, 0, 5090, 90])
    unknown = replace(draft.table(), heights=np.zeros(1), widths=np.zeros(1))
    assert found(unknown) == [("outside_image", 0)]
    (finding,) = audit_table(unknown).findings
    assert finding.message == "reaches 3 px beyond the left of the image"
    sized = with_picture_sizes(unknown, np.array([[480, 640]]))
    assert found(sized) == [("outside_image", 0), ("outside_image", 1), ("centre_outside_image", 1)]


def test_a_stated_size_goes_before_that_of_the_picture():
    table = one_box([600, 0, 640, 40])
    assert found(with_picture_sizes(table, np.array([[100, 100]]))) == []


def test_an_image_of_a_row_that_cannot_be_read_may_have_an_object():
    draft = Draft(2)
    draft.malformed = [MalformedRow(7, "annotation", "annotation 7: no bbox", "set00/V000/I00001")]
    audit = audit_table(draft.table())
    assert [str(finding) for finding in audit.findings] == [
        "set00/V000/I00001: annotation 7: no bbox",
        "set00/V000/I00000, row 0: has no box",
    ]


def test_a_person_without_area_is_an_object_to_the_rules_of_images():
    draft = Draft(1)
    draft.add_box(0, [3, 3, 3, 9])
    draft.add_box(0, [3, 3, 9, 9], IGNORE_REGION, is_region=True)
    assert found(draft.table()) == [("degenerate_box", 0)]


@pytest.mark.parametrize("name", ["./a/b.jpg", "a//b.jpg", "a\\b.jpg", "a/c/../b.jpg"])
def test_other_spellings_of_a_path_are_the_same_image(name):
    draft = Draft()
    for each in ("a/b.jpg", name, "b.jpg"):
        draft.add_box(draft.add_image(each), [0, 0, 9, 9])
    (finding,) = audit_table(draft.table()).findings
    assert str(finding) == f"{name}, row 1: is the image of row 0 again, there spelled a/b.jpg"


def test_lines_of_a_csv_that_name_an_image_again_without_a_box_are_told():
    draft = Draft(1)
    draft.add_box(0, [0, 0, 9, 9])
    draft.repeated = {5: 0}
    (finding,) = audit_table(draft.table()).findings
    assert str(finding) == "set00/V000/I00000, row 5: is the image of row 0 again, without a box"


def test_a_file_without_boxes_is_looked_through():
    assert found(Draft(2).table()) == [("no_object", 0), ("no_object", 1)]


def test_counts_are_of_all_rules_and_regions_are_told_apart():
    draft = Draft(1)
    draft.add_box(0, [3, 3, 3, 9])
    draft.add_box(0, [0, 0, 0, 0], IGNORE_REGION, is_region=True)
    audit = audit_table(draft.table())
    assert list(audit.counts) == list(RULES)
    assert audit.counts["degenerate_box"] == 2
    assert sum(audit.counts.values()) == 2
    assert audit.regions == {"degenerate_box": 1}


def test_what_is_cleaned_is_what_the_plan_of_the_issue_says():
    assert set(RULES) - set(CLEANED) == {
        *("no_object", "ignore_only", "size_mismatch", "missing_modality"),
        *("outlier_area", "outlier_aspect", "whole_image_box"),
    }


@pytest.mark.parametrize(
    ("box", "is_found"),
    [
        ([0, 0, 640, 456], True),  # 95 % of 480 rows
        ([0, 0, 640, 455], False),
        ([-400, -400, 1000, 1000], True),  # what lies beyond the rim is not counted
        ([-640, 0, 320, 480], False),
    ],
)
def test_a_box_is_the_whole_image_from_95_percent_of_its_area(box, is_found):
    assert (("whole_image_box", 0) in found(one_box(box))) == is_found
    assert ("whole_image_box", 0) not in found(one_box(box, is_region=True))
