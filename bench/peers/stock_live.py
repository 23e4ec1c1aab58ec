"""From rows to an answer with the libraries alone: a script that trains and saves, and the server started after it.

    python -m bench.peers.stock_live train JOB.json
    python -m bench.peers.stock_live answer JOB.json

Both print what they measured as JSON, times as Unix seconds. A job is that of `stock_training`; its `held_out` rows are
what is asked, the first of them first.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

from bench.peers.stock_training import make_trainer


def train(job: dict[str, Any]) -> dict[str, float]:
    """Train and save, as PEFT's quick tour does."""
    trainer, _ = make_trainer(job)
    began = time.time()
    trainer.train()
    ended = time.time()
    trainer.model.save_pretrained(job["folder"])
    trainer.processing_class.save_pretrained(job["folder"])
    return {"began": began, "trained": ended}


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Load what was saved and answer."""
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        job["folder"], num_labels=len(job["labels"]), trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(job["folder"], trust_remote_code=False)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = [row["text"] for row in job["held_out"]]
    found = classify(texts[:1])
    answered = time.time()
    found += classify(texts[1:], batch_size=16)
    return {"answered": answered, "answers": [job["labels"][int(one["label"].rpartition("_")[2])] for one in found]}


if __name__ == "__main__":
    act = {"train": train, "answer": answer}[sys.argv[1]]
    print("\n" + json.dumps(act(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
