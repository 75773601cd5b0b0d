import json
import logging

import pytest
from PIL import Image

from d2pd.config import load_config
from d2pd.config_keys import default_config
from d2pd.d2 import DatasetCatalog, MetadataCatalog
from d2pd.data.dataset_checks import missing_files, unreadable_labels
from d2pd.data.records import load_records
from d2pd.data.registration import (
    dataset_root,
    register_coco,
    register_csv,
    register_from_config,
    register_kaist,
)
from d2pd.errors import AnnotationError, ConfigError, MissingFileError

pytestmark = pytest.mark.usefixtures("forget_datasets")


@pytest.fixture
def root(tmp_path):
    """A dataset root with a CSV, a COCO and a KAIST file on the same two images."""
    for name in ("a.png", "b.png"):
        Image.new("RGB", (640, 512)).save(tmp_path / name)
    (tmp_path / "labels.csv").write_text("a.png,1,2,30,40,dog\nb.png,5,5,5,9,cat\n")
    coco = {
        "images": [{"id": 4, "file_name": "a.png", "height": 512, "width": 640}],
        "annotations": [{"image_id": 4, "category_id": 7, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 7, "name": "cart"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    videos = ("set00/V000", "set00/V001")
    for video in videos:
        for modality in ("visible", "lwir"):
            folder = tmp_path / "images" / video / modality
            folder.mkdir(parents=True)
            Image.new("RGB", (640, 512)).save(folder / "I00001.png")
    kaist = {
        "images": [{"id": i, "im_name": f"{video}/I00001"} for i, video in enumerate(videos)],
        "annotations": [{"image_id": 0, "category_id": 1, "bbox": [600, 2, 80, 90]}],
    }
    (tmp_path / "kaist.json").write_text(json.dumps(kaist))
    (tmp_path / "list.txt").write_text("set00/V001/I00001\nset00/V000/I00001\n")
    return tmp_path


def config(root, **entries):
    cfg = default_config()
    cfg.DATASETS.ROOT = str(root)
    for name, entry in entries.items():
        cfg.DATASETS.REGISTER[name] = type(cfg)(entry)
    return cfg


def test_registered_labels_are_read_and_cleaned(root, caplog):
    register_csv("d2pd_csv", root / "labels.csv", root)
    with caplog.at_level(logging.INFO):
        records = DatasetCatalog.get("d2pd_csv")
        DatasetCatalog.get("d2pd_csv")
    assert [len(record["annotations"]) for record in records] == [1, 0]
    assert caplog.messages == [
        "d2pd_csv: degenerate_box: 1 dropped (the box has no area; its regression target is "
        "log(0)); first: b.png, row 2: [5, 5, 5, 9] has no area (0 x 4)".replace(
            "b.png", str(root / "b.png")
        )
    ]


def test_metadata_describe_the_dataset(root):
    register_csv("d2pd_csv", root / "labels.csv", root, class_names=["dog", "cat"])
    register_coco("d2pd_coco", root / "coco.json", root)
    register_kaist("d2pd_kaist", root / "kaist.json", root / "images")
    metadata = MetadataCatalog.get("d2pd_csv")
    assert metadata.thing_classes == ["dog", "cat"]
    assert metadata.annotations_file == str(root / "labels.csv")
    assert (metadata.annotations_format, metadata.evaluator_type) == ("csv", "coco")
    assert MetadataCatalog.get("d2pd_coco").thing_classes == ["cart"]
    assert MetadataCatalog.get("d2pd_kaist").thing_classes == ["person"]
    assert MetadataCatalog.get("d2pd_kaist").evaluator_type == "kaist"


def test_registering_twice_is_quiet_and_a_change_takes_effect(root):
    for _ in range(2):
        register_csv("d2pd_csv", root / "labels.csv", root, class_names=["dog", "cat"])
    function, metadata = DatasetCatalog["d2pd_csv"], MetadataCatalog.get("d2pd_csv")
    register_csv("d2pd_csv", root / "labels.csv", root, class_names=["dog", "cat"])
    assert DatasetCatalog["d2pd_csv"] is function
    assert MetadataCatalog.get("d2pd_csv") is metadata
    register_csv("d2pd_csv", root / "labels.csv", root, class_names=["cat", "dog"])
    assert MetadataCatalog.get("d2pd_csv").thing_classes == ["cat", "dog"]
    assert DatasetCatalog.get("d2pd_csv")[0]["annotations"][0]["category_id"] == 1


def test_labels_are_read_anew_and_class_names_follow(root):
    register_csv("d2pd_csv", root / "labels.csv", root)
    assert MetadataCatalog.get("d2pd_csv").thing_classes == ["cat", "dog"]
    (root / "labels.csv").write_text("a.png,1,2,30,40,ant\n")
    assert len(DatasetCatalog.get("d2pd_csv")) == 1
    assert MetadataCatalog.get("d2pd_csv").thing_classes == ["ant"]


def test_a_name_of_someone_else_is_not_taken(root):
    DatasetCatalog.register("d2pd_mine", list)
    with pytest.raises(ConfigError) as caught:
        register_csv("d2pd_mine", root / "labels.csv", root)
    assert str(caught.value) == (
        "the name 'd2pd_mine' is taken by a dataset that d2pd did not register; choose another"
    )
    assert DatasetCatalog.get("d2pd_mine") == []


def test_a_bad_file_can_be_mended_and_registered_again(root):
    (root / "labels.csv").write_text("a.png,1,ten,30,40,dog\n")
    with pytest.raises(AnnotationError):
        register_csv("d2pd_csv", root / "labels.csv", root)
    (root / "labels.csv").write_text("a.png,1,10,30,40,dog\n")
    register_csv("d2pd_csv", root / "labels.csv", root)
    assert len(DatasetCatalog.get("d2pd_csv")) == 1


def test_a_config_registers_every_format(root):
    cfg = config(
        root,
        d2pd_csv={"FORMAT": "csv", "ANNOTATIONS": "labels.csv", "CLASSES": ["cat", "dog"]},
        d2pd_coco={"FORMAT": "coco", "ANNOTATIONS": "coco.json"},
        d2pd_kaist={
            "FORMAT": "kaist",
            "ANNOTATIONS": "kaist.json",
            "IMAGES": "images",
            "IMAGE_LIST": "list.txt",
            "EXCLUDE": ["set00/V000"],
        },
    )
    register_from_config(cfg)
    register_from_config(cfg)
    assert [r["file_name"] for r in DatasetCatalog.get("d2pd_csv")] == [
        str(root / "a.png"),
        str(root / "b.png"),
    ]
    assert DatasetCatalog.get("d2pd_coco")[0]["image_id"] == 4
    (record,) = DatasetCatalog.get("d2pd_kaist")
    assert record["im_name"] == "set00/V001/I00001"
    assert record["lwir_file_name"] == str(root / "images/set00/V001/lwir/I00001.png")
    assert missing_files(cfg, ["d2pd_csv", "d2pd_coco", "d2pd_kaist"]) == []


def test_the_command_line_alone_registers_a_dataset(root):
    opts = ["DATASETS.ROOT", str(root)]
    for key, value in (
        ("FORMAT", "csv"),
        ("ANNOTATIONS", "labels.csv"),
        ("CLASSES", "['dog', 'cat']"),
    ):
        opts += [f"DATASETS.REGISTER.d2pd_mine.{key}", value]
    register_from_config(load_config(opts=opts))
    assert MetadataCatalog.get("d2pd_mine").thing_classes == ["dog", "cat"]
    assert len(DatasetCatalog.get("d2pd_mine")) == 2


def test_the_least_size_of_boxes_comes_from_the_config(root):
    entry = {"FORMAT": "kaist", "ANNOTATIONS": "kaist.json", "IMAGES": "images"}
    cfg = config(root, d2pd_kaist=entry)
    register_from_config(cfg)
    assert DatasetCatalog.get("d2pd_kaist")[0]["annotations"][0]["bbox"] == [600, 2, 640, 92]
    cfg.DATASETS.MIN_BOX_SIZE = 41.0
    register_from_config(cfg)
    assert DatasetCatalog.get("d2pd_kaist")[0]["annotations"] == []


def test_the_dataset_root(monkeypatch, tmp_path):
    cfg = default_config()
    monkeypatch.delenv("D2PD_DATASETS", raising=False)
    assert str(dataset_root(cfg)) == "datasets"
    monkeypatch.setenv("D2PD_DATASETS", str(tmp_path / "env"))
    assert dataset_root(cfg) == tmp_path / "env"
    cfg.DATASETS.ROOT = str(tmp_path / "config")
    assert dataset_root(cfg) == tmp_path / "config"


def test_a_synthetic_dataset_is_drawn_when_it_is_loaded(tmp_path, monkeypatch):
    sizes = []

    def draw(output, **size):
        sizes.append(size)
        folder = output / "images" / "set00" / "V000" / "visible"
        folder.mkdir(parents=True)
        Image.new("RGB", (640, 512)).save(folder / "I00000.png")
        tables = {"images": [{"id": 0, "im_name": "set00/V000/I00000"}], "annotations": []}
        for name in ("train20.json", "test20.json"):
            (output / name).write_text(json.dumps(tables))

    monkeypatch.setattr("d2pd.data.synthetic.draw_dataset", draw, raising=False)
    entries = {
        f"d2pd_{split}": {
            "FORMAT": "synthetic",
            "ANNOTATIONS": f"synthetic/{split}20.json",
            "IMAGES": "synthetic/images",
        }
        for split in ("train", "test")
    }
    cfg = config(tmp_path, **entries)
    register_from_config(cfg)
    assert missing_files(cfg, list(entries)) == []
    assert not sizes
    for name in entries:
        assert len(DatasetCatalog.get(name)) == 1
    assert sizes == [{"num_train": 400, "num_test": 60, "seed": 0}]
    cfg.DATASETS.SYNTHETIC.SEED = 1
    register_from_config(cfg)
    (problem,) = missing_files(cfg, list(entries))
    assert problem.startswith(f"{tmp_path / 'synthetic'} was drawn with ")


def test_all_missing_files_are_listed_once_with_a_cure(tmp_path):
    cfg = config(
        tmp_path,
        d2pd_train={
            "FORMAT": "kaist",
            "ANNOTATIONS": "kaist/train20.json",
            "IMAGES": "kaist/images",
            "IMAGE_LIST": "kaist/list.txt",
        },
        d2pd_val={
            "FORMAT": "kaist",
            "ANNOTATIONS": "kaist/train20.json",
            "IMAGES": "kaist/images",
        },
        d2pd_csv={"FORMAT": "csv", "ANNOTATIONS": "a.csv"},
    )
    register_from_config(cfg)
    kaist = tmp_path / "kaist"
    cure = f"download KAIST (README), or draw stand-ins: python -m d2pd synth --output {kaist}"
    root = f"dataset root: {tmp_path}"
    assert missing_files(cfg, ["d2pd_train", "d2pd_val", "d2pd_csv", "unknown"]) == [
        f"no file {kaist / 'train20.json'} (ANNOTATIONS of d2pd_train, d2pd_val; {root}): {cure}",
        f"no file {kaist / 'list.txt'} (IMAGE_LIST of d2pd_train; {root}): {cure}",
        f"no folder {kaist / 'images'} (IMAGES of d2pd_train, d2pd_val; {root}): {cure}",
        f"no file {tmp_path / 'a.csv'} (ANNOTATIONS of d2pd_csv; {root}): correct "
        "DATASETS.REGISTER.d2pd_csv.ANNOTATIONS, or set D2PD_DATASETS or DATASETS.ROOT",
    ]
    with pytest.raises(MissingFileError):
        DatasetCatalog.get("d2pd_csv")


def test_faults_of_all_labels_are_listed_together(root):
    register_csv("d2pd_good", root / "labels.csv", root)
    register_csv("d2pd_id", root / "labels.csv", root, class_names=["dog"])
    register_csv("d2pd_image", root / "labels.csv", root / "images", class_names=["dog", "cat"])
    names = ["d2pd_good", "d2pd_id", "d2pd_image", "d2pd_id", "unknown"]
    assert unreadable_labels(names, "visible") == [
        f"{root}/labels.csv, line 2: class 'cat' is not one of dog; mend the line or add it to "
        "CLASSES",
        f"2 of 2 images of {root}/labels.csv are not under {root}/images: a.png, b.png; correct "
        "IMAGES or put the files there",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"FORMAT": "voc"},
            "DATASETS.REGISTER.mine.FORMAT must be one of kaist, coco, csv, synthetic, got 'voc'",
        ),
        (
            {"FORMAT": "csv"},
            "DATASETS.REGISTER.mine.ANNOTATIONS is empty; name the label file",
        ),
        (
            {"FORMAT": "csv", "ANOTATIONS": "a.csv"},
            "unknown key DATASETS.REGISTER.mine.ANOTATIONS; known: FORMAT, ANNOTATIONS, IMAGES, "
            "CLASSES, BOX_FORMAT, COLUMNS, IMAGE_LIST, INCLUDE, EXCLUDE, FOLDS, FOLD_PART",
        ),
        (
            {"FORMAT": "coco", "ANNOTATIONS": "a.json", "BOX_FORMAT": "xywh"},
            "DATASETS.REGISTER.mine.BOX_FORMAT has no meaning for FORMAT coco; remove it",
        ),
        (
            {"FORMAT": "csv", "ANNOTATIONS": "a.csv", "EXCLUDE": ["set00/V000"]},
            "DATASETS.REGISTER.mine.EXCLUDE has no meaning for FORMAT csv; remove it",
        ),
    ],
)
def test_an_entry_that_cannot_be_used_is_refused(tmp_path, entry, message):
    with pytest.raises(ConfigError) as caught:
        register_from_config(config(tmp_path, mine=entry))
    assert str(caught.value) == message
    assert "mine" not in DatasetCatalog


def test_labels_can_be_had_as_the_file_has_them(root):
    register_csv("d2pd_csv", root / "labels.csv", root)
    records = load_records("d2pd_csv", cleaned=False)
    boxes = [annotation["bbox"] for record in records for annotation in record["annotations"]]
    assert boxes == [[1, 2, 30, 40], [5, 5, 5, 9]]
    assert [len(record["annotations"]) for record in load_records("d2pd_csv")] == [1, 0]
