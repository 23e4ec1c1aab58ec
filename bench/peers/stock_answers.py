"""Answers of the libraries alone: `generate`, PEFT's adapters, and a pipeline, each used as its documentation shows it.

    python -m bench.peers.stock_answers KIND

reads a job and then questions, a line of JSON each, and answers each with a line (`bench.servers.start_peer`).

    decode    job: base, adapters by name, prompts (token ids), tokens; question: batch (none, one or mixed)
    swap      job: base, adapter, ids, tokens, labels (none for a text); question: folder of the next adapter
    classify  job: classifier, adapter, labels; question: texts, batch (0: text after text, as a page calls it)
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from models.loading import compute_dtype, device
from settings import Settings

DTYPE = compute_dtype(Settings.from_env().precision)
Question = dict[str, Any]


def load_writer(folder: str) -> tuple[Any, Any]:
    """Load a causal language model, on the device and in the precision that Graft uses, and its tokenizer."""
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPE, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    return net.to(device()).eval(), tokenizer


def load_classifier(folder: str, labels: list[str]) -> tuple[Any, Any]:
    """Load a base with a head for these labels, likewise, and its tokenizer."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    net = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(labels), dtype=DTYPE, trust_remote_code=False, **names
    )
    return net.to(device()).eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def merged_pipeline(job: Question) -> Any:  # noqa: ANN401 - a pipeline of transformers
    """Make a classification pipeline whose adapter is merged into its base, which is as fast as PEFT is."""
    net, tokenizer = load_classifier(job["classifier"], job["labels"])
    net = PeftModel.from_pretrained(net, job["adapter"]).merge_and_unload().eval()
    return pipeline("text-classification", model=net, tokenizer=tokenizer)


def decode(job: Question) -> Callable[[Question], Question]:
    """Prepare batched generation: no adapter, one for all rows, or one for each by `adapter_names`."""
    plain, tokenizer = load_writer(job["base"])
    names = list(job["adapters"])
    net = PeftModel.from_pretrained(load_writer(job["base"])[0], job["adapters"][names[0]], adapter_name=names[0])
    for name in names[1:]:
        net.load_adapter(job["adapters"][name], adapter_name=name)
    net.eval()
    batch = tokenizer.pad({"input_ids": job["prompts"]}, return_tensors="pt").to(plain.device)
    mixed = {"adapter_names": [names[i % len(names)] for i in range(len(job["prompts"]))]}
    options = {"max_new_tokens": job["tokens"], "do_sample": False, "pad_token_id": tokenizer.pad_token_id}

    def answer(question: Question) -> Question:
        started = time.perf_counter()
        if question["batch"] == "one":
            net.set_adapter(names[0])
        chosen, extra = (plain if question["batch"] == "none" else net), (mixed if question["batch"] == "mixed" else {})
        written = chosen.generate(**batch, **extra, **options)[:, batch["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return {"seconds": time.perf_counter() - started, "texts": texts}

    answer({"batch": "none"})
    return answer


def swap(job: Question) -> Callable[[Question], Question]:
    """Prepare a model whose adapter gives way to the next by `load_adapter` and `set_adapter`."""
    labels = job["labels"]
    base, tokenizer = load_classifier(job["base"], labels) if labels else load_writer(job["base"])
    net = PeftModel.from_pretrained(base, job["adapter"], adapter_name="first").eval()
    ids = torch.tensor([job["ids"]], device=device())
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    options = {"max_new_tokens": job["tokens"], "do_sample": False, "pad_token_id": tokenizer.pad_token_id}

    def say() -> Any:  # noqa: ANN401 - a text, or labels with probabilities
        if labels:
            return dict(zip(labels, net(**inputs).logits[0].float().softmax(-1).tolist(), strict=True))
        written = net.generate(**inputs, **options)
        return tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)

    def answer(question: Question) -> Question:
        started = time.perf_counter()
        net.load_adapter(question["folder"], adapter_name="next")
        net.set_adapter("next")
        said = say()
        answered = time.perf_counter()
        say()
        alone = time.perf_counter() - answered
        net.set_adapter("first")
        net.delete_adapter("next")
        return {"answered": answered - started, "alone": alone, "said": said}

    answer({"folder": job["adapter"]})
    return answer


def classify(job: Question) -> Callable[[Question], Question]:
    """Prepare a pipeline, called with text after text or with a list in batches."""
    classifier = merged_pipeline(job)
    classifier("warm")

    def answer(question: Question) -> Question:
        texts, batch = question["texts"], question["batch"]
        started = time.perf_counter()
        found = classifier(texts, batch_size=batch) if batch else [classifier(text)[0] for text in texts]
        return {"seconds": time.perf_counter() - started, "answers": [[one["label"], one["score"]] for one in found]}

    return answer


def main(kind: str) -> None:
    """Prepare for the job, which comes first, and answer each question that follows it."""
    # Libraries print to standard output; the answers keep the pipe to themselves.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        answer = {"decode": decode, "swap": swap, "classify": classify}[kind](json.loads(sys.stdin.readline()))
        print("null", file=answers, flush=True)
        for line in sys.stdin:
            with torch.inference_mode():
                print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
