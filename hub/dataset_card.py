"""What the card of a Hub data set says of its files and labels. Nobody vouches for it: every name in it is checked.

A card's YAML names configurations, and patterns of the files of each split:

    configs:
    - config_name: en
      data_files:
      - split: train
        path: en/train-*.parquet

`datasets` would follow a pattern to any place that it names, a file of this computer too. Here a pattern is a plain
name or glob inside the repository, or the data set is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from errors import DataError
from hub.datasets import check_inside

FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_PATTERNS = 20_000
MOST_STARS = 2
"""`**` in one pattern: each multiplies the ways in which it can match."""
MOST_LABEL_NAMES = 10_000
LONGEST_NAME = 100

Labels = Mapping[str, tuple[str, ...]]
"""Names of the labels of a column, by the number that stands for each in the data."""


@dataclass(frozen=True)
class CardConfig:
    """One configuration, as the card declares it."""

    name: str
    folder: str = ""
    """Where its files lie, if it says only that."""
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns of the files of each split."""
    default: bool = False


@dataclass(frozen=True)
class Card:
    """What of a card decides how files are read."""

    configs: tuple[CardConfig, ...] = ()
    labels: Mapping[str, Labels] = field(default_factory=dict)
    """Of each configuration, labels by column."""


def read_card(id: str, text: str) -> Card:
    """What `text`, the README.md of `id`, says; raises `DataError` where it names a file that is not its own."""
    front = FRONT.match(text)
    try:
        facts = yaml.load(front.group(1), LOADER) if front else None  # noqa: S506 - a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError):
        facts = None  # as a repository without a card
    if not isinstance(facts, Mapping):
        return Card()
    configs = [item for item in _items(facts.get("configs")) if isinstance(item, Mapping)]
    told = [_config(id, item) for item in configs if item.get("data_files") or item.get("data_dir")]
    infos = [item for item in _items(facts.get("dataset_info")) if isinstance(item, Mapping)]
    return Card(tuple(told), {_name(info.get("config_name", "default")): _labels(info) for info in infos})


def _config(id: str, item: Mapping[Any, Any]) -> CardConfig:
    folder, files = item.get("data_dir") or "", item.get("data_files")
    if folder:
        folder = _checked(id, folder).rstrip("/")
    splits: dict[str, tuple[str, ...]] = {}
    for split, pattern in _patterns(files):
        inside = _checked(id, pattern)
        inside = f"{folder}/{inside}" if folder else inside
        splits[_name(split)] = (*splits.get(_name(split), ()), inside)
        if sum(map(len, splits.values())) > MOST_PATTERNS:
            raise DataError(f"The card of {id} names too many files.", f"The limit is {MOST_PATTERNS:,}.")
    return CardConfig(_name(item.get("config_name", "default")), folder, splits, item.get("default") is True)


def _patterns(files: object) -> Iterator[tuple[object, object]]:
    """(split, pattern) for each pattern, in all the shapes that a card may use."""
    if isinstance(files, Mapping):
        for split, patterns in files.items():
            yield from ((split, pattern) for pattern in _items(patterns))
        return
    for item in _items(files):
        if isinstance(item, Mapping):
            yield from ((item.get("split", "train"), pattern) for pattern in _items(item.get("path")))
        else:
            yield "train", item


def _checked(id: str, pattern: object) -> str:
    """A pattern as a plain one inside the repository; raises `DataError`."""
    if not isinstance(pattern, str) or ":" in pattern or pattern.count("**") > MOST_STARS:
        why = "A name or pattern of files inside the data set is expected: no address, no path of this computer."
        raise DataError(f"{id} names files that are not its own: {str(pattern)[:100]!r}.", why, "Do not use it.")
    inside = pattern.removeprefix("./").rstrip("/")
    check_inside(id, inside)
    return inside


def _labels(info: Mapping[Any, Any]) -> Labels:
    """The names of labels that `features` of a `dataset_info` declares."""
    found = {}
    for feature in _items(info.get("features")):
        if not (isinstance(feature, Mapping) and isinstance(feature.get("dtype"), Mapping)):
            continue
        declared = feature["dtype"].get("class_label")
        names = label_names(declared.get("names") if isinstance(declared, Mapping) else None)
        if names:
            found[str(feature.get("name"))[:LONGEST_NAME]] = names
    return found


def label_names(names: object) -> tuple[str, ...]:
    """Names of labels in the order of their numbers, from a list or from `{"0": name}`; none where they are neither."""
    if isinstance(names, Mapping):
        numbered = {str(number): name for number, name in names.items()}
        names = [numbered.get(str(i)) for i in range(len(numbered))]
    if not isinstance(names, list) or len(names) > MOST_LABEL_NAMES:
        return ()
    fits = (isinstance(n, str | int | float) and not isinstance(n, bool) and len(str(n)) <= 1_000 for n in names)
    texts = tuple(str(name) for name, fine in zip(names, fits, strict=True) if fine)
    return texts if len(texts) == len(names) == len(set(texts)) else ()


def _items(value: object) -> list[Any]:
    """A list as it is, nothing as an empty one, and anything else as a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _name(value: object) -> str:
    return str(value)[:LONGEST_NAME]
