"""Real pictures to compare an exported file with its model on."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from d2pd.data.records import load_records
from d2pd.data.registration import register_from_config
from d2pd.errors import MissingFileError, UserError
from d2pd.inference.predictor import Predictor
from d2pd.reporting.gallery import choose_images

MOST_PICTURES = 8


def pictures_to_check(predictor: Predictor, inputs: Sequence[str]) -> list[Tensor]:
    """Return up to ``MOST_PICTURES`` pictures as the model takes them, (C, H, W) uint8.

    Args:
        predictor: The model.
        inputs: Pictures or folders, as ``d2pd predict`` takes them; empty: images of the run's
            own test data.

    Raises:
        MissingFileError: If there is none to be had.
    """
    if inputs:
        raise NotImplementedError
    return _of_test_data(predictor)


def _of_test_data(predictor: Predictor) -> list[Tensor]:
    cfg = predictor.cfg
    names = [*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN]
    try:
        register_from_config(cfg)
        records = load_records(names[0], quiet=True)
        chosen = choose_images(records, set(), MOST_PICTURES)
        return [predictor.prepare(predictor.read(record)).pixels for record in chosen]
    except (UserError, IndexError, KeyError) as error:
        reason = f": {error}" if isinstance(error, UserError) else ""
        raise MissingFileError(
            "an exported file is checked on pictures before it is kept, and those that the model "
            f"was tested on are not here{reason}; name some of that kind: --images FILE ..."
        ) from None
