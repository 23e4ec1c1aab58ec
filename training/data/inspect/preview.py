"""Rows as training will see them: their lengths in tokens, and a few of them as the model reads them.

The rows go through the same functions as in training; of a large file, a sample of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from transformers import AutoConfig

from models.resolve import Model
from models.tokenizer import load_tokenizer, window
from tasks import task_for
from training.config import LONGEST_LENGTH, TrainConfig
from training.data.inspect.report import Rendered, TokenLengths
from training.data.rows import Row
from training.data.tokens import IGNORED, TokenizedRow, count_learned, to_example, tokenize_rows

LONGEST_SHOWN = 4_000
"""Characters of one piece of a rendered row that are kept."""
BINS = 24
NICE = (1, 2, 5)


class Preview:
    """Rows as the tokenizer of a base encodes them with a configuration."""

    def __init__(self, model: Model, config: TrainConfig, labels: Sequence[str]) -> None:
        """Raises `ModelError` where the base has no tokenizer that can be loaded."""
        self._task, self._labels = task_for(config.task, model.config).name, labels
        self._tokenizer = load_tokenizer(model)
        base = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
        self._config = replace(config, max_length=min(config.max_length, window(base, self._tokenizer)))

    def lengths(self, rows: Sequence[Row]) -> TokenLengths:
        """Return the lengths of `rows`, at least one. Raises `InputError` as training would."""
        whole = self._outcomes(rows, replace(self._config, max_length=LONGEST_LENGTH))
        lengths = np.array([_length(tokens) for tokens, _ in whole], np.int64)
        long = np.flatnonzero(lengths > self._config.max_length).tolist()
        cut = self._outcomes([rows[i] for i in long], self._config)
        short = (outcome for outcome, n in zip(whole, lengths, strict=True) if n <= self._config.max_length)
        learned = [count_learned(tokens.learn, self._task) for tokens, _ in (*short, *cut) if tokens]
        edges = bins(int(lengths.max()))
        counts, _ = np.histogram(lengths, np.array(edges) - 0.5)
        return TokenLengths(
            rows=len(rows),
            limit=self._config.max_length,
            edges=edges,
            counts=tuple(counts.tolist()),
            median=round(float(np.median(lengths))),
            p95=int(np.percentile(lengths, 95, method="higher")),
            longest=int(lengths.max()),
            mean=float(lengths.mean()),
            learned_mean=float(np.mean(learned)) if learned else 0.0,
            truncated=len(long),
        )

    def render(self, rows: Sequence[Row]) -> tuple[Rendered, ...]:
        """Return each of `rows` as the model reads it. Raises `InputError` as training would."""
        outcomes = self._outcomes(rows, self._config)
        return tuple(self._rendered(row, *outcome) for row, outcome in zip(rows, outcomes, strict=True))

    def _rendered(self, row: Row, tokens: TokenizedRow | None, cut: bool) -> Rendered:
        if tokens is None:
            return Rendered((), cut=cut)
        learned = [False] * len(tokens.ids)
        if self._task == "causal-lm":
            learned = [label != IGNORED for label in to_example(tokens.ids, tokens.learn, self._task)["labels"]]
        runs = groupby(zip(tokens.ids, learned, strict=True), key=lambda one: one[1])
        pieces = tuple((self._text([id for id, _ in run]), is_learned) for is_learned, run in runs)
        answers = {"text-classification": lambda: str(row["target"]), "seq2seq-lm": lambda: self._text(tokens.learn)}
        return Rendered(pieces, answers.get(self._task, str)(), cut)

    def _text(self, ids: Sequence[int]) -> str:
        """Decode ids, special tokens included; the middle of a long text is left out."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]} […] {text[-LONGEST_SHOWN // 2 :]}"

    def _outcomes(self, rows: Sequence[Row], config: TrainConfig) -> list[tuple[TokenizedRow | None, bool]]:
        found = tokenize_rows(rows, self._tokenizer, config, self._labels, self._task)
        return [(tokens, cut) for _, tokens, cut in found]


def bins(longest: int) -> tuple[int, ...]:
    """Return the edges of at most `BINS` bins of a round width, from 0 to beyond `longest`."""
    widths = (nice * 10**power for power in range(9) for nice in NICE)
    width = next(width for width in widths if width * BINS > longest)
    return tuple(range(0, (longest // width + 2) * width, width))


def _length(tokens: TokenizedRow | None) -> int:
    return max(len(tokens.ids), len(tokens.learn)) if tokens else LONGEST_LENGTH + 1
