"""Tests of training/data/files/formats.py: a format is that of the first bytes, whatever the name."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets.utils import file_utils

from errors import DataError
from training.data.files.formats import SIGNATURES, Limits, check_file

WRONG = [
    ("parquet.csv", b"PAR1....PAR1", "says CSV but is Parquet"),
    ("sheet.csv", b"PK\x03\x04xl/workbook", "a spreadsheet"),
    ("packed.jsonl", b"\x1f\x8b\x08\x00", "is gzip"),
    ("notepad.csv", "text,label\n".encode("utf-16"), "is UTF-16 text"),
    ("page.csv", b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "is a web page"),
    ("page.tsv", b"<?xml version='1.0'?>", "is a web page"),
    ("rows.csv", b'{"text": "a", "label": "b"}\n', "says CSV but is JSON"),
    ("array.csv", b'[\n{"text": "a"}]', "says CSV but is JSON"),
    ("array.jsonl", b' [{"text": "a"}]', "says JSONL but is a JSON array"),
    ("pretty.jsonl", b'{\n  "text": "a"\n}\n', "is JSON over several lines"),
    ("words.json", b"hello", "says JSON but is not"),
    ("rows.json", b"PAR1....PAR1", "says JSON but is Parquet"),
    ("rows.parquet", b"text,label\na,b\n", "says Parquet but is not"),
    ("binary.tsv", b"text\x00\x01label\n", "is not text"),
    ("empty.csv", b"", "is empty"),
    ("blank.jsonl", b"\xef\xbb\xbf \r\n\n", "is empty"),
    ("rows.txt", b"text,label\na,b\n", "Files of kind .txt"),
    ("rows", b"text,label\na,b\n", "Files of kind (none)"),
    ("pickle.pkl", b"\x80\x04", "Files of kind .pkl"),
    ("large.csv", b"text,label\n" + b"x" * 2000, "is too large"),
]


@pytest.mark.parametrize(("name", "content", "refusal"), WRONG, ids=[row[0] for row in WRONG])
def test_a_file_that_is_not_as_named_is_refused(tmp_path: Path, name: str, content: bytes, refusal: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        check_file(path, Limits(file_bytes=1000))
    assert refusal in str(caught.value)
    assert caught.value.next
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", b"text,label\r\na,b\r\n", "CSV"),
        ("a.CSV", b"\xef\xbb\xbftext,label\na,b\n", "CSV"),
        ("a.tsv", b"text\tlabel\na\tb\n", "TSV"),
        ("a.jsonl", b'{"text": "<html>"}\n', "JSONL"),
        ("a.json", b' [{"text": "a"}]', "JSON"),
        ("b.json", b'{\n"data": []}', "JSON"),
        ("a.parquet", b"PAR1....PAR1", "Parquet"),
        ("b.csv", b"<b>,label\n1,2\n", "CSV"),
    ],
)
def test_each_format_is_detected(tmp_path: Path, name: str, content: bytes, kind: str):
    (tmp_path / name).write_bytes(content)
    assert check_file(tmp_path / name, Limits()) == kind


def test_a_missing_file_is_refused(tmp_path: Path):
    (tmp_path / "folder.csv").mkdir()
    for name in ("absent.csv", "folder.csv"):
        with pytest.raises(DataError, match="is not there"):
            check_file(tmp_path / name, Limits())


def test_r23_everything_that_datasets_would_unpack_is_refused():
    packed = [
        *file_utils.MAGIC_NUMBER_TO_COMPRESSION_PROTOCOL,
        *file_utils.MAGIC_NUMBER_TO_UNSUPPORTED_COMPRESSION_PROTOCOL,
    ]
    assert len(packed) >= 9
    for magic in packed:
        assert any(magic.startswith(signature) for signature, _ in SIGNATURES), magic
