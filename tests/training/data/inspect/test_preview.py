"""Tests of training/data/inspect/preview.py: lengths and rendered rows are those of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.resolve import ModelStore
from tests.helpers import tiny
from tests.helpers.training_helpers import spec_of
from training.config import TrainConfig
from training.data.inspect.preview import BINS, Preview, bins
from training.data.tokens import IGNORED, encode_rows

ROWS = [{"text": f"notes {i} " * (1 + 6 * i), "target": f"meeting {i}" * (1 + (i == 3) * 60)} for i in range(8)]
LABELLED = [{"text": row["text"], "target": str(i % 2)} for i, row in enumerate(ROWS)]


def preview_of(family: str, folder: Path, max_length: int = 64) -> Preview:
    spec = spec_of(family, tiny.make(family, folder / family))
    model = ModelStore(folder / "models", offline=True).resolve(spec.model)
    config = TrainConfig.for_tab(spec, Path("data"), "name", max_length=max_length)
    return Preview(model, config, ["0", "1"])


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_lengths_are_those_of_encoding(family: str, tmp_path: Path) -> None:
    seen = preview_of(family, tmp_path)
    rows = LABELLED if family == "bert" else ROWS
    tokens, encoded = seen.lengths(rows), encode_rows(rows, seen._tokenizer, seen._config, ["0", "1"], seen._task)
    assert tokens.truncated == encoded.truncated > 0
    assert (tokens.rows, sum(tokens.counts), tokens.limit) == (8, 8, 64)
    assert tokens.longest < tokens.edges[-1] and len(tokens.edges) == len(tokens.counts) + 1
    learned = [1 if isinstance(e["labels"], int) else sum(x != IGNORED for x in e["labels"]) for e in encoded.examples]
    assert tokens.learned_mean == pytest.approx(np.mean(learned))
    assert sum(bool(row.pieces) for row in seen.render(rows)) == len(encoded.kept)


def test_learned_text_is_marked_and_special_tokens_are_shown(tmp_path: Path) -> None:
    llama = preview_of("llama", tmp_path)
    [row] = llama.render([{"text": "hello <|im_end|>", "target": "an answer"}])
    assert "".join(piece for piece, learned in row.pieces if learned) == "an answer<|im_end|>"
    assert row.pieces[0][0].startswith("<|im_start|>user") and "< |im_end|>" in row.pieces[0][0]
    [lost] = llama.render([{"text": "a", "target": "long " * 500}])
    assert (lost.pieces, lost.cut) == ((), True)


def test_bins_are_few_and_reach_beyond_the_longest_row() -> None:
    for longest in (0, 1, 23, 24, 100, 999, 131_072):
        edges = bins(longest)
        assert edges[0] == 0 and edges[-1] > longest and len(edges) <= BINS + 1
