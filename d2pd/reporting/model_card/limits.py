"""The section on limits: what the facts of a run say that its weights cannot be trusted with."""

from collections.abc import Iterator, Sequence

import numpy as np

from d2pd.d2 import CfgNode
from d2pd.evaluation.arrays import labels_to_find
from d2pd.evaluation.error_counts import ANY_REASON
from d2pd.modeling.build import SSD_SEG
from d2pd.modeling.ssd_parts import build_anchor_shapes
from d2pd.reporting.model_card.heading import PICTURES
from d2pd.reporting.model_card.image_facts import ImageFacts, is_drawn
from d2pd.reporting.model_card.markdown import code, counted, listed, names, rounded_down
from d2pd.reporting.model_card.tested_set import TestedSet
from d2pd.reporting.model_card.training_data import TrainingData
from d2pd.reporting.report.error_tables import OCCLUSION_WORDS
from d2pd.reporting.report.run_facts import size_words

FEW_IMAGES = 1000
"""Training images under which a detector has seen little of the world."""
FEW_LABELS = 100
"""Labels of a class under which little of it was learnt, or its numbers rest on few."""

KAIST_LICENCE = (
    "KAIST's pictures and labels are CC BY-NC-SA 4.0: not for commercial use, shared alike. "
    "Whether that reaches weights that learnt from them is for you to settle"
)

Named = tuple[str, ImageFacts]


def limit_lines(
    cfg: CfgNode, training: TrainingData, tests: Sequence[TestedSet], unfinished: str
) -> Iterator[str]:
    """Yield the section's lines, without its heading.

    Args:
        cfg: Of the training.
        training: What it was trained on.
        tests: All sets that it was tested on.
        unfinished: How far the training came; empty where it came to its end.
    """
    learnt = [(one.name, one.images) for one in training.sets if one.images]
    tested = [(one.name, one.images) for one in tests if one.images and _has_numbers(one)]
    limits = [
        *([unfinished] if unfinished else []),
        *_evaluation(tests),
        *_drawn(
            [one.name for one in training.sets], [one.name for one in tests if _has_numbers(one)]
        ),
        *_overlap(learnt, tested),
        *_daytime(learnt, tested),
        f"It knows {PICTURES[cfg.INPUT.MODALITY]} alone; another camera's are strange to it.",
        *_missed(tests),
        *_anchors(cfg),
        *_little_learnt(training),
        *_little_tested(tests),
        "One training with one seed: another would give other numbers, and intervals, where they "
        "are given, are over the images alone.",
        "How it does for groups of people, in weather or at places that the labels do not tell "
        "apart is not measured.",
        *_licences(training),
        "It is no safety component: nobody's safety may rest on what it finds or misses.",
    ]
    yield from (f"- {limit}" for limit in limits)
    yield ""


def _has_numbers(one: TestedSet) -> bool:
    return one.given is not None or one.written is not None


def _evaluation(tests: Sequence[TestedSet]) -> Iterator[str]:
    if not any(map(_has_numbers, tests)):
        yield "**It was not evaluated:** how good it is, nobody knows."


def _drawn(learnt: Sequence[str], tested: Sequence[str]) -> Iterator[str]:
    learnt, tested = ([name for name in sets if is_drawn(name)] for sets in (learnt, tested))
    if learnt or tested:
        did = " and ".join(["trained"] * bool(learnt) + ["tested"] * bool(tested))
        yield (
            f"**Drawn pictures:** it was {did} on pictures that a program has drawn "
            f"({names(list(dict.fromkeys([*learnt, *tested])))}). That says nothing of how it does "
            "on photos."
        )


def _overlap(learnt: Sequence[Named], tested: Sequence[Named]) -> Iterator[str]:
    """Yield a line for each set tested on that holds images which were trained on."""
    seen: frozenset[str] = frozenset().union(*(facts.paths for _, facts in learnt))
    for name, facts in tested:
        number = len(seen & facts.paths)
        if number:
            yield (
                f"**Tested on what it has learnt:** {number:,} of {facts.num_images:,} images of "
                f"{code(name)} were trained on. Its numbers say little of new images."
            )


def _daytime(learnt: Sequence[Named], tested: Sequence[Named]) -> Iterator[str]:
    for did, sets in (("trained", learnt), ("tested", tested)):
        daytimes = {facts.only_daytime() for _, facts in sets}
        if len(daytimes) == 1 and "" not in daytimes:
            only = daytimes.pop()
            other = "night" if only == "day" else "day"
            yield f"It was {did} by {only} alone, as KAIST's sets tell: by {other} it is unproven."


def _missed(tests: Sequence[TestedSet]) -> Iterator[str]:
    """Yield for each set which labels are missed most, by height and occlusion."""
    for one in tests:
        if one.found is None:
            continue
        bands = [
            (OCCLUSION_WORDS.get(row.band, f"height {row.band}"), row.num_cases, row.num_labels)
            for row in one.found.counts
            if row.kind == "miss" and row.reason == ANY_REASON
            if row.by in ("height", "occlusion") and row.num_labels
            if row.band != "not stated"
        ]
        if bands:
            bands.sort(key=lambda band: -band[1] / band[2])
            shares = (
                f"{band} {missed:,} of {total:,} ({missed / total:.0%})"
                for band, missed, total in bands
            )
            yield (
                f"Missed on {code(one.name)} at score {rounded_down(one.found.score_threshold)}, "
                f"the worst first: {'; '.join(shares)}."
            )


def _anchors(cfg: CfgNode) -> Iterator[str]:
    if cfg.MODEL.META_ARCHITECTURE != SSD_SEG:
        return
    sizes = np.concatenate([shapes.numpy() for shapes in build_anchor_shapes(cfg).of_maps])
    width, height = sizes[sizes[:, 1].argmin()]
    least = height * cfg.MODEL.SSD.IOU_THRESHOLD
    yield (
        f"Its lowest anchors are {height:.0f} px high and {width:.0f} wide in the network's input "
        f"({size_words(cfg.INPUT)}): what is under {least:.0f} px there overlaps none of them by "
        f"the {cfg.MODEL.SSD.IOU_THRESHOLD:g} that a match takes."
    )


def _little_learnt(training: TrainingData) -> Iterator[str]:
    if training.num_images is not None and training.num_images < FEW_IMAGES:
        yield f"It has learnt from {counted(training.num_images, 'image')} alone."
    counts: dict[str, int] = {}
    for one in training.sets:
        for name, number in (one.num_labels or {}).items():
            counts[name] = counts.get(name, 0) + number
    few = [f"{code(name)} ({count:,})" for name, count in counts.items() if count < FEW_LABELS]
    if few:
        yield f"It has learnt from few labels of {listed(few)}."


def _little_tested(tests: Sequence[TestedSet]) -> Iterator[str]:
    for one in tests:
        if one.given is None:
            continue
        labels = one.given.labels
        number = int(np.count_nonzero(labels_to_find(labels)))
        if 0 < number < FEW_LABELS:
            yield (
                f"{code(one.name)} is a small test, of {counted(number, 'label')}: each is worth "
                f"{100 / number:.1f} points of recall."
            )
        of_class = np.bincount(
            labels.classes[labels_to_find(labels)], minlength=len(labels.class_names)
        )
        few = [
            f"{code(name)} ({count:,})"
            for name, count in zip(labels.class_names, of_class.tolist(), strict=True)
            if count < FEW_LABELS and number >= FEW_LABELS
        ]
        if few:
            yield f"Few labels in {code(one.name)}, so vague numbers: {listed(few)}."


def _licences(training: TrainingData) -> Iterator[str]:
    """Yield what is known of the licences of the training data; what d2pd has drawn has none."""
    named = [one.name for one in training.sets if one.images and one.images.is_kaist]
    gone = [one.name for one in training.sets if not one.images and one.labels[1] == "kaist"]
    if named:
        yield f"Licence: images of {names(named)} are named as KAIST's. {KAIST_LICENCE}."
    if gone:
        yield f"Licence: {names(gone)} may be KAIST's; its labels are not here. {KAIST_LICENCE}."
    unknown = [
        one.name
        for one in training.sets
        if one.name not in (*named, *gone) and not is_drawn(one.name)
    ]
    if unknown:
        yield f"The licence of {names(unknown)} is not known to d2pd."
