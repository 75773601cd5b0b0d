"""What does not fit in a configuration of SSDSeg is said with its key and the way out."""

import pytest
from ssd_toys import make_cfg, make_model

from d2pd.errors import ConfigError
from d2pd.modeling.build import lwir_filters
from d2pd.modeling.ssd_parts import (
    build_anchor_shapes,
    build_network,
    read_detection_options,
    read_extra_layers,
)

THREE = r"the network has 3 maps \(conv4_3, conv7, conv8_2\): give a list for each, or change MODE"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"MODEL__ANCHOR_GENERATOR__SIZES": [[32.0]]},
            rf"MODEL\.ANCHOR_GENERATOR\.SIZES has 1 list, but {THREE}",
        ),
        (
            {"MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS": [[1.0]] * 4},
            rf"MODEL\.ANCHOR_GENERATOR\.ASPECT_RATIOS has 4 lists, but {THREE}",
        ),
        (
            {"MODEL__SSD__EXTRA_SQUARE_SIZES": [[30.0], [40.0]]},
            rf"MODEL\.SSD\.EXTRA_SQUARE_SIZES has 2 lists, but {THREE}",
        ),
        (
            {"MODEL__SSD__EXTRA_LAYERS": [[8, 8, 2, 1], [8, 8, 2, 1]]},
            r"SIZES has 3 lists, but the network has 4 maps \(conv4_3, conv7, conv8_2, conv9_2\)",
        ),
        (
            {"MODEL__ANCHOR_GENERATOR__SIZES": [16.0, 32.0, 64.0]},
            r"SIZES must have a list for each map, got \[16\.0, 32\.0, 64\.0\]",
        ),
        (
            {"MODEL__ANCHOR_GENERATOR__SIZES": [[16.0], [-32.0], [64.0]]},
            r"SIZES must be positive numbers",
        ),
        (
            {"MODEL__SSD__EXTRA_LAYERS": [[8, 8, 2]]},
            r"EXTRA_LAYERS has \[8, 8, 2\], which is not \[channels of the 1x1",
        ),
        ({"MODEL__SSD__EXTRA_LAYERS": [[8, 0, 2, 1]]}, r"has \[8, 0, 2, 1\], which is not"),
        ({"MODEL__SSD__EXTRA_LAYERS": [[8, 8, 2, -1]]}, r"has \[8, 8, 2, -1\], which is not"),
        ({"MODEL__SSD__EXTRA_LAYERS": [[8, 8, 2, 3]]}, r"has \[8, 8, 2, 3\], which is not"),
        ({"MODEL__SSD__EXTRA_LAYERS": [[10**8, 8, 2, 1]]}, r"which is not .*at most 16384, the"),
        (
            {"MODEL__SSD__EXTRA_SQUARE_SIZES": [["a"], [1.0], [1.0]]},
            r"EXTRA_SQUARE_SIZES must be positive numbers",
        ),
        ({"MODEL__SSD__SEG__MAPS": [1, 0, 0]}, r"MAPS is \[1, 0, 0\]; it holds True or False"),
        ({"MODEL__SSD__SEG__MAPS": ["False"] * 3}, r"MAPS is .*; it holds True or False"),
        ({"MODEL__SSD__SEG__MAP_WEIGHTS": [1.0, -1.0]}, r"MAP_WEIGHTS is .*a number of 0 or more"),
        ({"MODEL__SSD__SEG__MAP_WEIGHTS": ["a", 1]}, r"MAP_WEIGHTS is .*a number of 0 or more"),
        ({"MODEL__SSD__SEG__MAP_WEIGHTS": [True, 1]}, r"MAP_WEIGHTS is .*a number of 0 or more"),
        ({"MODEL__SSD__BBOX_REG_WEIGHTS": (1e308,) * 4}, r"BBOX_REG_WEIGHTS is .*give a positive"),
        ({"MODEL__SSD__SEG__MAPS": [True]}, r"SEG\.MAPS has 1 flags, but the model has 3 maps"),
        (
            {"MODEL__SSD__SEG__MAP_WEIGHTS": [1.0]},
            r"MAP_WEIGHTS has 1 factors, but 2 of MODEL\.SSD\.SEG\.MAPS are True \(conv4_3, conv7",
        ),
        ({"MODEL__SSD__SEG__KERNEL_SIZE": 5}, r"KERNEL_SIZE is 5; allowed: 1 .*, 3 "),
        ({"MODEL__SSD__IOU_THRESHOLD": 0.0}, r"IOU_THRESHOLD is 0\.0; it must be above 0"),
        ({"MODEL__SSD__BBOX_REG_WEIGHTS": (1.0, 1.0)}, r"BBOX_REG_WEIGHTS is \(1\.0, 1\.0\); give"),
        ({"MODEL__BACKBONE__NAME": "vgg19"}, r"NAME is 'vgg19'; SSDSeg is built on one of vgg16,"),
        ({"MODEL__BACKBONE__FREEZE_AT": 6}, r"FREEZE_AT is 6; vgg_light has 5 blocks"),
    ],
)
def test_what_does_not_fit_is_named_with_the_way_out(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_model(**changes)
    assert "\n" not in str(caught.value)


def test_extra_squares_may_be_left_out_or_given_for_each_map():
    assert build_anchor_shapes(make_cfg()).num_per_position == [4, 1, 1]
    squares = make_cfg(MODEL__SSD__EXTRA_SQUARE_SIZES=[[30.0], [], [50.0, 60.0]])
    assert build_anchor_shapes(squares).num_per_position == [5, 1, 3]


def test_keys_reach_their_parts():
    cfg = make_cfg(
        MODEL__SSD__NMS_TYPE="soft_linear",
        MODEL__SSD__SCORE_THRESH_TEST=0.1,
        MODEL__SSD__L2_NORM_SCALE=10.0,
        TEST__DETECTIONS_PER_IMAGE=7,
    )
    options = read_detection_options(cfg)
    assert (options.nms_type, options.score_threshold) == ("soft_linear", 0.1)
    assert (options.detections_per_image, options.bbox_reg_weights) == (7, (10, 10, 5, 5))
    network = build_network(cfg, build_anchor_shapes(cfg))
    assert set(network.l2_norm.scale.tolist()) == {10.0}
    assert network.map_channels == {"conv4_3": 96, "conv7": 192, "conv8_2": 32}
    assert [tuple(layer) for layer in read_extra_layers(cfg)] == [(16, 32, 2, 1)]


def test_there_may_be_no_map_behind_conv7():
    model = make_model(
        MODEL__SSD__EXTRA_LAYERS=[],
        MODEL__ANCHOR_GENERATOR__SIZES=[[16.0], [40.0]],
        MODEL__ANCHOR_GENERATOR__ASPECT_RATIOS=[[1.0], [1.0]],
        MODEL__SSD__SEG__MAPS=[],
    )
    assert list(model.network.map_channels) == ["conv4_3", "conv7"]
    assert list(model.seg_heads) == []


@pytest.mark.parametrize(
    ("name", "image_format", "filters"),
    [
        ("average", "RGB", (0, 1, 2)),
        ("average", "BGR", (0, 1, 2)),
        ("red", "RGB", (0,)),
        ("red", "BGR", (2,)),
        ("green", "BGR", (1,)),
        ("blue", "BGR", (0,)),
    ],
)
def test_filters_are_chosen_by_colour_in_the_order_of_the_images(name, image_format, filters):
    assert lwir_filters(name, image_format) == filters
    cfg = {"MODEL__BACKBONE__LWIR_FILTERS": name, "INPUT__FORMAT": image_format}
    assert make_model(**cfg).lwir_filters == filters
