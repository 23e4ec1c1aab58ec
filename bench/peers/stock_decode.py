"""Batched generation with the libraries alone: `generate`, with one PEFT adapter, and with `adapter_names`.

A worker (bench/worker.py). Its job: `base`, the folder of a model; `adapters`, folders by name; `prompts`, lists of
token ids; `tokens`, the most that an answer has. It is asked `what`: none, one or mixed.
`adapter_names` is used as PEFT's guide on mixed batches shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.peers.held import device, dtype
from bench.worker import Question, serve


class Decoder:
    """The model twice: as it is, and with its adapters."""

    def __init__(self, job: Question) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(job["base"], padding_side="left", trust_remote_code=False)
        self._plain, base = (self._load(job["base"]) for _ in range(2))
        self._names = list(job["adapters"])
        first, *others = job["adapters"].items()
        self._net = PeftModel.from_pretrained(base, first[1], adapter_name=first[0])
        for name, folder in others:
            self._net.load_adapter(folder, adapter_name=name)
        self._net.eval()
        padded = self._tokenizer.pad({"input_ids": job["prompts"]}, return_tensors="pt")
        self._batch, self._tokens = padded.to(base.device), job["tokens"]

    def __call__(self, question: Question) -> dict[str, Any]:
        """Seconds, and the texts."""
        runs: dict[str, Callable[[], Any]] = {"none": self._none, "one": self._one, "mixed": self._mixed}
        started = time.perf_counter()
        written = runs[question["what"]]()
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return {"seconds": time.perf_counter() - started, "texts": texts}

    def _load(self, folder: str) -> Any:  # noqa: ANN401
        net = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype(), trust_remote_code=False)
        return net.to(device()).eval()

    def _none(self) -> Any:  # noqa: ANN401 - a tensor of token ids
        return self._write(self._plain)

    def _one(self) -> Any:  # noqa: ANN401
        self._net.set_adapter(self._names[0])
        return self._write(self._net)

    def _mixed(self) -> Any:  # noqa: ANN401
        rows = len(self._batch["input_ids"])
        return self._write(self._net, adapter_names=[self._names[i % len(self._names)] for i in range(rows)])

    def _write(self, net: Any, **options: Any) -> Any:  # noqa: ANN401
        pad = self._tokenizer.pad_token_id
        found = net.generate(**self._batch, **options, max_new_tokens=self._tokens, do_sample=False, pad_token_id=pad)
        return found[:, self._batch["input_ids"].shape[1] :]


def prepare(job: Question) -> Callable[[Question], Any]:
    """A decoder that has warmed up."""
    decoder = Decoder(job)
    with torch.inference_mode():
        decoder({"what": "none"})

    def answer(question: Question) -> dict[str, Any]:
        with torch.inference_mode():
            return decoder(question)

    return answer


if __name__ == "__main__":
    serve(prepare)
