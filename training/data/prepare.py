"""Prepare the rows of a run: read, split and tokenize them, and cache the result on disk.

    home/data/prepared/<key>/   train/  held_out/  dataset_dict.json  prepared.json  manifest.json

The folder is a `datasets.DatasetDict`: `datasets.load_from_disk` opens it. The key is a hash of everything that decides
its content, and the fingerprint of the data that a run is bound to. A folder appears whole or not at all; a damaged one
is made again. Rows to train on are mapped into memory; the few held-out ones are loaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain, compress
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import transformers

from errors import DataError, RunError
from settings import Settings
from store import files, staging
from tasks import Task
from training.config import TrainConfig
from training.data.files.formats import Limits, is_selection, parts, read_selection, title
from training.data.inspect.report import Report, by_count, check_asks, check_learnable, nothing_known
from training.data.replay import CorrectionRows, choose_replayed, hash_corrections, read_corrections
from training.data.rows import Answers, Row
from training.data.split import split
from training.data.table import Mask, Table, changed, read_table
from training.data.tokens import Encoded, TokenDataset, TokenizedRow, tokenize_rows, write_dataset
from training.events import Events

FORMAT = 4
"""Version of reading, splitting and encoding. It is part of the key: another one ends every run that is paused."""
LAYOUT = {"layout": "datasets"}
"""Version of the files; a folder with another one is made again, with the same rows under the same key."""
EVENT_SECONDS = 0.5
CORRECTION_FIELDS = ("correction_weight", "replay_rows")
TRAIN, HELD_OUT, FACTS = "train", "held_out", "prepared.json"
encode_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Prepared:
    """Tokenized rows to train on and to hold out. Their folder is not evicted as long as this object lives."""

    train: TokenDataset
    held_out: Encoded
    validation: TokenDataset
    """The rows of `held_out`, on disk."""
    report: Report
    labels: list[str]
    """The labels of a classifier, in the order of its logits."""
    largest_token: int
    truncated: int
    """Number of rows to train on that were cut to the longest length, or left out because their answer was too long."""
    fingerprint: str
    """Hash of everything that decides the content of `train` and `held_out`."""
    sha256: str
    """Hash of the file of rows; empty where there are corrections alone."""
    corrections: CorrectionRows
    """Rows that are always in `train`, once or several times."""
    replayed: int
    """Number of the rows of the file that are in `train`."""
    alone: bool
    """True where no row could be held out, so that `held_out` has the corrections that are trained on."""
    use: files.SharedLock


def prepare(
    config: TrainConfig,
    task: Task,
    tokenizer: Any,  # noqa: ANN401
    settings: Settings,
    events: Events,
    known: Sequence[str] = (),
) -> Prepared:
    """Return the tokenized rows of `config`, from the cache under the home of `settings` or made anew.

    `known` are the labels of the version that training starts from: corrections need not name them all. Other prepared
    data is removed, least recently used first, until all of it takes at most `settings.cache_bytes`.
    Emits `prepare` events: stage (hash, read or tokenize), done, rows (bytes of a hash; 0: unknown), part (0..1).
    Raises `DataError` and `RunError` where there is nothing to train on.
    """
    progress, root, before = _Progress(events), settings.home / "data" / "prepared", _stamps(config)
    known = sorted(known) if config.corrections else []
    facts = {**_facts(config, task, tokenizer, progress), "known": known}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    use, corrections = files.SharedLock(_use_of(root, key)), read_corrections(config, task.answers)

    def build(work: Path, out: Path) -> None:
        # The rows are written once for themselves and once as tokens, of about the same size.
        make_room(root, settings.cache_bytes - 2 * sum(size for size, *_ in before))
        preparation = _Preparation(config, task, tokenizer, progress, Limits(rows=settings.rows), corrections)
        preparation.run(work / "rows.jsonl", out, key, known)
        if _stamps(config) != before:
            raise changed(Path(config.data))

    folder = staging.place(root, key, LAYOUT, build, hashes=True)
    make_room(root, settings.cache_bytes)
    found = files.read_json(folder / FACTS)
    report = replace(Report.from_json(json.dumps(found["report"])), file=title(Path(config.data or config.corrections)))
    validation = TokenDataset(folder / HELD_OUT, task.name)
    return Prepared(
        train=TokenDataset(folder / TRAIN, task.name),
        held_out=Encoded(validation[:], found["held_out"], found["held_out_truncated"]),
        validation=validation,
        report=report,
        labels=found["labels"],
        largest_token=found["largest_token"],
        truncated=found["truncated"],
        fingerprint=key,
        sha256=facts["files"][0][1] if config.data else "",
        corrections=corrections,
        replayed=found["replayed"],
        alone=found["alone"],
        use=use,
    )


def make_room(root: Path, budget: int) -> None:
    """Remove leftovers of killed processes, and unused data, least recently used first, down to `budget` bytes."""
    staging.sweep(root)
    folders = [path for path in root.glob("*") if not path.name.startswith(".")]
    sizes = {folder: _size(folder) for folder in folders}
    used = {folder: use.stat().st_mtime for folder in folders if (use := _use_of(root, folder.name)).exists()}
    for folder in sorted(folders, key=lambda folder: used.get(folder, 0.0)):
        if sum(sizes.values()) <= budget:
            return
        with files.try_lock(_use_of(root, folder.name)) as unused:
            if unused:
                staging.discard(root, folder.name)
                del sizes[folder]


def _use_of(root: Path, key: str) -> Path:
    return root / f".{key}.use"


def _size(folder: Path) -> int:
    # Another process may remove it at this moment.
    with suppress(FileNotFoundError):
        return sum(file.stat().st_size for file in folder.rglob("*"))
    return 0


def _files(config: TrainConfig) -> list[Path]:
    return [Path(name) for name in (config.data, config.held_out_data) if name]


def _stamps(config: TrainConfig) -> list[tuple[int, int, int]]:
    """Return size, time and inode of each file, which change when it is written. Raises `DataError`."""
    stamps = []
    for path in (part for file in _files(config) for part in parts(file)):
        if not path.is_file():
            raise DataError(f"{path.name} is not there.", "", "Check the path of the file.")
        found = path.stat()
        stamps.append((found.st_size, found.st_mtime_ns, found.st_ino))
    return stamps


def _facts(config: TrainConfig, task: Task, tokenizer: Any, progress: _Progress) -> dict[str, Any]:  # noqa: ANN401
    """Return everything that decides the prepared data. Paused runs are bound to it: names and values stay."""
    chosen = ("columns", "mapping", "prompt", "max_length", "seed", "held_out")
    corrections = {"corrections": hash_corrections(config)} if config.corrections else {}
    return {
        "format": FORMAT,
        "task": task.name,
        "files": [[path.suffix.lower(), _hash(path, progress)] for path in _files(config)],
        "tokenizer": _tokenizer_facts(tokenizer),
        "libraries": [tokenizers.__version__, transformers.__version__],
        **{name: getattr(config, name) for name in (*chosen, *(CORRECTION_FIELDS if corrections else ()))},
        **corrections,
    }


def _hash(path: Path, progress: _Progress) -> str:
    if is_selection(path):
        hashes = [[part.suffix.lower(), _hash(part, progress)] for part in parts(path)]
        labels = json.dumps(read_selection(path).labels, sort_keys=True)
        return hashlib.sha256(json.dumps([labels, hashes]).encode()).hexdigest()
    size = path.stat().st_size
    return files.sha256(path, lambda done: progress("hash", done, size, done / max(1, size)))


def _tokenizer_facts(tokenizer: Any) -> list[Any]:  # noqa: ANN401
    """Return what decides the ids of a text, without the state that truncation and padding leave in a tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = json.loads(backend.to_str()) if backend else tokenizer.get_vocab()
    content = {name: part for name, part in state.items() if name not in ("truncation", "padding")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return [type(tokenizer).__name__, digest, special, tokenizer.chat_template, tokenizer.truncation_side]


class _Progress:
    """Emits `prepare` events, at most a few a second, and one at the end of each stage."""

    def __init__(self, events: Events) -> None:
        self._events, self._at = events, 0.0

    def __call__(self, stage: str, done: int, rows: int, part: float) -> None:
        if done == rows or time.monotonic() - self._at >= EVENT_SECONDS:
            self._at = time.monotonic()
            self._events.emit("prepare", stage=stage, done=done, rows=rows, part=round(part, 4))


@dataclass(frozen=True)
class _Preparation:
    """The making of one folder: the data is read once into a scratch file of rows, and tokenized from there."""

    config: TrainConfig
    task: Task
    tokenizer: Any
    progress: _Progress
    limits: Limits
    corrections: CorrectionRows

    def run(self, scratch: Path, out: Path, key: str, known: Sequence[str]) -> None:
        """Write every file but the manifest; raises `RunError` where no row would be trained on, or none held out."""
        config, corrections, remaining = self.config, self.corrections, list[Row]()
        repeated = corrections.rows * config.correction_weight
        rows, replayed, own, kept = iter(repeated), 0, None, list[Row]()
        table = self._read_to(scratch) if config.data else None
        report = table.report if table else report_on(corrections, config)
        labels = sorted({*report.labels, *corrections.labels, *known}) if self.task.answers == "label" else []
        if table:
            corrected = np.isin(table.texts, corrections.digests(config.seed))
            held_out, own = self._hold_out(table, corrected, labels)
            chosen = choose_replayed(table.texts, table.labels, ~held_out & ~corrected, config.replay_rows)
            replayed = int(chosen.sum())
            rows = chain(_divide(scratch, table.usable, held_out, chosen, remaining), rows)
        truncated, trained, largest = self._write(out / TRAIN, key, rows, labels, replayed + len(repeated))
        compared = remaining if own is None else own
        cut, _, other = self._write(out / HELD_OUT, key, compared or corrections.rows, labels, 0, kept.append)
        if not trained or not kept:
            why = "Every answer lies beyond the longest length."
            raise RunError("No row is short enough.", why, "Raise the longest length, or use shorter texts.")
        facts = {
            "report": asdict(report),
            "labels": labels,
            "held_out": kept,
            "held_out_truncated": cut,
            "truncated": truncated,
            "largest_token": max(largest, other),
            "replayed": replayed,
            "alone": not compared,
        }
        files.write_json(out / FACTS, facts)
        files.write_json(out / "dataset_dict.json", {"splits": [TRAIN, HELD_OUT]})

    def _read_to(self, scratch: Path) -> Table:
        """Read the data of the run, writing every row that can be made to `scratch`."""
        with scratch.open("w", encoding="utf-8") as file:
            return self._read(self.config.data, lambda row: file.write(encode_json(row) + "\n"), check_learnable)

    def _read(self, path: str, keep: Callable[[Row], object], check: Callable[[Report, Answers], None]) -> Table:
        config, progress = self.config, self.progress
        table = read_table(
            Path(path),
            self.task.answers,
            config.tab_columns,
            config.mapping,
            self.limits,
            config.seed,
            watch=lambda rows, share: progress("read", rows, 0, share),
            keep=keep,
            check=check,
        )
        progress("read", table.report.rows, table.report.rows, 1.0)
        return table

    def _hold_out(self, table: Table, corrected: Mask, labels: Sequence[str]) -> tuple[Mask, list[Row] | None]:
        """Return the mask of rows not to train on, and the rows of the user's held-out file, None without one.

        Questions of corrections are never held out.
        """
        if not self.config.held_out_data:
            return split(table.texts, table.labels if labels else None, self.config.held_out) & ~corrected, None
        rows: list[Row] = []
        other = self._read(self.config.held_out_data, rows.append, check_asks)
        known = [row for row in compress(rows, other.usable) if not labels or row["target"] in labels]
        if not known:
            raise nothing_known(other.report, labels)
        return other.contains(table.texts, table.normalized), self.corrections.exclude_corrected(known)

    def _write(
        self,
        folder: Path,
        key: str,
        rows: Iterable[Row],
        labels: Sequence[str],
        count: int,
        keep: Callable[[Row], object] = lambda row: None,
    ) -> tuple[int, int, int]:
        """Write tokenized rows as a data set, and call `keep` with each row; `count` rows, 0 to show no progress.

        Returns the number of rows that were cut, the number written, and the largest token.
        """
        truncated = done = written = 0

        def tokenized() -> Iterator[TokenizedRow]:
            nonlocal truncated, done, written
            for row, tokens, cut in tokenize_rows(rows, self.tokenizer, self.config, labels, self.task.name):
                done, truncated = done + 1, truncated + cut
                if count:
                    self.progress("tokenize", done, count, done / count)
                if tokens:
                    written += 1
                    keep(row)
                    yield tokens

        largest = write_dataset(folder, tokenized(), self.task.name, f"{key}-{folder.name}")
        return truncated, written, largest


def _divide(scratch: Path, usable: Mask, held_out: Mask, chosen: Mask, remaining: list[Row]) -> Iterator[Row]:
    """Yield the `chosen` ones of the usable rows; those `held_out` are appended to `remaining` on the way."""
    with scratch.open(encoding="utf-8") as file:
        for line, is_held_out, is_chosen in zip(compress(file, usable), held_out, chosen, strict=True):
            if is_held_out:
                remaining.append(json.loads(line))
            elif is_chosen:
                yield json.loads(line)


def report_on(corrections: CorrectionRows, config: TrainConfig) -> Report:
    """Return the report on corrections without other rows."""
    count, labels = len(corrections.rows), Counter(row["target"] for row in corrections.rows if "target" in row)
    return Report("", "JSONL", count, count, mapping=dict(config.columns), labels=by_count(labels))
