"""Tests of training/data/files/json_reader.py: JSON of every shape, bad rows named by number, little memory."""

from __future__ import annotations

import json
import re
import tempfile
import tracemalloc
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError
from tests.helpers.row_files import read_records as read
from training.data.files import json_reader
from training.data.files.formats import Limits
from training.data.files.readers import open_source

ROWS = [{"text": f"row {i}" + ' } ] \\ " é', "label": i} for i in range(5)]


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    return tmp_path / "a.json"


SHAPES = [
    json.dumps(ROWS),
    json.dumps(ROWS, indent=2),
    json.dumps({"data": ROWS}),
    json.dumps({"version": "1", "tags": ["a", [1]], "none": [], "data": ROWS, "more": {"x": [1]}}, indent=1),
    json.dumps({"info": {"a": 1}, "data": {"count": 5, "rows": ROWS}}),
    "\n".join(map(json.dumps, ROWS)),
    "\ufeff " + json.dumps(ROWS) + "\n\n",
]


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("block", [1, 7, 1 << 18])
def test_every_shape_gives_the_same_rows(tmp_path: Path, text: str, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_reader, "BLOCK", block)
    assert read(write(tmp_path, text), "text", "label") == ROWS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.fixed_dictionaries({"text": JSON}), min_size=1, max_size=5), st.integers(1, 9))
def test_any_json_value_is_read(rows: list[dict[str, object]], block: int):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_reader, "BLOCK", block)
        path = Path(folder) / "a.json"
        path.write_text(json.dumps([*rows, {"text": 0}]), encoding="utf-8")
        assert read(path, "text") == [*rows, {"text": 0}]


def test_elements_other_than_objects_are_bad_rows(tmp_path: Path):
    path = write(tmp_path, '[{"text": "a"}, 7, "b", null, [{}], {"text": 1e400, "n": 12345678901234567890123}]')
    bad = "not a JSON object"
    assert read(path, "text", "n") == [{"text": "a"}, *[bad] * 4, {"text": inf, "n": 12345678901234567890123}]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ('[{"text": "a"}, {"text": "b"', "Row 2: not JSON: parse error: premature EOF"),
        ('[{"text": "a"}, 2, {"text": tru}, 4]', "Row 3: not JSON: lexical error: invalid string in json text"),
        ('[{"text": "a"}, {"text": "b" "c"}]', "Row 2: not JSON"),
        ('[{"text": "a"} {"text": "b"}]', "Row 1: not JSON"),
        ('[{"text": "a"}] [1]', "trailing garbage"),
        ("[1, 2]", "has no array of objects"),
        ('{"a": {"b": {"c": [{"text": "a"}]}}}', "has no array of objects"),
        ('{"train": [{"text": "a"}], "test": [{"text": "b"}]}', "They are 'train' and 'test'"),
        ('{"a": {"x": [{"text": "a"}], "y": [{"text": "b"}]}}', "They are 'a.x' and 'a.y'"),
        ('{"data" 1}', "Its beginning: not JSON"),
        ('[{"text": "a"}, {"text": "' + "x" * 40_000 + '"}]', "Row 2: it has more than 10,000 characters"),
        ('{"data": "' + "x" * 40_000 + '"}', "Its beginning: it has more than 10,000 characters"),
        ('{"a":' * 30_000, "Its beginning: it has more than 10,000 characters"),
    ],
)
def test_json_without_one_array_of_objects_is_refused(tmp_path: Path, text: str, refusal: str):
    with pytest.raises(DataError, match=re.escape(refusal)):
        read(write(tmp_path, text))


def test_r22_deep_nesting_makes_one_bad_row(tmp_path: Path):
    deep = "[" * 100_000 + "]" * 100_000
    path = write(tmp_path, f'[{{"text": {deep}}}, {{"text": "a"}}]')
    records = read(path, "text", limits=Limits(cell=10_000, columns=20))
    assert records == ["not JSON that can be read: too nested", {"text": "a"}]


@pytest.mark.parametrize("one_line", [True, False])
def test_a_large_file_takes_little_memory(tmp_path: Path, one_line: bool):
    path, cell = tmp_path / "a.json", "x" * 1000
    with path.open("w") as file:
        file.write('{"data": [')
        for i in range(60_000):
            file.write(json.dumps({"text": f"{i} {cell}"}) + ("," if one_line else ",\n"))
        file.write('{"text": "last"}]}')
    assert path.stat().st_size > 60_000_000
    tracemalloc.start()
    with open_source(path, Limits()) as source:
        count, last = 0, None
        for record in source.read(["text"]):
            count, last = count + 1, record
        assert source.progress() == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (count, last) == (60_001, {"text": "last"})
    assert peak < 45_000_000, "less than the file"
