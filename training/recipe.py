"""The recipe: LoRA (Hu et al., 2021) by PEFT on the Trainer of transformers; QLoRA (Dettmers et al., 2023) on NF4."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.pytorch_utils import Conv1D

from errors import ModelError, RunError
from store.loading import LINEAR, compute_dtype, features, linear_paths, load_model
from store.models import Model
from store.verify import HEADS, read_adapter
from tasks import Task
from training.config import TrainConfig
from training.encoding import IGNORED, Example
from training.events import Events


def build(config: TrainConfig, task: Task, model: Model, labels: list[str], quantize: str) -> PeftModel:
    """The base with fresh LoRA matrices on every linear layer of its body, ready to train."""
    if labels and model.config.get("is_encoder_decoder"):
        what, why = f"{model.id} cannot be trained as a classifier.", "It is an encoder-decoder, made to write text."
        raise ModelError(what, why, "Choose a base of the BERT, RoBERTa or DistilBERT family.")
    head = {"num_labels": len(labels), "ignore_mismatched_sizes": True} if labels else {}
    net, missing = load_model(model, task.auto_class, quantize, **head)
    if labels:
        net.config.id2label = dict(enumerate(labels))
        net.config.label2id = {label: i for i, label in enumerate(labels)}
    if quantize != "none":
        net = prepare_model_for_kbit_training(net, use_gradient_checkpointing=False)
    whole = _trained_whole(net, missing) if labels else []
    targets = [path for path in linear_paths(net) if not any(path == w or path.startswith(f"{w}.") for w in whole)]
    unknown = [name for name in whole if not HEADS & set(name.split("."))]
    if unknown:
        what, why = f"{model.id} cannot be trained as a classifier.", f"Its head {unknown[0]} is not known to Graft."
        raise ModelError(what, why, "Choose a base of a supported family.")
    trained: PeftModel = get_peft_model(
        net,
        LoraConfig(
            task_type=TaskType[task.peft_type],
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            target_modules=targets,
            modules_to_save=whole or None,
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in net.modules()),
        ),
    )
    for parameter in trained.parameters():
        if parameter.requires_grad:
            # What the optimizer changes is kept in full precision, a head copied from a bfloat16 base too.
            parameter.data = parameter.data.float()
    return trained


def fit(net: PeftModel, tokenizer: PreTrainedTokenizerBase, examples: list[Example], config: TrainConfig,
        folder: Path, events: Events) -> dict[str, float]:  # fmt: skip
    """Train in place; returns what was measured: seconds, steps, last loss. Raises `RunError` on a diverged loss."""
    arguments = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        weight_decay=0.01,
        max_grad_norm=1.0,
        bf16=compute_dtype() == torch.bfloat16,
        fp16=compute_dtype() == torch.float16,
        train_sampling_strategy="group_by_length",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=config.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    trainer = Trainer(
        model=net,
        args=arguments,
        train_dataset=_Examples(examples),
        data_collator=_collator(net, tokenizer, examples),
        callbacks=[_Report(events)],
    )
    result = trainer.train()
    return {"seconds": result.metrics["train_runtime"], "steps": result.global_step, "loss": result.training_loss}


def _trained_whole(net: PreTrainedModel, missing: set[str]) -> list[str]:
    """Modules that are trained whole: the head around the body, and layers of the body that the base's files lack."""
    inside = f"{net.base_model_prefix}."
    head = [name for name, child in net.named_children() if child is not net.base_model and list(child.parameters())]
    absent = {name.rpartition(".")[0] for name in missing if name.startswith(inside)}
    return [*head, *sorted(absent)]


def _collator(net: PeftModel, tokenizer: PreTrainedTokenizerBase, examples: list[Example]) -> Any:  # noqa: ANN401
    """Pads a batch to its longest row; the labels of token tasks with the ignored one."""
    if isinstance(examples[0]["labels"], int):
        return DataCollatorWithPadding(tokenizer)
    tokenizer.padding_side = "right"
    return DataCollatorForSeq2Seq(tokenizer, model=net.get_base_model(), label_pad_token_id=IGNORED)


class _Examples(Dataset[Example]):
    """A list of examples as torch wants it."""

    def __init__(self, examples: list[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return dict(self._examples[index])


class _Report(TrainerCallback):  # type: ignore[misc]
    """Tells each step, and stops a run whose loss or gradient is not a number."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss, gradient = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            raise RunError(
                "The training diverged and was stopped; nothing was published.",
                f"At step {state.global_step} the loss was {loss} and the gradient {gradient}.",
                "Try a lower learning rate.",
            )
        self._events.emit(
            "step",
            step=state.global_step,
            steps=state.max_steps,
            loss=round(loss, 4),
            learning_rate=logs.get("learning_rate"),
        )


def changes_nothing(net: nn.Module) -> bool:
    """Whether every LoRA B matrix is still zero, so that the adapter would answer as the base does."""
    return not any(p.abs().max() > 0 for name, p in net.named_parameters() if ".lora_B." in name)


def verify(net: PeftModel, folder: Path, name: str) -> None:
    """Read what was saved as a server will, against the layers it was trained on; raises `AdapterError`."""
    layers = {
        path.replace(".base_layer", "").removeprefix("base_model.model."): features(module)
        for path, module in net.named_modules()
        if isinstance(module, LINEAR) and ".lora_" not in path
    }
    read_adapter(folder, layers, name)
