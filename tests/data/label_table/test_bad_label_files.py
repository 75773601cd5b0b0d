import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d2pd.data.label_table import read_label_table
from d2pd.errors import AnnotationError, ConfigError, MissingFileError, UserError

KAIST = {"images": [{"id": 1, "im_name": "set00/V000/I00000"}], "annotations": []}
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
COCO["categories"] = [{"id": 1, "name": "person"}]
CSV = "a.jpg,1,2,3,4,person\n"


def error_of(path, format="auto", kind=AnnotationError, **options):
    with pytest.raises(kind) as caught:
        read_label_table(path, format, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path):
    def write_content(content, name="labels"):
        path = tmp_path / name
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        path.write_bytes(content)
        return path

    return write_content


@pytest.mark.parametrize(
    ("content", "format"),
    [
        (KAIST, "kaist"),
        (COCO, "coco"),
        (CSV, "csv"),
        (b"\xef\xbb\xbf \n" + json.dumps(COCO).encode(), "coco"),
        (json.dumps(KAIST).encode("utf-16"), "kaist"),
        (CSV.encode("utf-16"), "csv"),
    ],
)
@pytest.mark.parametrize("name", ["labels", "labels.csv", "labels.json", "été 1.txt"])
def test_the_content_tells_the_format(write, content, format, name):
    if isinstance(content, bytes) and name == "labels.json" and content[0] == 0xEF:
        content = content.lstrip(b"\xef\xbb\xbf")  # json takes a mark at the very start alone
    path = write(content, name)
    assert read_label_table(path).format == format
    assert read_label_table(path, format).format == format


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        (
            KAIST,
            "coco",
            "this looks like kaist, not coco: its images have im_name; use --format kaist or auto",
        ),
        (
            COCO,
            "kaist",
            "this looks like coco, not kaist: its images have no im_name; use --format coco or "
            "auto",
        ),
        (CSV, "coco", "this looks like CSV, not coco JSON; leave --format out, or name the other "),
        (CSV, "kaist", "this looks like CSV, not kaist JSON; leave --format out, or name the "),
        (COCO, "csv", "this looks like JSON, not CSV; leave --format out, or name the other file"),
        ("<annotation/>", "auto", "this looks like XML, one file of an image; turn its folder "),
        ("% bbGt version=3\n", "csv", "this looks like bbGt text, one file of an image; turn its "),
    ],
)
def test_another_format_than_said_is_named(write, content, format, message):
    path = write(content)
    assert error_of(path, format).startswith(f"{path}: {message}")


def test_an_unknown_word_is_refused(write):
    message = "the format must be one of auto, kaist, coco, csv, got 'voc'"
    assert error_of(write(CSV), "voc", ConfigError) == message
    message = "BOX_FORMAT must be one of xyxy, xywh, got 'cxcywh'"
    assert error_of(write(CSV), kind=ConfigError, box_format="cxcywh") == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": the file is empty; download or export it again"),
        (b" \r\n\t", ": the file is empty; download or export it again"),
        (
            b'{"images": [\n{"id": 1},\n{"id',
            ", line 3, column 2: not JSON (Unterminated string starting at); the file may be cut "
            "off or of another format: download or export it again",
        ),
        (b"[]", ": expected an object with images and annotations, got list; KAIST and COCO "),
        (b'{"a": 1}', ": there is no list 'images' (found: a); KAIST and COCO label files have "),
        (
            b'{"images": [],\n"annotations": ["\xe9"]}',
            ", line 2: byte 32 is not UTF-8 text; save the file as UTF-8",
        ),
        (
            "a é.jpg,1,2,3,4,person\n".encode() + "b é.jpg,1,2,3,4,person\n".encode("latin-1"),
            ", line 2: byte 26 is not UTF-8 text; save the file as UTF-8",
        ),
        (CSV.encode() + b"b.jpg,1\0,2,3,4,p\n", ", line 2: holds a NUL byte; the file is damaged "),
        (CSV.encode("utf-16-le"), ", line 1: holds a NUL byte; the file is damaged or no text, or"),
        (b'{"images": [\0], "annotations": []}', ", line 1, column 13: not JSON (Expecting value"),
        (b"\x89PNG\r\n\x1a\n", ", line 1: byte 0 is not UTF-8 text; save the file as UTF-8"),
        (b'a.jpg,1,2,3,4,"person\n', ": cannot be split into columns (EOF inside string starting"),
        (
            b"a.jpg,1,2,3,4,person,x\n" + b'"' + b"b" * 200_000 + b'",,,,,,,,\n',
            ", line 2: cannot be split into columns (field larger than field limit (131072)); ",
        ),
        (b"filename,x1,y1,x2,y2,class\n", ": the file names no image; there is nothing to look"),
        (b'{"images": [], "annotations": []}', ": there is no list 'categories'; add it"),
        (b"some words\n", ": expected the columns filename,x1,y1,x2,y2,class or a header, got 1"),
        (" \r\n".encode("utf-16"), ": the file is empty; download or export it again"),
        (b"[" * 100_000, ": cannot be read as JSON (maximum recursion depth exceeded"),
    ],
)
def test_a_file_that_is_damaged_or_no_labels_ends_in_one_line(write, content, message):
    path = write(content)
    assert error_of(path).startswith(f"{path}{message}")
    assert path.read_bytes() == content


@pytest.mark.parametrize("num_lines", [3, 100_000])
def test_a_file_of_bad_rows_alone_shows_ten_and_the_count(write, num_lines):
    path = write("a.jpg,one,2,3,4,person\n" * num_lines)
    message = error_of(path)
    assert message.startswith(
        f"{path}: none of the {num_lines} rows can be read as csv: line 1: x1 must be a number, "
        "got 'one'; mend the line, or name the columns with COLUMNS; line 2: "
    )
    assert message.count("got 'one'") == min(num_lines, 10)
    assert message.endswith("; and 99990 more") == (num_lines > 10)


def test_a_json_without_any_sound_image_shows_what_is_wrong(write):
    path = write({"images": [{"id": 1, "im_name": "I1"}], "annotations": [5]})
    assert error_of(path) == (
        f"{path}: none of the 2 rows can be read as kaist: image 0: im_name must be such as "
        "set00/V000/I01217, got 'I1'; annotation 0: it must be an object, got 5"
    )


def test_what_is_no_file_is_named(tmp_path):
    folder, missing, loop, pipe = (tmp_path / name for name in ("d", "no", "loop", "pipe"))
    folder.mkdir()
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path, message in (
        (folder, "this is a folder; name the label file"),
        (missing, "no such annotation file; correct ANNOTATIONS or the dataset root"),
        (loop, "a link that leads to no file; mend it"),
        (pipe, "a pipe or device; save it to a file"),
    ):
        assert error_of(path, kind=MissingFileError) == f"{path}: {message}"


def table_or_message(path):
    try:
        return read_label_table(path)
    except UserError as error:
        return str(error)


@settings(max_examples=60)
@given(
    content=st.binary(max_size=60)
    | st.text('{}[]":,1e. abx\n\r;\t\0-é%<', max_size=60).map(str.encode)
    | st.tuples(
        st.sampled_from([json.dumps(KAIST), json.dumps(COCO), CSV * 2]), st.integers(0, 90)
    ).map(lambda cut: cut[0][: cut[1]].encode())
)
@example(b'"\n",a,x1\n')
def test_any_bytes_are_a_table_or_one_clear_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("labels") / "labels"
    path.write_bytes(content)
    outcome = table_or_message(path)
    if isinstance(outcome, str):
        assert outcome.startswith(str(path))
        assert "\n" not in outcome
    else:
        assert outcome.num_images > 0
    assert path.read_bytes() == content


def test_reading_imports_neither_torch_nor_opencv_nor_matplotlib(write):
    code = (
        "import sys\n"
        "from d2pd.data.label_table import read_label_table\n"
        f"read_label_table({str(write(CSV))!r})\n"
        "print([m for m in ('torch', 'cv2', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
