"""Datasets that take one part of the folds of their label file."""

import json
import logging

import pytest
from PIL import Image

from d2pd import cli
from d2pd.config import load_config
from d2pd.d2 import DatasetCatalog, MetadataCatalog
from d2pd.data.dataset_checks import missing_files, unreadable_labels
from d2pd.data.folds import Folds, read_folds
from d2pd.data.records import load_train_records
from d2pd.data.registration import register_from_config
from d2pd.errors import AnnotationError, ConfigError, MissingFileError
from d2pd.training.checkpoints.run_identity import compare_runs, describe_run

pytestmark = pytest.mark.usefixtures("forget_datasets")

FRAMES = [f"set0{folder}/V000/I0000{at}" for folder in range(3) for at in range(2)]
PHOTOS = [f"street{folder}/{at}.png" for folder in range(3) for at in range(2)]
CLASSES = ["bike", "cart", "person"]


def write_kaist(root):
    for name in FRAMES:
        video, frame = name.rsplit("/", 1)
        for camera in ("visible", "lwir"):
            write_picture(root / video / camera / f"{frame}.png")
    write_json_labels(root, FRAMES, "im_name", ["person"])


def write_coco(root):
    for name in PHOTOS:
        write_picture(root / name)
    write_json_labels(root, PHOTOS, "file_name", CLASSES)


def write_csv(root):
    for name in PHOTOS:
        write_picture(root / name)
    # Each street has a class of its own: a part alone would know two of the three.
    lines = [f"{name},1,2,30,40,{CLASSES[at // 2]}" for at, name in enumerate(PHOTOS)]
    (root / "labels.csv").write_text("\n".join([*lines, lines[0]]) + "\n")


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (64, 48)).save(path)


def write_json_labels(root, names, key, classes):
    boxes = [
        {"id": at, "image_id": at, "category_id": 1 + at // 2 % len(classes), "bbox": [1, 2, 30, 9]}
        for at in range(len(names))
    ]
    content = {
        "images": [
            {"id": at, key: name, "width": 64, "height": 48} for at, name in enumerate(names)
        ],
        "annotations": boxes,
        "categories": [{"id": 1 + at, "name": name} for at, name in enumerate(classes)],
    }
    (root / "labels.json").write_text(json.dumps(content))


WRITERS = {"kaist": write_kaist, "coco": write_coco, "csv": write_csv}


def config(root, format, *opts, fold=0, **more):
    entry = {
        "FORMAT": format,
        "ANNOTATIONS": "labels.csv" if format == "csv" else "labels.json",
        "FOLDS": "folds.json",
        **more,
    }
    opts = ["DATASETS.ROOT", str(root), "DATASETS.FOLD", str(fold), "MODEL.DEVICE", "cpu", *opts]
    opts += ["DATASETS.TRAIN", "('part_train',)", "DATASETS.TEST", "('part_test',)"]
    for part in ("train", "test"):
        for key, value in {**entry, "FOLD_PART": part, **more}.items():
            opts += [f"DATASETS.REGISTER.part_{part}.{key}", str(value)]
    return load_config("", opts)


def split(root, format, *words):
    labels = root / ("labels.csv" if format == "csv" else "labels.json")
    words = ["--folds", "3", *words, "--output", str(root / "folds.json")]
    assert cli.main(["split", "--annotations", str(labels), *words]) == 0
    return read_folds(root / "folds.json")


@pytest.fixture(params=list(WRITERS))
def dataset(request, tmp_path):
    """A root with six images in three videos or folders, split by these; and its format."""
    WRITERS[request.param](tmp_path)
    split(tmp_path, request.param)
    return tmp_path, request.param


def names_of(root, name):
    """Return the names of a dataset's images as its label file has them."""
    return [
        record.get("im_name") or record["file_name"].removeprefix(f"{root}/")
        for record in DatasetCatalog.get(name)
    ]


def test_each_fold_is_tested_on_by_a_training_on_all_others(dataset):
    root, format = dataset
    fold_of_image = read_folds(root / "folds.json").fold_of_image
    for fold in range(3):
        register_from_config(config(root, format, fold=fold))
        expected = [name for name in fold_of_image if fold_of_image[name] == fold]
        assert names_of(root, "part_test") == expected
        assert len(expected) == 2
        assert names_of(root, "part_train") == [n for n in fold_of_image if n not in expected]


def test_both_parts_have_the_classes_of_the_whole_file(dataset):
    root, format = dataset
    register_from_config(config(root, format))
    classes = ["person"] if format == "kaist" else CLASSES
    for part in ("train", "test"):
        assert MetadataCatalog.get(f"part_{part}").thing_classes == classes
        DatasetCatalog.get(f"part_{part}")
        assert MetadataCatalog.get(f"part_{part}").thing_classes == classes


def test_boxes_and_ids_stay_those_of_their_image(dataset):
    root, format = dataset
    register_from_config(config(root, format))
    fold_of_image = read_folds(root / "folds.json").fold_of_image
    for part in ("train", "test"):
        for name, record in zip(
            names_of(root, f"part_{part}"), DatasetCatalog.get(f"part_{part}"), strict=True
        ):
            position = list(fold_of_image).index(name)
            assert record["image_id"] == position
            rows = {annotation["row"] for annotation in record["annotations"]}
            csv_rows = {position + 1, 7} if position == 0 else {position + 1}
            assert rows == (csv_rows if format == "csv" else {position})


def test_pictures_of_the_other_part_need_not_be_there(dataset):
    root, format = dataset
    register_from_config(config(root, format))
    cameras = ("file_name", "lwir_file_name")
    for record in DatasetCatalog.get("part_train"):
        for path in {record[camera] for camera in cameras if camera in record}:
            (root / path).unlink()
    assert len(DatasetCatalog.get("part_test")) == 2
    with pytest.raises(MissingFileError, match="4 of 4 images of"):
        DatasetCatalog.get("part_train")


def test_the_log_says_once_which_part_a_dataset_is(dataset, caplog):
    root, format = dataset
    register_from_config(config(root, format, fold=1))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            DatasetCatalog.get("part_train")
            DatasetCatalog.get("part_test")
    of_folds = [line for line in caplog.messages if "fold" in line]
    assert of_folds == [
        f"part_train: all folds but 1 of 0 to 2 in {root}/folds.json: 4 of 6 images",
        f"part_test: fold 1 of 0 to 2 in {root}/folds.json: 2 of 6 images",
    ]


def test_labels_that_changed_since_the_split_are_refused_before_training(dataset):
    root, format = dataset
    path = root / "folds.json"
    content = json.loads(path.read_text())
    gone = next(iter(content["images"]))
    content["images"]["new"] = content["images"].pop(gone)
    path.write_text(json.dumps(content))
    register_from_config(config(root, format))
    problems = unreadable_labels(["part_train", "part_test"], "visible")
    assert len(problems) == 1
    assert f"in no fold: 1 ({gone}); images of the folds that the labels lack: 1 (new)" in str(
        problems
    )


def test_videos_left_out_on_top_of_the_folds(tmp_path):
    write_kaist(tmp_path)
    fold_of_image = split(tmp_path, "kaist").fold_of_image
    kept = fold_of_image[FRAMES[0]]
    register_from_config(config(tmp_path, "kaist", fold=kept, INCLUDE=["set00", "set01"]))
    assert names_of(tmp_path, "part_test") == FRAMES[:2]
    assert names_of(tmp_path, "part_train") == FRAMES[2:4]
    register_from_config(config(tmp_path, "kaist", fold=kept, EXCLUDE=["set00"]))
    with pytest.raises(AnnotationError, match="no image is left in the test part of fold"):
        DatasetCatalog.get("part_test")


def test_a_missing_file_of_folds_is_listed_with_the_command_that_writes_it(dataset):
    root, format = dataset
    (root / "folds.json").unlink()
    cfg = config(root, format)
    register_from_config(cfg)
    (problem,) = missing_files(cfg, ["part_train", "part_test"])
    assert problem.startswith(f"no file {root}/folds.json (FOLDS of part_train, part_test; ")
    labels = root / ("labels.csv" if format == "csv" else "labels.json")
    assert problem.endswith(
        f"write it: python -m d2pd split --annotations {labels} --folds K --output "
        f"{root}/folds.json"
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"FOLDS": ""}, "part_train.FOLD_PART has no meaning without FOLDS"),
        ({"FOLD_PART": ""}, "part_train.FOLD_PART must be one of train, test beside FOLDS, got ''"),
        ({"FOLD_PART": "val"}, "part_train.FOLD_PART must be one of train, test .*, got 'val'"),
        ({"FOLDS": "", "FOLD_PART": "", "fold": 1}, "DATASETS.FOLD 1 has no effect: no dataset"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(tmp_path, more, message):
    write_csv(tmp_path)
    with pytest.raises(ConfigError, match=message):
        register_from_config(config(tmp_path, "csv", **more))


def test_a_run_is_another_one_by_its_fold_and_by_the_content_of_the_file(tmp_path):
    write_csv(tmp_path)
    folds = split(tmp_path, "csv")

    def run(fold=0):
        cfg = config(tmp_path, "csv", fold=fold)
        register_from_config(cfg)
        return describe_run(cfg, load_train_records(cfg))

    before = run()
    assert not any(vars(compare_runs(before, run())).values())
    differences = compare_runs(before, run(fold=1))
    assert differences.refused == ("DATASETS.FOLD: 0 -> 1",)
    assert differences.changed[0].startswith("training labels: ")
    turned = {name: (fold + 1) % 3 for name, fold in folds.fold_of_image.items()}
    Folds("labels.csv", 6, 7, 3, "video", False, 0, turned).write(tmp_path / "folds.json")
    (line,) = compare_runs(before, run()).changed
    assert line.startswith("training labels: ")
