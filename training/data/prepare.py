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
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers
from numpy.typing import NDArray

from errors import DataError, RunError
from settings import Settings
from store import files, staging
from tasks import Task
from training.config import TrainConfig
from training.data.files.formats import Limits
from training.data.files.selection import decides, is_selection, parts, title
from training.data.inspect.report import Report, by_count, check_asks, check_learnable, nothing_known
from training.data.replay import Lessons, digest, read_lessons, replayed
from training.data.rows import Answers, Row
from training.data.split import split
from training.data.table import Table, changed, read_table
from training.data.tokens import Encoded, Examples, Outcome, batches, encode_rows, tokenize, writing
from training.events import Events

FORMAT = 4
"""Of the folder, and of what decides its content: raise it when reading, splitting or encoding changes."""
TOLD_EVERY_S = 0.5
LESSON_FIELDS = ("correction_weight", "replay_rows")
TRAIN, HELD_OUT, FACTS = "train.arrow", "held_out.arrow", "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """What a run trains on and compares with. Kept from removal for as long as this object lives."""

    train: Examples
    held_out: Encoded
    looked_at: Examples
    """The rows of `held_out`, in place."""
    report: Report
    labels: list[str]
    """Of a classifier, in the order of its logits."""
    truncated: int
    """Rows to train on that were cut to the longest length, or left out because their answer would have been."""
    fingerprint: str
    """Of everything that decided what is in `train` and `held_out`."""
    sha256: str
    """Of the file of rows; empty where there are corrections alone."""
    lessons: Lessons
    """Rows that are in `train` whatever else is, once or several times."""
    replayed: int
    """Rows of the file that are in `train`."""
    alone: bool
    """Whether nothing could be held out but what is learned from."""
    use: files.Use


def prepare(
    config: TrainConfig,
    task: Task,
    tokenizer: Any,  # noqa: ANN401
    settings: Settings,
    events: Events,
    known: Sequence[str] = (),
) -> Prepared:
    """The rows of `config` as token ids: found under the home of `settings`, or made there.

    `known` are labels of the version to train on from: corrections need not name them all.

    Other prepared data is removed, what was used longest ago first, while all takes more than `settings.cache_bytes`.
    Tells `prepare` events: stage (hash, read or tokenize), done, rows (of a hash, bytes; 0: unknown), part (0..1).
    Raises `DataError` and `RunError` where there is nothing to train on.
    """
    told, root, before = _Told(events), settings.home / "data" / "prepared", _stamps(config)
    known = sorted(known) if config.corrections else []
    facts = {**_facts(config, task, tokenizer, told), "known": known}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    use = files.Use(_use_of(root, key))

    def build(work: Path, out: Path) -> None:
        make_room(root, settings.cache_bytes - sum(size for size, *_ in before))
        _Preparation(config, task, tokenizer, told, out, known, Limits(rows=settings.rows)).run()
        if _stamps(config) != before:
            raise changed(Path(config.data))

    folder = staging.place(root, key, {}, build, hashes=True)
    make_room(root, settings.cache_bytes)
    found = files.read_json(folder / FACTS)
    report = replace(Report.from_json(json.dumps(found["report"])), file=title(Path(config.data or config.corrections)))
    looked_at = Examples(folder / HELD_OUT, task.name)
    held_out = Encoded(looked_at[:], found["held_out"], found["held_out_truncated"])
    train, lessons = Examples(folder / TRAIN, task.name), read_lessons(config, task.answers)
    sha256 = facts["files"][0][1] if config.data else ""
    return Prepared(train, held_out, looked_at, report, found["labels"], found["truncated"], key, sha256, lessons,
                    found["replayed"], found["alone"], use)  # fmt: skip


def encode_lessons(data: Prepared, config: TrainConfig, task: Task, tokenizer: Any) -> Encoded:  # noqa: ANN401
    """The corrections as a model takes them, each once."""
    return encode_rows(data.lessons.rows, tokenizer, config, data.labels, task.name)


def make_room(root: Path, budget: int) -> None:
    """Remove prepared data until it takes at most `budget` bytes: used longest ago first, never what is in use.

    What preparations that were killed have left goes first.
    """
    staging.sweep(root)
    folders = [path for path in root.glob("*") if not path.name.startswith(".")]
    taken = {folder: _size(folder) for folder in folders}
    for folder in sorted(folders, key=lambda path: _last_used(root, path.name)):
        if sum(taken.values()) <= budget:
            return
        with files.unused(_use_of(root, folder.name)) as unused:
            if unused:
                staging.discard(root, folder.name)
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


def _corrections(config: TrainConfig) -> dict[str, Any]:
    """What decides which rows are gone through beside the file's own; nothing where there are none."""
    if not config.corrections:
        return {}
    return {"corrections": digest(config), **{name: getattr(config, name) for name in LESSON_FIELDS}}


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
        **_corrections(config),
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

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        tokenizer: Any,  # noqa: ANN401
        told: _Told,
        out: Path,
        known: Sequence[str] = (),
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._config, self._task, self._tokenizer, self._told, self._out = config, task, tokenizer, told, out
        self._known, self._limits = known, limits

    def run(self) -> None:
        """Write every file but the manifest; raises `RunError` where no row would be trained on, or none held out."""
        config, lessons = self._config, read_lessons(self._config, self._task.answers)
        table = self._read(config.data) if config.data else None
        report = table.report if table else report_on(lessons, config)
        labels = sorted({*report.labels, *lessons.labels, *self._known}) if self._task.answers == "label" else []
        rest: list[Row] = []
        rows: Iterable[Row] = lessons.rows * config.correction_weight
        replay, own = 0, None
        if table:
            held, own = self._hold_out(table, labels, lessons)
            gone_through = self._replay(table, held, lessons)
            replay = int(gone_through.sum())
            rows = chain(_divided(table, held, gone_through, rest), rows)
        count = replay + len(lessons.rows) * config.correction_weight
        truncated, trained = self._write_train(rows, count, labels)
        held_out = rest if own is None else own
        cut, kept = self._write_held_out(held_out or lessons.rows, labels)
        if not trained or not kept:
            raise RunError("No row is short enough.", "Every answer lies beyond the longest length.",
                           "Raise the longest length, or use shorter texts.")  # fmt: skip
        facts = {"report": asdict(report), "truncated": truncated, "held_out": kept, "held_out_truncated": cut,
                 "labels": labels, "replayed": replay, "alone": not held_out}  # fmt: skip
        files.write_json(self._out / FACTS, facts)

    def _replay(self, table: Table, held: NDArray[np.bool_], lessons: Lessons) -> NDArray[np.bool_]:
        """The rows of the table to go through: none that is held out, none that a correction answers otherwise."""
        free = ~held & ~np.isin(table.texts, lessons.digests(self._config.seed))
        return replayed(table.texts, table.labels, free, self._config.replay_rows)

    def _read(self, path: str, check: Callable[[Report, Answers], None] = check_learnable) -> Table:
        told, config = self._told, self._config
        table = read_table(
            Path(path), self._task.answers, config.wanted, config.mapping, self._limits, config.seed,
            watch=lambda rows, part: told("read", rows, 0, part), check=check,
        )  # fmt: skip
        told("read", table.report.rows, table.report.rows, 1.0)
        return table

    def _hold_out(
        self, table: Table, labels: Sequence[str], lessons: Lessons
    ) -> tuple[NDArray[np.bool_], list[Row] | None]:
        """The rows of the table not to train on, and those of a file of the user's to hold out instead, or None.

        What a correction asks is learned from, and is held out no more.
        """
        if not self._config.held_out_data:
            held = split(table.texts, table.labels if labels else None, self._config.held_out)
            return held & ~np.isin(table.texts, lessons.digests(self._config.seed)), None
        other = self._read(self._config.held_out_data, check_asks)
        known = [row for row in other.rows() if not labels or row["target"] in labels]
        if not known:
            raise nothing_known(other.report, labels)
        return table.asked_in(other), lessons.without_asked(known)

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


def _divided(
    table: Table, held: NDArray[np.bool_], gone_through: NDArray[np.bool_], held_out: list[Row]
) -> Iterator[Row]:
    """The rows to train on; those to hold out are added to `held_out` on the way."""
    for row, out, taken in zip(table.rows(), held, gone_through, strict=True):
        if out:
            held_out.append(row)
        elif taken:
            yield row


def report_on(lessons: Lessons, config: TrainConfig) -> Report:
    """What is said of a file of rows, where there are corrections alone."""
    labels = by_count(Counter(row["target"] for row in lessons.rows if "target" in row))
    count = len(lessons.rows)
    return Report(
        file="", format="JSONL", rows=count, usable=count, columns=(), mapping=dict(config.columns), bad=(),
        reasons={}, duplicates=0, conflicts=0, labels=labels, words={"median": 0, "max": 0}, sample=(), warnings=(),
    )  # fmt: skip
