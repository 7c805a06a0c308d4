import json
import math

from tempseg_jax.io.json_files import finite_or_null, write_json


def test_nan_and_infinity_become_null(tmp_path):
    write_json(tmp_path / "x.json", {"a": [math.nan, 1.5, (math.inf, 2)], "b": None})
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "a": [None, 1.5, [None, 2]],
        "b": None,
    }


def test_finite_values_are_unchanged():
    assert finite_or_null({"a": 1, "b": "nan", "c": 0.5}) == {
        "a": 1,
        "b": "nan",
        "c": 0.5,
    }
