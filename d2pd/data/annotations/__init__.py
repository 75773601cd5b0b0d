"""One reader per label format; each returns ``Labels``."""

from d2pd.data.annotations.coco import read_coco_json
from d2pd.data.annotations.csv_file import read_csv
from d2pd.data.annotations.kaist import read_kaist_json
from d2pd.data.annotations.labels import Labels

__all__ = ["Labels", "read_coco_json", "read_csv", "read_kaist_json"]
