"""Read an adapter and check that it is safe and fits a base, before a running model is touched.

PEFT only warns, or says nothing, when keys do not match, when layers are missing on either side, and when tensors are
not finite; a load that fails leaves half a registration behind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from errors import AdapterError
from models.weights import read_header
from store.adapters import MAX_RANK, WEIGHTS
from tasks import TASKS

PREFIX = "base_model.model."
MAGNITUDE = ".lora_magnitude_vector"
HEADS = frozenset(name for task in TASKS.values() for name in task.head)
UNSUPPORTED = (
    *("layer_replication", "auto_mapping", "arrow_config", "alora_invocation_tokens", "velora_config"),
    *("target_parameters", "use_bdlora", "kasa_config", "monteclora_config", "trainable_token_indices"),
)
REQUIRED = {"peft_type": "LORA", "bias": "none", "use_qalora": False, **dict.fromkeys(UNSUPPORTED)}
"""Fields of adapter_config.json that must have these values or be absent."""
PATTERNS = ("rank_pattern", "alpha_pattern")
FIELD_TYPES = {
    **dict.fromkeys(("target_modules", "exclude_modules", "modules_to_save"), (list, str)),
    **dict.fromkeys(PATTERNS, (dict, str)),
    "layers_to_transform": (list, int),
}
"""Types of fields that are a list or a mapping: (type, type of its items or keys)."""
LARGEST_ALPHA = 1e6
LARGEST_CONFIG = 1_000_000
"""Bytes; usual ones have a few thousand."""
PLAIN_PATH = re.compile(r"[\w.-]+")
"""Keys of `PATTERNS` must be names; PEFT takes others for regular expressions, which could run for ever."""

Layers = Mapping[str, tuple[int, int]]
"""Path of a linear layer in the model -> (inputs, outputs)."""
Pairs = Mapping[str, Mapping[str, torch.Tensor]]
"""Path of a linear layer -> its tensors: "A", "B" and, with DoRA, "magnitude"."""


@dataclass(frozen=True)
class Adapter:
    """A checked adapter, in memory, bound to no model yet."""

    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]
    """Path of a linear layer in the trained model -> A of shape (rank, inputs), B of shape (outputs, rank), scale."""
    whole: Mapping[str, torch.Tensor]
    """Parameter name in the trained model -> tensor that replaces it whole: a classifier's head."""
    magnitudes: Mapping[str, torch.Tensor]
    """Path of a linear layer -> DoRA's magnitudes of shape (outputs,); empty for an adapter without DoRA."""


def read_adapter(folder: Path, layers: Layers, name: str) -> Adapter:
    """Read and verify a PEFT folder against the `layers` of a base; `name` is the adapter's in messages.

    Raises `AdapterError` for the first difference.
    """
    config = _read_config(folder, name)
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    whole: dict[str, torch.Tensor] = {}
    for key, tensor in _read_tensors(folder, name).items():
        path, part = _split(key)
        if part:
            pairs.setdefault(path, {})[part] = tensor
        elif HEADS & set(path.split(".")):
            whole[path] = tensor
        elif ".lora_embedding_" in path:
            layer = path.partition(".lora_")[0]
            raise _refused(name, f"It adapts {layer}, an embedding; only linear layers can be served.")
        else:
            raise _refused(name, f"It holds {key}, which is neither a LoRA matrix nor a head that Graft knows.")
    _check_coverage(config, pairs, layers, name)
    magnitudes = _check_magnitudes(config, pairs, layers, name)
    checked = {path: _check_pair(path, pair, config, layers, name) for path, pair in pairs.items()}
    return Adapter(checked, whole, magnitudes)


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    try:
        path = folder / "adapter_config.json"
        if path.stat().st_size > LARGEST_CONFIG:
            raise _refused(name, f"Its adapter_config.json is larger than {LARGEST_CONFIG // 1000} kB.")
        config = json.loads(path.read_text(encoding="utf-8"))
        rank, targets = config["r"], config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _refused(name, "Its adapter_config.json is missing or not that of a LoRA adapter.") from error
    for field, (kind, item) in FIELD_TYPES.items():
        value = config.get(field)
        if value is not None and not (isinstance(value, kind) and all(isinstance(part, item) for part in value)):
            raise _refused(name, f"Its {field} is {str(value)[:80]!r}, which cannot be served.")
    for field in PATTERNS:
        if odd := [key for key in config.get(field) or () if not PLAIN_PATH.fullmatch(key)]:
            raise _refused(name, f"Its {field} has {odd[0]!r}; only names of layers can be served.")
    for field, wanted in REQUIRED.items():
        if config.get(field, wanted) != wanted and not (wanted is None and not config.get(field)):
            raise _refused(name, f"Its {field} is {str(config[field])[:80]!r}; only {wanted!r} can be served.")
    if not (type(rank) is int and 1 <= rank <= MAX_RANK):
        raise _refused(name, f"Its rank is {str(rank)[:80]}; 1 to {MAX_RANK} can be served.")
    if not (isinstance(targets, list) and targets):
        raise _refused(name, "Its target_modules are not a list of layer names.")
    unknown = [m for m in config.get("modules_to_save") or () if not HEADS & set(m.split("."))]
    if unknown:
        raise _refused(name, f"It replaces {', '.join(unknown)}, which is no head that Graft knows.")
    return dict(config)


def _read_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    read_header(folder / WEIGHTS, name)
    try:
        tensors: dict[str, torch.Tensor] = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError, ValueError) as error:
        raise _refused(name, f"Its {WEIGHTS} is missing, cut short or damaged.") from error
    # A sum is not finite if one value is not, and costs a sixth of checking each.
    sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors.values()]) if tensors else torch.zeros(1)
    for key, tensor in tensors.items() if not sums.isfinite().all() else ():
        if not torch.isfinite(tensor).all():
            raise _refused(name, f"{key} holds values that are not finite (NaN or infinite).")
    return tensors


def _split(key: str) -> tuple[str, str]:
    """Split a tensor's key into (path of its layer, "A", "B" or "magnitude"), or (parameter name, "") for others."""
    path = key.removeprefix(PREFIX)
    for suffix, part in ((".lora_A.weight", "A"), (".lora_B.weight", "B"), (MAGNITUDE, "magnitude")):
        if path.endswith(suffix):
            return path.removesuffix(suffix), part
    return path, ""


def _check_coverage(config: dict[str, Any], pairs: Pairs, layers: Layers, name: str) -> None:
    """Refuse an adapter with layers that the base lacks, or without layers that its configuration targets."""
    unknown = sorted(set(pairs) - set(layers))
    if unknown:
        raise _refused(name, f"It adapts {unknown[0]}, which this base does not have ({len(unknown)} such layers).")
    targets, excluded = config["target_modules"], config.get("exclude_modules") or []
    chosen = {p for p in layers if _matches(p, targets) and not _matches(p, excluded)}
    if not config.get("layers_to_transform") and (absent := sorted(chosen - set(pairs))):
        raise _refused(name, f"It lacks {absent[0]}, which this base has ({len(absent)} such layers).")
    if not pairs:
        raise _refused(name, "It holds no LoRA matrices.")


def _check_magnitudes(config: dict[str, Any], pairs: Pairs, layers: Layers, name: str) -> dict[str, torch.Tensor]:
    """Return DoRA's magnitudes: every layer has one per output, or none has any."""
    held = {path: pair["magnitude"] for path, pair in pairs.items() if "magnitude" in pair}
    if not config.get("use_dora"):
        if held:
            raise _refused(name, f"It holds magnitudes for {min(held)}, but its configuration does not say DoRA.")
        return {}
    if absent := sorted(set(pairs) - set(held)):
        raise _refused(name, f"It lacks the magnitudes of {absent[0]}, which DoRA needs ({len(absent)} such layers).")
    for path, magnitude in held.items():
        outputs = layers[path][1]
        if magnitude.shape != (outputs,):
            raise _refused(name, f"{path} has magnitudes of shape {tuple(magnitude.shape)} for {outputs} outputs.")
        if not (magnitude > 0).all():
            raise _refused(name, f"{path} has a magnitude that is not above 0; lengths are.")
    return held


def _check_pair(
    path: str, pair: Mapping[str, torch.Tensor], config: dict[str, Any], layers: Layers, name: str
) -> tuple[torch.Tensor, torch.Tensor, float]:
    inputs, outputs = layers[path]
    a, b = pair.get("A"), pair.get("B")
    if a is None or b is None or a.dim() != 2 or b.dim() != 2:
        raise _refused(name, f"{path} has only one of its two matrices, or one of an odd shape.")
    if a.shape[1] != inputs or b.shape[0] != outputs or a.shape[0] != b.shape[1] or a.shape[0] > MAX_RANK:
        found = f"A {tuple(a.shape)} and B {tuple(b.shape)}"
        raise _refused(name, f"{path} has {found}, but this base's layer takes {inputs} and gives {outputs}.")
    return a, b, _scale(path, a.shape[0], config, name)


def _scale(path: str, rank: int, config: dict[str, Any], name: str) -> float:
    """Return alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA (Kalajdzievski, 2023)."""
    if _layer_value(path, config, "rank_pattern", "r") != rank:
        raise _refused(name, f"{path} has rank {rank}, but its adapter_config.json says another.")
    alpha = _layer_value(path, config, "alpha_pattern", "lora_alpha")
    if not (isinstance(alpha, int | float) and abs(alpha) <= LARGEST_ALPHA):
        raise _refused(name, f"Its lora_alpha is {str(alpha)[:80]}, not a number that can be served.")
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _layer_value(path: str, config: dict[str, Any], patterns: str, field: str) -> Any:  # noqa: ANN401 - a JSON value
    """Return the value of the first of `patterns` that names the layer, else that of `field`."""
    return next((v for k, v in (config.get(patterns) or {}).items() if _matches(path, [k])), config.get(field))


def _matches(path: str, names: list[str]) -> bool:
    return any(path == name or path.endswith(f".{name}") for name in names)


def _refused(name: str, why: str) -> AdapterError:
    return AdapterError(f"{name} was refused.", why, "What answered before goes on answering.")
