"""KAIST's XML labels, and those of Pascal VOC."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2pd.data.annotations.kaist_xml import read_kaist_xml
from d2pd.errors import AnnotationError

NUMBERS = st.integers(-50, 700)
NAME = "set00/V000/I00100"


def voc_object(box="<x>10</x><y>20</y><w>30</w><h>40</h>", name="person", more=""):
    return f"<object><name>{name}</name><bndbox>{box}</bndbox>{more}</object>"


def xml(*objects, head=""):
    size = "<size><width>640</width><height>512</height><depth>4</depth></size>"
    lines = ["<annotation>", f"<filename>{NAME}</filename>{head or size}", *objects]
    return "\n".join([*lines, "</annotation>"])


@pytest.fixture
def write(tmp_path):
    def write_label(text, name=NAME, encoding="utf-8"):
        path = tmp_path / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write_label


def test_objects_become_boxes_classes_and_flags(write, tmp_path):
    plain = "<pose>unknown</pose><truncated>0</truncated><difficult>0</difficult>"
    write(
        xml(
            voc_object(more=f"{plain}<occlusion>2</occlusion>"),
            voc_object(name="cyclist", more="<truncated>1</truncated><label>visible</label>"),
            voc_object(name=" people\n", more="<difficult>1</difficult>"),
        )
    )

    labels = read_kaist_xml(tmp_path)

    assert labels.class_names == ("person", "cyclist", "people")
    (record,) = labels.records
    assert (record["im_name"], record["height"], record["width"]) == (NAME, 512, 640)
    person, cyclist, people = record["annotations"]
    assert person["bbox"] == [10, 20, 40, 60]
    assert (person["occlusion"], person["ignore"], "extras" in person) == (2, 0, False)
    assert ("occlusion" in cyclist, cyclist["row"]) == (False, 1)
    assert cyclist["extras"] == {"truncated": "1", "label": "visible"}
    assert (people["category_id"], people["ignore"]) == (2, 1)


@given(boxes=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4))
def test_corners_and_sides_say_the_same(tmp_path_factory, boxes):
    folder = tmp_path_factory.mktemp("labels")
    forms = {
        "sides": ("<x>{}</x><y>{}</y><w>{}</w><h>{}</h>", lambda x, y, w, h: (x, y, w, h)),
        "corners": (
            "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}.0</xmax><ymax>{}</ymax>",
            lambda x, y, w, h: (x, y, x + w, y + h),
        ),
    }
    for form, (text, numbers) in forms.items():
        objects = [voc_object(text.format(*numbers(*box))) for box in boxes]
        (folder / f"{form}.xml").write_text(xml(*objects))

        (record,) = read_kaist_xml(folder / f"{form}.xml").records

        read = [each["bbox"] for each in record["annotations"]]
        assert read == [[x, y, x + w, y + h] for x, y, w, h in boxes]


def test_a_frame_without_objects_stays_and_the_path_names_it(write, tmp_path):
    write(xml(), "set03/V001/I00007")

    (record,) = read_kaist_xml(tmp_path).records

    assert (record["im_name"], record["annotations"]) == ("set03/V001/I00007", [])


def test_outside_kaist_the_file_says_its_name_and_size(write, tmp_path):
    write("<annotation><filename>000005.jpg</filename></annotation>", "VOC/a")
    write("<annotation><size><width>5</width><height>0</height></size></annotation>", "VOC/b ü")

    first, second = read_kaist_xml(tmp_path).records

    assert (first["file_name"], second["file_name"]) == ("000005.jpg", "VOC/b ü")
    assert not {"im_name", "height"} & (first.keys() | second.keys())


def test_a_frame_of_kaist_has_the_size_that_its_file_states(write, tmp_path):
    write(xml(head="<size><width>320</width><height>256</height></size>"))

    (record,) = read_kaist_xml(tmp_path).records

    assert (record["height"], record["width"]) == (256, 320)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_the_declared_encoding_counts(write, tmp_path, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>{xml(voc_object(name="é"))}'
    write(text, encoding=encoding)

    assert read_kaist_xml(tmp_path).class_names == ("é",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n <object>\n  <name>per", r"line 3, column 12: not XML \(no element found"),
        (xml()[:-5], r"line 3, column 1: not XML \(unclosed token\)"),
        ("<annotation>\n<object></annotation>", r"line 2, column 11: not XML \(mismatched tag\)"),
        ("<annotation>&lol;</annotation>", r"line 1, column 13: not XML \(undefined entity"),
        (b"<annotation>\n\xe9</annotation>", r"line 2, column 1: not XML \(not well-formed"),
        ('{"images": []}', "line 1, column 1: not XML"),
        ("", "the file is empty"),
        ("<html/>", "outermost element is <html>, not <annotation>"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "unknown encoding: klingon"),
        (xml(head="<size><width>6x</width><height>5</height></size>"), "got 5 and 6x"),
        (xml(voc_object(name="")), "object 0: there is no <name>"),
        (xml(voc_object(), voc_object("<x>1</x>")), r"object 1: <bndbox> needs x, .* got x$"),
        (xml("<object><name>a</name></object>"), "or xmin, ymin, xmax, ymax, got none"),
        (xml(voc_object("<x>1</x><y/><w>1</w><h>q</h>")), "must be four numbers, got 1, , 1, q"),
        (xml(voc_object(more="<occlusion>3</occlusion>")), "<occlusion> must be one of 0, 1, 2"),
        (xml(voc_object(more="<difficult>no</difficult>")), "one of 0, 1, got 'no'"),
    ],
)
def test_a_fault_is_named_with_its_place(write, tmp_path, text, message):
    path = write(text)

    with pytest.raises(AnnotationError, match=message) as caught:
        read_kaist_xml(tmp_path)

    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_entities_are_never_expanded(write, tmp_path):
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 30))
    write(f'<!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><annotation>&l29;</annotation>')

    with pytest.raises(AnnotationError, match=r"a document type \(DOCTYPE\) is declared"):
        read_kaist_xml(tmp_path)


def test_files_outside_are_never_read(write, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("person")
    entity = f'<!DOCTYPE a [<!ENTITY s SYSTEM "{secret.as_uri()}">]>'
    write(entity + xml(voc_object(name="&s;")))

    with pytest.raises(AnnotationError, match="DOCTYPE"):
        read_kaist_xml(tmp_path)


@pytest.mark.parametrize("digits", [10, 5000])
def test_sizes_beyond_all_pictures_are_told(digits, write):
    path = write(xml(head=f"<size><height>512</height><width>{digits * '9'}</width></size>"))
    with pytest.raises(AnnotationError, match="whole numbers of pixels, got 512 and 9{10,80}$"):
        read_kaist_xml(path)
