import json
import math

from d2pd.json_file import strict


def test_result_is_strict_json_at_any_depth_and_keeps_the_rest():
    value = {"a": [1.5, (math.nan, None, True)], "b": {"c": -math.inf, "d": "text"}, "e": math.inf}
    expected = {"a": [1.5, ["nan", None, True]], "b": {"c": "-inf", "d": "text"}, "e": "inf"}
    assert strict(value) == expected
    assert json.loads(json.dumps(strict(value), allow_nan=False)) == expected
