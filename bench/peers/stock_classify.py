"""Classification with a pipeline: text after text, as a page calls it, and a list of texts in batches.

A worker (bench/worker.py), whose job is that of stock_page.py. It is asked with `texts`, and `batch`, 0 for none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from bench.peers.held import device, dtype
from bench.worker import Question, serve


def classifier(job: Question) -> Any:  # noqa: ANN401 - a pipeline
    """The base with an adapter merged into it, which is as fast as PEFT is."""
    labels = job["labels"]
    net = AutoModelForSequenceClassification.from_pretrained(
        job["classifier"], num_labels=len(labels), id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)}, dtype=dtype(), trust_remote_code=False,
    )  # fmt: skip
    net = PeftModel.from_pretrained(net, job["adapter"]).merge_and_unload().to(device()).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["classifier"], trust_remote_code=False)
    return pipeline("text-classification", model=net, tokenizer=tokenizer)


def prepare(job: Question) -> Callable[[Question], Any]:
    """A pipeline that has warmed up."""
    classify = classifier(job)
    classify("warm")

    def answer(question: Question) -> dict[str, Any]:
        texts, batch = question["texts"], question["batch"]
        started = time.perf_counter()
        found = classify(texts, batch_size=batch) if batch else [classify(text)[0] for text in texts]
        return {"seconds": time.perf_counter() - started, "answers": [[one["label"], one["score"]] for one in found]}

    return answer


if __name__ == "__main__":
    serve(prepare)
