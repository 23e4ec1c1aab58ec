"""Preview rows as a base's tokenizer encodes them: lengths in tokens, and a few rows as text with the learned part.

They are encoded by the same functions as in training; of a large file, a sample is.
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
        if self._task != "causal-lm":
            answer = self._text(tokens.learn) if self._task == "seq2seq-lm" else str(row["target"])
            return Rendered(((self._text(tokens.ids), False),), answer, cut)
        labels = to_example(tokens.ids, tokens.learn, self._task)["labels"]
        pairs = groupby(zip(tokens.ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED)
        return Rendered(tuple((self._text([id for id, _ in some]), learned) for learned, some in pairs), cut=cut)

    def _text(self, ids: Sequence[int]) -> str:
        """Decode ids, special tokens included, without the middle of a long text."""
        text = str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]} […] {text[-LONGEST_SHOWN // 2 :]}"

    def _outcomes(self, rows: Sequence[Row], config: TrainConfig) -> list[tuple[TokenizedRow | None, bool]]:
        found = tokenize_rows(rows, self._tokenizer, config, self._labels, self._task)
        return [(tokens, cut) for _, tokens, cut in found]


def bins(longest: int) -> tuple[int, ...]:
    """Return the edges of at most `BINS` bins of a round width, from 0 to beyond `longest`."""
    widths = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    width = next(width for width in widths if width * BINS > longest)
    return tuple(range(0, (longest // width + 2) * width, width))


def _length(tokens: TokenizedRow | None) -> int:
    """Return the tokens of a row; more than any limit where its answer is longer than all limits."""
    return max(len(tokens.ids), len(tokens.learn)) if tokens else LONGEST_LENGTH + 1
