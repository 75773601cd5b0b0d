import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import resnet18, resnet50

from d2pd.errors import WeightsError
from d2pd.training.weights.matching import match_weights
from d2pd.training.weights.weight_names import to_detectron2_names

PREDICTOR = "roi_heads.box_predictor."


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@settings(deadline=None, max_examples=30)
@given(
    shapes=st.dictionaries(
        st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3}){0,2}", fullmatch=True),
        st.tuples(st.integers(1, 3)),
        min_size=1,
        max_size=8,
    )
)
def test_a_model_matches_itself_whole(shapes):
    match = match_weights({name: torch.zeros(shape) for name, shape in shapes.items()}, shapes)
    assert match.loaded == {name: name for name in shapes}
    assert (match.renewed, match.missing, match.unused) == ([], [], [])
    assert match.matched_fraction == 1.0


@pytest.mark.parametrize(("depth", "build"), [(18, resnet18), (50, resnet50)])
def test_a_torchvision_backbone_fits_whole(build_detector, depth, build):
    shapes = shapes_of(build_detector(depth=depth))
    match = match_weights(to_detectron2_names(build(weights=None).state_dict()), shapes)
    assert match.scope == "backbone.bottom_up."
    assert match.matched_fraction == 1.0
    assert (match.renewed, match.missing, match.unused) == ([], [], [])
    assert match.loaded["backbone.bottom_up.res2.0.conv1.weight"] == "res2.0.conv1.weight"
    assert all(name.startswith("backbone.bottom_up.") for name in match.loaded)


def test_a_detector_on_other_classes_renews_the_predictor_only(build_detector):
    state = build_detector(num_classes=80, seed=1).state_dict()
    match = match_weights(state, shapes_of(build_detector(num_classes=2)))
    assert [str(entry) for entry in match.renewed] == [
        f"{PREDICTOR}cls_score.weight (81x32 in the file, 3x32 here)",
        f"{PREDICTOR}cls_score.bias (81 in the file, 3 here)",
        f"{PREDICTOR}bbox_pred.weight (320x32 in the file, 8x32 here)",
        f"{PREDICTOR}bbox_pred.bias (320 in the file, 8 here)",
    ]
    assert match.scope == ""
    assert (match.missing, match.unused) == ([], [])
    assert 0.9 < match.matched_fraction < 1
    assert set(match.loaded) == set(state) - {entry.name for entry in match.renewed}


@pytest.mark.parametrize(("file", "model"), [(18, 50), (50, 18), (50, 101), (101, 50)])
def test_a_resnet_of_another_depth_is_refused(build_detector, file, model):
    # Of ResNet-101, ResNet-50 has 51 % of the names.
    state = build_detector(depth=file).backbone.bottom_up.state_dict()
    with pytest.raises(
        WeightsError, match=rf"r\.pkl holds .*ResNet-{file}, but .* ResNet-{model}: .*DEPTH"
    ):
        match_weights(state, shapes_of(build_detector(depth=model)), source="r.pkl")


def test_half_is_enough_and_less_is_not():
    shapes = dict.fromkeys("abcdef", (2,))
    state = {name: torch.zeros(2) for name in "abc"}
    match = match_weights(state, shapes)
    assert match.matched_fraction == 0.5
    assert match.missing == ["d", "e", "f"]
    more = dict.fromkeys("abcdefg", (2,))
    with pytest.raises(WeightsError, match="3 of 7 parameters of the model are in it"):
        match_weights({**state, "z": torch.zeros(2)}, more)


def test_a_backbone_is_counted_against_the_backbone():
    names = [f"backbone.bottom_up.res2.0.conv1.{i}" for i in range(4)]
    shapes = dict.fromkeys([*names, *(f"roi_heads.{i}" for i in range(50))], (2,))
    part = {f"res2.0.conv1.{i}": torch.zeros(2) for i in range(3)}
    match = match_weights(part, shapes)
    assert match.matched_fraction == 0.75
    assert match.missing == [names[3]]
    with pytest.raises(WeightsError, match=r"1 of 4 parameters of the model's backbone\.bottom_up"):
        match_weights({"res2.0.conv1.0": torch.zeros(2)}, shapes)


def test_other_shapes_do_not_count_as_matched():
    shapes = dict.fromkeys("abcd", (2, 3))
    state = {name: torch.zeros(3, 2) for name in "abcd"}
    with pytest.raises(
        WeightsError, match=r"0 of 4 .*4 have another shape, such as a \(3x2 in the file, 2x3 here"
    ):
        match_weights(state, shapes)


def test_the_longest_name_wins_and_one_that_fits_twice_fits_nowhere():
    shapes = {"net.stem.conv.w": (1,), "net.conv.w": (1,), "net.tail.w": (1,), "net.last.w": (1,)}
    state = {"stem.conv.w": torch.zeros(1), "conv.w": torch.zeros(1), "w": torch.zeros(1)}
    match = match_weights(state, shapes)
    assert match.loaded == {"net.stem.conv.w": "stem.conv.w", "net.conv.w": "conv.w"}
    assert match.unused == ["w"]


def test_a_name_that_is_the_models_own_fits_nowhere_else():
    shapes = {"conv.w": (1,), "net.conv.w": (1,)}
    match = match_weights({"conv.w": torch.zeros(1)}, shapes)
    assert match.loaded == {"conv.w": "conv.w"}
    assert match.missing == ["net.conv.w"]


def test_a_name_fits_at_a_dot_only():
    shapes = {"net.oconv.w": (1,), "net.conv.w": (1,)}
    assert match_weights({"conv.w": torch.zeros(1)}, shapes).loaded == {"net.conv.w": "conv.w"}


def test_counters_and_computed_buffers_are_not_reported(build_detector):
    model = build_detector(norm="BN")
    state = {n: t for n, t in model.state_dict().items() if not n.endswith("batches_tracked")}
    state["pixel_mean"] = torch.zeros(3, 1, 1)
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    match = match_weights(state, shapes_of(model))
    assert (match.missing, match.unused, match.matched_fraction) == ([], [], 1.0)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["model.0.conv.weight", "model.1.conv.weight"], "YOLO"),
        (["backbone.body.conv1.weight", "rpn.head.conv.0.0.weight"], "torchvision"),
        (["encoder.a", "encoder.b"], "names such as encoder.a, encoder.b"),
    ],
)
def test_a_file_for_another_model_is_named(build_detector, names, words):
    state = {name: torch.zeros(2) for name in names}
    with pytest.raises(WeightsError, match=rf"w\.pth does not fit the model: 0 of .*{words}") as e:
        match_weights(state, shapes_of(build_detector()), source="w.pth")
    assert "\n" not in str(e.value)
