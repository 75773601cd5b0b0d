"""What the faults of the real KAIST labels do to training, and that the clean copy has none."""

import math
from pathlib import Path

import pytest
import torch
from step_toys import Toy

from d2pd.config import load_config
from d2pd.d2 import EventStorage
from d2pd.data.annotations import read_kaist_json
from d2pd.data.audit.audit import audit_table
from d2pd.data.audit.clean_copy import write_clean_copy
from d2pd.data.cleaning import drop_images_without_objects
from d2pd.data.label_table.read import read_label_table
from d2pd.modeling.build import build_model
from d2pd.training.culprits.sample_faults import TargetError
from d2pd.training.diagnosis.examination import examine, label_sample
from d2pd.training.step import Step

QUICK = Path(__file__).resolve().parents[2] / "configs/quick"
SSD = "ssd_seg_synthetic.yaml"
FASTER_RCNN = "faster_rcnn_synthetic.yaml"

AT_FAULT = {
    1009: "set00/V004/I01233",
    1475: "set00/V007/I00263",
    2371: "set01/V000/I02017",
    3093: "set01/V003/I00905",
    6522: "set03/V001/I01005",
    7615: "set04/V001/I01229",
    7616: "set04/V001/I01231",
    7617: "set04/V001/I01233",
}
"""Rows of the 8,738 images with a person; see the README of the shared data."""


@pytest.fixture(scope="module")
def labels(shared_data) -> Path:
    return shared_data / "kaist/train20.json"


@pytest.fixture(scope="module")
def records(labels):
    """The images that hold a person, boxes as the file has them."""
    return drop_images_without_objects(read_kaist_json(labels, None).records)[0]


@pytest.fixture(scope="module")
def clean_records(labels, tmp_path_factory):
    """The images that hold a person, of the clean copy."""
    table = read_label_table(labels)
    target = tmp_path_factory.mktemp("clean") / "train20.json"
    findings = audit_table(table).findings
    write_clean_copy(table, findings, target, force=False, min_box_size=1.0)
    return drop_images_without_objects(read_kaist_json(target, None).records)[0]


def by_name(records, name: str):
    (record,) = [record for record in records if record["im_name"] == name]
    return record


def losses_of(config: str, record) -> dict[str, float]:
    """Losses and counts of the model of a quick config, from nothing, on a black picture."""
    options = ["MODEL.DEVICE", "cpu", "INPUT.MODALITY", "visible"]
    options += ["MODEL.PIXEL_MEAN", "[50.0, 50.0, 50.0]", "MODEL.PIXEL_STD", "[33.0, 33.0, 33.0]"]
    torch.manual_seed(0)
    model = build_model(load_config(str(QUICK / config), options)).train()
    with EventStorage(0) as storage, torch.no_grad():
        losses = model([label_sample(record, 0)])
    logged = {name: value for name, (value, _) in storage.latest().items()}
    return logged | {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize("row", AT_FAULT)
def test_the_check_before_the_forward_pass_stops_at_each_of_the_eight_images(records, row):
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    samples = [label_sample(records[near], near) | {"value": 1.0} for near in (row - 10, row)]
    step = Step(model, iter([samples[:1], samples]), optimizer, num_classes=1, seed=0)
    with EventStorage(0):
        step.run_step()
        weight = model.weight.item()
        with pytest.raises(TargetError) as caught:
            step.run_step()
    assert weight != 2.0
    assert model.weight.item() == weight
    assert f"{AT_FAULT[row]} (row {row}): target box " in str(caught.value)
    assert "has no area: " in str(caught.value)


def test_the_clean_copy_keeps_all_but_the_faults_and_breaks_the_contract_nowhere(
    records, clean_records
):
    items = [label_sample(record, row) for row, record in enumerate(clean_records)]
    results = examine(clean_records, items, num_classes=1, min_box_size=1.0)
    assert [result.findings for result in results if result.findings] == []
    assert {record["im_name"] for record in clean_records} == {r["im_name"] for r in records}
    assert len(clean_records) == len(records) - 2  # two are listed twice


OF_ALL = [pytest.param(row, marks=[pytest.mark.slow] if row != 7615 else []) for row in AT_FAULT]
"""The models on each of the eight images take a minute; one of them stands for all."""


@pytest.mark.parametrize("row", OF_ALL)
def test_without_that_check_the_loss_of_ssd_is_infinite(records, clean_records, row):
    faulty = losses_of(SSD, records[row])
    sound = losses_of(SSD, by_name(clean_records, AT_FAULT[row]))
    assert faulty["loss_box_reg"] == math.inf
    assert all(math.isfinite(value) for value in sound.values())


@pytest.mark.parametrize("row", OF_ALL)
def test_without_that_check_the_rpn_of_faster_rcnn_has_no_negative_anchor(
    records, clean_records, row
):
    faulty = losses_of(FASTER_RCNN, records[row])
    sound = losses_of(FASTER_RCNN, by_name(clean_records, AT_FAULT[row]))
    assert (faulty["rpn/num_pos_anchors"], faulty["rpn/num_neg_anchors"]) == (64, 0)
    assert sound["rpn/num_pos_anchors"] + sound["rpn/num_neg_anchors"] == 128
    assert sound["rpn/num_neg_anchors"] > 100
    assert all(math.isfinite(value) for value in sound.values())
