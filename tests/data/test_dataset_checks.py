"""Frames that lack a camera are told of before anything is built; see also test_registration."""

import json
import logging

import pytest
from PIL import Image

from d2pd.data.dataset_checks import unreadable_labels
from d2pd.data.registration import register_csv, register_kaist

NUM_FRAMES = 4


pytestmark = pytest.mark.usefixtures("forget_datasets")


@pytest.fixture
def make_frames(tmp_path):
    """Return a function: register KAIST frames of which each has the given cameras."""

    def make(*cameras):
        names = [f"set00/V000/I0000{number}" for number in range(NUM_FRAMES)]
        for name in names:
            video, _, frame = name.rpartition("/")
            for camera in cameras:
                path = tmp_path / video / camera / f"{frame}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (64, 48)).save(path)
        images = [
            {"id": number, "im_name": name, "width": 64, "height": 48}
            for number, name in enumerate(names)
        ]
        (tmp_path / "labels.json").write_text(json.dumps({"images": images, "annotations": []}))
        register_kaist("cameras", tmp_path / "labels.json", tmp_path)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("cameras", "modality"),
    [
        (("visible", "lwir"), "both"),
        (("visible", "lwir"), "lwir"),
        (("visible",), "visible"),
        (("lwir",), "lwir"),
    ],
)
def test_frames_with_all_that_is_asked_for_pass(make_frames, cameras, modality):
    make_frames(*cameras)
    assert unreadable_labels(["cameras"], modality) == []


@pytest.mark.parametrize(
    ("camera", "modality", "lacking", "cure"),
    [
        ("visible", "lwir", "lwir", "visible"),
        ("visible", "both", "lwir", "visible"),
        ("lwir", "both", "visible", "lwir"),
    ],
)
def test_frames_that_lack_a_camera_are_counted_and_named(
    make_frames, camera, modality, lacking, cure
):
    make_frames(camera)
    assert unreadable_labels(["cameras"], modality) == [
        f"cameras: 4 of 4 frames have no {lacking} image (set00/V000/I00000, set00/V000/I00001, "
        f"set00/V000/I00002, ...), and INPUT.MODALITY is {modality}: get the {lacking} folders "
        f"too, or set INPUT.MODALITY {cure}"
    ]


def test_thermal_frames_in_the_place_of_visible_ones_stay_a_warning(make_frames, caplog):
    root = make_frames("lwir")
    with caplog.at_level(logging.WARNING):
        assert unreadable_labels(["cameras"], "visible") == []
    assert f"{root} holds no visible frames; lwir frames take their place" in caplog.text


def test_one_frame_of_a_pair_that_is_missing_is_named(make_frames):
    root = make_frames("visible", "lwir")
    (root / "set00/V000/lwir/I00002.png").unlink()
    (problem,) = unreadable_labels(["cameras"], "both")
    assert "1 of 4 images of" in problem
    assert "VYYY/lwir/ (jpg or png): set00/V000/I00002;" in problem


def test_photos_are_not_asked_for_a_camera_here(tmp_path):
    Image.new("L", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("a.png,1,2,30,35,person\n")
    register_csv("photos", tmp_path / "a.csv", tmp_path, class_names=["person"])
    assert unreadable_labels(["photos"], "both") == []
