"""Runs of two classes in a few pictures, whose numbers are known by hand, and their cards."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from report_toys import QUICK, write_metrics, write_predictions

from d2pd.config import load_config
from d2pd.data.records import load_records, load_train_records
from d2pd.data.registration import register_from_config
from d2pd.reporting.model_card.write import write_model_card
from d2pd.training.checkpoints.run_identity import describe_run

AP = {"AP": 61.25, "AP50": 75.0}
CLASSES = ["person", "cyclist"]
TRAIN = """a.png,10,10,40,70,person
a.png,5,5,5,20,person
b.png,50,10,80,70,cyclist
c.png,,,,,
"""
VALID = """a.png,10,10,40,70,person
a.png,60,10,90,70,person
d.png,10,10,40,70,person
d.png,60,10,90,70,person
"""
FINAL = "e.png,10,10,40,70,person\n"
# By hand: three of four found, two of five wrong. F1 at .8 is 2/3, at .4 it is .75, at .2 .667.
FOUND = [
    ("a.png", 10, 0.9),
    ("a.png", 60, 0.8),
    ("a.png", 120, 0.6),
    ("d.png", 10, 0.4),
    ("d.png", 120, 0.2),
]


def hand_made_config(folder, class_names, more=()):
    """Two classes in six pictures, three label files; the run is ``folder/run``."""
    (folder / "images").mkdir(parents=True)
    for name in "abcde":
        cv2.imwrite(str(folder / f"images/{name}.png"), np.full((120, 160, 3), 90, np.uint8))
    (folder / "train.csv").write_text(TRAIN)
    (folder / "valid.csv").write_text(VALID)
    (folder / "final.csv").write_text(FINAL)
    cfg = load_config(QUICK, ["MODEL.DEVICE", "cpu"])
    entry = cfg.DATASETS.REGISTER.synthetic_val.clone()
    cfg.DATASETS.REGISTER.clear()
    entry.FORMAT, entry.IMAGES, entry.CLASSES = "csv", "images", list(class_names)
    for name in ("train", "valid", "final"):
        cfg.DATASETS.REGISTER[f"mine_{name}"] = entry.clone()
        cfg.DATASETS.REGISTER[f"mine_{name}"].ANNOTATIONS = f"{name}.csv"
    cfg.DATASETS.ROOT, cfg.OUTPUT_DIR = str(folder), str(folder / "run")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("mine_train",), ("mine_valid",)
    cfg.DATASETS.FINAL_TEST = ("mine_final",)
    cfg.INPUT.MODALITY, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "visible", 2
    cfg.SOLVER.MAX_ITER = 100
    cfg.merge_from_list(list(more))
    return cfg


def detections(dataset, rows):
    """Rows of detections of persons 30 px wide and 60 high: picture, left edge, score."""
    ids = {record["file_name"][-5:]: record["image_id"] for record in load_records(dataset)}
    return [
        {"image_id": ids[name], "category_id": 0, "bbox": [x, 10, 30, 60], "score": score}
        for name, x, score in rows
    ]


def save(path, cfg=None, **facts):
    """A checkpoint; with a configuration, of its run."""
    if cfg is not None:
        facts["run"] = describe_run(cfg, load_train_records(cfg, quiet=True))
    torch.save({"model": {"weight": torch.zeros(3)}, **facts}, path)


def finish(cfg):
    folder = begin(cfg)
    write_metrics(folder)
    write_predictions(folder, detections("mine_valid", FOUND), "mine_valid")
    final = detections("mine_final", [("e.png", 10, 0.5), ("e.png", 120, 0.3)])
    write_predictions(folder, final, "mine_final")
    save(folder / "model_final.pth", cfg, iteration=99)
    (folder / "run.log").write_text(
        "11-30 02:17  === started, 2026-11-30 02:17:36 ===\n"
        "12-01 02:19  === all 100 iterations are done, 2026-12-01 02:19:51 ===\n"
    )
    return folder


def begin(cfg):
    """Write what a run writes first; register its datasets."""
    folder = write_run_config(cfg)
    register_from_config(cfg)
    return folder


def write_run_config(cfg):
    folder = Path(cfg.OUTPUT_DIR)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump())
    return folder


def card_of(folder):
    return write_model_card(folder).read_text(encoding="utf-8")


def section(card, title):
    return card.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text):
    """Return the cells of all table rows, heads too."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def measured_precision(card):
    """Return AP as a card tells it."""
    return {row[0].strip("`"): float(row[1]) for row in rows(card) if row[0] in ("`AP`", "`AP50`")}


def kaist_run(folder, sets):
    """A run on frames of KAIST's sets, without weights."""
    images = [
        {"id": n, "im_name": f"{name}/V000/I0000{n}", "height": 512, "width": 640}
        for n, name in enumerate(sets)
    ]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [100, 100, 40, 100], "ignore": 0}
        for n in range(len(sets))
    ]
    (folder / "kaist.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    for image in images:
        path = folder / f"images/{image['im_name']}".replace("V000", "V000/lwir")
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{path}.png", np.full((512, 640), 90, np.uint8))
    cfg = hand_made_config(folder / "data", CLASSES)
    entry = cfg.DATASETS.REGISTER.mine_train
    entry.FORMAT, entry.CLASSES = "kaist", ["person"]
    entry.ANNOTATIONS, entry.IMAGES = "../kaist.json", "../images"
    cfg.INPUT.MODALITY, cfg.MODEL.ROI_HEADS.NUM_CLASSES = "lwir", 1
    cfg.DATASETS.TEST = cfg.DATASETS.FINAL_TEST = ()
    return begin(cfg)
