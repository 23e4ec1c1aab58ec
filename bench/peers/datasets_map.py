"""Tokenize a JSONL file with `datasets`, as its documentation says.

`python -m bench.peers.datasets_map FILE TOKENIZER CACHE PROMPT` prints the seconds from the call of `load_dataset`
until the first row can be had. It keeps its results in CACHE and finds them there the next time. It does less than
Graft: no row is checked, no repeat left out, none held out, and the tokens of the answer are not marked.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import disable_progress_bars, load_dataset
from transformers import AutoTokenizer


def main(file: Path, model: Path, cache: Path, prompt: str) -> None:
    """Load, tokenize, and print the seconds and the number of rows."""
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    disable_progress_bars()

    def tokenize(batch: dict[str, list[str]]) -> Any:  # noqa: ANN401 - a mapping of the tokenizer's
        conversations = [
            [{"role": "user", "content": prompt.replace("{text}", text)}, {"role": "assistant", "content": summary}]
            for text, summary in zip(batch["text"], batch["summary"], strict=True)
        ]
        return tokenizer(tokenizer.apply_chat_template(conversations, tokenize=False), add_special_tokens=False)

    started = time.perf_counter()
    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(cache))
    encoded = rows.map(tokenize, batched=True, remove_columns=rows.column_names)
    assert len(encoded[0]["input_ids"]) > 0
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": len(encoded)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
