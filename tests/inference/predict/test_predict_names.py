"""Names of drawings and pairs: never outside their folder, never twice."""

import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.errors import ConfigError
from d2pd.inference.predict.names import UniqueNames, picture_name, video_name
from d2pd.inference.predict.pairing import Pairing, Source
from d2pd.inference.predict.targets import choose_targets

NAMES = st.lists(
    st.one_of(
        st.sampled_from(["a", "A", "a.png", "a.jpg", "b", "..", ".", "", "a_2.png", "é", "é"]),
        st.text(st.characters(exclude_characters="/\0"), max_size=300),
    ),
    min_size=1,
    max_size=5,
).map("/".join)


def is_inside(path):
    return not path.is_absolute() and ".." not in path.parts and path.parts


@given(NAMES)
def test_no_name_leads_out_of_its_folder(name):
    for path in (picture_name(name), video_name(name)):
        assert is_inside(path)
        assert all(len(part.encode(errors="surrogatepass")) < 200 for part in path.parts)
        assert not any(sign in str(path) for sign in '\0\n\x1b\\:*?"<>|')
    assert picture_name(name).suffix.lower() in (".png", ".jpg", ".jpeg")
    assert video_name(name).suffix == ".mp4"


@given(st.lists(NAMES, max_size=12))
def test_no_two_drawings_share_a_file_and_none_is_the_folder_of_another(names):
    unique = UniqueNames()
    given_out = [unique.claim(picture_name(name)) for name in names]

    keys = [unicodedata.normalize("NFC", str(path)).casefold() for path in given_out]
    assert len(set(keys)) == len(keys)
    assert not any(other.startswith(f"{key}/") for key in keys for other in keys)
    assert all(is_inside(path) for path in given_out)


def test_names_stay_as_they_are_where_nothing_is_wrong_with_them():
    unique = UniqueNames()
    claims = ["a/b.png", "a/b.jpg", "a/b.png", "A/B.png", "a/b_2.png", "c.bmp", "c.bmp.png"]

    assert [str(unique.claim(picture_name(name))) for name in claims] == [
        *("a/b.png", "a/b.jpg", "a/b_2.png", "A/B_3.png", "a/b_2_2.png"),
        *("c.bmp.png", "c.bmp_2.png"),
    ]
    assert [str(picture_name(n)) for n in ("../../x.png", "/etc/x.jpg", "C:\\x.tif", "..")] == [
        *("x.png", "etc/x.jpg", "C_/x.tif.png", "_.png")
    ]


def test_a_file_and_a_folder_of_one_name_are_both_drawn():
    sources = [Source((name,), name) for name in ("x.png", "x.png/a.png", "x.png/b.png")]

    targets = choose_targets(sources, Path("out"))

    assert [str(path) for path in targets.values()] == [
        *("out/pictures/x.png", "out/pictures/x_2.png/a.png", "out/pictures/x_2.png/b.png")
    ]


def test_many_files_of_one_name_are_numbered_at_once():
    unique = UniqueNames()

    paths = {unique.claim(PurePosixPath("a.png")) for _ in range(20_000)}

    assert len(paths) == 20_000


@pytest.mark.parametrize(
    ("words", "visible", "lwir"),
    [
        ("visible=lwir", "/d/visible/x/visible/I0.jpg", "/d/visible/x/lwir/I0.jpg"),
        ("rgb=ir", "/girl/a_rgb.png", "/girl/a_ir.png"),
        ("RGB=thermal/8bit", "/d/RGB/a.png", "/d/thermal/8bit/a.png"),
    ],
)
def test_the_last_word_of_a_path_is_replaced(words, visible, lwir):
    pairing = Pairing.parse(words)

    assert pairing.lwir_of(visible) == lwir
    assert pairing.camera_of(visible) == "visible"
    assert pairing.camera_of(lwir) == "lwir"


def test_of_words_of_which_one_holds_the_other_the_longer_tells():
    pairing = Pairing.parse("cam=thermalcam")

    assert pairing.camera_of("a_thermalcam.png") == "lwir"
    assert pairing.camera_of("a_cam.png") == "visible"
    assert pairing.camera_of("a.png") == ""


@given(st.text("ab/", max_size=9), st.text("ab/", max_size=9))
def test_pairs_are_told_from_either_side(before, after):
    pairing = Pairing("VIS", "IR")

    visible, lwir = f"{before}VIS{after}", f"{before}IR{after}"

    assert (pairing.lwir_of(visible), pairing.visible_of(lwir)) == (lwir, visible)
    assert (pairing.camera_of(visible), pairing.camera_of(lwir)) == ("visible", "lwir")


@pytest.mark.parametrize("text", ["", "=", "a", "a=", "=b", "a=b=c", "a=a"])
def test_what_is_no_pair_of_words_is_refused(text):
    with pytest.raises(ConfigError, match="--pair takes two different words"):
        Pairing.parse(text)
