"""Which labels count, and on which images."""

import math
from dataclasses import replace

import numpy as np
import pytest
from miss_rate_toys import make_labels

from d2pd.config_keys import default_config
from d2pd.errors import ConfigError
from d2pd.evaluation.subsets import (
    KAIST,
    Protocol,
    Setting,
    Split,
    build_protocol,
    has_unknown_occlusion,
    ignored,
    in_split,
    unused_prefixes,
)

BOX = (100, 100, 20, 60)


def labels_of(*rows):
    """Labels of one image: x, y, width, height, ignore, occlusion."""
    return make_labels(["set00/V000/I00001"], [(0, *row) for row in rows])


def names_of(*names):
    return make_labels(names, [])


def test_kaist_has_seven_settings_on_three_splits():
    assert [setting.name for setting in KAIST.settings] == [
        "reasonable", "near", "medium", "far", "none", "partial", "heavy",
    ]  # fmt: skip
    assert [split.name for split in KAIST.splits] == ["all", "day", "night"]


@pytest.mark.parametrize(
    ("split", "count", "images"), [(0, 1455, 2252), (1, 989, 1455), (2, 466, 797)]
)
def test_reasonable_labels_of_the_test_list(kaist_labels, split, count, images):
    is_in = in_split(kaist_labels, KAIST.splits[split])
    is_normal = ~ignored(kaist_labels, KAIST.settings[0])
    assert is_in.sum() == images
    assert (is_normal & is_in[kaist_labels.image_index]).sum() == count


def test_every_train_label_is_judged_without_occlusion(shared_data):
    from d2pd.data.annotations import read_kaist_json
    from d2pd.evaluation.arrays import label_arrays

    records = read_kaist_json(shared_data / "kaist" / "train20.json", None).records
    labels = label_arrays(records, ["person"])
    assert has_unknown_occlusion(labels)
    assert (~ignored(labels, KAIST.settings[0])).any()
    assert in_split(labels, KAIST.splits[1]).sum() == 5622


def test_height_and_bounds_that_are_just_met_count():
    labels = labels_of(
        (5, 5, 20, 55, 0, 0),
        (615, 452, 20, 55, 0, 0),
        (4.9, 5, 20, 55, 0, 0),
        (5, 4.9, 20, 55, 0, 0),
        (615.1, 452, 20, 55, 0, 0),
        (615, 452.1, 20, 55, 0, 0),
        (100, 100, 20, 54.9, 0, 0),
    )
    assert ignored(labels, KAIST.settings[0]).tolist() == [False] * 2 + [True] * 5
    assert ignored(labels, Setting("low", 0, 55)).tolist() == [False] * 7


def test_occlusion_that_is_not_stated_does_not_exclude():
    labels = labels_of(*((*BOX, 0, occlusion) for occlusion in (-1, 0, 1, 2)))
    assert ignored(labels, KAIST.settings[0]).tolist() == [False, False, False, True]
    assert ignored(labels, Setting("heavy", occlusion=frozenset({2}))).tolist() == [
        False, True, True, False,
    ]  # fmt: skip


def test_flagged_and_classless_labels_are_ignored():
    labels = labels_of((*BOX, 1, 0), (*BOX, 0, 0))
    assert ignored(labels, Setting("every")).tolist() == [True, False]
    classless = replace(labels, classes=np.array([0, -1]))
    assert ignored(classless, Setting("every")).all()


def test_only_labels_that_could_count_make_occlusion_unknown():
    assert has_unknown_occlusion(labels_of((*BOX, 0, 0), (*BOX, 0, -1)))
    assert not has_unknown_occlusion(labels_of((*BOX, 0, 0), (*BOX, 1, -1)))


def test_prefixes_match_whole_parts_of_the_path():
    labels = names_of("set06/V000/I00019", "set06/V0001/I1", "set061/V000/I1", "a/set06/V000/I1")
    assert in_split(labels, Split("s", ("set06",))).tolist() == [True, True, False, False]
    assert in_split(labels, Split("s", ("set06/V000/",))).tolist() == [True, False, False, False]
    assert in_split(labels, Split("s", ("set0", "a"))).tolist() == [False, False, False, True]
    assert in_split(labels, Split("all")).all()


def test_prefixes_match_anywhere_in_an_absolute_path():
    labels = names_of("/home/me/photos/day/1.jpg", "/home/me/photos/night/1.jpg")
    assert in_split(labels, Split("day", ("day",))).tolist() == [True, False]
    assert in_split(labels, Split("day", ("/home/me/photos/day",))).tolist() == [True, False]
    assert in_split(labels, Split("day", ("ay",))).tolist() == [False, False]


def test_prefixes_that_match_nothing_are_named():
    labels = names_of("set06/V000/I00019")
    assert unused_prefixes(labels, Split("day", ("set06", "set6", "V000"))) == ("set6", "V000")
    assert unused_prefixes(labels, Split("all")) == ()


def test_own_settings_and_splits_come_from_a_configuration():
    settings = {
        "mine": {"HEIGHT": [50, math.inf], "OCCLUSION": [0], "BOUNDS": [5, 5, 635, 507]},
        "every": {},
    }
    assert build_protocol(settings, {"all": [], "rain": ["set20/V001"]}) == Protocol(
        (Setting("mine", 50, math.inf, frozenset({0}), (5, 5, 635, 507)), Setting("every")),
        (Split("all"), Split("rain", ("set20/V001",))),
    )
    assert build_protocol({}, {}) == Protocol((), (Split("all"),))


def test_keys_of_a_configuration_tree_are_taken():
    cfg = default_config()
    cfg.merge_from_list(["MISS_RATE.IOU_THRESHOLD", 0.5])
    cfg.MISS_RATE.SETTINGS.mine = type(cfg)({"HEIGHT": (50, 200)})
    cfg.MISS_RATE.SPLITS.rain = ("set20",)
    protocol = build_protocol(cfg.MISS_RATE.SETTINGS, cfg.MISS_RATE.SPLITS)
    assert protocol.settings == (Setting("mine", 50, 200),)
    assert protocol.splits == (Split("all"), Split("rain", ("set20",)))


@pytest.mark.parametrize(
    ("spec", "key", "allowed"),
    [
        ({"HEIGHT": [200, 50]}, "mine.HEIGHT", "0 <= least <= most"),
        ({"HEIGHT": [-1, 50]}, "mine.HEIGHT", "0 <= least <= most"),
        ({"HEIGHT": [math.nan, 50]}, "mine.HEIGHT", "0 <= least <= most"),
        ({"HEIGHT": [50, math.nan]}, "mine.HEIGHT", "0 <= least <= most"),
        ({"HEIGHT": 50}, "mine.HEIGHT", "[least, most]"),
        ({"HEIGHT": ["50", "60"]}, "mine.HEIGHT", "[least, most]"),
        ({"HEIGHT": [True, 60]}, "mine.HEIGHT", "[least, most]"),
        ({"OCCLUSION": []}, "mine.OCCLUSION", "at least one"),
        ({"OCCLUSION": [3]}, "mine.OCCLUSION", "0 (none), 1 (partial), 2 (heavy)"),
        ({"OCCLUSION": "0"}, "mine.OCCLUSION", "0 (none), 1 (partial), 2 (heavy)"),
        ({"OCCLUSION": 0}, "mine.OCCLUSION", "0 (none), 1 (partial), 2 (heavy)"),
        ({"BOUNDS": [5, 5, 635]}, "mine.BOUNDS", "x1 < x2 and y1 < y2"),
        ({"BOUNDS": [635, 5, 5, 507]}, "mine.BOUNDS", "x1 < x2 and y1 < y2"),
        ({"BOUNDS": [5, 507, 635, 5]}, "mine.BOUNDS", "x1 < x2 and y1 < y2"),
        ({"BOUNDS": [5, 5, math.inf, 507]}, "mine.BOUNDS", "x1 < x2 and y1 < y2"),
        ([1, 2], "mine", "HEIGHT, OCCLUSION, BOUNDS"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(spec, key, allowed):
    with pytest.raises(ConfigError) as caught:
        build_protocol({"mine": spec}, {})
    assert f"MISS_RATE.SETTINGS.{key} " in str(caught.value)
    assert allowed in str(caught.value)
    value = next(iter(spec.values())) if isinstance(spec, dict) else spec
    assert f"got {value!r}" in str(caught.value)


def test_an_unknown_key_of_a_setting_is_named():
    with pytest.raises(ConfigError) as caught:
        build_protocol({"mine": {"WIDTH": [1, 2]}}, {})
    assert str(caught.value) == (
        "MISS_RATE.SETTINGS.mine.WIDTH is not a key; allowed are HEIGHT, OCCLUSION, BOUNDS"
    )


@pytest.mark.parametrize("prefixes", ["set06", [], [6], [""], ["/"], None])
def test_a_wrong_split_is_named_with_what_is_allowed(prefixes):
    with pytest.raises(ConfigError, match=r"MISS_RATE.SPLITS.rain must be a list of path prefixes"):
        build_protocol({"mine": {}}, {"rain": prefixes})


def test_the_split_all_takes_no_prefixes():
    with pytest.raises(ConfigError, match=r"MISS_RATE.SPLITS.all holds every image"):
        build_protocol({"mine": {}}, {"all": ["set06"]})


@pytest.mark.parametrize("name", ["Mine", "a/b", "", "a b", 3])
def test_a_name_must_fit_into_a_metric(name):
    with pytest.raises(ConfigError, match=r"MISS_RATE.SETTINGS.*lower-case"):
        build_protocol({name: {}}, {})
    with pytest.raises(ConfigError, match=r"MISS_RATE.SPLITS.*lower-case"):
        build_protocol({"mine": {}}, {name: ["set06"]})
