"""What counts as the same detections: by hand."""

import pytest
import torch

from d2pd.inference.export.check import Agreement, ExportMismatchError, check_export
from d2pd.modeling.batch_detections import BatchDetections

PICTURE = torch.zeros(1, 64, 64, dtype=torch.uint8)
BOX, OTHER = (10.0, 10, 30, 50), (40.0, 10, 60, 50)


def core(rows, room=5):
    """Detect these (box, score, class) in any image."""

    def detect(images):
        number = len(images)
        found = BatchDetections(
            torch.zeros(number, room, 4),
            torch.zeros(number, room),
            torch.full((number, room), -1),
            torch.full((number,), len(rows)),
        )
        for row, (box, score, category) in enumerate(rows):
            found.boxes[:, row] = torch.tensor(box)
            found.scores[:, row], found.classes[:, row] = score, category
        return found

    return detect


def check(ours, theirs, *, floor=0.05, room=5, takes_batches=False, pictures=(PICTURE,)):
    return check_export(
        core(ours, room), core(theirs, room), pictures,
        score_floor=floor, takes_batches=takes_batches,
    )  # fmt: skip


OURS = [(BOX, 0.9, 0), (OTHER, 0.6, 1)]


def test_the_largest_differences_are_told():
    moved = (10.005, 10, 30, 50)

    found = check(OURS, [(moved, 0.89995, 0), (OTHER, 0.6, 1)])

    assert (found.num_images, found.num_detections) == (1, 2)
    assert found.box_difference == pytest.approx(0.005, abs=1e-5)
    assert found.score_difference == pytest.approx(5e-5, abs=1e-6)
    assert str(found).startswith("the same 2 detections in 1 images: boxes within 0.005 px")


def test_order_does_not_matter():
    assert check(OURS, OURS[::-1]).num_detections == 2


def test_each_detection_has_a_counterpart_of_its_own():
    with pytest.raises(ExportMismatchError, match="1 of 2 and 2 detections|2 of 2 and 2"):
        check([(BOX, 0.9, 0), (BOX, 0.9, 0)], [(BOX, 0.9, 0), (OTHER, 0.9, 0)])


@pytest.mark.parametrize(
    "theirs",
    [
        [(BOX, 0.9, 0)],
        [*OURS, ((0.0, 0, 9, 9), 0.3, 0)],
        [((10.02, 10, 30, 50), 0.9, 0), OURS[1]],
        [(BOX, 0.9002, 0), OURS[1]],
        [(BOX, 0.9, 1), OURS[1]],
        [],
    ],
    ids=["lost", "invented", "moved", "another score", "another class", "nothing"],
)
def test_what_is_not_the_same_is_refused(theirs):
    with pytest.raises(ExportMismatchError, match=r"nothing was written.*constraints\.txt"):
        check(OURS, theirs)


def test_a_detection_at_the_floor_may_be_on_one_side_alone():
    assert check([*OURS, ((0.0, 0, 9, 9), 0.05008, 0)], OURS).num_detections == 2
    with pytest.raises(ExportMismatchError):
        check([*OURS, ((0.0, 0, 9, 9), 0.0502, 0)], OURS)


def test_of_a_full_image_the_last_may_differ_where_scores_tie():
    last, instead = ((0.0, 0, 9, 9), 0.4, 0), ((20.0, 0, 29, 9), 0.4, 0)

    assert check([*OURS, last], [*OURS, instead], room=3).num_detections == 2
    with pytest.raises(ExportMismatchError):
        check([*OURS, last], [*OURS, instead], room=4)


def test_pictures_go_in_alone_and_beside_their_mirror_image():
    found = check(OURS, OURS, takes_batches=True, pictures=[PICTURE, PICTURE])

    assert (found.num_images, found.num_detections) == (6, 12)


def test_no_detections_anywhere_agree():
    assert check([], []) == Agreement(1, 0, 0.0, 0.0)
