"""Encoded rows in an Arrow file: written a batch at a time, read in place, one row at a time.

Numbers go in and out of Arrow as buffers. Lists, and its own `to_numpy`, would make it import pandas where that is
installed: 30 MB and a second, to find out that these are no tables of pandas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.encoding import Example, Tokens, count_learned, to_example

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
