"""The log-average miss rate once more: slow, plain loops, straight from the protocol's text.

It shares no code with d2pd, so that tests and the benchmark have something to compare with.
"""

import math

INFINITE = float("inf")
FRAME = (5, 5, 635, 507)
SETTINGS = {
    "reasonable": {"height": (55, INFINITE), "occlusion": (0, 1), "bounds": FRAME},
    "near": {"height": (115, INFINITE), "occlusion": (0,), "bounds": FRAME},
    "medium": {"height": (45, 115), "occlusion": (0,), "bounds": FRAME},
    "far": {"height": (1, 45), "occlusion": (0,), "bounds": FRAME},
    "none": {"height": (1, INFINITE), "occlusion": (0,), "bounds": FRAME},
    "partial": {"height": (1, INFINITE), "occlusion": (1,), "bounds": FRAME},
    "heavy": {"height": (1, INFINITE), "occlusion": (2,), "bounds": FRAME},
}
SPLITS = {
    "all": None,
    "day": ("set00", "set01", "set02", "set06", "set07", "set08"),
    "night": ("set03", "set04", "set05", "set09", "set10", "set11"),
}


def all_subsets(names, labels, detections, iou_threshold=0.5, **rules):
    """Return ``setting/split`` -> what ``one_subset`` returns, for the 21 subsets of KAIST.

    ``names`` has a name for each image; ``labels`` are (image, x, y, w, h, ignore, occlusion) and
    ``detections`` (image, x, y, w, h, score), image being the number of a name.
    """
    return {
        f"{setting}/{split}": one_subset(
            [split == "all" or name.split("/")[0] in SPLITS[split] for name in names],
            labels,
            detections,
            **SETTINGS[setting],
            iou_threshold=iou_threshold,
            **rules,
        )
        for setting in SETTINGS
        for split in SPLITS
    }


def one_subset(
    is_chosen,
    labels,
    detections,
    *,
    height,
    occlusion,
    bounds,
    iou_threshold=0.5,
    counts_empty_images=True,
    rounds_references=False,
    takes_final_recall_where_none=False,
    clamps=True,
):
    """Return value and recall in percent, and nine misses in 0..1; all NaN without a label."""
    labels_of = [[] for _ in is_chosen]
    for image, *label in labels:
        labels_of[image].append(label)
    detections_of = [[] for _ in is_chosen]
    for image, *detection in detections:
        detections_of[image].append(detection)

    num_images = num_labels = num_counted_labels = 0
    counted = []  # (score, is it true), images in order
    for image, is_in in enumerate(is_chosen):
        if not is_in:
            continue
        num_images += 1
        normal, regions = [], []
        for label in labels_of[image]:
            is_normal = is_to_be_found(label, height, occlusion, bounds)
            (normal if is_normal else regions).append(label)
        num_labels += len(normal)
        if counts_empty_images or detections_of[image]:
            num_counted_labels += len(normal)
        counted += judge(detections_of[image], normal, regions, iou_threshold)
    if num_labels == 0:
        return math.nan, math.nan, [math.nan] * 9

    curve = draw_curve(counted, num_images, num_counted_labels)
    misses = []
    for k in range(9):
        reference = 10 ** (-2 + k / 4)
        if rounds_references:
            reference = round(reference, 4)
        below = [recall for fppi, recall in curve if fppi <= reference]
        if below:
            misses.append(1 - below[-1])
        elif curve and takes_final_recall_where_none:
            misses.append(1 - curve[-1][1])
        else:
            misses.append(1.0)
    final = curve[-1][1] if curve else 0.0
    return 100 * log_average(misses, clamps), 100 * final, misses


def draw_curve(counted, num_images, num_labels):
    """Return a point (FPPI, recall) for each detection that counts, by descending score."""
    curve = []
    true = false = 0
    for _, is_true in sorted(counted, key=lambda pair: -pair[0]):
        true += is_true
        false += not is_true
        curve.append((false / num_images, true / max(num_labels, 1)))
    return curve


def is_to_be_found(label, height, occlusion, bounds):
    x, y, w, h, is_ignored, how_occluded = label
    if is_ignored or not height[0] <= h <= height[1]:
        return False
    if how_occluded != -1 and how_occluded not in occlusion:
        return False
    if bounds is None:
        return True
    return x >= bounds[0] and y >= bounds[1] and x + w <= bounds[2] and y + h <= bounds[3]


def judge(detections, normal, regions, iou_threshold):
    """Return (score, is it true) of those detections of an image that count."""
    in_order = sorted(detections, key=lambda row: (-row[4], *row[:4]))[:1000]
    is_taken = [False] * len(normal)
    counted = []
    for detection in in_order:
        best, best_iou = None, iou_threshold
        for number, label in enumerate(normal):
            if not is_taken[number] and overlap(detection, label, False) >= best_iou:
                best, best_iou = number, overlap(detection, label, False)
        if best is not None:
            is_taken[best] = True
            counted.append((detection[4], True))
        elif not any(overlap(detection, region, True) >= iou_threshold for region in regions):
            counted.append((detection[4], False))
    return counted


def overlap(detection, label, is_region):
    """Return IoU, or for a region the part of the detection that lies in it."""
    x, y, w, h = detection[:4]
    width = min(x + w, label[0] + label[2]) - max(x, label[0])
    height = min(y + h, label[1] + label[3]) - max(y, label[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (w * h) if is_region else shared / (w * h + label[2] * label[3] - shared)


def log_average(misses, clamps):
    if clamps:
        misses = [max(miss, 1e-10) for miss in misses]
    if min(misses) == 0:
        return 0.0
    return math.exp(sum(math.log(miss) for miss in misses) / len(misses))
