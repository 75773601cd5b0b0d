"""The section on the training: data, start, augmentation and schedule."""

from collections.abc import Iterator

from d2pd.d2 import CfgNode
from d2pd.reporting.model_card.augmentation_words import augmentation_words
from d2pd.reporting.model_card.markdown import code, listed, sentence, table
from d2pd.reporting.model_card.training_data import TrainingData, TrainingSet


def training_lines(
    cfg: CfgNode, training: TrainingData, iteration: int | None, trouble: str
) -> Iterator[str]:
    """Yield the section's lines, without its heading.

    Args:
        cfg: Of the training.
        training: What it was trained on.
        iteration: The last one that was trained, from 0; None where that is not known.
        trouble: Why not all datasets can be read; empty where they can.
    """
    if training.sets:
        rows = [("dataset", "labels", "images", "boxes to learn", "regions to ignore")]
        yield from table([*rows, *map(_row, training.sets)])
    else:
        yield from ("The configuration names no dataset to train on.", "")
    if trouble:
        yield f"- Not all datasets can be read: {sentence(trouble)}"
    for one in training.sets:
        yield from _remarks(one)
    yield f"- {_same_labels(training)}"
    start = cfg.MODEL.WEIGHTS
    yield f"- Starting weights: {code(start) if start else 'random, from scratch'}."
    yield f"- Pictures in training: {'; '.join(augmentation_words(cfg))}."
    yield f"- Schedule: {_schedule(cfg, training.num_images, iteration)}."
    yield ""


def _row(one: TrainingSet) -> tuple[str, ...]:
    labels = f"{code(one.labels[0])} ({one.labels[1]})" if one.labels[1] else "registered in code"
    if one.images is None:
        return (code(one.name), labels, *["not here"] * 3)
    counts = list((one.num_labels or {}).items())
    boxes = listed([f"{count:,} {code(name)}" for name, count in counts])
    images = f"{one.images.num_images:,}"
    if one.images.num_images != one.num_listed:
        images += f" of {one.num_listed:,}"
    return (code(one.name), labels, images, boxes, f"{one.num_regions:,}")


def _remarks(one: TrainingSet) -> Iterator[str]:
    """Yield what else is to be known of a dataset."""
    if one.images is None:
        yield f"- The labels of {code(one.name)} are no longer here: {sentence(one.trouble)}"
    elif one.images.by_daytime:
        counts = (f"{count:,} by {name}" for name, count in one.images.by_daytime.items())
        yield f"- Images of {code(one.name)}: {', '.join(counts)}."
    if one.folds:
        yield f"- Folds of {code(one.name)}: {sentence(one.folds)}."
    if one.left_out:
        yield f"- Cleaning of {code(one.name)}: {'; '.join(one.left_out)}."


def _same_labels(training: TrainingData) -> str:
    """Say whether what is counted above is what was trained on."""
    saved = f"digest {code(training.digest)}"
    if not training.digest:
        return (
            "The weights do not say which labels they have learnt from: those counted here are the "
            "ones that the configuration names now."
        )
    if training.is_the_same:
        return f"These are the labels that the weights say they have learnt from ({saved})."
    if training.is_the_same is None:
        images = "" if training.num_images is None else f"{training.num_images:,} images, "
        return f"The weights say what they have learnt from: {images}labels of {saved}."
    images = "" if training.num_images is None else f" on {training.num_images:,} images"
    return (
        f"**The labels here are not those of the training**: it was{images} with labels of "
        f"{saved}, and the counts above are of other ones."
    )


def _schedule(cfg: CfgNode, num_images: int | None, iteration: int | None) -> str:
    solver = cfg.SOLVER
    number = solver.MAX_ITER if iteration is None else iteration + 1
    of_all = "" if number == solver.MAX_ITER else f" of {solver.MAX_ITER:,}"
    words = f"{number:,}{of_all} iterations of {solver.IMS_PER_BATCH} images"
    if num_images:
        words += f", {number * solver.IMS_PER_BATCH / num_images:.1f} epochs"
    return (
        f"{words}; {code(solver.OPTIMIZER)}, rate {solver.BASE_LR:g}, "
        f"{code(solver.LR_SCHEDULER_NAME)}; seed {cfg.SEED}"
    )
