"""QLoRA as the documentation of PEFT and bitsandbytes shows it: an NF4 base, prepared for k-bit training, the Trainer.

    python -m bench.peers.stock_qlora JOB.json

trains once and prints what it measured as JSON. A job names the base, a folder; `train` and `held_out`, rows of token
ids with labels; and the rank, alpha, learning rate and batch size that Graft is given.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from bench.peers.stock_training import DROPOUT


def main(job: dict[str, Any]) -> dict[str, float]:
    """Seconds of `trainer.train()`, the most memory until its end, and the held-out loss."""
    disable_progress_bars()
    set_seed(0)
    gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=job["folder"], per_device_train_batch_size=job["batch_size"], num_train_epochs=1,
        learning_rate=job["learning_rate"], weight_decay=0.01, warmup_steps=0.05, save_strategy="no", report_to="none",
        per_device_eval_batch_size=1, disable_tqdm=True, bf16=gpu, use_cpu=not gpu, gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False}, optim="paged_adamw_8bit" if gpu else "adamw_torch",
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(job["base"], trust_remote_code=False)
    trainer = Trainer(
        model=_quantized(job, torch.bfloat16 if gpu else torch.float32), args=arguments,
        train_dataset=Dataset.from_list(job["train"]), eval_dataset=Dataset.from_list(job["held_out"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100),
    )  # fmt: skip
    seconds = trainer.train().metrics["train_runtime"]
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "peak": peak, "loss": trainer.evaluate()["eval_loss"]}


def _quantized(job: dict[str, Any], dtype: torch.dtype) -> Any:  # noqa: ANN401 - a PeftModel
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    net = AutoModelForCausalLM.from_pretrained(
        job["base"], quantization_config=quantization, dtype=dtype, trust_remote_code=False, device_map="auto"
    )
    config = LoraConfig(task_type="CAUSAL_LM", r=job["rank"], lora_alpha=job["alpha"], lora_dropout=DROPOUT,
                        target_modules="all-linear")  # fmt: skip
    return get_peft_model(prepare_model_for_kbit_training(net), config)


if __name__ == "__main__":
    print("\n" + json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))))
