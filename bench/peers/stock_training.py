"""The stock recipe: PEFT's LoRA on the Trainer of transformers, as the documentation of both shows it.

    python -m bench.peers.stock_training JOB.json

trains once and prints what it measured as JSON. A job names the base, the rows, and the same rank, learning rate,
batch and epochs that Graft is given. Rows for classification are texts, padded to the longest of their batch; rows for
generation are token ids with labels, because no library agrees on what of a chat is learned.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

DROPOUT = 0.1
"""Of the LoRA layers, as in PEFT's examples."""


def main(job: dict[str, Any]) -> dict[str, float]:
    """Train and evaluate; seconds of `trainer.train()`, peak memory at its end, and the held-out figures."""
    trainer, held_out = make_trainer(job)
    seconds = trainer.train().metrics["train_runtime"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if job["labels"]:
        found = trainer.predict(held_out)
        return {
            "seconds": seconds,
            "peak": peak,
            "accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean()),
        }
    return {"seconds": seconds, "peak": peak, "loss": _mean_loss(trainer.model, held_out, trainer.data_collator)}


def make_trainer(job: dict[str, Any]) -> tuple[Trainer, Dataset]:
    """A Trainer that is ready to train, and the held-out rows."""
    disable_progress_bars()
    set_seed(job["seed"])
    tokenizer = AutoTokenizer.from_pretrained(job["base"], trust_remote_code=False)
    net, train, held_out, collate = (_classification if job["labels"] else _generation)(job, tokenizer)
    arguments = TrainingArguments(
        output_dir=job["folder"], per_device_train_batch_size=job["batch_size"], per_device_eval_batch_size=16,
        num_train_epochs=job["epochs"], max_steps=job["max_steps"] or -1, learning_rate=job["learning_rate"],
        weight_decay=0.01, warmup_steps=0.05, save_strategy="no", logging_steps=10, report_to="none", seed=job["seed"],
        disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    trainer = Trainer(model=net, args=arguments, train_dataset=train, data_collator=collate, processing_class=tokenizer)
    return trainer, held_out


def _classification(job: dict[str, Any], tokenizer: Any) -> Any:  # noqa: ANN401
    def encoded(rows: list[dict[str, Any]]) -> Dataset:
        labelled = [{"text": row["text"], "label": job["labels"].index(row["label"])} for row in rows]
        tokenized = Dataset.from_list(labelled).map(lambda rows: tokenizer(rows["text"], truncation=True), batched=True)
        return tokenized.remove_columns("text")

    net = AutoModelForSequenceClassification.from_pretrained(
        job["base"], num_labels=len(job["labels"]), trust_remote_code=False
    )
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=job["rank"], lora_alpha=job["alpha"], lora_dropout=DROPOUT,
                        target_modules="all-linear")  # fmt: skip
    return (
        get_peft_model(net, config),
        encoded(job["train"]),
        encoded(job["held_out"]),
        DataCollatorWithPadding(tokenizer),
    )


def _generation(job: dict[str, Any], tokenizer: Any) -> Any:  # noqa: ANN401
    net = AutoModelForCausalLM.from_pretrained(job["base"], trust_remote_code=False)
    config = LoraConfig(task_type=TaskType.CAUSAL_LM, r=job["rank"], lora_alpha=job["alpha"], lora_dropout=DROPOUT,
                        target_modules="all-linear")  # fmt: skip
    rows = Dataset.from_list(job["train"]), Dataset.from_list(job["held_out"])
    return get_peft_model(net, config), *rows, DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)


@torch.inference_mode()
def _mean_loss(net: Any, rows: Dataset, collate: Any) -> float:  # noqa: ANN401
    """Nats for each learned token."""
    net.eval()
    total, count = 0.0, 0
    for row in rows:
        learned = sum(label != -100 for label in row["labels"][1:])
        total += float(net(**collate([row])).loss) * learned
        count += learned
    assert math.isfinite(total)
    return total / count


if __name__ == "__main__":
    print("\n" + json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
