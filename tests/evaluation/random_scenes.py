"""Small scenes of several classes with regions to ignore, ties and crowds, for the metrics."""

import numpy as np

from d2pd.evaluation.arrays import LabelArrays, detection_arrays


def labels_of(rows, num_images, class_names, image_size=(512, 640)):
    """Make labels of rows (image, class, ignore, x, y, width, height)."""
    rows = sorted(rows, key=lambda row: row[0])
    boxes = np.array([row[3:] for row in rows], dtype=np.float64).reshape(-1, 4)
    return LabelArrays(
        image_ids=tuple(range(num_images)),
        image_names=tuple(f"i{n}" for n in range(num_images)),
        image_sizes=np.tile(image_size, (num_images, 1)),
        image_index=np.array([row[0] for row in rows], dtype=np.int64),
        boxes_xywh=boxes,
        classes=np.array([row[1] for row in rows], dtype=np.int64),
        is_ignore=np.array([row[2] for row in rows], dtype=bool),
        occlusion=np.zeros(len(rows), dtype=np.int64),
        class_names=tuple(class_names),
    )


def detections_of(rows):
    """Make detections of rows (image, class, score, x, y, width, height)."""
    image, classes, scores = (np.array([row[n] for row in rows]) for n in range(3))
    return detection_arrays(
        image.astype(np.int64), np.array([row[3:] for row in rows]), scores, classes
    )


def random_scene(seed, num_classes=3, num_images=4):
    """Overlapping labels on a small area; detections near them, tied scores, wrong classes."""
    rng = np.random.default_rng(seed)
    labels, found = [], []
    for image in range(num_images):
        for _ in range(rng.integers(0, 8)):
            box = [*rng.integers(0, 60, 2), *rng.integers(15, 40, 2)]
            is_region = rng.random() < 0.2
            category = int(rng.integers(num_classes))
            written = -1 if is_region and rng.random() < 0.5 else category
            labels.append((image, written, is_region, *box))
            for _ in range(rng.integers(0, 4)):
                moved = np.array(box) + rng.integers(-6, 7, 4)
                named = category if rng.random() < 0.7 else int(rng.integers(num_classes))
                found.append((image, named, rng.integers(1, 8) / 8, *moved))
        for _ in range(rng.integers(0, 3)):
            box = [*rng.integers(0, 60, 2), *rng.integers(15, 40, 2)]
            found.append((image, int(rng.integers(num_classes)), rng.integers(1, 8) / 8, *box))
    names = ("person", "cyclist", "car")[:num_classes]
    return labels_of(labels, num_images, names), detections_of(found)


def million_detections():
    """Three classes, 5,000 images, 30,000 labels; a fifth of the detections lie on a label."""
    rng = np.random.default_rng(0)
    num_labels, num_images, count = 30_000, 5_000, 1_000_000
    image = np.sort(rng.integers(0, num_images, num_labels))
    boxes = np.hstack([rng.uniform(0, 560, (num_labels, 2)), rng.uniform(20, 80, (num_labels, 2))])
    classes = rng.integers(0, 3, num_labels)
    rows = np.column_stack([image, classes, np.zeros(num_labels), boxes])
    labels = labels_of([(int(r[0]), int(r[1]), 0, *r[3:]) for r in rows], num_images, "abc")
    near = rng.integers(0, num_labels, count // 5)
    noise = rng.normal(0, 0.1, (len(near), 4)) * boxes[near][:, [2, 3, 2, 3]]
    far = count - len(near)
    elsewhere = np.hstack([rng.uniform(0, 560, (far, 2)), rng.uniform(20, 80, (far, 2))])
    found = detection_arrays(
        np.concatenate([image[near], rng.integers(0, num_images, far)]),
        np.vstack([boxes[near] + noise, elsewhere]),
        rng.random(count),
        np.concatenate([classes[near], rng.integers(0, 3, far)]),
    )
    return labels, found


def plain_assignment(labels, detections, is_wanted, iou_threshold):
    """Match each class by loops: (D,) label found, "region" or None; the (D,) order is kept.

    The reference for tests: the rules as they are written, nothing shared with the package.
    """
    result, taken = [None] * len(detections.scores), set()
    for d in range(len(detections.scores)):  # an image's detections come by descending score
        best, best_iou, best_part = None, iou_threshold, 0.0
        for g in range(len(labels.classes)):
            if labels.image_index[g] != detections.image_index[d]:
                continue
            if labels.classes[g] not in (-1, detections.classes[d]):
                continue
            iou, part = overlap(detections.boxes_xywh[d], labels.boxes_xywh[g])
            if is_wanted[g] and g not in taken and iou >= best_iou:
                best, best_iou = g, iou
            if not is_wanted[g]:
                best_part = max(best_part, part)
        if best is not None:
            taken.add(best)
            result[d] = best
        elif best_part >= iou_threshold:
            result[d] = "region"
    return result


def overlap(detection, label):
    """Return IoU and the part of the detection that lies in the label."""
    x1, y1 = max(detection[0], label[0]), max(detection[1], label[1])
    x2 = min(detection[0] + detection[2], label[0] + label[2])
    y2 = min(detection[1] + detection[3], label[1] + label[3])
    if x2 <= x1 or y2 <= y1:
        return 0.0, 0.0
    shared, area = (x2 - x1) * (y2 - y1), detection[2] * detection[3]
    return shared / (area + label[2] * label[3] - shared), shared / area
