"""Boxes, Instances, ImageList, BoxMode, overlaps and suppression."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from contract_recording import Contract
from contract_toys import raised

from d2pd.d2 import (
    ENGINE,
    Boxes,
    BoxMode,
    ImageList,
    Instances,
    ShapeSpec,
    batched_nms,
    detector_postprocess,
    pairwise_iou,
)

ROWS = [
    [0.0, 0.0, 10.0, 20.0],
    [5.0, 5.0, 15.0, 15.0],
    [-3.0, 2.0, 40.0, 2.0],
    [30.0, 30.0, 31.5, 33.0],
]


def boxes() -> Boxes:
    return Boxes(torch.tensor(ROWS))


def instances(count: int = 4) -> Instances:
    return Instances(
        (48, 64),
        gt_boxes=boxes()[:count],
        gt_classes=torch.arange(count),
        names=[f"n{index}" for index in range(count)],
    )


def test_values_of_box_modes(contract: Contract) -> None:
    values = {mode.name: int(mode) for mode in BoxMode}
    assert values["XYXY_ABS"] == 0
    assert values["XYWH_ABS"] == 1
    contract(values)


def test_conversion_of_boxes(contract: Contract) -> None:
    xyxy, xywh, rotated = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS
    box = [10.0, 20.0, 30.0, 60.0]
    assert BoxMode.convert(box, xyxy, xywh) == [10.0, 20.0, 20.0, 40.0]
    array = BoxMode.convert(np.array([box]), xywh, xyxy)
    assert array.dtype == np.float64
    contract(
        {
            "list": BoxMode.convert(box, xyxy, xywh),
            "tuple": [type(BoxMode.convert(tuple(box), xywh, xyxy)).__name__],
            "array": array.tolist(),
            "tensor": BoxMode.convert(torch.tensor([box]), xywh, xyxy),
            "rotated": BoxMode.convert(
                torch.tensor([[50.0, 40.0, 20.0, 10.0, 30.0]]), rotated, xyxy
            ),
            "to rotated": BoxMode.convert(torch.tensor([box]), xywh, rotated),
            "same": BoxMode.convert(box, xyxy, xyxy) is box,
        },
    )


def test_conversions_that_are_refused(contract: Contract) -> None:
    observed = {
        "back from rotated": raised(
            BoxMode.convert, torch.zeros(1, 5), BoxMode.XYWHA_ABS, BoxMode.XYWH_ABS
        ),
        "relative": raised(
            BoxMode.convert, [0.1, 0.2, 0.3, 0.4], BoxMode.XYXY_REL, BoxMode.XYXY_ABS
        ),
        "three numbers": raised(BoxMode.convert, [1.0, 2, 3], BoxMode.XYXY_ABS, BoxMode.XYWH_ABS),
        "wrong shape": raised(Boxes, torch.zeros(3, 5)),
    }
    assert observed["back from rotated"] == "NotImplementedError"
    assert "returned" not in observed.values()
    reason = "an error of its own kind, not an assertion"
    contract(
        observed, differences=dict.fromkeys(["relative", "three numbers", "wrong shape"], reason)
    )


def test_boxes_are_float_rows_of_four(contract: Contract) -> None:
    made = {
        "list": Boxes(ROWS),
        "int": Boxes(torch.tensor([[1, 2, 3, 4]])),
        "array": Boxes(np.array(ROWS)),
        "empty": Boxes(torch.empty(0)),
        "no rows": Boxes(torch.zeros(0, 4)),
        "empty list": Boxes([]),
    }
    assert all(each.tensor.dtype == torch.float32 for each in made.values())
    assert [len(each) for each in made.values()] == [4, 1, 4, 0, 0, 0]
    contract({name: [each.tensor, list(each.tensor.shape)] for name, each in made.items()})


def test_measures_of_boxes(contract: Contract) -> None:
    found = boxes()
    assert found.area().tolist() == [200.0, 100.0, 0.0, 4.5]
    assert found.nonempty().tolist() == [True, True, False, True]
    contract(
        {
            "area": found.area(),
            "nonempty": found.nonempty(),
            "nonempty 2": found.nonempty(threshold=2),
            "centers": found.get_centers(),
            "inside": found.inside_box((48, 64)),
            "inside 5": found.inside_box((16, 16), boundary_threshold=5),
            "text": str(found).split("(")[0],
            "device": str(found.device),
            "rows": list(found),
        }
    )


def test_boxes_are_changed_in_place(contract: Contract) -> None:
    clipped, scaled = boxes(), boxes()
    clipped.clip((12, 14))
    scaled.scale(2, 0.5)
    assert clipped.tensor[2].tolist() == [0.0, 2.0, 14.0, 2.0]
    assert scaled.tensor[0].tolist() == [0.0, 0.0, 20.0, 10.0]
    infinite = raised(Boxes([[0.0, 0.0, float("inf"), 1.0]]).clip, (5, 5))
    assert infinite == ("AssertionError" if ENGINE == "detectron2" else "FloatingPointError")
    copy = boxes()
    copy.clone().scale(9, 9)
    contract(
        {
            "clipped": clipped.tensor,
            "scaled": scaled.tensor,
            "copy": copy.tensor,
            "infinite": infinite,
        },
        differences={"infinite": "FloatingPointError, not an assertion"},
    )


def test_selecting_boxes(contract: Contract) -> None:
    found = boxes()
    mask = torch.tensor([True, False, False, True])
    observed = {
        "int": found[1].tensor,
        "last": found[-1].tensor,
        "slice": found[1:3].tensor,
        "mask": found[mask].tensor,
        "index": found[torch.tensor([3, 0, 0])].tensor,
        "none": found[torch.zeros(4, dtype=torch.bool)].tensor,
    }
    assert observed["int"].shape == (1, 4)
    contract({**observed, "over": raised(lambda: found[9]), "shape": list(observed["none"].shape)})


def test_joining_boxes(contract: Contract) -> None:
    joined = Boxes.cat([boxes(), boxes()[:1], Boxes([])])
    assert len(joined) == 5
    contract(
        {"joined": joined.tensor, "nothing": len(Boxes.cat([])), "moved": boxes().to("cpu").tensor}
    )


def test_overlap_of_boxes(contract: Contract) -> None:
    iou = pairwise_iou(boxes(), boxes()[:3])
    # 50 shared of 200 + 100 - 50; a box without area overlaps nothing, itself neither.
    assert float(iou[0, 1]) == pytest.approx(0.2)
    assert float(iou[2, 2]) == 0
    assert float(iou[0, 0]) == 1
    empty = pairwise_iou(Boxes([]), boxes())
    contract({"iou": iou, "empty": list(empty.shape)})


def test_suppression_within_classes(contract: Contract) -> None:
    found = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [0, 0, 10, 9], [20, 20, 30, 30.0]])
    scores = torch.tensor([0.5, 0.9, 0.8, 0.1])
    one = batched_nms(found, scores, torch.zeros(4, dtype=torch.int64), 0.5)
    two = batched_nms(found, scores, torch.tensor([0, 1, 0, 1]), 0.5)
    assert one.tolist() == [1, 3]
    assert two.tolist() == [1, 2, 3]
    none = batched_nms(found[:0], scores[:0], torch.zeros(0, dtype=torch.int64), 0.5)
    contract(
        {
            "one": one,
            "two": two,
            "loose": batched_nms(found, scores, torch.zeros(4, dtype=torch.int64), 0.9),
            "none": none,
            "half": batched_nms(found.half(), scores, torch.zeros(4, dtype=torch.int64), 0.5),
        }
    )


def test_fields_of_instances(contract: Contract) -> None:
    found = instances()
    found.scores = torch.tensor([0.1, 0.2, 0.3, 0.4])
    found.set("areas", [1, 2, 3, 4])
    observed = {
        "fields": list(found.get_fields()),
        "length": len(found),
        "size": found.image_size,
        "has": [found.has("scores"), found.has("nothing")],
        "get": found.get("areas"),
        "absent": raised(lambda: found.nothing),
        "get absent": raised(found.get, "nothing"),
        "remove absent": raised(found.remove, "nothing"),
        "iteration": raised(lambda: list(found)),
        "no fields": raised(lambda: len(Instances((2, 2)))),
    }
    found.remove("areas")
    observed["wrong length"] = raised(found.set, "short", torch.zeros(2))
    assert observed["absent"] == "AttributeError"
    assert observed["wrong length"] in ("AssertionError", "ValueError")
    assert raised(setattr, found, "image_size", (1, 1)) == observed["wrong length"]
    contract(
        {**observed, "after": list(found.get_fields()), "text": str(found).split("(")[0]},
        differences={"wrong length": "ValueError, not an assertion"},
    )


def test_selecting_instances(contract: Contract) -> None:
    found = instances()
    picked = {
        "int": found[1],
        "last": found[-1],
        "slice": found[1:3],
    }
    tensors = Instances((4, 4), boxes=boxes(), classes=torch.arange(4))
    picked_tensors = {
        "mask": tensors[torch.tensor([True, False, True, False])],
        "index": tensors[torch.tensor([2, 2])],
        "none": tensors[:0],
    }
    assert picked["int"].names == ["n1"]
    assert picked_tensors["index"].classes.tolist() == [2, 2]
    contract(
        {
            **{name: [each.names, each.gt_boxes.tensor] for name, each in picked.items()},
            **{name: [each.classes, each.boxes.tensor] for name, each in picked_tensors.items()},
            "over": raised(lambda: found[4]),
            "under": raised(lambda: found[-5]),
        }
    )


def test_joining_instances(contract: Contract) -> None:
    joined = Instances.cat([instances(1), instances(2)])
    assert joined.names == ["n0", "n0", "n1"]
    other = Instances((1, 1), gt_boxes=boxes(), gt_classes=torch.arange(4), names=["x"] * 4)
    refused = {
        "nothing": raised(Instances.cat, []),
        "other size": raised(Instances.cat, [instances(), other]),
    }
    assert "returned" not in refused.values()
    one = instances()
    reason = "ValueError, not an assertion"
    contract(
        {
            "names": joined.names,
            "classes": joined.gt_classes,
            "boxes": joined.gt_boxes.tensor,
            "size": joined.image_size,
            "one": Instances.cat([one]) is one,
            **refused,
        },
        differences=dict.fromkeys(refused, reason),
    )


def test_instances_move_and_pickle(contract: Contract) -> None:
    found = instances().to("cpu")
    again = pickle.loads(pickle.dumps(found))
    assert again.names == found.names
    contract(
        {
            "fields": list(again.get_fields()),
            "boxes": again.gt_boxes.tensor,
            "size": again.image_size,
        }
    )


def batch(*sizes: tuple[int, int], **options: Any) -> ImageList:
    images = [torch.full((2, *size), float(index + 1)) for index, size in enumerate(sizes)]
    return ImageList.from_tensors(images, **options)


def test_images_are_padded_to_one_size(contract: Contract) -> None:
    two = batch((3, 5), (4, 2), size_divisibility=4, pad_value=-1.0)
    assert two.tensor.shape == (2, 2, 4, 8)
    assert two[1].shape == (2, 4, 2)
    assert float(two.tensor[0, 0, 3, 0]) == -1
    contract(
        {
            "sums": two.tensor.sum(dim=(1, 3)),
            "sizes": two.image_sizes,
            "length": len(two),
            "device": str(two.device),
            "shapes": {
                "plain": list(batch((3, 5), (4, 2)).tensor.shape),
                "one": list(batch((3, 5)).tensor.shape),
                "divided": list(batch((33, 5), size_divisibility=32).tensor.shape),
                "square": list(
                    batch((3, 5), (4, 2), padding_constraints={"square_size": 8}).tensor.shape
                ),
                "constraint": list(
                    batch(
                        (3, 5), size_divisibility=2, padding_constraints={"size_divisibility": 8}
                    ).tensor.shape
                ),
            },
            "moved": str(two.to(torch.float64).tensor.dtype),
        }
    )


def test_shapes_of_feature_maps(contract: Contract) -> None:
    spec = ShapeSpec(channels=3, stride=4)
    assert spec == ShapeSpec(channels=3, stride=4)
    assert spec != ShapeSpec(channels=3)
    contract(
        {
            "values": [spec.channels, spec.height, spec.width, spec.stride],
            "positional": [ShapeSpec(1, 2, 3, 4).height, ShapeSpec(1, 2, 3, 4).stride],
            "default": ShapeSpec().channels,
        }
    )


def detections() -> Instances:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6])
    return Instances((48, 64), pred_boxes=boxes(), scores=scores)


def test_detections_are_scaled_to_the_picture(contract: Contract) -> None:
    scaled = detector_postprocess(detections(), 96, 64)
    # The flat box is gone; heights are doubled; what lies outside is cut.
    assert scaled.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert scaled.pred_boxes.tensor[0].tolist() == [0.0, 0.0, 10.0, 40.0]
    small = detector_postprocess(detections(), 12, 16)
    contract(
        {
            "size": scaled.image_size,
            "boxes": scaled.pred_boxes.tensor,
            "small": small.pred_boxes.tensor,
            "scores": scaled.scores,
        }
    )


def test_scaling_detections_leaves_its_input(contract: Contract) -> None:
    given = detections()
    detector_postprocess(given, 96, 64)
    changed = not torch.equal(given.pred_boxes.tensor, boxes().tensor)
    assert changed == (ENGINE == "detectron2")
    contract(
        {"size": given.image_size, "changed": changed},
        differences={"changed": "the embedded engine scales a copy, Detectron2 the boxes given"},
    )
