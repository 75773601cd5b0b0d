"""Real pictures to compare an exported file with its model on."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from d2pd.data.registration import sources_of_config
from d2pd.errors import MissingFileError, UserError
from d2pd.inference.predict.pairing import Pairing, choose_sources
from d2pd.inference.predict.picture import PictureReader
from d2pd.inference.predict.sources import find_inputs
from d2pd.inference.predictor import Predictor
from d2pd.reporting.gallery import choose_images

MOST_PICTURES = 8
WANTED = (
    "an exported file is compared with its model on pictures before it is kept, and the test data "
    "of this model are not here"
)
WAY_OUT = "name some pictures, --images FILE ..."


def pictures_to_check(predictor: Predictor, inputs: Sequence[str], output: Path) -> list[Tensor]:
    """Return up to ``MOST_PICTURES`` pictures as the model takes them, (C, H, W) uint8.

    Args:
        predictor: The model.
        inputs: Pictures or folders, as ``d2pd predict`` takes them; empty: images of the run's
            own test data.
        output: What is to be written: no picture.

    Raises:
        MissingFileError: If there is none to be had.
    """
    return _of_files(predictor, inputs, output) if inputs else _of_test_data(predictor)


def _of_files(predictor: Predictor, words: Sequence[str], output: Path) -> list[Tensor]:
    modality = predictor.channels.modality
    chosen = choose_sources(find_inputs(words, output).files, Pairing(), modality)
    reader = PictureReader(modality)
    sources = [source for source in chosen.sources if not source.is_video][:MOST_PICTURES]
    if not sources:
        raise MissingFileError(
            "\n".join(["--images names no picture to be used:", *chosen.skipped])
        )
    return [predictor.prepare(reader.read(source.paths)).pixels for source in sources]


def _of_test_data(predictor: Predictor) -> list[Tensor]:
    cfg = predictor.cfg
    try:
        sources = sources_of_config(cfg)
        found = [sources[name] for name in cfg.DATASETS.TEST if name in sources]
        # A dataset that is drawn on first use is not drawn for this.
        there = [source for source in found if source.annotations.is_file()]
        records = there[0].read(there[0].images).records if there else []
        chosen = choose_images(records, set(), MOST_PICTURES)
        pictures = [predictor.prepare(predictor.read(record)).pixels for record in chosen]
    except UserError as error:
        raise MissingFileError(f"{WANTED} ({error}): {WAY_OUT}") from None
    if not pictures:
        raise MissingFileError(f"{WANTED}: {WAY_OUT}")
    return pictures
