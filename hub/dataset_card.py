"""Parse the card of a Hub data set: the files and label names that it declares, each checked.

A card's YAML names configurations, and patterns of the files of each split:

    configs:
    - config_name: en
      data_files:
      - split: train
        path: en/train-*.parquet

The library `datasets` would follow a pattern to any URL or local file. Here a pattern that is not a plain name or glob
inside the repository is refused.
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
"""Most `**` in one pattern; each multiplies the ways in which it can match."""
MOST_LABEL_NAMES = 10_000
LONGEST_NAME = 100

Labels = Mapping[str, tuple[str, ...]]
"""Label names by column, in the order of their numbers in the data."""


@dataclass(frozen=True)
class CardConfig:
    """A configuration that a card declares."""

    name: str
    folder: str = ""
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Patterns of files by split; empty where all files of `folder` are meant."""
    default: bool = False


@dataclass(frozen=True)
class Card:
    """The configurations that a card declares, and label names by configuration."""

    configs: tuple[CardConfig, ...] = ()
    labels: Mapping[str, Labels] = field(default_factory=dict)


def read_card(id: str, text: str) -> Card:
    """Parse `text`, the README.md of `id`; raises `DataError` if it names a file outside the repository."""
    front = FRONT.match(text)
    try:
        facts = yaml.load(front.group(1), LOADER) if front else None  # noqa: S506 - a safe loader, in C where there is one
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError):
        facts = None
    if not isinstance(facts, Mapping):
        return Card()
    configs = [item for item in _items(facts.get("configs")) if isinstance(item, Mapping)]
    declared = [_config(id, item) for item in configs if item.get("data_files") or item.get("data_dir")]
    infos = [item for item in _items(facts.get("dataset_info")) if isinstance(item, Mapping)]
    return Card(tuple(declared), {_name(info.get("config_name", "default")): _labels(info) for info in infos})


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
    """Yield each (split, pattern), from any of the forms that a card may use."""
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
    """Return a pattern without `./` and trailing `/`; raises `DataError` if it may lead out of the repository."""
    if not isinstance(pattern, str) or ":" in pattern or pattern.count("**") > MOST_STARS:
        why = "A name or pattern of files inside the data set is expected: no address, no path of this computer."
        raise DataError(f"{id} names files that are not its own: {str(pattern)[:100]!r}.", why, "Do not use it.")
    inside = pattern.removeprefix("./").rstrip("/")
    check_inside(id, inside)
    return inside


def _labels(info: Mapping[Any, Any]) -> Labels:
    """Return the label names that the `features` of a `dataset_info` declare."""
    found = {}
    for feature in _items(info.get("features")):
        names = label_names(_value(_value(_value(feature, "dtype"), "class_label"), "names"))
        if names:
            found[_name(feature.get("name"))] = names
    return found


def _value(mapping: object, key: str) -> object:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


def label_names(names: object) -> tuple[str, ...]:
    """Return label names in the order of their numbers, from a list or `{"0": name}`; () for anything else."""
    if isinstance(names, Mapping):
        numbered = {str(number): name for number, name in names.items()}
        names = [numbered.get(str(i)) for i in range(len(numbered))]
    if not isinstance(names, list) or len(names) > MOST_LABEL_NAMES:
        return ()
    fits = (isinstance(n, str | int | float) and not isinstance(n, bool) and len(str(n)) <= 1_000 for n in names)
    texts = tuple(str(name) for name, fine in zip(names, fits, strict=True) if fine)
    return texts if len(texts) == len(names) == len(set(texts)) else ()


def _items(value: object) -> list[Any]:
    """Return a list as it is, None as an empty one, and anything else as a list of one item."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _name(value: object) -> str:
    return str(value)[:LONGEST_NAME]
