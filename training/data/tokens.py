"""Rows as token ids, in batches, one function for each kind of task; the answer alone is learned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.chat_template import Span, as_messages, as_text, encode_batch, neutralize, shorten, truncate
from training.config import TrainConfig
from training.data.rows import Row, texts_of

IGNORED = -100
"""The label of a position that no loss is computed for, in every transformers model."""
BATCH_ROWS = 1_000
BATCH_CHARACTERS = 1_000_000
"""Of the texts of one batch; a token on its way through the tokenizer takes over a hundred bytes."""

Example = dict[str, Any]
"""`{"input_ids": list[int], "labels": int or list[int]}`, as a model takes it."""


@dataclass(frozen=True)
class Tokens:
    """One row as token ids, as compact as it goes to disk."""

    ids: list[int]
    """What the model reads."""
    learn: list[int]
    """What it learns: a label; or the ids of an encoder-decoder's answer; or where runs of `ids` start and end."""


@dataclass(frozen=True)
class Encoded:
    """Rows as a model takes them. `kept` are the rows that have something to learn, in order, one an example."""

    examples: list[Example]
    kept: list[Row]
    truncated: int
    """Rows that were cut to the longest length."""


Outcome = tuple[Tokens | None, bool]
"""A row's tokens, or None where its answer does not survive the cut to the longest length; and whether it was cut."""


def encode_rows(rows: Iterable[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str], task: str) -> Encoded:  # noqa: ANN401
    """Encode `rows` for `task`; rows whose answer does not survive the cut to `max_length` whole are left out."""
    examples, kept, truncated = [], [], 0
    for batch in batches(rows):
        for row, (tokens, cut) in zip(batch, tokenize(batch, tokenizer, config, labels, task), strict=True):
            truncated += cut
            if tokens:
                examples.append(to_example(tokens.ids, tokens.learn, task))
                kept.append(row)
    return Encoded(examples, kept, truncated)


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in batches that tokenize in little memory."""
    batch: list[Row] = []
    characters = 0
    for row in rows:
        batch.append(row)
        characters += sum(map(len, texts_of(row)))
        if len(batch) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def tokenize(
    rows: Sequence[Row],
    tokenizer: Any,  # noqa: ANN401
    config: TrainConfig,
    labels: Sequence[str],
    task: str,
) -> list[Outcome]:
    """One batch, a call or two of the tokenizer; each row as if it were alone."""
    return TOKENIZE[task](rows, tokenizer, config, labels)


def to_example(ids: list[int], learn: Sequence[int], task: str) -> Example:
    """`Tokens` as a model takes them."""
    if task == "text-classification":
        return {"input_ids": ids, "labels": learn[0]}
    if task == "seq2seq-lm":
        return {"input_ids": ids, "labels": list(learn)}
    labels = [IGNORED] * len(ids)
    for start, end in zip(learn[::2], learn[1::2], strict=True):
        labels[start:end] = ids[start:end]
    return {"input_ids": ids, "labels": labels}


def count_learned(learn: Sequence[int], task: str) -> int:
    """How many tokens of a row are learned; 1 for a label."""
    return sum(learn[1::2]) - sum(learn[::2]) if task == "causal-lm" else len(learn)


def conversation(row: Row, prompt: str) -> list[dict[str, str]]:
    """A row of either kind as chat messages, the answer last."""
    if "messages" in row:
        return [{"role": m["role"], "content": as_text(m["content"])} for m in row["messages"]]
    return as_messages(row["text"], prompt, row["target"])


def source_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What an encoder-decoder reads of a conversation: everything before the answer."""
    return "\n".join(as_text(m["content"]) for m in messages[:-1])


def _label(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> list[Outcome]:  # noqa: ANN401
    texts = truncate(tokenizer, [row["text"] for row in rows], config.max_length)
    return [
        (Tokens(text.inputs["input_ids"], [labels.index(row["target"])]), text.tokens > config.max_length)
        for row, text in zip(rows, texts, strict=True)
    ]


def _causal(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> list[Outcome]:  # noqa: ANN401
    encoded = encode_batch(tokenizer, [conversation(row, config.prompt) for row in rows])
    excess = [len(ids) - config.max_length for ids, _ in encoded]
    long = [i for i, row in enumerate(rows) if excess[i] > 0 and "text" in row]
    if long:
        # The text is cut, not the answer: the same end of the text that is cut when answering.
        shorter = shorten(tokenizer, [rows[i]["text"] for i in long], [excess[i] for i in long])
        again = [conversation({**rows[i], "text": s[0]}, config.prompt) for i, s in zip(long, shorter, strict=True)]
        for i, one in zip(long, encode_batch(tokenizer, again), strict=True):
            encoded[i] = one
    return [(_last(*one, config.max_length), over > 0) for one, over in zip(encoded, excess, strict=True)]


def _last(ids: list[int], spans: Sequence[Span], longest: int) -> Tokens | None:
    """The last tokens of a conversation; None where its last answer would be cut, or would answer nothing."""
    cut = max(0, len(ids) - longest)
    if not spans or spans[-1][0] <= cut:
        return None
    kept = [(max(0, start - cut), end - cut) for start, end in spans if end > cut]
    return Tokens(ids[cut:], [edge for span in kept for edge in span])


def _seq2seq(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> list[Outcome]:  # noqa: ANN401
    messages = [conversation(row, config.prompt) for row in rows]
    sources = truncate(tokenizer, [source_text(some) for some in messages], config.max_length)
    answers = [neutralize(tokenizer, some[-1]["content"]) for some in messages]
    targets = tokenizer(text_target=answers)["input_ids"]
    return [
        (None, True)
        if len(target) > config.max_length
        else (Tokens(source.inputs["input_ids"], target), source.tokens > config.max_length)
        for source, target in zip(sources, targets, strict=True)
    ]


def last_answer(learned: Sequence[bool]) -> int:
    """Where the last answer begins: the first of the last learned tokens in a row; 0 where nothing is learned."""
    end = next((i + 1 for i in reversed(range(len(learned))) if learned[i]), 0)
    return next((i + 1 for i in reversed(range(end)) if not learned[i]), 0)


TOKENIZE: Mapping[str, Callable[[Sequence[Row], Any, TrainConfig, Sequence[str]], list[Outcome]]] = {
    "text-classification": _label,
    "causal-lm": _causal,
    "seq2seq-lm": _seq2seq,
}


SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "learn": pa.list_(pa.int32()),  # as in `Tokens`: labels of every token would double the file
        "length": pa.int32(),
        "learned": pa.int32(),
    }
)


class Examples(Sequence[Example]):
    """The rows of a file, mapped into memory: `examples[i]` is `{"input_ids": list, "labels": int or list}`."""

    def __init__(self, path: Path, task: str) -> None:
        self._path, self._task = path, task
        self._table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self._ids, self._learn = self._table["input_ids"], self._table["learn"]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - an example for a place, a list of them for a slice
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        ids, learn = (np.from_dlpack(column[index].values).tolist() for column in (self._ids, self._learn))
        return to_example(ids, learn, self._task)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row's `input_ids`."""
        return self._numbers("length")

    @cached_property
    def learned(self) -> NDArray[np.int32]:
        """Tokens that are learned of each row; 1 for a label."""
        return self._numbers("learned")

    @property
    def largest(self) -> int:
        """The largest token of all rows, of what is read and of what is learned."""
        # An encoder-decoder learns tokens; others learn labels, or places of what they read.
        names, largest = ("input_ids", "learn") if self._task == "seq2seq-lm" else ("input_ids",), 0
        # Read and let go: pages of the mapped file that were looked at would all stay in memory.
        with pa.OSFile(str(self._path)) as file, pa.ipc.open_file(file) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                largest = max(largest, *(int(np.from_dlpack(batch[name].values).max(initial=0)) for name in names))
        return largest

    def _numbers(self, name: str) -> NDArray[np.int32]:
        chunks = [np.from_dlpack(chunk) for chunk in self._table[name].chunks]
        return np.concatenate(chunks) if chunks else np.zeros(0, np.int32)


@contextmanager
def writing(path: Path, task: str) -> Iterator[Callable[[Iterable[Tokens]], int]]:
    """A function that appends rows to an Arrow file and says how many."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:

        def write(rows: Iterable[Tokens]) -> int:
            some = list(rows)
            arrays = [
                _lists([tokens.ids for tokens in some]),
                _lists([tokens.learn for tokens in some]),
                _numbers([len(tokens.ids) for tokens in some]),
                _numbers([count_learned(tokens.learn, task) for tokens in some]),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
            return len(some)

        yield write


def _numbers(values: Sequence[int]) -> pa.Array:
    """Arrow's int32."""
    array = np.array(values, np.int32)
    return pa.Array.from_buffers(pa.int32(), len(array), [None, pa.py_buffer(array)])


def _lists(rows: Sequence[Sequence[int]]) -> pa.Array:
    """Arrow's lists of int32."""
    ends = np.cumsum([0, *map(len, rows)])
    return pa.ListArray.from_arrays(_numbers(ends.tolist()), _numbers([value for row in rows for value in row]))
