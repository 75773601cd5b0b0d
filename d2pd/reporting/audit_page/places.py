"""Which box and which image of the labels a finding is about."""

import numpy as np

from d2pd.data.audit.findings import Finding
from d2pd.data.label_table.table import LabelTable


class Places:
    """Finds the positions of findings in the arrays of a label table.

    Args:
        table: What the findings are of.
    """

    def __init__(self, table: LabelTable) -> None:
        self._table = table
        self._images = {row: at for at, row in enumerate(table.image_rows.tolist())}
        self._names: dict[str, int] = {}
        for at, name in enumerate(table.image_names):
            self._names.setdefault(name, at)

    def box_of(self, finding: Finding) -> int | None:
        """Return the index of the box, None for a finding of an image or of a row as such."""
        if finding.box is None or finding.row is None:
            return None
        return int(np.searchsorted(self._table.box_rows, finding.row))

    def image_of(self, finding: Finding) -> int | None:
        """Return the index of the image, None for a row that belongs to none."""
        box = self.box_of(finding)
        if box is not None:
            return int(self._table.box_images[box])
        is_image_row = finding.row is not None and finding.rule != "malformed_row"
        if is_image_row and finding.row in self._images:
            return self._images[finding.row]
        return None if finding.image is None else self._names.get(finding.image)
