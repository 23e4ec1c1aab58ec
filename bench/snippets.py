"""Movie-review snippets, positive or negative: `python -m bench.snippets FOLDER` writes train.csv and held_out.csv.

10,605 sentences of film reviews rated -4..4 by people (Hutto & Gilbert, VADER, ICWSM 2014; MIT), from the source
archive of `vaderSentiment` on the package index. Label: the rating's sign; ratings within 0.5 of zero are left out;
1,500 rows are held out by a seeded shuffle.
"""

from __future__ import annotations

import csv
import random
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hub.client import silent
from hub.package_index import Package, download

PACKAGE = Package(
    "vaderSentiment", "0.5", "5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a", 2_448_964, "source"
)
ARCHIVE = "vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBER = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
UNCLEAR = 0.5
HELD_OUT = 1500

Snippet = tuple[str, str]


def read_snippets() -> list[Snippet]:
    """Download the archive and return (text, label) of each snippet with a clear rating, in its order."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(PACKAGE, Path(scratch), silent)
        with zipfile.ZipFile(archive) as outer, outer.open(ARCHIVE) as file, tarfile.open(fileobj=file) as inner:
            member = inner.extractfile(MEMBER)
            assert member is not None
            lines = member.read().decode("utf-8", "replace").splitlines()
    rated = [line.split("\t", 2) for line in lines if line.strip()]
    return [
        (text.strip(), "positive" if float(rating) > 0 else "negative")
        for _, rating, text in rated
        if abs(float(rating)) > UNCLEAR
    ]


def split_snippets(snippets: Sequence[Snippet]) -> tuple[list[Snippet], list[Snippet]]:
    """Shuffle and split into (to train on, held out); a text that occurs twice is kept once."""
    shuffled = list(dict(snippets).items())
    random.Random(0).shuffle(shuffled)
    return shuffled[HELD_OUT:], shuffled[:HELD_OUT]


def write_snippets(path: Path, snippets: Sequence[Snippet]) -> Path:
    """Write snippets as CSV; returns the file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *snippets])
    return path


def main(folder: Path) -> None:
    """Write train.csv and held_out.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, snippets in zip(("train.csv", "held_out.csv"), split_snippets(read_snippets()), strict=True):
        print(f"{write_snippets(folder / name, snippets)}: {len(snippets):,} rows")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
