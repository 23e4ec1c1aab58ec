"""Rows as token ids on disk: made once for the same data, the same split and the same tokenizer, then read in place.

    home/data/prepared/<key>/   train.arrow  held_out.arrow  prepared.json  manifest.json

The key is a hash of everything that decides what is in the folder, and the fingerprint of the data that a run is bound
to. A folder appears whole or not at all; one that was damaged is made again. Rows to train on stay on disk and are
mapped into memory; the few that are held out are kept as they are.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers
from numpy.typing import NDArray

from errors import DataError, RunError
from settings import Settings
from store import files, placement
from tasks import Task
from training.config import TrainConfig
from training.data import Table, changed, read_table
from training.encoding import Encoded, Outcome, batches, tokenize
from training.events import Events
from training.examples import Examples, writing
from training.report import Report
from training.rows import Row
from training.selection import decides, is_selection, parts, title
from training.split import split

FORMAT = 2
"""Of the folder, and of what decides its content: raise it when reading, splitting or encoding changes."""
TOLD_EVERY_S = 0.5
TRAIN, HELD_OUT, FACTS = "train.arrow", "held_out.arrow", "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """What a run trains on and compares with. Kept from removal for as long as this object lives."""

    train: Examples
    held_out: Encoded
    report: Report
    labels: list[str]
    """Of a classifier, in the order of its logits."""
    truncated: int
    """Rows to train on that were cut to the longest length, or left out because their answer would have been."""
    fingerprint: str
    """Of everything that decided what is in `train` and `held_out`."""
    sha256: str
    """Of the file of rows."""
    use: files.Use


def prepare(config: TrainConfig, task: Task, tokenizer: Any, settings: Settings, events: Events) -> Prepared:  # noqa: ANN401
    """The rows of `config` as token ids: found under the home of `settings`, or made there.

    Other prepared data is removed, what was used longest ago first, while all takes more than `settings.cache_bytes`.
    Tells `prepare` events: stage (hash, read or tokenize), done, rows (of a hash, bytes; 0: unknown), part (0..1).
    Raises `DataError` and `RunError` where there is nothing to train on.
    """
    told, root, before = _Told(events), settings.home / "data" / "prepared", _stamps(config)
    facts = _facts(config, task, tokenizer, told)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    use = files.Use(_use_of(root, key))

    def build(work: Path, out: Path) -> None:
        make_room(root, settings.cache_bytes - sum(size for size, *_ in before))
        _Preparation(config, task, tokenizer, told, out).run()
        if _stamps(config) != before:
            raise changed(Path(config.data))

    folder = placement.place(root, key, {}, build, hashes=True)
    make_room(root, settings.cache_bytes)
    found = files.read_json(folder / FACTS)
    report = replace(Report.from_json(json.dumps(found["report"])), file=title(Path(config.data)))
    held_out = Encoded(Examples(folder / HELD_OUT, task.name)[:], found["held_out"], found["held_out_truncated"])
    train = Examples(folder / TRAIN, task.name)
    return Prepared(train, held_out, report, sorted(report.labels), found["truncated"], key, facts["files"][0][1], use)


def make_room(root: Path, budget: int) -> None:
    """Remove prepared data until it takes at most `budget` bytes: used longest ago first, never what is in use.

    What preparations that were killed have left goes first.
    """
    placement.sweep(root)
    folders = [path for path in root.glob("*") if not path.name.startswith(".")]
    taken = {folder: _size(folder) for folder in folders}
    for folder in sorted(folders, key=lambda path: _last_used(root, path.name)):
        if sum(taken.values()) <= budget:
            return
        with files.unused(_use_of(root, folder.name)) as unused:
            if unused:
                placement.discard(root, folder.name)
                del taken[folder]


def _use_of(root: Path, key: str) -> Path:
    return root / f".{key}.use"


def _last_used(root: Path, key: str) -> float:
    use = _use_of(root, key)
    return use.stat().st_mtime if use.exists() else 0.0


def _size(folder: Path) -> int:
    # Another process may remove it at this moment.
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


def _files(config: TrainConfig) -> list[Path]:
    return [Path(name) for name in (config.data, config.held_out_data) if name]


def _stamps(config: TrainConfig) -> list[tuple[int, int, int]]:
    """What changes when somebody writes to a file; raises `DataError` where there is none."""
    stamps = []
    for path in (part for file in _files(config) for part in parts(file)):
        if not path.is_file():
            raise DataError(f"{path.name} is not there.", "", "Check the path of the file.")
        found = path.stat()
        stamps.append((found.st_size, found.st_mtime_ns, found.st_ino))
    return stamps


def _facts(config: TrainConfig, task: Task, tokenizer: Any, told: _Told) -> dict[str, Any]:  # noqa: ANN401
    """Everything that decides what the prepared data is; labels follow from it."""
    chosen = ("columns", "mapping", "prompt", "max_length", "seed", "held_out")
    return {
        "format": FORMAT,
        "task": task.name,
        "files": [[path.suffix.lower(), _hash(path, told)] for path in _files(config)],
        "tokenizer": _tokenizer_facts(tokenizer),
        "libraries": [tokenizers.__version__, transformers.__version__],
        **{name: getattr(config, name) for name in chosen},
    }


def _hash(path: Path, told: _Told) -> str:
    if is_selection(path):
        hashes = [[part.suffix.lower(), _hash(part, told)] for part in parts(path)]
        return hashlib.sha256(json.dumps([decides(path), hashes]).encode()).hexdigest()
    size = path.stat().st_size
    return files.sha256(path, lambda done: told("hash", done, size, done / max(1, size)))


def _tokenizer_facts(tokenizer: Any) -> list[Any]:  # noqa: ANN401
    """What decides the ids of a text, without the state that truncation and padding leave in a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend else tokenizer.get_vocab()
    content = {name: part for name, part in state.items() if name not in ("truncation", "padding")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return [type(tokenizer).__name__, digest, special, tokenizer.chat_template, tokenizer.truncation_side]


class _Told:
    """Tells how far it is, at most a few times a second, and the end of each stage."""

    def __init__(self, events: Events) -> None:
        self._events, self._at = events, 0.0

    def __call__(self, stage: str, done: int, rows: int, part: float) -> None:
        if done == rows or time.monotonic() - self._at >= TOLD_EVERY_S:
            self._at = time.monotonic()
            self._events.emit("prepare", stage=stage, done=done, rows=rows, part=round(part, 4))


class _Preparation:
    """Fills one folder: the data is read twice, to look at it and to tokenize it."""

    def __init__(self, config: TrainConfig, task: Task, tokenizer: Any, told: _Told, out: Path) -> None:  # noqa: ANN401
        self._config, self._task, self._tokenizer, self._told, self._out = config, task, tokenizer, told, out

    def run(self) -> None:
        """Write every file but the manifest; raises `RunError` where no row would be trained on, or none held out."""
        table = self._read(self._config.data)
        labels = sorted(table.report.labels)
        held, own = self._hold_out(table, labels)
        rest: list[Row] = []
        truncated, trained = self._write_train(_divided(table, held, rest), len(held) - int(held.sum()), labels)
        cut, kept = self._write_held_out(rest if own is None else own, labels)
        if not trained or not kept:
            raise RunError("No row is short enough.", "Every answer lies beyond the longest length.",
                           "Raise the longest length, or use shorter texts.")  # fmt: skip
        facts = {"report": asdict(table.report), "truncated": truncated, "held_out": kept, "held_out_truncated": cut}
        files.write_json(self._out / FACTS, facts)

    def _read(self, path: str) -> Table:
        told, config = self._told, self._config
        table = read_table(
            Path(path), self._task.answers, config.wanted, config.mapping, seed=config.seed,
            watch=lambda rows, part: told("read", rows, 0, part),
        )  # fmt: skip
        told("read", table.report.rows, table.report.rows, 1.0)
        return table

    def _hold_out(self, table: Table, labels: Sequence[str]) -> tuple[NDArray[np.bool_], list[Row] | None]:
        """The rows of the table not to train on, and those of a file of the user's to hold out instead, or None."""
        if not self._config.held_out_data:
            return split(table.texts, table.labels if labels else None, self._config.held_out), None
        other = self._read(self._config.held_out_data)
        known = [row for row in other.rows() if not labels or row["target"] in labels]
        return np.isin(table.texts, other.texts), known

    def _write_train(self, rows: Iterable[Row], count: int, labels: Sequence[str]) -> tuple[int, int]:
        """Tokenize the rows to train on; how many were cut, and how many written."""
        truncated = done = written = 0
        with writing(self._out / TRAIN, self._task.name) as write:
            for batch in batches(rows):
                outcomes = self._tokenize(batch, labels)
                written += write(tokens for tokens, _ in outcomes if tokens)
                truncated += sum(cut for _, cut in outcomes)
                done += len(batch)
                self._told("tokenize", done, count, done / count)
        return truncated, written

    def _write_held_out(self, rows: Iterable[Row], labels: Sequence[str]) -> tuple[int, list[Row]]:
        """Tokenize the rows held out; how many were cut, and the rows that were written."""
        truncated, kept = 0, []
        with writing(self._out / HELD_OUT, self._task.name) as write:
            for batch in batches(rows):
                outcomes = self._tokenize(batch, labels)
                write(tokens for tokens, _ in outcomes if tokens)
                truncated += sum(cut for _, cut in outcomes)
                kept += [row for row, (tokens, _) in zip(batch, outcomes, strict=True) if tokens]
        return truncated, kept

    def _tokenize(self, rows: Sequence[Row], labels: Sequence[str]) -> list[Outcome]:
        return tokenize(rows, self._tokenizer, self._config, labels, self._task.name)


def _divided(table: Table, held: NDArray[np.bool_], held_out: list[Row]) -> Iterator[Row]:
    """The rows to train on; the others are added to `held_out` on the way."""
    for row, out in zip(table.rows(), held, strict=True):
        if out:
            held_out.append(row)
        else:
            yield row
