"""Tests of training/data/files/formats.py: the first bytes of a file must be those of the format in its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets.utils import file_utils

from errors import DataError
from training.data.files.formats import SIGNATURES, Limits, check_file

WRONG = [
    ("parquet.csv", b"PAR1....PAR1", "says CSV but is Parquet"),
    ("sheet.csv", b"PK\x03\x04xl/workbook", "a spreadsheet"),
    ("notepad.csv", "text,label\n".encode("utf-16"), "is UTF-16 text"),
    ("page.csv", b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "is a web page"),
    ("rows.csv", b'{"text": "a", "label": "b"}\n', "says CSV but is JSON"),
    ("array.jsonl", b' [{"text": "a"}]', "says JSONL but is a JSON array"),
    ("pretty.jsonl", b'{\n  "text": "a"\n}\n', "is JSON over several lines"),
    ("words.json", b"hello", "says JSON but is not"),
    ("rows.parquet", b"text,label\na,b\n", "says Parquet but is not"),
    ("binary.tsv", b"text\x00\x01label\n", "is not text"),
    ("empty.csv", b"", "is empty"),
    ("blank.jsonl", b"\xef\xbb\xbf \r\n\n", "is empty"),
    ("absent.csv", None, "is not there"),
    ("rows.txt", b"text,label\na,b\n", "Files of kind .txt"),
    ("rows", b"text,label\na,b\n", "Files of kind (none)"),
    ("large.csv", b"text,label\n" + b"x" * 2000, "is too large"),
]


@pytest.mark.parametrize(("name", "content", "refusal"), WRONG, ids=[row[0] for row in WRONG])
def test_a_file_of_another_format_than_its_name_is_refused(
    tmp_path: Path, name: str, content: bytes | None, refusal: str
):
    path = tmp_path / name
    if content is not None:
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


def test_r23_every_archive_that_datasets_would_unpack_is_refused():
    packed = {
        **file_utils.MAGIC_NUMBER_TO_COMPRESSION_PROTOCOL,
        **file_utils.MAGIC_NUMBER_TO_UNSUPPORTED_COMPRESSION_PROTOCOL,
    }
    assert len(packed) >= 9
    for magic in packed:
        assert any(magic.startswith(signature) for signature, _ in SIGNATURES), magic
