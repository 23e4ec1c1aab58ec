"""Rows as training will see them, before it begins: how long they are in tokens, and a few of them as they are read.

What is told is what training does: the same rows through the same functions, on a sample where the file is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig

from models.resolve import Model
from models.tokenizer import load_tokenizer, window
from tasks import task_for
from training.config import LONGEST_LENGTH, TrainConfig
from training.data.inspect.report import Rendered, Tokens
from training.data.rows import Row
from training.data.tokens import IGNORED, Outcome, batches, count_learned, to_example, tokenize
from training.data.tokens import Tokens as Encoded

ROWS, CHARACTERS = 2_000, 2_000_000
"""Of the rows that are tokenized at most: a second or two."""
LONGEST_SHOWN = 4_000
"""Characters of one piece of a rendered row."""
BINS = 24
NICE = (1, 2, 5)


class Preview:
    """A base's tokenizer and a configuration, and what they make of rows."""

    def __init__(self, model: Model, config: TrainConfig, labels: Sequence[str]) -> None:
        """Raises `ModelError` where the base has no tokenizer that can be loaded."""
        self._task, self._labels = task_for(config.task, model.config).name, labels
        self._tokenizer = load_tokenizer(model)
        base = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
        self._config = replace(config, max_length=min(config.max_length, window(base, self._tokenizer)))

    def tokens(self, rows: Sequence[Row]) -> Tokens:
        """How long `rows` are, at least one, and what is learned of them. Raises `InputError` as training would."""
        whole = self._outcomes(rows, replace(self._config, max_length=LONGEST_LENGTH))
        lengths = np.array([_length(tokens) for tokens, _ in whole], np.int64)
        long = np.flatnonzero(lengths > self._config.max_length).tolist()
        cut = self._outcomes([rows[i] for i in long], self._config)
        kept = [*(tokens for (tokens, _), n in zip(whole, lengths, strict=True) if n <= self._config.max_length),
                *(tokens for tokens, _ in cut)]  # fmt: skip
        learned = [count_learned(tokens.learn, self._task) for tokens in kept if tokens]
        edges = bins(int(lengths.max()))
        counts, _ = np.histogram(lengths, np.array(edges) - 0.5)
        return Tokens(
            rows=len(rows),
            limit=self._config.max_length,
            edges=edges,
            counts=tuple(counts.tolist()),
            median=round(float(np.median(lengths))),
            p95=_percentile(lengths, 95),
            longest=int(lengths.max()),
            mean=float(lengths.mean()),
            learned_mean=float(np.mean(learned)) if learned else 0.0,
            truncated=len(long),
        )

    def rendered(self, rows: Sequence[Row]) -> tuple[Rendered, ...]:
        """Each of `rows` as it is read, and what of it is learned. Raises `InputError` as training would."""
        outcomes = self._outcomes(rows, self._config)
        return tuple(self._rendered(row, *outcome) for row, outcome in zip(rows, outcomes, strict=True))

    def _rendered(self, row: Row, tokens: Encoded | None, cut: bool) -> Rendered:
        if tokens is None:
            return Rendered((), cut=cut)
        example = to_example(tokens.ids, tokens.learn, self._task)
        if self._task == "causal-lm":
            learned = [label != IGNORED for label in example["labels"]]
        else:
            learned = [False] * len(tokens.ids)
        runs = groupby(zip(tokens.ids, learned, strict=True), key=lambda one: one[1])
        pieces = tuple((self._text([id for id, _ in run]), taught) for taught, run in runs)
        labels = {"text-classification": lambda: str(row["target"]), "seq2seq-lm": lambda: self._text(tokens.learn)}
        return Rendered(pieces, labels.get(self._task, str)(), cut)

    def _text(self, ids: Sequence[int]) -> str:
        """What the ids spell, special tokens included; the middle of a long text is left out."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]} […] {text[-LONGEST_SHOWN // 2 :]}"

    def _outcomes(self, rows: Sequence[Row], config: TrainConfig) -> list[Outcome]:
        return [one for batch in batches(rows)
                for one in tokenize(batch, self._tokenizer, config, self._labels, self._task)]  # fmt: skip


def bins(longest: int) -> tuple[int, ...]:
    """Edges of at most `BINS` bins of a round width, from 0 to beyond `longest`."""
    widths = (nice * 10**power for power in range(9) for nice in NICE)
    width = next(width for width in widths if width * BINS > longest)
    return tuple(range(0, (longest // width + 2) * width, width))


def _percentile(lengths: NDArray[np.int64], percent: float) -> int:
    return int(np.percentile(lengths, percent, method="higher"))


def _length(tokens: Encoded | None) -> int:
    return max(len(tokens.ids), len(tokens.learn)) if tokens else LONGEST_LENGTH + 1
