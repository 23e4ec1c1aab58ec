"""The trained model: PEFT's LoRA (Hu et al., 2021) on a frozen base, in NF4 for QLoRA (Dettmers et al., 2023)."""

from __future__ import annotations

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
    """Return the base with LoRA matrices on the linear layers of its body: fresh ones, or those of `start`.

    `dtype` is that of the frozen part, `longest` the tokens of the longest row. Raises `AdapterError` for a `start`
    that is of another base or has other labels, `ModelError` and `ConfigError` for a base that cannot be trained so.
    """
    net, missing = load_model(model, task.auto_class, quantize, dtype, **_options(model, labels, longest))
    if labels:
        net.config.id2label = dict(enumerate(labels))
        net.config.label2id = {label: i for i, label in enumerate(labels)}
    if quantize != "none":
        net = prepare_model_for_kbit_training(net, use_gradient_checkpointing=False)
        # It widened every 16-bit parameter, which embeddings do not need.
        halve_embeddings(net)
    if config.gradient_checkpointing == "on":
        net.activation_checkpointing_enable()
    trained = _from_version(net, start, model, labels) if start else _fresh(net, config, task, model, labels, missing)
    for parameter in trained.parameters():
        if parameter.requires_grad:
            # Trained parameters are kept in full precision, a head copied from a bfloat16 base too.
            parameter.data = parameter.data.float()
    if start:
        # Once more, because PEFT has read the head into the base's precision.
        set_peft_model_state_dict(trained, load_file(start.path / WEIGHTS))
    return trained


def _fresh(
    net: PreTrainedModel, config: TrainConfig, task: Task, model: Model, labels: list[str], missing: set[str]
) -> PeftModel:
    """Return the base with matrices that change nothing yet, and for labels a head with random weights."""
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
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
            target_modules=_chosen(targets, config.targets, model.id),
            modules_to_save=whole or None,
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in net.modules()),
        ),
    )
    return trained


def _from_version(net: PreTrainedModel, start: Version, model: Model, labels: list[str]) -> PeftModel:
    """Return the base with the matrices and the head of a version, which has a rank, alpha and layers of its own."""
    what, next = f"{start.ref} cannot be trained on.", "Start from another version, or from none."
    if not fits(start, model):
        raise AdapterError(what, f"It was made for {start.manifest['base']['id']}, not for {model.id}.", next)
    if start.labels != labels:
        raise AdapterError(what, f"Its labels are {', '.join(start.labels)}; the rows have {', '.join(labels)}.", next)
    start.check_files()
    read_adapter(start.path, _layers(net), start.ref)
    continued: PeftModel = PeftModel.from_pretrained(net, start.path, is_trainable=True)
    return continued


def _options(model: Model, labels: list[str], longest: int) -> dict[str, Any]:
    """Return the fields of the base's configuration to override."""
    options = _without_dropout(model)
    if device().type == "cpu" and longest <= SHORT:
        options["attn_implementation"] = "eager"
    if not labels:
        return options
    if model.config.get("is_encoder_decoder"):
        what, why = f"{model.id} cannot be trained as a classifier.", "It is an encoder-decoder, made to write text."
        raise ModelError(what, why, "Choose a base of the BERT, RoBERTa or DistilBERT family.")
    return options | {"num_labels": len(labels), "ignore_mismatched_sizes": True}


def _without_dropout(model: Model) -> dict[str, Any]:
    """Return the base's dropout fields, set to 0: few weights are trained, and dropout costs a third of the time."""
    known = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True).to_dict()
    return {k: 0.0 for k, v in known.items() if ("dropout" in k or k.endswith("pdrop")) and isinstance(v, float)}


def _chosen(paths: list[str], targets: str, base: str) -> list[str]:
    """Return the layers of `paths` that `targets` selects; raises `ConfigError` where it selects none."""
    chosen = [path for path in paths if selects(targets, path)]
    if not chosen:
        known = sorted({path.rsplit(".", 1)[-1] for path in paths})
        raise ConfigError("targets", [f"{base} has no layer named {targets}; its layers are {', '.join(known)}."])
    return chosen


def _trained_whole(net: PreTrainedModel, missing: set[str]) -> list[str]:
    """Return the modules to train whole: the head, and layers of the body that are missing in the base's files."""
    inside = f"{net.base_model_prefix}."
    head = [name for name, child in net.named_children() if child is not net.base_model and list(child.parameters())]
    absent = {name.rpartition(".")[0] for name in missing if name.startswith(inside)}
    return [*head, *sorted(absent)]


def changes_nothing(net: nn.Module) -> bool:
    """Return whether every LoRA B matrix is still zero, so that the adapter answers as the base does."""
    return not any(p.abs().max() > 0 for name, p in net.named_parameters() if ".lora_B." in name)


def verify(net: PeftModel, folder: Path, name: str) -> None:
    """Read a saved adapter as a server will, against the layers it was trained on; raises `AdapterError`."""
    read_adapter(folder, _layers(net), name)


def _layers(net: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of a base's linear layers, with LoRA or without, by their paths in the base."""
    return {
        path.replace(".base_layer", "").removeprefix("base_model.model."): features(module)
        for path, module in net.named_modules()
        if isinstance(module, LINEAR) and ".lora_" not in path
    }
