"""The stock recipe: PEFT's LoRA on the Trainer of transformers, and QLoRA, as the documentation of each shows it.

    python -m bench.peers.stock_training train JOB.json     train, and evaluate on the held-out rows
    python -m bench.peers.stock_training save JOB.json      train, and save as PEFT's quick tour does
    python -m bench.peers.stock_training answer JOB.json    load what was saved, and answer the held-out rows

prints what it measured as JSON; times are Unix seconds. A job names the base, an output folder, the rows, and the rank,
learning rate, batch and epochs that Graft is given; `quantize` is 4bit for QLoRA. Rows for classification are texts,
padded by the Trainer's own collator; rows for generation are token ids with labels, because no library agrees on what
of a chat is learned.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset, disable_progress_bars
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model, prepare_model_for_kbit_training

DROPOUT = 0.1
"""Dropout of the LoRA layers, as in PEFT's examples."""
GPU = torch.cuda.is_available()
Job = dict[str, Any]


def train(job: Job) -> dict[str, float]:
    """Train and evaluate; returns seconds of `trainer.train()`, peak memory at its end, and the held-out metric."""
    trainer = make_trainer(job)
    seconds = trainer.train().metrics["train_runtime"]
    peak = torch.cuda.max_memory_allocated() if GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if not job["labels"]:
        return {"seconds": seconds, "peak": peak, "loss": _mean_loss(trainer, job["held_out"])}
    found = trainer.predict(_tokenized(job["held_out"], job["labels"], trainer.processing_class))
    accuracy = float((found.predictions.argmax(-1) == found.label_ids).mean())
    return {"seconds": seconds, "peak": peak, "accuracy": accuracy}


def save(job: Job) -> dict[str, float]:
    """Train and save; returns when training began and ended."""
    trainer = make_trainer(job)
    began = time.time()
    trainer.train()
    ended = time.time()
    trainer.model.save_pretrained(job["folder"])
    trainer.processing_class.save_pretrained(job["folder"])
    return {"began": began, "trained": ended}


def answer(job: Job) -> dict[str, Any]:
    """Load and answer; returns when the first row was answered, and the labels of all."""
    model = AutoPeftModelForSequenceClassification.from_pretrained(
        job["folder"], num_labels=len(job["labels"]), trust_remote_code=False
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["folder"], trust_remote_code=False)
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts = [text for text, _ in job["held_out"]]
    found = classify(texts[:1])
    answered = time.time()
    found += classify(texts[1:], batch_size=16)
    return {"answered": answered, "answers": [job["labels"][int(one["label"].rpartition("_")[2])] for one in found]}


def make_trainer(job: Job) -> transformers.Trainer:
    """Make a Trainer that is ready to train."""
    disable_progress_bars()
    transformers.set_seed(job["seed"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["base"], trust_remote_code=False)
    if job["labels"]:
        base = transformers.AutoModelForSequenceClassification.from_pretrained(
            job["base"], num_labels=len(job["labels"]), trust_remote_code=False
        )
        rows, collator = _tokenized(job["train"], job["labels"], tokenizer), None
    else:
        base = transformers.AutoModelForCausalLM.from_pretrained(
            job["base"], trust_remote_code=False, **(_nf4() if job["quantize"] == "4bit" else {})
        )
        collator = transformers.DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
        rows = Dataset.from_list(job["train"])
    qlora = {}
    if job["quantize"] == "4bit":
        base = prepare_model_for_kbit_training(base)
        optimizer = "paged_adamw_8bit" if GPU else "adamw_torch"
        checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
        qlora = {"bf16": GPU, "optim": optimizer, **checkpointing}
    lora = {"r": job["rank"], "lora_alpha": job["alpha"], "lora_dropout": DROPOUT, "target_modules": "all-linear"}
    sizes = {"per_device_train_batch_size": job["batch_size"], "per_device_eval_batch_size": 16}
    length = {"num_train_epochs": job["epochs"], "max_steps": job["max_steps"] or -1, "logging_steps": 10}
    rates = {"learning_rate": job["learning_rate"], "weight_decay": 0.01, "warmup_steps": 0.05, "seed": job["seed"]}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": not GPU}
    arguments = transformers.TrainingArguments(output_dir=job["folder"], **sizes, **length, **rates, **quiet, **qlora)
    net = get_peft_model(base, LoraConfig(task_type="SEQ_CLS" if job["labels"] else "CAUSAL_LM", **lora))
    return transformers.Trainer(
        model=net, args=arguments, train_dataset=rows, data_collator=collator, processing_class=tokenizer
    )


def _nf4() -> dict[str, Any]:
    dtype = torch.bfloat16 if GPU else torch.float32
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    config = transformers.BitsAndBytesConfig(**options, bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "dtype": dtype, "device_map": "auto"}


def _tokenized(rows: list[list[str]], labels: list[str], tokenizer: Any) -> Dataset:  # noqa: ANN401
    numbered = Dataset.from_list([{"text": text, "label": labels.index(label)} for text, label in rows])
    return numbered.map(lambda rows: tokenizer(rows["text"], truncation=True), batched=True).remove_columns("text")


@torch.inference_mode()
def _mean_loss(trainer: transformers.Trainer, rows: list[dict[str, Any]]) -> float:
    """Compute the mean loss in nats for each learned token."""
    net = trainer.model.eval()
    total, count = 0.0, 0
    for row in rows:
        learned = sum(label != -100 for label in row["labels"][1:])
        total += float(net(**trainer.data_collator([row]).to(net.device)).loss) * learned
        count += learned
    return total / count


if __name__ == "__main__":
    act = {"train": train, "save": save, "answer": answer}[sys.argv[1]]
    print("\n" + json.dumps(act(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))))
