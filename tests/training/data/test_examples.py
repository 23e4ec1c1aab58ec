"""training/data/tokens.py: rows that lie on the disk stay there."""

from __future__ import annotations

from pathlib import Path

from training.data.tokens import Examples, Tokens, writing

BATCHES, ROWS, TOKENS = 16, 64, 8192


def mapped_bytes() -> int:
    """Of files, in this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile:")).split()[1]) * 1024


def test_the_largest_token_is_found_and_the_file_is_not_kept_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "train.arrow"
    ids = list(range(TOKENS))
    with writing(path, "causal-lm") as write:
        for number in range(BATCHES):
            last = [Tokens([*ids[:-1], 20_000], [0, 2])] if number == BATCHES // 2 else []
            write([*[Tokens(ids, [0, 2])] * (ROWS - len(last)), *last])
    assert path.stat().st_size > 32e6
    rows = Examples(path, "causal-lm")
    before = mapped_bytes()
    assert rows.largest == 20_000
    assert mapped_bytes() - before < 8e6


def test_an_encoder_decoders_answers_count(tmp_path: Path) -> None:
    path = tmp_path / "train.arrow"
    with writing(path, "seq2seq-lm") as write:
        write([Tokens([1, 2, 3], [4, 900]), Tokens([5], [6])])
    assert Examples(path, "seq2seq-lm").largest == 900
    assert Examples(path, "causal-lm").largest == 5
