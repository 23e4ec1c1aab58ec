"""Another adapter into a model that runs, with PEFT alone: `load_adapter` and `set_adapter`, as its guide shows them.

A worker (bench/worker.py). Its job: `base` and `adapter`, folders; `kind`, SEQ_CLS with `labels` or CAUSAL_LM; `ids`,
the token ids of the question; `tokens`, the length of a written answer. It is asked with a `folder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from bench.peers.held import device, dtype
from bench.worker import Question, serve


class Swapper:
    """A model with an adapter that gives way to the next one."""

    def __init__(self, job: Question) -> None:
        self._job, self._labels = job, job["labels"]
        self._tokenizer = AutoTokenizer.from_pretrained(job["base"], trust_remote_code=False)
        auto, options = AutoModelForCausalLM, {}
        if job["kind"] == "SEQ_CLS":
            auto, options = AutoModelForSequenceClassification, {"num_labels": len(self._labels)}
        base = auto.from_pretrained(job["base"], dtype=dtype(), trust_remote_code=False, **options)
        self._net = PeftModel.from_pretrained(base.to(device()), job["adapter"], adapter_name="first").eval()
        self._ids = torch.tensor([job["ids"]], device=device())
        self._number = 0

    def __call__(self, question: Question) -> dict[str, Any]:
        """Seconds until it was active, until it had answered, and of a second answer; and what it said."""
        name, self._number = f"swap{self._number}", self._number + 1
        started = time.perf_counter()
        self._net.load_adapter(question["folder"], adapter_name=name)
        self._net.set_adapter(name)
        active = time.perf_counter()
        said = self._answer()
        answered = time.perf_counter()
        self._answer()
        again = time.perf_counter()
        self._net.set_adapter("first")
        self._net.delete_adapter(name)
        return {"active": active - started, "answered": answered - started, "alone": again - answered, "said": said}

    def _answer(self) -> Any:  # noqa: ANN401 - a text, or labels with probabilities
        mask = torch.ones_like(self._ids)
        if self._labels:
            logits = self._net(input_ids=self._ids, attention_mask=mask).logits[0]
            return dict(zip(self._labels, logits.float().softmax(-1).tolist(), strict=True))
        written = self._net.generate(
            input_ids=self._ids, attention_mask=mask, max_new_tokens=self._job["tokens"], do_sample=False,
            pad_token_id=self._tokenizer.pad_token_id,
        )  # fmt: skip
        return self._tokenizer.decode(written[0, self._ids.shape[1] :], skip_special_tokens=True)


def prepare(job: Question) -> Callable[[Question], Any]:
    """A swapper that has warmed up."""
    swapper = Swapper(job)

    def answer(question: Question) -> dict[str, Any]:
        with torch.inference_mode():
            return swapper(question)

    answer({"folder": job["adapter"]})
    return answer


if __name__ == "__main__":
    serve(prepare)
