"""``d2pd show --anchors``: labels alone are enough, and what is no SSDSeg is told."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from d2pd import cli
from d2pd.d2 import DatasetCatalog, MetadataCatalog

ROOT = Path(__file__).resolve().parent.parent.parent
NAME = "anchor_fit_labels"


@pytest.fixture
def own_name():
    yield
    if NAME in DatasetCatalog:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def show(config, *opts):
    return cli.main(["show", "--config-file", str(ROOT / "configs" / config), "--anchors", *opts])


def write_labels(folder: Path) -> Path:
    """A KAIST frame with labels of 20 x 40 and 40 x 80 px, a region, one without area."""
    boxes = [[100, 100, 20, 40], [300, 100, 40, 80], [10, 10, 50, 50], [7, 7, 5, 0]]
    tables = {
        "images": [{"id": 0, "im_name": "set00/V000/I00001", "height": 512, "width": 640}],
        "annotations": [
            {"id": i, "image_id": 0, "bbox": box, "category_id": 1, "ignore": int(i == 2)}
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 0, "name": "__ignore__"}, {"id": 1, "name": "person"}],
    }
    path = folder / "labels.json"
    path.write_text(json.dumps(tables))
    return path


def registered(folder: Path) -> list[str]:
    entry = f"DATASETS.REGISTER.{NAME}"
    return [
        *("DATASETS.TRAIN", f"('{NAME}',)", f"{entry}.FORMAT", "kaist"),
        *(f"{entry}.ANNOTATIONS", str(write_labels(folder))),
        *(f"{entry}.IMAGES", str(folder / "pictures_that_are_not_there")),
        *("OUTPUT_DIR", str(folder / "out")),
    ]


def rows(output):
    return {line[:22].strip(): line[22:].split() for line in output.splitlines()}


def test_labels_are_enough_for_table_and_picture(tmp_path, capsys, own_name):
    assert show("ssd_seg_kaist.yaml", *registered(tmp_path)) == 0

    out = capsys.readouterr().out
    assert out.startswith(f"2 labels of {NAME}, 41,760 anchors on 512 x 640 px (height x width)\n")
    # Halves of 28.3 x 56.6 px: wholly inside of it, wherever its centre is within 4 px.
    assert rows(out)["under 45 px"] == ["1", "0.50", "0.0", "%"]
    assert rows(out)["55 to 115 px"][0] == "1"
    assert out.splitlines()[-1] == str(tmp_path / "out" / "anchor_fit.png")
    assert (tmp_path / "out" / "anchor_fit.png").stat().st_size > 10_000


def test_the_shorter_side_and_the_threshold_are_those_of_the_configuration(
    tmp_path, capsys, own_name
):
    """At half the size a label of 20 x 40 px is 10 x 20: an eighth of the 28.3 x 56.6 px anchor."""
    opts = [*registered(tmp_path), "INPUT.FIXED_SIZE", "()", "INPUT.MIN_SIZE_TEST", "256"]

    assert show("ssd_seg_kaist.yaml", *opts, "MODEL.SSD.IOU_THRESHOLD", "0.3") == 0

    out = capsys.readouterr().out
    assert "10,440 anchors on 256 x 320 px" in out
    assert "under 0.3" in out
    assert rows(out)["under 45 px"] == ["1", "0.12", "100.0", "%"]


def test_pictures_are_opened_where_no_label_states_their_size(tmp_path, capsys, own_name):
    for name, height in (("a.png", 100), ("b.png", 200)):
        cv2.imwrite(str(tmp_path / name), np.zeros((height, 100, 3), np.uint8))
    (tmp_path / "labels.csv").write_text(
        "image,x1,y1,x2,y2,class\na.png,0,0,50,50,dog\nb.png,0,0,50,150,dog\n"
    )
    entry = f"DATASETS.REGISTER.{NAME}"
    opts = [
        *("DATASETS.TRAIN", f"('{NAME}',)", f"{entry}.FORMAT", "csv"),
        *(f"{entry}.ANNOTATIONS", str(tmp_path / "labels.csv"), f"{entry}.IMAGES", str(tmp_path)),
        *("INPUT.FIXED_SIZE", "()", "INPUT.MIN_SIZE_TEST", "300", "INPUT.MAX_SIZE_TEST", "1000"),
    ]

    assert show("ssd300_seg_kaist.yaml", *opts, "OUTPUT_DIR", str(tmp_path / "out")) == 0

    out = capsys.readouterr().out
    assert out.startswith(f"2 labels of {NAME}, 2 sizes of network input\n")
    assert rows(out)["45 to 55 px"][0] == "1"
    assert rows(out)["115 px and more"][0] == "1"


def test_another_model_is_told_in_a_line(tmp_path, capsys):
    assert show("faster_rcnn_kaist.yaml", "OUTPUT_DIR", str(tmp_path / "out")) == cli.USER_ERROR

    err = capsys.readouterr().err
    assert err == (
        "d2pd: --anchors measures the anchors of MODEL.META_ARCHITECTURE SSDSeg, and this "
        "configuration has GeneralizedRCNN; leave --anchors out\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ANCHOR_GENERATOR.SIZES", "[[30]]"], "MODEL.ANCHOR_GENERATOR.SIZES has 1 list"),
        (["INPUT.FIXED_SIZE", "(8, 640)"], "8 x 640 px (height x width) are too small"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty"),
        (["DATASETS.TRAIN", "('no_such',)"], "DATASETS.TRAIN names no_such, which is not"),
        (["MODEL.SSD.IOU_THRESHOLD", "0.0"], "MODEL.SSD.IOU_THRESHOLD is 0.0"),
    ],
)
def test_what_cannot_be_measured_is_told_in_a_line(tmp_path, capsys, own_name, opts, message):
    assert show("ssd_seg_kaist.yaml", *registered(tmp_path), *opts) == cli.USER_ERROR

    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "first", "under_45", "all_labels"),
    [
        (
            "ssd300_seg_kaist.yaml",
            "20,088 labels of kaist_train, 8,732 anchors on 300 x 300 px (height x width)",
            ["3,755", "0.20", "100.0", "%"],
            ["20,088", "0.48", "52.7", "%"],
        ),
        (
            "ssd_seg_kaist.yaml",
            "20,088 labels of kaist_train, 41,760 anchors on 512 x 640 px (height x width)",
            ["3,755", "0.40", "82.6", "%"],
            ["20,088", "0.73", "15.5", "%"],
        ),
    ],
)
def test_the_shipped_configs_on_real_labels(
    shared_data, tmp_path, capsys, config, first, under_45, all_labels
):
    opts = ["DATASETS.ROOT", str(shared_data), "OUTPUT_DIR", str(tmp_path)]

    assert show(config, *opts) == 0

    out = capsys.readouterr().out
    assert out.splitlines()[0] == first
    assert rows(out)["under 45 px"] == under_45
    assert rows(out)["all"] == all_labels
