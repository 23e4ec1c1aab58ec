"""Builds the trained model: PEFT's LoRA (Hu et al., 2021) on a frozen base, in NF4 as QLoRA (Dettmers et al., 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoraConfig,
    PeftModel,
    TaskType,
    get_peft_model,
    prepare_model_for_kbit_training,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from errors import AdapterError, ConfigError, ModelError
from models.adapter_check import HEADS, read_adapter
from models.loading import LINEAR, device, features, halve_embeddings, linear_paths, load_model
from models.resolve import Model, fits
from store.adapters import WEIGHTS, Version
from tasks import Task
from training.config import TrainConfig
from training.estimate.base_shapes import selects
from training.estimate.training_memory import SHORT


def build(
    config: TrainConfig,
    task: Task,
    model: Model,
    labels: list[str],
    quantize: str,
    dtype: torch.dtype = torch.float32,
    longest: int = SHORT + 1,
    start: Version | None = None,
) -> PeftModel:
    """Return the base with LoRA matrices on the linear layers of its body: new ones, or those of the version `start`.

    `dtype` is that of the frozen weights, `longest` the tokens of the longest row. Raises `AdapterError` for a `start`
    with another base or other labels, `ModelError` and `ConfigError` for a base that cannot be trained with `config`.
    """
    net, missing = load_model(model, task.auto_class, quantize, dtype, **_options(model, labels, longest))
    if quantize != "none":
        net = prepare_model_for_kbit_training(net, use_gradient_checkpointing=False)
        # PEFT has widened every 16-bit parameter, which embeddings do not need.
        halve_embeddings(net)
    if config.gradient_checkpointing == "on":
        net.activation_checkpointing_enable()
    trained = _from_version(net, start, model, labels) if start else _fresh(net, config, task, model, labels, missing)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            # Also of a head that was copied from a bfloat16 base.
            parameter.data = parameter.data.float()
    if start:
        # Once more, because PEFT has read the head into the base's precision.
        set_peft_model_state_dict(trained, load_file(start.path / WEIGHTS))
    return trained


def _fresh(
    net: PreTrainedModel, config: TrainConfig, task: Task, model: Model, labels: list[str], missing: set[str]
) -> PeftModel:
    """Return the base with matrices that change nothing yet; for labels, its head is trained too."""
    full = _fully_trained(net, missing) if labels else []
    if unknown := [name for name in full if not HEADS & set(name.split("."))]:
        what, why = f"{model.id} cannot be trained as a classifier.", f"Its head {unknown[0]} is not known to Graft."
        raise ModelError(what, why, "Choose a base of a supported family.")
    paths = [path for path in linear_paths(net) if not any(f"{path}.".startswith(f"{name}.") for name in full)]
    targets = [path for path in paths if selects(config.targets, path)]
    if not targets:
        known = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in paths}))
        raise ConfigError("targets", [f"{model.id} has no layer named {config.targets}; its layers are {known}."])
    trained: PeftModel = get_peft_model(
        net,
        LoraConfig(
            task_type=TaskType[task.peft_type],
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
            target_modules=targets,
            modules_to_save=full or None,
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in net.modules()),
        ),
    )
    return trained


def _from_version(net: PreTrainedModel, start: Version, model: Model, labels: list[str]) -> PeftModel:
    """Return the base with the matrices and the head of a version, whose rank, alpha and layers are kept."""
    what, next = f"{start.ref} cannot be trained on.", "Start from another version, or from none."
    if not fits(start, model):
        raise AdapterError(what, f"It was made for {start.manifest['base']['id']}, not for {model.id}.", next)
    if start.labels != labels:
        raise AdapterError(what, f"Its labels are {', '.join(start.labels)}; the rows have {', '.join(labels)}.", next)
    start.check_files()
    verify(net, start.path, start.ref)
    continued: PeftModel = PeftModel.from_pretrained(net, start.path, is_trainable=True)
    return continued


def _options(model: Model, labels: list[str], longest: int) -> dict[str, Any]:
    """Return the fields of the base's configuration to override.

    Dropout is 0, because few weights are trained, and it costs a third of the time.
    """
    known = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True).to_dict()
    rates = [key for key, value in known.items() if isinstance(value, float)]
    options: dict[str, Any] = {key: 0.0 for key in rates if "dropout" in key or key.endswith("pdrop")}
    if device().type == "cpu" and longest <= SHORT:
        options["attn_implementation"] = "eager"
    if labels and model.config.get("is_encoder_decoder"):
        what, why = f"{model.id} cannot be trained as a classifier.", "It is an encoder-decoder, made to write text."
        raise ModelError(what, why, "Choose a base of the BERT, RoBERTa or DistilBERT family.")
    return options | head_options(labels)


def head_options(labels: Sequence[str]) -> dict[str, Any]:
    """Return the options of `load_model` for a new classification head, empty without labels."""
    numbers = {label: i for i, label in enumerate(labels)}
    names = {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": numbers}
    return {**names, "ignore_mismatched_sizes": True} if labels else {}


def _fully_trained(net: PreTrainedModel, missing: set[str]) -> list[str]:
    """Return the modules whose own weights are trained: the head, and layers of the body that the base's files lack."""
    body = f"{net.base_model_prefix}."
    head = [name for name, child in net.named_children() if child is not net.base_model and list(child.parameters())]
    absent = {name.rpartition(".")[0] for name in missing if name.startswith(body)}
    return [*head, *sorted(absent)]


def changes_nothing(net: nn.Module) -> bool:
    """Return whether every LoRA B matrix is still zero, so that the adapter has no effect."""
    return not any(p.abs().max() > 0 for name, p in net.named_parameters() if ".lora_B." in name)


def verify(net: nn.Module, folder: Path, name: str) -> None:
    """Check a saved adapter as a server does, against the layers of its base; raises `AdapterError`."""
    read_adapter(folder, layers(net), name)


def layers(net: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of the linear layers of a base, with LoRA or without, by their paths in the base."""
    return {
        path.replace(".base_layer", "").removeprefix("base_model.model."): features(module)
        for path, module in net.named_modules()
        if isinstance(module, LINEAR) and ".lora_" not in path
    }
