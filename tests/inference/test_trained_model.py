"""Checkpoints that say what they are, and those that do not."""

import json
import shutil

import pytest
import torch

import d2pd
from d2pd.config import load_config
from d2pd.config_words import flatten
from d2pd.errors import ConfigError, MissingFileError, UserError, WeightsError
from d2pd.inference.predictor import load
from d2pd.inference.trained_model import read_trained_model


def rewrite(source, target, **facts):
    """Copy a checkpoint with other things beside its weights."""
    content = torch.load(source, weights_only=True)
    torch.save({"model": content["model"], **facts}, target)
    return target


def run_of(cfg, classes):
    config = {key: json.dumps(value, default=str) for key, value in flatten(cfg)}
    return {"config": config, "classes": classes}


@pytest.fixture
def cfg(tiny_run):
    return load_config(tiny_run / "config.yaml")


def test_a_checkpoint_is_enough(tiny_run, tmp_path, cfg):
    cfg.INPUT.MIN_SIZE_TEST = 100
    path = rewrite(
        tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["walker"]), iteration=7
    )

    trained = read_trained_model(path)

    assert trained.cfg.INPUT.MIN_SIZE_TEST == 100
    assert trained.cfg.INPUT.MODALITY == "visible"
    assert trained.cfg.MODEL.WEIGHTS == str(path)
    assert trained.class_names == ("walker",)
    assert trained.facts["iteration"] == 7
    assert list(trained.cfg.DATASETS.REGISTER) == ["tiny_test"]
    assert d2pd.load(path, device="cpu").class_names == ("walker",)


def test_every_key_survives_the_way_through_a_checkpoint(tiny_run, tmp_path, cfg):
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["person"]))
    cfg.MODEL.WEIGHTS = str(path)

    assert dict(flatten(read_trained_model(path).cfg)) == dict(flatten(cfg))


def test_the_text_that_older_best_models_carry_will_do(tiny_run, tmp_path, cfg):
    cfg.INPUT.MIN_SIZE_TEST = 100
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "model_best.pth", config=cfg.dump())

    trained = read_trained_model(path)

    assert trained.cfg.INPUT.MIN_SIZE_TEST == 100
    assert trained.class_names == ("person",)  # of the dataset in the configuration


def test_a_configuration_given_goes_before_the_one_carried(tiny_run, tmp_path, cfg):
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["walker"]))

    trained = read_trained_model(path, tiny_run / "config.yaml", ["INPUT.MIN_SIZE_TEST", "96"])

    assert trained.cfg.INPUT.MIN_SIZE_TEST == 96


def test_without_a_configuration_the_one_beside_the_file_is_taken(tiny_run, tmp_path):
    assert read_trained_model(tiny_run / "model_final.pth").class_names == ("person",)
    alone = shutil.copy(tiny_run / "model_final.pth", tmp_path / "alone.pth")

    with pytest.raises(MissingFileError, match=r"does not carry its configuration.*--config-file"):
        read_trained_model(alone)


def test_classes_without_names_are_numbered(tiny_run, tmp_path, cfg):
    cfg.DATASETS.TEST = ()
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", config=cfg.dump())

    assert read_trained_model(path).class_names == ("class 0",)


def test_a_name_of_a_dataset_is_text(tiny_run, tmp_path):
    facts = {"run": {"config": {"DATASETS.TRAIN": "[[1]]"}}}
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", **facts)
    with pytest.raises(ConfigError, match=r"DATASETS.TRAIN holds \[1\], which is no name"):
        read_trained_model(path)


def test_names_of_classes_cannot_colour_a_terminal_or_break_a_line(tiny_run, tmp_path, cfg):
    run = run_of(cfg, ["\x1b[31mred\n"])
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run)
    assert read_trained_model(path).class_names == (r"\x1b[31mred\n",)


def test_a_run_gives_its_newest_weights(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000009.pth")

    with pytest.raises(MissingFileError, match=r"model_0000009\.pth is not there.*`make demo`"):
        load(tmp_path / "run")

    (tmp_path / "run" / "last_checkpoint").unlink()
    weights = load(tmp_path / "run").cfg.MODEL.WEIGHTS
    assert weights == str(tmp_path / "run" / "model_final.pth")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"config": "MODEL: ["}, "its configuration is not YAML"),
        ({"config": "just words"}, "is not one of this version"),
        ({"config": "MODEL: {COLOUR: red}"}, "unknown key MODEL.COLOUR.*--config-file FILE"),
        ({"config": "SEED: !!python/name:os.system"}, "its configuration is not YAML"),
        ({"config": "DATASETS: {TRAIN: &a [*a]}"}, "its configuration is not YAML"),
        ({"run": {"config": {"SEED": "{"}}}, "has no value at 'SEED'"),
        ({"run": {"config": {"SEED": 3}}}, "has no value at 'SEED'"),
        ({"run": {"config": {"SEED": "3", "SEED.DEEP": "1"}}}, "has no value at 'SEED.DEEP'"),
        ({"run": {"config": {"SEED": '"three"'}}}, "SEED takes a value of type int, got str"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_in_one_line(
    tiny_run, tmp_path, facts, message
):
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", **facts)

    with pytest.raises(ConfigError, match=message) as error:
        read_trained_model(path)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_leave_a_part_random_are_refused(tiny_run, tmp_path):
    content = torch.load(tiny_run / "model_final.pth", weights_only=True)
    backbone = {k: v for k, v in content["model"].items() if k.startswith("backbone.bottom_up.")}
    torch.save(backbone, tmp_path / "backbone.pth")

    with pytest.raises(ConfigError, match="lacks what this model detects with"):
        load(tmp_path / "backbone.pth", config_file=tiny_run / "config.yaml")


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.ROI_BOX_HEAD.FC_DIM", "10000000"], "m.pth"),  # a petabyte of weights
        (["MODEL.ROI_BOX_HEAD.FC_DIM", "10000000000"], "m.pth: the model .* cannot be built"),
        (["MODEL.ROI_BOX_HEAD.FC_DIM", "-1"], "m.pth: the model .* cannot be built"),
        (["MODEL.SSD.TOPK_CANDIDATES_TEST", "1000000000"], "it must be at most 1000000"),
        (["INPUT.MAX_SIZE_TEST", "1000000000"], "MAX_SIZE_TEST is 1000000000; it must be at most"),
    ],
)
def test_a_strangers_configuration_cannot_ask_for_all_the_memory(
    tiny_run, tmp_path, cfg, opts, message
):
    cfg.merge_from_list(opts)
    path = rewrite(tiny_run / "model_final.pth", tmp_path / "m.pth", run=run_of(cfg, ["person"]))

    with pytest.raises(UserError, match=message) as error:
        load(path, device="cpu")

    assert "\n" not in str(error.value)


def test_what_is_no_weights_file_is_told(tmp_path):
    (tmp_path / "m.pth").write_text("<html>")
    with pytest.raises(WeightsError, match="is text"):
        load(tmp_path / "m.pth")
    with pytest.raises(MissingFileError, match="is not there"):
        load(tmp_path / "none.pth")
    with pytest.raises(MissingFileError, match="no weights in"):
        load(tmp_path)


def test_a_name_that_d2pd_has_not_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        d2pd.lode  # noqa: B018
