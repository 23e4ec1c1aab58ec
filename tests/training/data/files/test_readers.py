"""Tests of training/data/files/readers.py: each record is read once, in order, as cells or as a reason."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, Value

from errors import DataError
from tests.helpers.row_files import SMALL
from tests.helpers.row_files import read_records as read
from training.data.files.formats import Limits
from training.data.files.readers import open_source


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


def test_csv_cells_stay_text(tmp_path: Path):
    cells = ["None", "NA", "null", "", "nan", "2020-01-01", "007", "1e5", "True", '"quoted, ""twice"""', '"two\nlines"']
    path = write(tmp_path, "a.csv", "text,n\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    assert [record["text"] for record in read(path)] == [*cells[:-2], 'quoted, "twice"', "two\nlines"]
    cell = "x\n" * 100_000
    records = read(write(tmp_path, "b.csv", f'text,label\n"{cell}",b\nc,d\n'), limits=Limits())
    assert [len(record["text"]) for record in records] == [200_000, 1]


def test_bad_rows_of_csv_become_reasons(tmp_path: Path):
    path = write(tmp_path, "a.csv", 'text,label\na,b,c\nd,e\n\nonly\n"x"y,z\nf,g\n')
    good = [{"text": "d", "label": "e"}, {"text": "f", "label": "g"}]
    records = read(path)
    assert [record for record in records if isinstance(record, dict)] == good
    assert [records[i] for i in (0, 2, 3)] == [
        "3 cells where the first line has 2",
        "the line is empty",
        "1 cells where the first line has 2",
    ]
    assert "on line" not in str(records[4]) and "expected after" in str(records[4])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path, end: str, mark: bytes):
    path = write(tmp_path, "a.csv", mark + f"text,label{end}é\u2028x,b{end}".encode())
    assert read(path) == [{"text": "é\u2028x", "label": "b"}]


@pytest.mark.parametrize(("name", "cut", "warned"), [("a.csv", ";", 1), ("a.csv", "\t", 1), ("a.tsv", "\t", 0)])
def test_a_semicolon_or_tab_separates_cells(tmp_path: Path, name: str, cut: str, warned: int):
    path = write(tmp_path, name, f"text{cut}label\na,b{cut}c\n")
    with open_source(path, SMALL) as source:
        assert list(source.read(source.columns)) == [{"text": "a,b", "label": "c"}]
        assert len(source.warnings) == warned


def test_columns_without_a_name_are_ignored(tmp_path: Path):
    assert read(write(tmp_path, "a.csv", ",text , label,\n0,a,b,\n")) == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        ("twice.csv", b"text,label,text\n1,2,3\n", "two columns named 'text'"),
        ("wide.csv", ",".join(f"c{i}" for i in range(21)).encode(), "too many columns"),
        ("latin.csv", b"text,label\na,b\ncaf\xe9,c\n", "Line 3 has the byte 0xe9 after 3 others"),
        ("latin.json", b'[{"text": "\xff"}]', "is not UTF-8"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "Line 2 has the byte 0xff"),
        ("header.csv", b'"text"x,label\na,b\n', "The first line of header.csv cannot be read"),
        ("long.csv", b'text,label\na,b\n"' + b"x" * 20_000 + b'",c\n', "Line 3 has more than 10,000 characters"),
        ("quote.csv", b'text,label\na,b\n"c,d\ne,f\n', "line 3 opens a quote"),
        ("quotes.csv", b'text,label\n"' + b"x\n" * 20_000, "line 2 opens a quote"),
        ("words.jsonl", b"hello\nworld\n", "has no JSON objects. Line 1: not JSON"),
        ("empties.jsonl", b"{}\n{}\n", "has no JSON objects"),
        ("cut.parquet", b"PAR1 and nothing more", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes, refusal: str):
    with pytest.raises(DataError, match=re.escape(refusal)):
        read(write(tmp_path, name, content))


def test_bad_lines_of_jsonl_become_reasons(tmp_path: Path):
    lines = ['{"text": "2020-01-01", "n": 1}', "{oops", "[1]", "", '{"b": 2}', "1" * 5000, '{"a":' * 50_000]
    lines.append('{"\\ud800": 1}')
    records = read(write(tmp_path, "a.jsonl", "\n".join(lines) + "\n"))
    assert records[0] == {"text": "2020-01-01", "n": 1}
    assert records[4] == {"b": 2}
    reasons = [record for record in records if isinstance(record, str)]
    assert len(reasons) == 6
    assert reasons[0] == "not JSON: Expecting property name enclosed in double quotes at character 2"


def test_parquet_cells_are_plain_values(tmp_path: Path):
    table = pa.table(
        {
            "text": pa.array(["a", None]).dictionary_encode(),
            "label": [1.0, 2.5],
            "chat": [[{"role": "user", "content": "x"}], None],
            "unused": pa.array([1, 2], pa.duration("s")),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    records = read(tmp_path / "a.parquet", "text", "label", "chat")
    assert records[0] == {"text": "a", "label": 1.0, "chat": [{"role": "user", "content": "x"}]}
    assert records[1] == {"text": None, "label": 2.5, "chat": None}


def test_parquet_metadata_does_not_open_other_files(tmp_path: Path):
    """A file may declare, for `datasets`, that a column is an image; reading it would open the path it names."""
    (tmp_path / "secret.png").write_bytes(b"secret")
    cells = [{"bytes": None, "path": str(tmp_path / "secret.png")}]
    features = Features({"text": Image(), "label": Value("string")})
    table = pa.table({"text": cells, "label": ["a"]}, schema=features.arrow_schema)
    assert b"huggingface" in table.schema.metadata
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0]["text"] == cells[0]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("encoded", [False, True])
def test_r22_parquet_is_limited_by_its_decoded_size(tmp_path: Path, nested: bool, encoded: bool):
    cells = pa.array(["x" * 1000] * 3000)
    cells = cells.dictionary_encode() if encoded else cells
    text = pa.ListArray.from_arrays(pa.array(range(3001), pa.int32()), cells) if nested else cells
    pq.write_table(pa.table({"text": text, "label": ["a"] * 3000}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match="Unpacked it is more"):
        read(tmp_path / "a.parquet")


def test_the_limit_of_an_unpacked_parquet_file_grows_with_its_size(tmp_path: Path):
    chance = random.Random(0)
    cells = [f"{chance.getrandbits(400):x}" for _ in range(2000)]
    pq.write_table(pa.table({"text": cells * 2}), tmp_path / "a.parquet")
    assert len(read(tmp_path / "a.parquet")) == 4000, "more than SMALL.decoded_bytes, but from a file of that size"
    with pytest.raises(DataError, match="Unpacked it is more than 0 MB"):
        read(tmp_path / "a.parquet", limits=Limits(decoded_bytes=100_000, expansion=1))


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_line_that_is_too_long_is_one_bad_row(tmp_path: Path, end: str):
    longest = SMALL.line
    fits = json.dumps({"text": "x" * (longest - 12)})
    assert len(fits) == longest
    lines = ['{"text": "a"}', fits, " " + fits, "[" * (3 * longest), '{"text": "b"}']
    records = read(write(tmp_path, "a.jsonl", (end or "\n").join(lines) + end))
    assert [len(record["text"]) for record in records if isinstance(record, dict)] == [1, longest - 12, 1]
    assert records[2] == records[3] == "the line has more than 10,000 characters"


@pytest.mark.parametrize("name", ["a[1]", "*", "zip:::b", "http:::c", "s3:a", "ü {x}"])
def test_a_file_name_is_no_pattern_and_no_address(tmp_path: Path, name: str):
    assert read(write(tmp_path, f"{name}.csv", "text,label\na,b\n")) == [{"text": "a", "label": "b"}]
    pq.write_table(pa.table({"text": ["a"]}), pa.OSFile(str(tmp_path / f"{name}.parquet"), "wb"))
    assert read(tmp_path / f"{name}.parquet") == [{"text": "a"}]


@pytest.mark.parametrize(
    ("error", "refusal"),
    [(PermissionError(13, "Permission denied"), "Permission denied"), (MemoryError(), "too much memory")],
)
def test_an_error_of_the_system_becomes_a_data_error(tmp_path: Path, error: BaseException, refusal: str):
    path = write(tmp_path, "a.csv", "text,label\na,b\n")
    with pytest.raises(DataError, match=refusal), open_source(path, SMALL):
        raise error
