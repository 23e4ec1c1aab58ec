"""Find the configurations and splits of a Hub data set, by its card or else by its files' names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from errors import DataError
from hub.dataset_card import Card, CardConfig

Layout = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Files by configuration and split, in order; the first configuration and split are the defaults."""

DEFAULT = "default"
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?$")
PREFERRED = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
"""Suffixes of files of rows; of several formats of a split, the first one here is read."""
MOST_COMPARED = 5_000_000
"""Globs times files."""
METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "package.json")


def lay_out(id: str, files: Iterable[str], card: Card) -> Layout:
    """Return the layout of a repository of `files`; raises `DataError` if it has no rows."""
    names = list(files)
    rows = [name for name in names if _is_rows(name)]
    plain = set(rows)
    globs = sum(pattern not in plain for config in card.configs for some in config.splits.values() for pattern in some)
    if globs * len(rows) > MOST_COMPARED:
        raise DataError(f"{id} has too many files and patterns.", f"{globs:,} patterns stand for {len(rows):,} files.")
    if card.configs:
        ordered = sorted(card.configs, key=lambda config: (not config.default, config.name != DEFAULT))
        layout = {config.name: _of_config(config, rows) for config in ordered}
    else:
        usual = _by_names((name, PurePosixPath(name)) for name in rows)
        layout = {name: usual[name] for name in sorted(usual, key=lambda name: (name != DEFAULT, name))}
    found = {
        config: {split: splits[split] for split in sorted(splits, key=lambda split: split != "train")}
        for config, splits in layout.items()
        if splits
    }
    if not found:
        raise _no_rows(id, names)
    return found


def matches(name: str, pattern: str) -> bool:
    """Return whether a glob matches a path: `*` stays within a folder, `**` goes through any number of them."""
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


def _of_config(config: CardConfig, rows: Sequence[str]) -> dict[str, tuple[str, ...]]:
    if config.splits:
        return dict(_declared(config, rows))
    inside = [name for name in rows if name.startswith(f"{config.folder}/")]
    return _by_names((name, PurePosixPath(PurePosixPath(name).name)) for name in inside).get(DEFAULT, {})


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


def _by_names(rows: Iterable[tuple[str, PurePosixPath]]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return configurations and splits by the names of folders and files.

    Shards that name no split are a split of their own name, or "train" where a configuration has nothing else.
    """
    configs: dict[str, dict[tuple[bool, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, path in rows:
        split = _split_of(path)
        folders = [part for part in path.parts[:-1] if part != "data" and _split_word(part) is None]
        key = (True, split) if split else (False, SHARD.sub("", path.stem))
        configs["/".join(folders) or DEFAULT][key].append(name)
    return {
        config: {
            split if is_split or len(groups) > 1 else "train": _one_format(names)
            for (is_split, split), names in groups.items()
        }
        for config, groups in configs.items()
    }


def _split_of(path: PurePosixPath) -> str | None:
    shard = re.fullmatch(r"(\w+)-\d{5}-of-\d{5}.*", path.stem)
    by_name = _split_word(path.stem)
    if by_name is None and shard and path.parent.name == "data":
        return shard.group(1)
    folders = [split for part in path.parts[:-1] if (split := _split_word(part))]
    return by_name or (folders[-1] if folders else None)


def _split_word(name: str) -> str | None:
    """Return the split that the name of a file or folder contains as a word, or None."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for split, known in SPLITS.items() if set(words) & set(known)), None)


def _one_format(names: Sequence[str]) -> tuple[str, ...]:
    suffix = min((PurePosixPath(name).suffix.lower() for name in names), key=PREFERRED.index)
    return tuple(sorted((n for n in names if PurePosixPath(n).suffix.lower() == suffix), key=_natural))


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in names by value: part-2 before part-10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _no_rows(id: str, names: Sequence[str]) -> DataError:
    kinds = sorted({PurePosixPath(name).suffix.lower() for name in names} - {"", ".md", ".gitattributes"})
    why = f"It has files of kind {', '.join(kinds[:8])}." if kinds else "It is empty."
    if f"{id.partition('/')[2]}.py" in names:
        why = "A script makes its rows, and code of others is not run."
    return DataError(f"{id} holds no file of rows that can be read.", why, f"Files of rows are {', '.join(PREFERRED)}.")
