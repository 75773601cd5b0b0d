"""From the network's coordinates to those of the image as it was read."""

from d2pd.embedded.boxes import Boxes
from d2pd.embedded.instances import Instances


def detector_postprocess(results: Instances, output_height: int, output_width: int) -> Instances:
    """Scale detections to another image size.

    Args:
        results: ``pred_boxes`` (or ``proposal_boxes``) in pixels of ``results.image_size``.
        output_height: Height wanted, pixels.
        output_width: Width wanted, pixels.

    Returns:
        The same fields with boxes scaled and clipped; boxes left without area are gone.

    Raises:
        AttributeError: If there are no boxes.
    """
    height, width = results.image_size
    name = "pred_boxes" if results.has("pred_boxes") else "proposal_boxes"
    boxes: Boxes = getattr(results, name).clone()
    boxes.scale(output_width / width, output_height / height)
    boxes.clip((output_height, output_width))
    scaled = Instances((output_height, output_width), **{**results.get_fields(), name: boxes})
    return scaled[boxes.nonempty()]
