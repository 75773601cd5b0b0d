"""Runs and pages to try the report on: a folder as a training leaves it, and made-up content."""

import json
from pathlib import Path

import numpy as np

from d2pd.config import load_config
from d2pd.data.registration import register_from_config
from d2pd.reporting.report.chart import Chart, Line
from d2pd.reporting.report.content import Box, Card, Content, DatasetPart, Figure, Table
from d2pd.reporting.report.pictures import crop_uri, frame_uri, view_around

QUICK = Path(__file__).resolve().parents[2] / "configs/quick/faster_rcnn_synthetic.yaml"
DATASET = "synthetic_val"
HOSTILE = "</script><script>document.title='taken'</script><!-- <img src=x onerror=alert(1)> ' \" &"


def write_config(folder, opts):
    """Write what a run writes first, and register its datasets."""
    cfg = load_config(QUICK, [*opts, "OUTPUT_DIR", str(folder)])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(cfg.dump())
    register_from_config(cfg)
    return cfg


def write_metrics(folder, *, stopped=""):
    rows = [
        {
            "iteration": i,
            "total_loss": 2 / (i + 1),
            "loss_cls": 1 / (i + 1),
            "lr": 0.01,
            "time": 0.5,
        }
        for i in range(0, 100, 20)
    ]
    rows[-1] |= {"bbox/AP": 12.0, "val/total_loss": 0.7, "best/bbox/AP": 12.0}
    if stopped:
        rows.append({"iteration": 80, "stopped": stopped})
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_predictions(folder, predictions, dataset=DATASET, class_names=("person",)):
    path = folder / "inference" / dataset / "predictions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"dataset": dataset, "class_names": class_names, "predictions": predictions}
    path.write_text(json.dumps(content))


def near_labels(records, seed=0):
    """Detections as of a fair detector: some labels missed, some boxes shifted, some invented."""
    random = np.random.default_rng(seed)
    rows = []
    for record in records:
        for annotation in record["annotations"]:
            x1, y1, x2, y2 = annotation["bbox"]
            if random.random() < 0.7:
                shift = random.normal(0, 0.1) * (x2 - x1)
                box = [x1 + shift, y1, x2 - x1, y2 - y1]
                rows.append(row_of(record, box, 0.5 + random.random() / 2))
        rows.append(row_of(record, [random.random() * 500, 200, 30, 70], random.random()))
    return rows


def row_of(record, box, score):
    return {"image_id": record["image_id"], "category_id": 0, "bbox": box, "score": float(score)}


def made_up_card(number, *, has_picture=True, text=HOSTILE):
    """A card; even numbers are misses by night, odd ones false positives by day."""
    image = np.full((120, 160, 3), 40 + 10 * number, np.uint8)
    box, is_miss = (40.0 + number, 30.0, 20.0, 50.0), number % 2 == 0
    view = view_around(box, image.shape[:2])
    return Card(
        kind="miss" if is_miss else "false positive",
        reason="too small" if is_miss else "background",
        splits=("night",) if is_miss else ("day",),
        band="under 45 px" if number < 3 else "55 to 115 px",
        score=None if is_miss else number / 10,
        lines=(text,),
        image_name=text,
        image_size=image.shape[:2],
        view=view,
        crop=crop_uri(image, view) if has_picture else "",
        frame="0" if has_picture else "",
        boxes=(
            Box(box, "label" if is_miss else "detection", text, is_subject=True),
            Box((90, 10, 30, 30), "ignore"),
        ),
        trouble="" if has_picture else text,
    )


def made_up_content(number_of_cards=6, text=HOSTILE):
    """A page with something of everything, the same text in every place that takes one."""
    line = Line(text, [(0, 1.0), (10, 0.5), (20, 0.25)], 0, note=text, star=(20, 0.25))
    chart = Chart(text, text, [line], is_y_log=True, marks=[(10, text)], note=text)
    table = Table(text, (text, text), [(text, "1")], text, [[3]], details=(text, text))
    part = DatasetPart(
        text,
        text,
        figures=[Figure(text, "1.0", text)],
        tables=[table],
        charts=[chart, Chart("empty", "x", [], absent=text)],
        confusion=table,
        error_tables=[table],
        errors_note=text,
        cards=[made_up_card(n, has_picture=n != 4, text=text) for n in range(number_of_cards)],
        gallery_note=text,
        absent=[text],
    )
    return Content(
        name=text,
        folder=text,
        status="stopped early",
        status_words=text,
        figures=[Figure(text, "2.0", text)],
        facts=[(text, text)],
        absent=[text],
        training=[chart],
        datasets=[part],
        changes=[(text, text, text)],
        config_text=text,
        frames={"0": frame_uri(np.full((120, 160, 3), 90, np.uint8)), text: "data:,"},
        footer=text,
    )
