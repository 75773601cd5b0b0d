"""Which fold an image goes into."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from fold_toys import frames, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from d2pd.data.fold_assignment import assign_folds, daytime_of, video_of
from d2pd.errors import AnnotationError, ConfigError

SETS = ("set00", "set01", "set04", "set09")


@st.composite
def label_tables(draw):
    """Tables of five KAIST frames and more, some listed twice, with boxes of two classes."""
    videos = draw(st.lists(st.tuples(st.sampled_from(SETS), st.integers(0, 9)), min_size=1))
    names = frames(set02_V000=5) + [
        f"{folder}/V{video:03}/I{frame:05}"
        for folder, video in videos
        for frame in draw(st.lists(st.integers(0, 5), min_size=1, max_size=5))
    ]
    box = st.tuples(st.integers(0, len(names) - 1), st.integers(-2, 1), st.booleans())
    return table_of(names, draw(st.lists(box, max_size=20)), ("person", "cyclist"))


@settings(max_examples=60, deadline=None)
@given(label_tables(), st.integers(2, 5), st.booleans(), st.integers(0, 99))
def test_no_video_is_in_two_folds_and_no_fold_is_empty(table, num_folds, is_stratified, seed):
    videos = {video_of(name) for name in table.image_names}
    options = {"by": "video", "is_stratified": is_stratified, "seed": seed}
    if len(videos) < num_folds:
        with pytest.raises(ConfigError, match="give fewer folds"):
            assign_folds(table, num_folds, **options)
        return
    folds = assign_folds(table, num_folds, **options)
    of_video = defaultdict(set)
    for name, fold in zip(table.image_names, folds.tolist(), strict=True):
        of_video[video_of(name)].add(fold)
    assert all(len(found) == 1 for found in of_video.values())
    assert set(folds.tolist()) == set(range(num_folds))
    assert folds.tolist() == assign_folds(table, num_folds, **options).tolist()


@settings(max_examples=60, deadline=None)
@given(label_tables(), st.booleans(), st.integers(0, 99))
def test_rows_of_one_name_share_a_fold_by_image_too(table, is_stratified, seed):
    folds = assign_folds(table, 2, by="image", is_stratified=is_stratified, seed=seed)
    pairs = set(zip(table.image_names, folds.tolist(), strict=True))
    assert len(pairs) == len(set(table.image_names))
    assert set(folds.tolist()) == {0, 1}


@pytest.mark.parametrize("other", ["./a/1.jpg", "a\\1.jpg", "a//1.jpg", "b/../a/1.jpg"])
def test_two_spellings_of_one_file_share_a_fold(other):
    names = ["a/1.jpg", *(f"a/{number}.jpg" for number in range(2, 30)), other]
    for seed in range(20):
        folds = assign_folds(table_of(names), 5, by="image", is_stratified=False, seed=seed)
        assert folds[0] == folds[-1]


def test_images_by_lot_come_in_folds_of_one_size_that_the_seed_chooses():
    table = table_of([f"{number}.jpg" for number in range(103)])
    chosen = {
        tuple(assign_folds(table, 5, by="image", is_stratified=False, seed=seed))
        for seed in range(5)
    }
    assert len(chosen) == 5
    for folds in chosen:
        assert sorted(Counter(folds).values()) == [20, 20, 21, 21, 21]


def test_the_order_of_the_rows_does_not_matter_to_the_lots():
    names = frames(set00_V000=3, set00_V001=2, set03_V000=4, set03_V001=1)
    options = {"by": "video", "is_stratified": False, "seed": 3}
    forth = dict(zip(names, assign_folds(table_of(names), 3, **options), strict=True))
    back = dict(zip(names[::-1], assign_folds(table_of(names[::-1]), 3, **options), strict=True))
    assert forth == back


def test_stratified_folds_share_day_and_night_where_lots_do_not():
    # Two videos of the day and two of the night: two folds have one of each in 2 of 3 lots.
    table = table_of(frames(set00_V000=10, set01_V000=10, set03_V000=10, set04_V000=10))
    is_night = np.array([daytime_of(name) == "night" for name in table.image_names])
    nights = defaultdict(set)
    for is_stratified in (False, True):
        for seed in range(12):
            folds = assign_folds(table, 2, by="video", is_stratified=is_stratified, seed=seed)
            nights[is_stratified].add(int(is_night[folds == 0].sum()))
    assert nights[True] == {10}
    assert nights[False] > {10}


def test_stratified_folds_share_a_rare_class():
    # 6 of 60 images hold a cyclist; sorted by name they would all be in the first fold.
    names = [f"{number:02}.jpg" for number in range(60)]
    boxes = [(at, int(at < 6), False) for at in range(60)]
    table = table_of(names, boxes, ("person", "cyclist"))
    folds = assign_folds(table, 3, by="image", is_stratified=True, seed=0)
    assert np.bincount(folds[:6], minlength=3).tolist() == [2, 2, 2]
    assert np.bincount(folds, minlength=3).tolist() == [20, 20, 20]


def test_regions_and_unknown_categories_are_not_balanced():
    names = [f"{number}.jpg" for number in range(12)]
    plain = assign_folds(table_of(names), 3, by="image", is_stratified=True, seed=1)
    boxes = [(0, -1, True), (0, -2, False), (1, 0, True)] * 9
    other = assign_folds(table_of(names, boxes), 3, by="image", is_stratified=True, seed=1)
    assert plain.tolist() == other.tolist()


@pytest.mark.parametrize(
    ("name", "video", "daytime"),
    [
        ("set00/V003/I01217", "set00/V003", "day"),
        ("set03/V003/visible/I01217.jpg", "set03/V003", "night"),
        ("set03/V003/lwir/I01217.jpg", "set03/V003", "night"),
        ("kaist/set09/set09/V001/lwir/I00001.png", "set09/V001", "night"),
        ("images/set06_V001_I00001.png", "set06/V001", "day"),
        ("set11\\V000\\visible\\I00159.jpg", "set11/V000", "night"),
        ("set00/1.jpg", "set00", ""),
        ("street/morning/7.jpg", "street/morning", ""),
        ("./street//7.jpg", "street", ""),
        ("street/lwir/morning/7.jpg", "street/morning", ""),
        ("visible/7.jpg", "", ""),
        ("7.jpg", "", ""),
        ("reset00/V0001/7.jpg", "reset00/V0001", ""),
    ],
)
def test_video_and_daytime_are_read_from_the_name(name, video, daytime):
    assert (video_of(name), daytime_of(name)) == (video, daytime)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (frames(set00_V000=9), {}, "all 9 images are of set00/V000, .* --by image"),
        (["a.jpg", "b.jpg"], {}, "all 2 images have a name without a folder, .* --by image"),
        (frames(set00_V000=9, set01_V000=9), {}, "holds 2 videos.* fewer folds, or --by image"),
        (["a.jpg", "a.jpg"], {"by": "image"}, "labels.json holds 1 image, .*fewer folds$"),
        ([], {}, "labels.json: not a single image"),
        (["a/1.jpg", "b/1.jpg"], {"num_folds": 1}, "--folds 1 leaves nothing to train on"),
        (
            frames(set00_V000=1, set01_V000=1, set03_V000=1, set04_V000=1),
            {"is_stratified": True},
            "too little of everything to balance 3 folds .*no --stratify",
        ),
    ],
)
def test_what_cannot_be_divided_is_told_with_the_way_out(names, options, message):
    options = {"num_folds": 3, "by": "video", "is_stratified": False, "seed": 0, **options}
    with pytest.raises((AnnotationError, ConfigError), match=message) as caught:
        assign_folds(table_of(names), **options)
    assert "\n" not in str(caught.value)
