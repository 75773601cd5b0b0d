"""Pictures that are missing, cut short, of another size, or of one camera alone."""

import json
import os
import time
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2pd.data.audit import pictures
from d2pd.data.audit.picture_files import NearNames
from d2pd.data.audit.pictures import UNKNOWN_SIZE, look_at_picture, look_at_pictures
from d2pd.data.label_table.read import read_label_table
from d2pd.errors import MissingFileError

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
ENCODED = {suffix: cv2.imencode(suffix, NOISE)[1].tobytes() for suffix in (".jpg", ".png")}


def write_picture(path: Path, size=(48, 64), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(NOISE, (*size, 3))).save(path, **options)
    return path


def csv_table(folder: Path, *names: str):
    path = folder / "labels.csv"
    rows = [f'"{name}",1,2,30,40,person\n' for name in names]
    path.write_text("filename,x1,y1,x2,y2,class\n" + "".join(rows), encoding="utf-8")
    return read_label_table(path)


def kaist_table(folder: Path, *names: str, **size: int):
    path = folder / "labels.json"
    images = [{"id": at, "im_name": name, **size} for at, name in enumerate(names)]
    box = {"id": 0, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 40]}
    path.write_text(json.dumps({"images": images, "annotations": [box]}))
    return read_label_table(path)


def look(table, folder: Path, **options):
    """Give (rule, image, message) of each finding, and the sizes."""
    found = look_at_pictures(table, folder, quiet=True, **options)
    told = [(one.rule, one.image, one.message.replace(f"{folder}/", "")) for one in found.findings]
    return told, found.sizes.tolist()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif"])
def test_a_whole_picture_is_no_finding_and_tells_its_size(tmp_path, name):
    write_picture(tmp_path / name)
    assert look(csv_table(tmp_path, name), tmp_path) == ([], [[48, 64]])


def test_size_is_that_after_turning_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    write_picture(tmp_path / "a.jpg", exif=exif)
    assert look(csv_table(tmp_path, "a.jpg"), tmp_path) == ([], [[64, 48]])


def test_progressive_and_grey_jpegs_are_whole(tmp_path):
    write_picture(tmp_path / "a.jpg", progressive=True)
    Image.fromarray(NOISE[..., 0]).save(tmp_path / "b.jpg")
    assert look(csv_table(tmp_path, "a.jpg", "b.jpg"), tmp_path)[0] == []


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from(sorted(ENCODED)))
def test_a_file_that_is_cut_short_anywhere_is_found(tmp_path_factory, data, suffix):
    encoded = ENCODED[suffix]
    path = tmp_path_factory.getbasetemp() / f"cut{suffix}"
    path.write_bytes(encoded)
    assert look_at_picture(str(path), "visible").size == (48, 64)
    path.write_bytes(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    for camera in ("visible", "lwir"):
        seen = look_at_picture(str(path), camera)
        assert seen.size == UNKNOWN_SIZE
        assert seen.trouble.startswith(str(path))


def test_a_jpeg_that_opencv_fills_up_with_grey_is_found_by_pil(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(ENCODED[".jpg"][:-200])
    monkeypatch.setattr(pictures, "decode_image", lambda *_: NOISE)  # as OpenCV 4 does
    found = look(csv_table(tmp_path, "a.jpg"), tmp_path)
    ((rule, image, message),) = found[0]
    assert (rule, image) == ("unreadable_image", "a.jpg")
    assert message.startswith("a.jpg: cut short or damaged (image file is truncated")
    assert found[1] == [[0, 0]]


def test_a_picture_that_only_opencv_knows_is_whole(tmp_path):
    cv2.imwrite(str(tmp_path / "a.hdr"), NOISE.astype(np.float32))
    if look_at_picture(str(tmp_path / "a.hdr"), "visible").trouble.count("decode"):
        pytest.skip("this OpenCV does not read Radiance files")
    assert look(csv_table(tmp_path, "a.hdr"), tmp_path) == ([], [[48, 64]])


def test_what_is_no_picture_is_unreadable_and_nothing_waits_or_crashes(tmp_path):
    write_picture(tmp_path / "whole.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "nowhere.jpg").symlink_to("gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["folder.jpg", "empty.jpg", "text.jpg", "loop.jpg", "nowhere.jpg", "pipe.jpg"]
    found, sizes = look(csv_table(tmp_path, "whole.jpg", *names), tmp_path)
    assert found == [
        ("unreadable_image", "folder.jpg", "folder.jpg: not a file"),
        ("unreadable_image", "empty.jpg", f"empty.jpg: {NO_IMAGE} (0 bytes)"),
        ("unreadable_image", "text.jpg", f"text.jpg: {NO_IMAGE} (13 bytes)"),
        ("unreadable_image", "loop.jpg", "loop.jpg: Too many levels of symbolic links"),
        ("unreadable_image", "nowhere.jpg", "nowhere.jpg: No such file or directory"),
        ("unreadable_image", "pipe.jpg", "pipe.jpg: not a file"),
    ]
    assert sizes == [[48, 64]] + [[0, 0]] * 6


NO_IMAGE = "not an image that OpenCV can decode"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_unreadable(tmp_path):
    write_picture(tmp_path / "a.jpg").chmod(0)
    assert look(csv_table(tmp_path, "a.jpg"), tmp_path)[0] == [
        ("unreadable_image", "a.jpg", "a.jpg: Permission denied")
    ]


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("Photo.JPG", "photo.jpg"),
        ("photo.png", "photo.jpg"),
        ("One/photo.jpg", "one/PHOTO.jpg"),
        (unicodedata.normalize("NFD", "Grün.jpg"), unicodedata.normalize("NFC", "grün.jpg")),
        ("One/photo.jpg", "one\\photo.jpeg"),
    ],
)
def test_a_missing_picture_is_told_with_the_file_that_is_nearly_of_its_name(tmp_path, there, named):
    write_picture(tmp_path / "whole.jpg")
    write_picture(tmp_path / there)
    found, _ = look(csv_table(tmp_path, "whole.jpg", named), tmp_path)
    assert found == [("missing_image", named, f"is not there; there is {there}")]


@pytest.mark.parametrize("name", ["b.jpg", "..", "no/b.jpg", "/no/b.jpg", "x" * 5000, "a\tb"])
def test_a_missing_picture_with_nothing_near_is_only_missing(tmp_path, name):
    write_picture(tmp_path / "a.jpg")
    found, _ = look(csv_table(tmp_path, "a.jpg", name), tmp_path)
    assert found == [("missing_image", name, "is not there")]


def test_near_names_of_an_absolute_path_and_beyond_the_folder(tmp_path):
    write_picture(tmp_path / "one/A.JPG")
    (tmp_path / "two").mkdir()
    near = NearNames(tmp_path / "two")
    assert near.find(f"{tmp_path}/one/a.jpg") == f"{tmp_path}/one/A.JPG"
    assert near.find("../one/a.png") == "../one/A.JPG"
    assert near.find("") is None


def test_names_with_spaces_other_letters_and_ways_up_are_found(tmp_path):
    folder = tmp_path / "my pictures"
    names = ["a b.jpg", "Bäume 树.jpg", "../beside.jpg", str(tmp_path / "absolute.jpg")]
    for name in names:
        write_picture(folder / name)
    assert look(csv_table(tmp_path, *names), folder) == ([], [[48, 64]] * 4)


def test_a_folder_without_any_of_the_pictures_is_a_bad_call(tmp_path):
    table = csv_table(tmp_path, *(f"{letter}.jpg" for letter in "abcd"))
    with pytest.raises(MissingFileError) as caught:
        look_at_pictures(table, tmp_path, quiet=True)
    assert str(caught.value) == (
        f"4 of 4 images of {table.path} are not under {tmp_path}: a.jpg, b.jpg, c.jpg, ...; "
        "correct IMAGES or put the files there"
    )
    with pytest.raises(MissingFileError, match="no such folder of images"):
        look_at_pictures(table, tmp_path / "gone", quiet=True)


def test_sizes_other_than_the_labels_state(tmp_path):
    names = ["set00/V000/I00001", "set00/V000/I00002"]
    for name, size in zip(names, [(48, 64), (64, 48)], strict=True):
        write_picture(tmp_path / f"{name.replace('V000/', 'V000/visible/')}.png", size)
    found, sizes = look(kaist_table(tmp_path, *names, height=48, width=64), tmp_path)
    assert found == [
        ("size_mismatch", names[1], "is 48 x 64 px, its labels are for 64 x 48 px"),
    ]
    assert sizes == [[48, 64], [64, 48]]


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Four pairs, two of them in a doubled set folder."""
    for video in ("set00/V000", "set01/set01/V001"):
        for number in (1, 2):
            for camera in ("visible", "lwir"):
                write_picture(tmp_path / video / camera / f"I0000{number}.jpg")
    return tmp_path


NAMES = ("set00/V000/I00001", "set01/V001/I00001", "set01/V001/I00002")


def test_both_cameras_are_looked_at_and_must_agree(pairs):
    write_picture(pairs / "set01/set01/V001/lwir/I00001.jpg", size=(32, 64))
    (pairs / "set01/set01/V001/lwir/I00002.jpg").write_bytes(ENCODED[".jpg"][:-50])
    found, sizes = look(kaist_table(pairs, *NAMES, height=48, width=64), pairs)
    assert found[0] == (
        "size_mismatch",
        NAMES[1],
        "visible is 64 x 48 px, lwir is 64 x 32 px; the labels are for 64 x 48 px",
    )
    assert [one[:2] for one in found[1:]] == [("unreadable_image", NAMES[2])]
    assert found[1][2].startswith("set01/set01/V001/lwir/I00002.jpg: ")
    assert sizes == [[48, 64]] * 3


def test_a_frame_of_one_camera_alone_is_a_missing_modality(pairs):
    (pairs / "set01/set01/V001/lwir/I00001.jpg").unlink()
    for camera in ("visible", "lwir"):
        (pairs / f"set01/set01/V001/{camera}/I00002.jpg").rename(pairs / f"{camera}.jpg")
    found, _ = look(kaist_table(pairs, *NAMES, height=48, width=64), pairs)
    assert found == [
        ("missing_modality", NAMES[1], "has no lwir picture"),
        ("missing_image", NAMES[2], "is not there"),
    ]


def test_a_camera_without_any_frame_was_not_downloaded_and_is_no_finding(pairs):
    for path in pairs.rglob("visible/*.jpg"):
        path.unlink()
    table = kaist_table(pairs, *NAMES, height=48, width=64)
    assert look(table, pairs) == ([], [[48, 64]] * 3)
    assert look_at_pictures(table, pairs, quiet=True).paths[0] == {
        "lwir": str(pairs / "set00/V000/lwir/I00001.jpg")
    }


def test_a_file_is_decoded_once_however_often_it_is_listed(pairs, monkeypatch):
    seen = []
    own = look_at_picture
    monkeypatch.setattr(pictures, "look_at_picture", lambda *one: seen.append(one) or own(*one))
    assert look(kaist_table(pairs, *NAMES, NAMES[0], height=48, width=64), pairs)[0] == []
    assert len(seen) == len(set(seen)) == 6


def test_findings_do_not_depend_on_the_number_of_workers(tmp_path):
    names = [f"{number:02}.jpg" for number in range(20)]
    for name in names[::2]:
        (tmp_path / name).write_bytes(ENCODED[".jpg"][: 300 * int(name[:2])])
    table = csv_table(tmp_path, *names)
    found = look(table, tmp_path, workers=1)
    assert len(found[0]) > 10
    assert look(table, tmp_path, workers=4) == found


def test_an_interrupt_does_not_wait_for_all_pictures(tmp_path, monkeypatch):
    names = [f"{number}.jpg" for number in range(200)]
    for name in names:
        (tmp_path / name).touch()
    seen = []

    def interrupted(*one):
        seen.append(one)
        if len(seen) == 3:
            raise KeyboardInterrupt
        time.sleep(0.005)
        return pictures.Look((1, 1))

    monkeypatch.setattr(pictures, "look_at_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        look_at_pictures(csv_table(tmp_path, *names), tmp_path, workers=1, quiet=True)
    assert len(seen) < 50


def test_real_pictures_are_whole_and_of_the_stated_size(shared_data):
    folder = shared_data / "face_mask/test"
    assert look_at_pictures(read_label_table(folder / "_annotations.csv"), folder).findings == []
    table = read_label_table(shared_data / "kaist/test20.json")
    found = look_at_pictures(table, shared_data / "kaist/images", quiet=True)
    assert {finding.rule for finding in found.findings} == {"missing_image"}
    assert len(found.findings) == 2252 - 5
    assert np.unique(found.sizes, axis=0).tolist() == [[0, 0], [512, 640]]


def plant_missing(files, rng):
    for path in files:
        path.unlink()
    return "missing_image"


def plant_one_camera(files, rng):
    files[rng.integers(2)].unlink()
    return "missing_modality"


def plant_unreadable(files, rng):
    path = files[rng.integers(2)]
    whole = path.read_bytes()
    path.write_bytes(
        [b"", b"no picture", whole[: rng.integers(1, len(whole) - 1)]][rng.integers(3)]
    )
    return "unreadable_image"


def plant_other_size(files, rng):
    for path in files[: rng.integers(1, 3)]:
        write_picture(path, size=(48 + int(rng.integers(1, 9)), 64))
    return "size_mismatch"


PLANTERS = (plant_missing, plant_one_camera, plant_unreadable, plant_other_size)


@pytest.mark.parametrize("seed", range(10))
def test_faults_planted_in_pictures_are_all_found_and_nothing_else_is(tmp_path, seed):
    rng = np.random.default_rng(seed)
    names = [f"set00/V00{at % 3}/I{at:05}" for at in range(16)]
    files = {
        name: [
            write_picture(tmp_path / f"{name.replace('/I', f'/{camera}/I')}.jpg")
            for camera in ("visible", "lwir")
        ]
        for name in names
    }
    expected = set()
    for at, name in enumerate(rng.permutation(names)[: rng.integers(4, 9)]):
        expected.add((PLANTERS[at % 4](files[name], rng), str(name)))
    found, _ = look(kaist_table(tmp_path, *names, height=48, width=64), tmp_path)
    assert {one[:2] for one in found} == expected
    assert len(found) == len(expected)
