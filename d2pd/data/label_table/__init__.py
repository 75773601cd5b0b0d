"""Label files in columns, all rows and all faults, for whatever looks at a data set as a whole."""

from d2pd.data.label_table.read import read_label_table
from d2pd.data.label_table.table import (
    NOT_STATED,
    UNKNOWN_CATEGORY,
    LabelTable,
    MalformedRow,
)

__all__ = ["NOT_STATED", "UNKNOWN_CATEGORY", "LabelTable", "MalformedRow", "read_label_table"]
