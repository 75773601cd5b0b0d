"""Result files of several methods fused into one that ``d2pd evaluate`` scores."""

import json
from pathlib import Path

import pytest

from d2pd import cli
from d2pd.data.annotations.any_format import read_any_labels
from d2pd.errors import ConfigError, MissingFileError, ResultFileError
from d2pd.evaluation.arrays import label_arrays, of_class
from d2pd.evaluation.miss_rate import miss_rates
from d2pd.evaluation.result_files.result_file import read_result_file
from d2pd.evaluation.subsets import KAIST
from d2pd.inference.fuse_files import fuse_files, write_fused


def row(image_id=0, bbox=(10, 20, 30, 40), score=0.8, **more):
    return {"image_id": image_id, "category_id": 0, "bbox": list(bbox), "score": score} | more


@pytest.fixture
def write(tmp_path):
    def write_content(name, content, class_names=None):
        if class_names:
            content = {"class_names": class_names, "predictions": content}
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_content


def test_predictions_of_runs_become_predictions(write):
    one = write("a.json", [row(), row(image_id=1, category_id=1)], ["person", "cyclist"])
    other = write(
        "b.json", [row(bbox=(10, 20, 30, 32), score=0.4), row(category_id=1)], ["person", "cyclist"]
    )

    found = fuse_files([one, other])

    assert found["class_names"] == ["person", "cyclist"]
    first, second, third = found["predictions"]
    # The heights by their scores: (0.8 * 40 + 0.4 * 32) / 1.2.
    assert first["bbox"] == pytest.approx([10, 20, 30, 37.333333333])
    assert (first["image_id"], first["category_id"], first["score"]) == (0, 0, pytest.approx(0.6))
    assert second == row(category_id=1, score=0.4)
    assert third == row(image_id=1, category_id=1, score=0.4)


def test_the_order_of_the_files_changes_nothing(write):
    paths = [
        write("a.json", [row(image_id=image_id, score=0.5) for image_id in (7, "b", 2)], ["x"]),
        write("b.json", [row(image_id=image_id, score=0.9) for image_id in ("a", 10, 2)], ["x"]),
    ]

    found = fuse_files(paths)

    assert found == fuse_files(paths[::-1])
    assert [each["image_id"] for each in found["predictions"]] == [2, 7, 10, "a", "b"]


def test_an_image_that_a_file_has_nothing_on_counts_as_one_without_detections(write):
    paths = [write(f"{n}.json", [row(image_id=n, score=0.9)], ["person"]) for n in range(3)]
    paths.append(write("all.json", [row(image_id=n, score=0.6) for n in range(4)], ["person"]))

    predictions = fuse_files(paths)["predictions"]

    assert [each["score"] for each in predictions] == pytest.approx(
        [1.5 / 4, 1.5 / 4, 1.5 / 4, 0.6 / 4]
    )


def test_coco_results_keep_the_category_ids_of_the_label_file(write):
    one = write("a.json", [row(category_id=17), row(image_id=1, category_id=3)])
    other = write("b.json", [row(category_id=17)])

    assert fuse_files([one, other]) == [
        row(category_id=17),
        row(image_id=1, category_id=3, score=0.4),
    ]


def test_a_txt_counts_images_from_one_and_goes_with_files_of_one_class(write):
    lines = write("a.txt", "1,10,20,30,40,0.8\n3,1,2,3.3,4.4,0.5\n")
    named = write("b.json", [row()], ["person"])

    assert fuse_files([lines, named]) == {
        "class_names": ["person"],
        "predictions": [row(), row(image_id=2, bbox=(1, 2, 3.3, 4.4), score=0.25)],
    }
    categories = write("c.json", [row(category_id=1)])
    assert [each["category_id"] for each in fuse_files([categories, lines])] == [1, 1]
    again = write("d.txt", "1,10,20,30,40,0.8\n")
    assert all("category_id" not in each for each in fuse_files([lines, again]))


def test_sizes_are_those_of_the_files_to_the_digit(write):
    bbox = [0.1, 0.2, 27.5148, 54.9644]

    found = fuse_files([write("a.json", [row(bbox=bbox)]), write("b.json", [row(image_id=1)])])

    assert found[0]["bbox"] == bbox


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (["person"], ["walker"], r"a\.json and .*b\.json cannot be fused.* person, .* walker;"),
        (["a", "b"], ["b", "a"], "of the one are a, b, of the other b, a"),
        (["person"], None, r"person, of the other not named \(category_id 0\)"),
    ],
)
def test_other_classes_are_refused_in_a_line(write, one, other, message):
    paths = [write("a.json", [row()], one), write("b.json", [row()], other)]

    with pytest.raises(ResultFileError, match=message) as error:
        fuse_files(paths)

    assert "\n" not in str(error.value)


def test_a_txt_does_not_go_with_files_of_more_classes(write):
    lines = write("a.txt", "1,10,20,30,40,0.8\n")

    with pytest.raises(ResultFileError, match=r"a\.txt: .*b\.json has 2 \(person, cyclist\)"):
        fuse_files([lines, write("b.json", [row()], ["person", "cyclist"])])
    with pytest.raises(ResultFileError, match=r"has 2 \(not named \(category_id 0, 3\)\)"):
        fuse_files([lines, write("c.json", [row(), row(category_id=3)])])


@pytest.mark.parametrize("score", [1.5, -0.1, -211])
def test_scores_beyond_0_to_1_are_refused_with_file_and_place(write, score):
    bad = write("b.txt", f"1,10,20,30,40,0.5\n2,10,20,30,40,{score}\n")

    with pytest.raises(
        ResultFileError, match=rf"b\.txt, line 2: .*score = 10, .*{score}: .*must be in \[0, 1\]"
    ):
        fuse_files([write("a.json", [row()], ["person"]), bad])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(), row(category_id=1)], r"detection 1 .*: category_id 1 is not one of 0"),
        ([row(), row(category_id=None)], "category_id None is not one of 0"),
        ([row(image_id=1.5)], "image_id 1.5 is neither a whole number nor a name"),
        ([row(image_id=float("nan"))], "image_id nan is neither"),
        ([row(bbox=(1, 2, -3, 4))], "w, h of .* must not be negative"),
        ([row(score=float("nan"))], "must be finite"),
        ([], "the list of detections is empty"),
    ],
)
def test_a_detection_that_cannot_be_used_is_told_with_its_place(write, rows, message):
    good = write("a.json", [row()], ["person"])

    with pytest.raises(ResultFileError, match=rf"b\.json.*{message}"):
        fuse_files([good, write("b.json", rows, ["person"])])


def test_two_files_or_more_are_named_each_once(write, tmp_path):
    path = write("a.json", [row()])

    with pytest.raises(ConfigError, match=r"1 result files to fuse \(.*a\.json\); name two"):
        fuse_files([path])
    with pytest.raises(ConfigError, match=r"0 result files to fuse \(none\)"):
        fuse_files([])
    with pytest.raises(ConfigError, match="given 2 times"):
        fuse_files([path, tmp_path / "." / "a.json"])
    with pytest.raises(MissingFileError, match=r"b\.json: no such result file"):
        fuse_files([path, tmp_path / "b.json"])


def test_files_of_other_images_are_warned_of(write, caplog):
    paths = [write(f"{n}.json", [row(image_id=n)]) for n in range(2)]

    fuse_files(paths)

    assert "no image is in all of" in caplog.text
    assert str(paths[1]) in caplog.text


def test_the_output_is_none_of_the_inputs(write, tmp_path):
    paths = [write("a.json", [row()]), write("b.json", [row()])]
    content = paths[0].read_bytes()

    with pytest.raises(ConfigError, match="one of the files to read"):
        write_fused(paths, paths[0])

    assert paths[0].read_bytes() == content


def test_what_is_written_is_scored_by_evaluate(write, tmp_path, capsys):
    labels = {
        "images": [{"id": 0, "file_name": "0.png", "width": 640, "height": 512}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [100, 100, 30, 80], "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    bbox = (100, 100, 30, 80)
    paths = [write(f"{n}.json", [row(bbox=bbox)], ["person"]) for n in range(2)]
    annotations = write("labels.json", labels)
    output = tmp_path / "out" / "fused.json"

    write_fused(paths, output)

    arguments = ["evaluate", "--annotations", str(annotations), "--detections", str(output)]
    assert cli.main(arguments) == 0
    assert "fused" in capsys.readouterr().out


def test_published_kaist_results_miss_less_when_they_are_fused(shared_data: Path, tmp_path):
    results = shared_data / "kaist" / "results"
    paths = [results / "MLPD_result.txt", results / "MSDS-RCNN_result.txt"]
    known = read_any_labels(shared_data / "kaist" / "test20.json")
    labels = label_arrays(known.labels.records, known.labels.class_names)
    output = tmp_path / "fused.json"

    write_fused(paths, output)

    rates = []
    for path in (*paths, output):
        detections = read_result_file(path, labels, known.category_ids)
        result = miss_rates(*of_class(labels, detections, 0), KAIST)
        rates.append(result["reasonable/all"].value)
    assert rates == pytest.approx([7.58, 11.34, 6.79], abs=0.005)
