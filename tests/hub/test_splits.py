"""hub/splits.py: which files are which configuration and split."""

from __future__ import annotations

import pytest

from errors import DataError
from hub.dataset_card import Card, CardConfig
from hub.splits import lay_out, matches

USUAL = [
    (["README.md", "train.csv", "test.csv"], {"default": {"train": ("train.csv",), "test": ("test.csv",)}}),
    (["data/test-00000-of-00001.parquet", "data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"],
     {"default": {"train": ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"),
                  "test": ("data/test-00000-of-00001.parquet",)}}),
    (["data/train_sft-00000-of-00001.parquet", "data/extra-00000-of-00001.parquet"],
     {"default": {"train": ("data/train_sft-00000-of-00001.parquet",),
                  "extra": ("data/extra-00000-of-00001.parquet",)}}),
    (["en/train.jsonl", "en/dev.jsonl", "de/train.jsonl"],
     {"de": {"train": ("de/train.jsonl",)}, "en": {"train": ("en/train.jsonl",), "validation": ("en/dev.jsonl",)}}),
    (["en/train/0.csv", "en/test/0.csv"], {"en": {"train": ("en/train/0.csv",), "test": ("en/test/0.csv",)}}),
    (["part-10.csv", "part-2.csv", "part-1.csv"], {"default": {"train": ("part-1.csv", "part-2.csv", "part-10.csv")}}),
    (["alpaca_data.json", "dataset_infos.json"], {"default": {"train": ("alpaca_data.json",)}}),
    (["en.jsonl", "de.jsonl"], {"default": {"en": ("en.jsonl",), "de": ("de.jsonl",)}}),
    (["train.csv", "train.parquet", "train.jsonl"], {"default": {"train": ("train.parquet",)}}),
    ([".cache/train.csv", "__MACOSX/train.csv", "constrained.csv"], {"default": {"train": ("constrained.csv",)}}),
    (["my-Validation.csv", "TRAINING.csv"],
     {"default": {"train": ("TRAINING.csv",), "validation": ("my-Validation.csv",)}}),
]  # fmt: skip


@pytest.mark.parametrize(("files", "layout"), USUAL, ids=[files[0] for files, _ in USUAL])
def test_files_are_laid_out_by_their_names(files: list[str], layout: object) -> None:
    assert lay_out("org/rows", files, Card()) == layout


def test_a_card_decides_before_names_of_files() -> None:
    files = [
        "a/train-2.csv",
        "a/train-10.csv",
        "a/other.csv",
        "deep/er/x.csv",
        "b/train.csv",
        "b/test.csv",
        "gone/y.txt",
    ]
    configs = (
        CardConfig("a", splits={"train": ("a/train-*.csv",), "rest": ("a/other.csv", "deep/**")}),
        CardConfig("b", folder="b", default=True),
        CardConfig("gone", splits={"train": ("gone/*",)}),
    )
    found = lay_out("org/rows", files, Card(configs))
    assert list(found) == ["b", "a"]
    assert found["a"] == {"train": ("a/train-2.csv", "a/train-10.csv"), "rest": ("a/other.csv", "deep/er/x.csv")}
    assert found["b"] == {"train": ("b/train.csv",), "test": ("b/test.csv",)}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["a.csv"]), ("**/*.csv", ["a.csv", "x/a.csv", "x/y/b.csv"]), ("x/*", ["x/a.csv"]),
        ("x/**", ["x/a.csv", "x/y/b.csv"]), ("x/?.csv", ["x/a.csv"]), ("[ab].csv", ["a.csv"]), ("x/y", []),
    ],
)  # fmt: skip
def test_a_glob_stays_within_a_folder_but_for_two_stars(pattern: str, names: list[str]) -> None:
    assert [name for name in ("a.csv", "x/a.csv", "x/y/b.csv") if matches(name, pattern)] == names


def test_a_glob_cannot_take_for_ever() -> None:
    # years, if every way to match were tried
    assert not matches("a" * 500 + "/" + "b/" * 200 + "c", "a*" * 100 + "/**/**/b*/d")


@pytest.mark.parametrize(
    ("files", "why"),
    [([], "It is empty"), (["README.md"], "It is empty"), (["rows.py", "x.bin"], "A script makes its rows"),
     (["a.zip", "b.arrow"], r"files of kind \.arrow, \.zip")],
)  # fmt: skip
def test_a_repository_without_rows_is_refused(files: list[str], why: str) -> None:
    with pytest.raises(DataError, match=why):
        lay_out("org/rows", files, Card())
