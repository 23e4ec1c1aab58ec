"""Tokenize rows, one function for each kind of task, and keep them on disk; the loss is over the answer alone.

A data set is a folder as `datasets.Dataset.save_to_disk` writes it, and `datasets.load_from_disk` opens it. It is read
and written with Arrow alone, because importing `datasets` takes 50 MB and half a second of each run.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from models.chat_template import Span, as_messages, encode_batch, neutralize, shorten, truncate
from store import files
from training.config import TrainConfig
from training.data.rows import Row, count_characters

IGNORED = -100
"""Label of a position without loss, in every transformers model."""
BATCH_ROWS = 1_000
BATCH_CHARACTERS = 1_000_000
"""Characters of one batch: a token in the tokenizer takes over a hundred bytes."""
ARROW_FILE, LENGTHS_FILE = "data-00000-of-00001.arrow", "lengths.npy"
SCHEMA = pa.schema({"input_ids": pa.list_(pa.int32()), "learn": pa.list_(pa.int32())})
"""The fields of `TokenizedRow`; a label for every token would double the file."""

Example = dict[str, Any]
"""`{"input_ids": list[int], "labels": int or list[int]}`, the inputs of a model for one row."""


@dataclass(frozen=True)
class TokenizedRow:
    """One row as token ids."""

    ids: list[int]
    """The tokens that the model reads."""
    learn: list[int]
    """The index of the label (text-classification), the tokens of the answer (seq2seq-lm), or (causal-lm) start and end
    of each span of `ids` to learn, one after the other, ends excluded."""


@dataclass(frozen=True)
class Encoded:
    """Examples, and in `kept` the row of each."""

    examples: list[Example]
    kept: list[Row]
    truncated: int
    """Rows that were cut to the longest length, or left out."""


Outcome = tuple[TokenizedRow | None, bool]
"""A row's tokens, None where its answer does not survive the cut to the longest length, and whether it was cut."""


def encode_rows(rows: Iterable[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str], task: str) -> Encoded:  # noqa: ANN401
    """Encode `rows` for `task`, without those whose answer does not survive the cut to `max_length` whole."""
    examples, kept, truncated = [], [], 0
    for row, tokens, cut in tokenize_rows(rows, tokenizer, config, labels, task):
        truncated += cut
        if tokens:
            examples.append(to_example(tokens.ids, tokens.learn, task))
            kept.append(row)
    return Encoded(examples, kept, truncated)


def tokenize_rows(
    rows: Iterable[Row],
    tokenizer: Any,  # noqa: ANN401
    config: TrainConfig,
    labels: Sequence[str],
    task: str,
) -> Iterator[tuple[Row, TokenizedRow | None, bool]]:
    """Yield each row, its tokens, and whether it was cut to `max_length`.

    Tokens are None where the answer does not survive the cut. Rows go through the tokenizer in batches, each as if it
    were alone.
    """
    for batch in batches(rows):
        for row, outcome in zip(batch, TOKENIZE[task](batch, tokenizer, config, labels), strict=True):
            yield row, *outcome


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in batches that tokenize in little memory."""
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += count_characters(row)
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def to_example(ids: list[int], learn: Sequence[int], task: str) -> Example:
    """Return the model inputs for the fields of a `TokenizedRow`."""
    if task == "text-classification":
        return {"input_ids": ids, "labels": learn[0]}
    if task == "seq2seq-lm":
        return {"input_ids": ids, "labels": list(learn)}
    labels = [IGNORED] * len(ids)
    for start, end in zip(learn[::2], learn[1::2], strict=True):
        labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels}


def count_learned(learn: Sequence[int], task: str) -> int:
    """Return the number of learned tokens of a row; 1 for a label."""
    return sum(learn[1::2]) - sum(learn[::2]) if task == "causal-lm" else len(learn)


def conversation(row: Row, prompt: str) -> list[dict[str, str]]:
    """Return a row as chat messages, the answer last."""
    if "messages" in row:
        return list(row["messages"])
    return as_messages(row["text"], prompt, row["target"])


def source_text(messages: Sequence[Mapping[str, str]]) -> str:
    """Return the input of an encoder-decoder for a conversation: everything before the answer."""
    return "\n".join(message["content"] for message in messages[:-1])


def _label(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> list[Outcome]:  # noqa: ANN401
    texts = truncate(tokenizer, [row["text"] for row in rows], config.max_length)
    return [
        (TokenizedRow(text.inputs["input_ids"], [labels.index(row["target"])]), text.tokens > config.max_length)
        for row, text in zip(rows, texts, strict=True)
    ]


def _causal(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> list[Outcome]:  # noqa: ANN401
    encoded = encode_batch(tokenizer, [conversation(row, config.prompt) for row in rows])
    excess = [len(ids) - config.max_length for ids, _ in encoded]
    long = [i for i, row in enumerate(rows) if excess[i] > 0 and "text" in row]
    if long:
        # The end of the text is cut, as when answering, and not the answer.
        shorter = shorten(tokenizer, [rows[i]["text"] for i in long], [excess[i] for i in long])
        again = [conversation({**rows[i], "text": s[0]}, config.prompt) for i, s in zip(long, shorter, strict=True)]
        for i, one in zip(long, encode_batch(tokenizer, again), strict=True):
            encoded[i] = one
    return [(_keep_end(*one, config.max_length), over > 0) for one, over in zip(encoded, excess, strict=True)]


def _keep_end(ids: list[int], spans: Sequence[Span], longest: int) -> TokenizedRow | None:
    """Return the last `longest` tokens; None where these lack a part of the last answer, or anything before it."""
    cut = max(0, len(ids) - longest)
    if not spans or spans[-1][0] <= cut:
        return None
    kept = [(max(0, start - cut), end - cut) for start, end in spans if end > cut]
    return TokenizedRow(ids[cut:], [edge for span in kept for edge in span])


def _seq2seq(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> list[Outcome]:  # noqa: ANN401
    messages = [conversation(row, config.prompt) for row in rows]
    sources = truncate(tokenizer, [source_text(some) for some in messages], config.max_length)
    answers = [neutralize(tokenizer, some[-1]["content"]) for some in messages]
    targets = tokenizer(text_target=answers)["input_ids"]
    return [
        (None, True)
        if len(target) > config.max_length
        else (TokenizedRow(source.inputs["input_ids"], target), source.tokens > config.max_length)
        for source, target in zip(sources, targets, strict=True)
    ]


def last_answer(learned: Sequence[bool]) -> int:
    """Return the index where the last run of learned tokens begins; 0 where nothing is learned."""
    end = next((i + 1 for i in reversed(range(len(learned))) if learned[i]), 0)
    return next((i + 1 for i in reversed(range(end)) if not learned[i]), 0)


TOKENIZE: Mapping[str, Callable[[Sequence[Row], Any, TrainConfig, Sequence[str]], list[Outcome]]] = {
    "text-classification": _label,
    "causal-lm": _causal,
    "seq2seq-lm": _seq2seq,
}


class TokenDataset(Sequence[Example]):
    """A data set on disk, mapped into memory: `dataset[i]` is the example of row i."""

    def __init__(self, folder: Path, task: str) -> None:
        self._task = task
        table = pa.ipc.open_stream(pa.memory_map(str(folder / ARROW_FILE))).read_all()
        self._ids, self._learn = table["input_ids"], table["learn"]
        self.lengths, self.learned = np.load(folder / LENGTHS_FILE)
        """Tokens of each row's `input_ids`, and its learned tokens, which is 1 for a label: (rows,) of int32."""

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an example, or a list of them for a slice
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        ids, learn = (np.from_dlpack(column[index].values).tolist() for column in (self._ids, self._learn))
        return to_example(ids, learn, self._task)


def write_dataset(folder: Path, rows: Iterable[TokenizedRow], task: str, fingerprint: str) -> int:
    """Write rows as a new data set; returns their largest token."""
    folder.mkdir()
    rows, lengths, learned, largest = iter(rows), array("i"), array("i"), 0
    with pa.OSFile(str(folder / ARROW_FILE), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        while batch := list(islice(rows, BATCH_ROWS)):
            ids, learn = [row.ids for row in batch], [row.learn for row in batch]
            lengths.extend(map(len, ids))
            learned.extend(count_learned(values, task) for values in learn)
            # An encoder-decoder learns tokens; others learn labels, or spans of what they read.
            largest = max(largest, *map(max, [*ids, *learn] if task == "seq2seq-lm" else ids))
            writer.write_batch(pa.record_batch([_as_lists(ids), _as_lists(learn)], schema=SCHEMA))
    np.save(folder / LENGTHS_FILE, np.array([lengths, learned], np.int32))
    # Every key that `datasets.load_from_disk` reads.
    state: dict[str, Any] = {"_data_files": [{"filename": ARROW_FILE}], "_split": folder.name}
    state |= {"_fingerprint": fingerprint, "_format_columns": None, "_format_kwargs": {}, "_format_type": None}
    files.write_json(folder / "state.json", state | {"_output_all_columns": False})
    files.write_json(folder / "dataset_info.json", {})
    return largest


def _as_lists(rows: Sequence[Sequence[int]]) -> pa.Array:
    """Return Arrow's lists of int32."""
    ends = np.cumsum([0, *map(len, rows)])
    return pa.ListArray.from_arrays(_as_numbers(ends), _as_numbers([value for row in rows for value in row]))


def _as_numbers(values: Any) -> pa.Array:  # noqa: ANN401 - anything that makes an array
    """Return Arrow's int32. `pa.array` would import pandas, which takes 60 MB."""
    array = np.array(values, np.int32)
    return pa.Array.from_buffers(pa.int32(), len(array), [None, pa.py_buffer(array)])
