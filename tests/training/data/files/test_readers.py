"""Tests of training/data/files/readers.py: each record comes once, in order, as cells or as a reason."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Image, Value

from errors import DataError
from training.data.files.formats import Limits
from training.data.files.readers import Record, open_source

SMALL = Limits(cell=100, decoded_bytes=100_000, columns=20)


def read(path: Path, *columns: str, limits: Limits = SMALL) -> list[Record]:
    with open_source(path, limits) as source:
        return list(source.read(columns or source.columns))


def write(tmp_path: Path, name: str, content: str | bytes) -> Path:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path / name


def test_csv_cells_stay_text(tmp_path: Path):
    cells = ["None", "NA", "null", "", "nan", "2020-01-01", "007", "1e5", "True", '"quoted, ""twice"""', '"two\nlines"']
    path = write(tmp_path, "a.csv", "text,n\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    expected = [*cells[:-2], 'quoted, "twice"', "two\nlines"]
    assert [record["text"] for record in read(path)] == expected


def test_a_bad_row_of_csv_is_reported_and_the_others_read(tmp_path: Path):
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


def test_a_quote_that_swallows_the_rest_is_refused_with_its_line(tmp_path: Path):
    path = write(tmp_path, "a.csv", 'text,label\na,b\n"c,d\ne,f\n')
    with pytest.raises(DataError, match="line 3 opens a quote"):
        read(path)
    path = write(tmp_path, "b.csv", 'text,label\n"' + "x\n" * 20_000)
    with pytest.raises(DataError, match="line 2 opens a quote"):
        read(path)


def test_a_long_cell_is_one_row(tmp_path: Path):
    cell = "x\n" * 100_000
    records = read(write(tmp_path, "a.csv", f'text,label\n"{cell}",b\nc,d\n'), limits=Limits())
    assert [len(record["text"]) for record in records] == [200_000, 1]


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


def test_columns_without_a_name_are_passed_over(tmp_path: Path):
    assert read(write(tmp_path, "a.csv", ",text , label,\n0,a,b,\n")) == [{"text": "a", "label": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        ("twice.csv", b"text,label,text\n1,2,3\n", "two columns named 'text'"),
        ("wide.csv", ",".join(f"c{i}" for i in range(21)).encode(), "too many columns"),
        ("latin.csv", b"text,label\na,b\ncaf\xe9,c\n", "Line 3 has the byte 0xe9 after 3 others"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', "Line 2 has the byte 0xff"),
        ("header.csv", b'"text"x,label\na,b\n', "The first line of header.csv cannot be read"),
        ("words.jsonl", b"hello\nworld\n", "has no JSON objects. Line 1: not JSON"),
        ("empties.jsonl", b"{}\n{}\n", "has no JSON objects"),
        ("cut.parquet", b"PAR1 and nothing more", "cannot be read as Parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, content: bytes, refusal: str):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path, name, content))
    assert refusal in str(caught.value)


def test_a_bad_line_of_jsonl_is_reported_and_the_others_read(tmp_path: Path):
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
def test_r22_parquet_is_measured_unpacked(tmp_path: Path, nested: bool, encoded: bool):
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


def test_a_line_of_cells_that_is_too_long_is_refused(tmp_path: Path):
    path = write(tmp_path, "a.csv", 'text,label\na,b\n"' + "x" * 20_000 + '",c\n')
    with pytest.raises(DataError, match="Line 3 has more than 10,000 characters"):
        read(path)


@pytest.mark.parametrize("name", ["a[1]", "*", "zip:::b", "http:::c", "s3:a", "ü {x}"])
def test_a_name_is_no_pattern_and_no_address(tmp_path: Path, name: str):
    assert read(write(tmp_path, f"{name}.csv", "text,label\na,b\n")) == [{"text": "a", "label": "b"}]
    pq.write_table(pa.table({"text": ["a"]}), pa.OSFile(str(tmp_path / f"{name}.parquet"), "wb"))
    assert read(tmp_path / f"{name}.parquet") == [{"text": "a"}]


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "a.csv", "text,label\na,b\n")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        read(path)


def test_a_lack_of_memory_is_a_refusal(tmp_path: Path):
    path = write(tmp_path, "a.jsonl", json.dumps({"text": "a"}))
    with pytest.raises(DataError, match="too much memory"), open_source(path, SMALL):
        raise MemoryError
