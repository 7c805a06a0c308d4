import json
import math

import pytest

from tempseg_jax.io.json_files import finite_or_null, read_json, read_text, write_json


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


@pytest.mark.parametrize(
    "content, message",
    [
        (b'{"a": ', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 10**5, "is not JSON"),
    ],
)
def test_a_damaged_json_file_is_named_with_the_remedy(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x.json: it {message}.*; do this"):
        read_json(path, remedy="do this")
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path, remedy="do this") == {"a": 1}


def test_a_text_file_in_another_encoding_is_named_with_its_line(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes("\ufeffa\nb\n".encode())
    assert read_text(path) == "a\nb\n"
    path.write_bytes("a\nfünf\n".encode("latin-1"))
    with pytest.raises(ValueError, match="x.txt: line 2 is not UTF-8; save"):
        read_text(path)
    path.write_bytes("a\nb\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match="x.txt: line 1 has a null byte; save"):
        read_text(path)
