import json
import math

import pytest

from d2pd.errors import UserError
from d2pd.json_file import strict, write_json


def test_result_is_strict_json_at_any_depth_and_keeps_the_rest():
    value = {"a": [1.5, (math.nan, None, True)], "b": {"c": -math.inf, "d": "text"}, "e": math.inf}
    expected = {"a": [1.5, ["nan", None, True]], "b": {"c": "-inf", "d": "text"}, "e": "inf"}
    assert strict(value) == expected
    assert json.loads(json.dumps(strict(value), allow_nan=False)) == expected


def test_file_that_cannot_be_written_is_told_in_a_line(tmp_path):
    (tmp_path / "results.json").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*results\.json \(Is a directory\): make"):
        write_json(tmp_path / "results.json", {})
    with pytest.raises(UserError, match=r"cannot write .*file/a\.json \(.*\): make room there"):
        write_json(tmp_path / "file/a.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "results.json"]
