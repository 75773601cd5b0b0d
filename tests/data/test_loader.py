import logging
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2pd.config_keys import default_config
from d2pd.d2 import CfgNode, DatasetCatalog, MetadataCatalog
from d2pd.data.loader import (
    build_diagnosis_loader,
    build_test_loader,
    build_train_dataset,
    build_train_loader,
    build_validation_loader,
    evenly_spread,
    first_samples,
    load_records,
    load_train_records,
)
from d2pd.errors import AnnotationError, ConfigError, MissingFileError

NAMES = ("loader_toys", "loader_more", "loader_empty")


def toy_records(folder: Path, prefix: str, count: int) -> list[dict]:
    rng = np.random.default_rng(len(prefix))
    records = []
    for number in range(count):
        path = folder / f"{prefix}{number}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
        box = {"bbox": [4.0, 5.0, 20.0 + number, 30.0], "bbox_mode": 0, "category_id": 0}
        records.append(
            {
                "file_name": str(path),
                "image_id": f"{prefix}{number}",
                "height": 32,
                "width": 48,
                "annotations": [box | {"ignore": 0, "iscrowd": 0, "row": number}],
            }
        )
    return records


@pytest.fixture
def cfg(tmp_path: Path) -> Iterator[CfgNode]:
    toys, more = toy_records(tmp_path, "toy", 5), toy_records(tmp_path, "more", 2)
    toys[3]["annotations"] = []
    for name, records in zip(NAMES, (toys, more, [toys[3]]), strict=True):
        DatasetCatalog.register(name, lambda records=records: records)
        MetadataCatalog.get(name).thing_classes = ["person"]
    cfg = default_config()
    cfg.DATASETS.TRAIN = NAMES[:2]
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 3
    cfg.INPUT.MIN_SIZE_TRAIN = (32, 40, 48)
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.INPUT.CROP.ENABLED = True
    yield cfg
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def batches(cfg: CfgNode, count: int, start_iter: int = 0) -> list[list[dict]]:
    loader = build_train_loader(cfg)
    loader.start_at(start_iter)
    return list(islice(loader, count))


def flat(run: list[list[dict]]) -> list[dict]:
    return list(chain.from_iterable(run))


def assert_same(one: list[list[dict]], other: list[list[dict]]) -> None:
    assert [len(batch) for batch in one] == [len(batch) for batch in other]
    for mine, theirs in zip(flat(one), flat(other), strict=True):
        assert (mine["k"], mine["image_id"]) == (theirs["k"], theirs["image_id"])
        assert torch.equal(mine["image"], theirs["image"])
        assert torch.equal(mine["instances"].gt_boxes.tensor, theirs["instances"].gt_boxes.tensor)
        assert torch.equal(mine["ignore_boxes"], theirs["ignore_boxes"])


def test_sample_says_the_row_of_its_record_in_the_training_list(cfg):
    records = load_train_records(cfg)
    samples = flat(batches(cfg, 4))
    assert [s["image_id"] for s in samples] == [records[s["row"]]["image_id"] for s in samples]
    assert len({s["row"] for s in samples}) == len(records)


def test_resume_gives_the_batches_of_an_uninterrupted_run(cfg):
    whole = batches(cfg, 9)
    for start in (1, 4, 7):
        assert_same(batches(cfg, 9 - start, start_iter=start), whole[start:])


def test_number_of_workers_changes_nothing(cfg):
    whole = batches(cfg, 8)
    cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(batches(cfg, 8), whole)
    assert_same(batches(cfg, 3, start_iter=5), whole[5:])


def test_state_of_the_process_changes_nothing(cfg):
    torch.manual_seed(1)
    np.random.seed(1)
    first = batches(cfg, 4)
    torch.manual_seed(2)
    np.random.seed(2)
    assert_same(batches(cfg, 4), first)


def test_seed_changes_order_and_augmentation(cfg):
    first = batches(cfg, 6)
    cfg.SEED = 43
    second = batches(cfg, 6)
    ids = [[sample["image_id"] for sample in flat(run)] for run in (first, second)]
    assert ids[0] != ids[1]
    assert [s["k"] for s in flat(first)] == list(range(18))


def test_batches_are_as_large_as_asked_and_cover_all_datasets(cfg):
    run = batches(cfg, 6)
    assert [len(batch) for batch in run] == [3] * 6
    ids = {sample["image_id"] for sample in flat(run)}
    assert ids == {"toy0", "toy1", "toy2", "toy4", "more0", "more1"}


def test_first_samples_are_those_of_the_loader(cfg):
    assert_same([first_samples(build_train_dataset(cfg), 7)], [flat(batches(cfg, 3))[:7]])


def test_images_without_objects_are_dropped_and_counted_or_kept(cfg, caplog):
    with caplog.at_level(logging.INFO, logger="d2pd"):
        batches(cfg, 1)
    assert "no_object" in caplog.text
    assert "Training on 6 images" in caplog.text
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    ids = {sample["image_id"] for sample in flat(batches(cfg, 3))}
    assert "toy3" in ids


def test_test_loader_is_finite_in_file_order_and_without_targets(cfg):
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        loader = build_test_loader(cfg, "loader_toys")
        samples = [batch[0] for batch in loader]
        assert len(loader) == len(samples) == 5
        assert [sample["image_id"] for sample in samples] == [f"toy{n}" for n in range(5)]
        assert all("instances" not in sample for sample in samples)
        assert all(sample["image"].shape == (3, 64, 96) for sample in samples)


def test_validation_loader_is_finite_in_file_order_and_has_targets_but_no_augmentation(cfg):
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        loader = build_validation_loader(cfg, "loader_toys")
        for _ in range(2):  # every measurement goes through it anew
            samples = [sample for (sample,) in loader]
            assert len(loader) == 5
            assert [(s["k"], s["image_id"]) for s in samples] == [(n, f"toy{n}") for n in range(5)]
            assert all(sample["image"].shape == (3, 64, 96) for sample in samples)
            boxes = [sample["instances"].gt_boxes.tensor.tolist() for sample in samples]
            assert boxes == [
                [[8, 10, 40 + 2 * n, 60]] if n != 3 else []  # image 3 has no object
                for n in range(5)
            ]


def test_validation_loader_takes_an_even_part_whose_k_stay_those_of_the_dataset(cfg):
    samples = [sample for (sample,) in build_validation_loader(cfg, "loader_toys", 3)]
    assert [(s["k"], s["image_id"]) for s in samples] == [(0, "toy0"), (1, "toy1"), (3, "toy3")]


@pytest.mark.parametrize(("most", "shares"), [(0, [[0, 2, 4], [1, 3]]), (1, [[0], []])])
def test_validation_loader_gives_every_image_to_one_process(cfg, monkeypatch, most, shares):
    monkeypatch.setattr("d2pd.data.loader.comm.get_world_size", lambda: 2)
    for rank, expected in enumerate(shares):
        monkeypatch.setattr("d2pd.data.loader.comm.get_rank", lambda rank=rank: rank)
        found = [sample["k"] for (sample,) in build_validation_loader(cfg, "loader_toys", most)]
        assert found == expected


@given(st.integers(0, 300), st.integers(0, 400))
def test_evenly_spread_indices_differ_by_one_step_or_one_more(total, most):
    found = evenly_spread(total, most)
    assert len(found) == (min(most, total) if most else total)
    steps = {b - a for a, b in zip(found, [*found[1:], total], strict=False)} if found else {1}
    assert min(steps) >= 1
    assert max(steps) - min(steps) <= 1
    assert found[:1] == ([0] if total else [])


def test_a_validation_loss_over_few_images_warns(cfg, tmp_path, caplog):
    build_validation_loader(cfg, "loader_toys")
    assert caplog.messages == [
        "the validation loss on loader_toys: a loss over 5 images says little; take 20 or more"
    ]
    caplog.clear()
    DatasetCatalog.register("loader_20", lambda: toy_records(tmp_path, "many", 20))
    try:
        build_validation_loader(cfg, "loader_20")
        assert caplog.messages == []
        build_validation_loader(cfg, "loader_20", 19)
        assert "a loss over 19 images says little" in caplog.text
    finally:
        DatasetCatalog.remove("loader_20")


def test_a_validation_set_without_images_is_an_error(cfg):
    DatasetCatalog.register("loader_none", lambda: [])
    try:
        with pytest.raises(AnnotationError, match="loader_none has no image to measure a valid"):
            build_validation_loader(cfg, "loader_none")
    finally:
        DatasetCatalog.remove("loader_none")


def test_boxes_registered_as_xywh_are_converted(cfg):
    xywh = [dict(DatasetCatalog.get("loader_toys")[0])]
    xywh[0]["annotations"] = [
        {"bbox": [4.0, 5.0, 16.0, 25.0], "bbox_mode": 1, "category_id": 0, "iscrowd": 0}
    ]
    DatasetCatalog.register("loader_xywh", lambda: xywh)
    try:
        assert load_records("loader_xywh")[0]["annotations"][0]["bbox"] == [4, 5, 20, 30]
        assert xywh[0]["annotations"][0]["bbox"] == [4, 5, 16, 25]
    finally:
        DatasetCatalog.remove("loader_xywh")


def test_nothing_to_train_on_is_an_error(cfg):
    cfg.DATASETS.TRAIN = ("loader_empty",)
    with pytest.raises(AnnotationError, match=r"loader_empty: no training image .* is left"):
        build_train_loader(cfg)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ConfigError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(cfg)


def test_datasets_of_different_classes_are_an_error(cfg):
    MetadataCatalog.remove("loader_more")
    MetadataCatalog.get("loader_more").thing_classes = ["cyclist"]
    with pytest.raises(ConfigError, match=r"loader_toys has the classes person, loader_more"):
        build_train_loader(cfg)


def test_error_in_a_worker_keeps_its_class_and_file(cfg):
    Path(DatasetCatalog.get("loader_toys")[1]["file_name"]).write_bytes(b"no picture")
    cfg.DATALOADER.NUM_WORKERS = 2
    with pytest.raises(AnnotationError, match=r"toy1\.png: not an image") as caught:
        batches(cfg, 3)
    assert "\n" not in str(caught.value)


def test_diagnosis_goes_through_all_records_in_order_and_past_one_that_cannot_be_read(cfg):
    records = load_train_records(cfg)
    records[1]["annotations"] *= 2
    records[1]["annotations"][1] = {**records[1]["annotations"][1], "bbox": [4.0, 5.0, 4.0, 9.0]}
    Path(records[2]["file_name"]).unlink()
    items = [item for (item,) in build_diagnosis_loader(cfg, records)]
    assert isinstance(items.pop(2), MissingFileError)
    assert [item["row"] for item in items] == [0, 1, *range(3, len(records))]
    assert items[1]["instances"].gt_boxes.tensor[1].tolist() == [8, 10, 8, 18]
    again = [item for (item,) in build_diagnosis_loader(cfg, records)]
    assert all(
        torch.equal(one["image"], other["image"])
        for one, other in zip(items[:2], again[:2], strict=True)
    )


@pytest.mark.parametrize(
    ("device", "is_pinned"), [("cpu", False), ("cuda", True), ("cuda:1", True)]
)
def test_batches_of_a_gpu_come_in_pinned_memory(cfg, device, is_pinned):
    cfg.MODEL.DEVICE = device
    assert build_train_loader(cfg).loader.pin_memory is is_pinned
