"""Which files of a Hub data set are which configuration and split: by its card, else by how files are usually named."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from errors import DataError
from hub.dataset_card import Card, CardConfig

Layout = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Of each configuration, the files of each split, in order. The first of each is the one to begin with."""

DEFAULT = "default"
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?$")
PREFERRED = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
"""Suffixes of the files that hold rows. Where a repository has the same rows in several formats, the first is read."""
MOST_COMPARED = 5_000_000
"""Patterns times files."""
METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "package.json")


def lay_out(id: str, files: Iterable[str], card: Card) -> Layout:
    """What there is to choose from in a repository of `files`; raises `DataError` where there are no rows."""
    names = list(files)
    rows = [name for name in names if _is_rows(name)]
    plain = set(rows)
    globs = sum(pattern not in plain for config in card.configs for some in config.splits.values() for pattern in some)
    if globs * len(rows) > MOST_COMPARED:
        raise DataError(f"{id} has too many files and patterns.", f"{globs:,} patterns stand for {len(rows):,} files.")
    found: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for config in sorted(card.configs, key=lambda config: (not config.default, config.name != DEFAULT)):
        splits = dict(_declared(config, rows)) if config.splits else _usual(_below(rows, config.folder)).get(DEFAULT)
        if splits:
            found[config.name] = _ordered(splits)
    if not card.configs:
        usual = _usual((name, PurePosixPath(name)) for name in rows)
        found = {name: _ordered(usual[name]) for name in sorted(usual, key=lambda name: (name != DEFAULT, name))}
    if not found:
        raise _none(id, names)
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether a glob means a file: `*` stays within a folder, `**` goes through any number of them."""
    return _matches(tuple(name.split("/")), tuple(pattern.split("/")))


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _is_rows(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return path.suffix.lower() in PREFERRED and not hidden and path.name not in METADATA


def _declared(config: CardConfig, rows: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    known = set(rows)
    for split, patterns in config.splits.items():
        chosen: dict[str, None] = {}
        for pattern in patterns:
            found = [pattern] if pattern in known else [name for name in rows if matches(name, pattern)]
            found = found or [name for name in rows if name.startswith(f"{pattern}/")]
            chosen.update(dict.fromkeys(sorted(found, key=_natural)))
        if chosen:
            yield split, tuple(chosen)


def _below(rows: Sequence[str], folder: str) -> Iterator[tuple[str, PurePosixPath]]:
    for name in rows:
        if name.startswith(f"{folder}/"):
            yield name, PurePosixPath(PurePosixPath(name[len(folder) + 1 :]).name)


def _usual(rows: Iterable[tuple[str, PurePosixPath]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Configurations and splits by the names of folders and files."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, path in rows:
        split = _split_of(path)
        folders = [part for part in path.parts[:-1] if part != "data" and _word(part) is None]
        found["/".join(folders) or DEFAULT][split or f"\0{SHARD.sub('', path.stem)}"].append(name)
    return {config: _named(splits) for config, splits in found.items()}


def _named(splits: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
    """Files that name no split are the rows to train on where there is one kind of them; else each goes by its name."""
    alone = len(splits) == 1
    named = {("train" if alone else split[1:]) if split[0] == "\0" else split: names for split, names in splits.items()}
    return {split: _one_format(names) for split, names in named.items()}


def _split_of(path: PurePosixPath) -> str | None:
    shard = re.fullmatch(r"(\w+)-\d{5}-of-\d{5}.*", path.stem)
    by_name = _word(path.stem)
    if by_name is None and shard and path.parent.name == "data":
        return shard.group(1)
    folders = [split for part in path.parts[:-1] if (split := _word(part))]
    return by_name or (folders[-1] if folders else None)


def _word(name: str) -> str | None:
    """The split that a name of a file or folder has as a word in it."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for split, known in SPLITS.items() if set(words) & set(known)), None)


def _one_format(names: Sequence[str]) -> tuple[str, ...]:
    suffix = min((PurePosixPath(name).suffix.lower() for name in names), key=PREFERRED.index)
    return tuple(sorted((n for n in names if PurePosixPath(n).suffix.lower() == suffix), key=_natural))


def _ordered(splits: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Rows to train on first."""
    return {split: splits[split] for split in sorted(splits, key=lambda split: split != "train")}


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Numbers in names in the order of numbers: part-2 before part-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _none(id: str, names: Sequence[str]) -> DataError:
    kinds = sorted({PurePosixPath(name).suffix.lower() for name in names} - {"", ".md", ".gitattributes"})
    script = f"{id.partition('/')[2]}.py" in names
    why = "A script makes its rows, and code of others is not run." if script else ""
    why = why or f"It has files of kind {', '.join(kinds[:8])}." if kinds else "It is empty."
    return DataError(f"{id} holds no file of rows that can be read.", why, f"Files of rows are {', '.join(PREFERRED)}.")
