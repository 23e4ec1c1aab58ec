"""Load base models with transformers, in full precision or quantized, and choose device and dtype.

Code of a repository never runs and pickles are never read: `trust_remote_code=False`, safetensors only, local files
only. Imports torch, so only background threads and child processes import this module.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from errors import ModelError
from models import weights
from models.resolve import Model
from models.tokenizer import first_line
from models.transformers_private import bitsandbytes_functional, keep_weight_layout, weight_scales
from store import quota
from tasks import TASKS

LINEAR = (nn.Linear, Conv1D)
FLOAT16_LARGEST = 60_000.0
"""Largest absolute value that is stored in float16; embeddings with larger ones stay in float32."""
QUANTIZED_BYTES = {"8bit": 1.2, "4bit": 0.8}
"""Bytes of memory per weight of a quantized base, its embeddings and a part of what loading takes included."""
MEMORY_RESERVE = 300_000_000
"""Bytes of memory that loading a base leaves free."""
TEMPERATURE = 0.05
"""Divisor of cosine similarities before the softmax, as in the contrastive training of sentence encoders."""

transformers.logging.disable_progress_bar()  # the page and the command line have their own


def device() -> torch.device:
    """Return the accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(precision: str = "auto") -> torch.dtype:
    """Return the type of `precision`; `auto` is bfloat16 on a GPU that has it, float16 on others, float32 on a CPU."""
    if precision != "auto":
        chosen: torch.dtype = getattr(torch, precision)
        return chosen
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def training_dtype(precision: str) -> torch.dtype:
    """Return the type of matrix products in training; `auto` is bfloat16 on a CPU with instructions for it too."""
    if precision != "auto" or torch.cuda.is_available():
        return compute_dtype(precision)
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def autocast(dtype: torch.dtype) -> torch.autocast:
    """Return the context in which float32 modules on a base of `dtype` compute in it; float32 changes nothing."""
    return torch.autocast(device().type, dtype=dtype, enabled=dtype != torch.float32)


def resolve_quantization(choice: str) -> str:
    """Resolve `auto`: 4bit on a GPU, none on a CPU."""
    return ("4bit" if torch.cuda.is_available() else "none") if choice == "auto" else choice


def require_quantization(quantize: str) -> None:
    """Raise `ModelError` where this machine cannot quantize bases, before anything is downloaded."""
    if quantize == "none":
        return
    try:
        bitsandbytes_functional()
    except Exception as error:  # one built for another CUDA may raise anything
        what, why = "Bases cannot be quantized here.", f"bitsandbytes says: {first_line(error)}."
        raise ModelError(what, why, "Install bitsandbytes for this machine, or train without quantization.") from error


def require_memory(model: Model, quantize: str, width: int, accelerator: int | None = None) -> None:
    """Raise `ModelError` where a further base, quantized as `quantize`, would not fit into memory.

    `width` is the bytes of one weight that is not quantized; `accelerator` the free bytes of the accelerator, if the
    weights will be there and not in main memory.
    """
    count = sum(math.prod(tensor.shape) for tensor in weights.tensors(model.path))
    needed = count * QUANTIZED_BYTES.get(quantize, width)
    free = quota.free_memory() if accelerator is None else accelerator
    if needed + MEMORY_RESERVE > free:
        raise ModelError(
            f"There is no room for {model.id} beside what is loaded.",
            f"It needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free.",
            "End other programs, hold bases in fewer bits (GRAFT_QUANTIZE, GRAFT_PRECISION), or use a version of "
            "the tab's own base.",
        )


def load_model(
    model: Model,
    auto_class: str,
    quantize: str = "none",
    dtype: torch.dtype | None = None,
    **config: Any,  # noqa: ANN401
) -> tuple[PreTrainedModel, set[str]]:
    """Load the base in evaluation mode on the best device; returns it with the names of parameters its files lack.

    `quantize` is none, 8bit (LLM.int8) or 4bit (NF4 with double quantization, as in QLoRA; Dettmers et al., 2023);
    embeddings of quantized bases are stored in float16. `dtype`, by default `compute_dtype()`, is that of everything
    else; `config` overrides fields of the model's configuration. Raises `ModelError` for weights that do not fit the
    architecture.
    """
    dtype = dtype or compute_dtype()
    try:
        loaded, info = getattr(transformers, auto_class).from_pretrained(
            model.path,
            use_safetensors=True,
            dtype=dtype,
            device_map={"": device()} if quantize != "none" or device().type != "cpu" else None,
            quantization_config=_quantization_config(quantize, dtype),
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **config,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        what = f"{model.id} cannot be loaded as {auto_class}."
        raise ModelError(what, first_line(error), "Choose a base of a supported family.") from error
    if quantize != "none":
        halve_embeddings(loaded)
        keep_weight_layout(loaded)
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    return loaded.eval(), set(info["missing_keys"]) | mismatched


def _quantization_config(quantize: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if quantize == "none":
        return None
    # Heads and the output embedding stay in full precision: heads are trained whole, and both are small.
    # As patterns of whole paths: a bare name would leave out `pooler`, but not `bert.pooler.dense`.
    heads = sorted({name for task in TASKS.values() for name in task.head})
    skipped = [rf"(?:.*\.)?{name}" for name in (*heads, "lm_head")]
    if quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        llm_int8_skip_modules=skipped,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


@torch.no_grad()
def halve_embeddings(net: nn.Module) -> int:
    """Store the float32 embeddings of a frozen model in float16, in place; returns their number.

    An embedding that shares its weight with another module, such as a tied output layer, stays as it is. A halved
    weight becomes a buffer, because a model's computing type is that of its parameters.
    """
    embeddings = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    owners = Counter(id(p) for m in net.modules() for p in m.parameters(recurse=False))
    alone = [m for m in embeddings if owners[id(m.weight)] == 1 and m.weight.dtype == torch.float32]
    halved = [module for module in alone if module.weight.abs().amax() < FLOAT16_LARGEST]
    for module in halved:
        weight = module.weight.to(torch.float16)
        del module.weight
        module.register_buffer("weight", weight)
        module.register_forward_hook(_widen)
    return len(halved)


def _widen(module: nn.Module, args: tuple[torch.Tensor, ...], rows: torch.Tensor) -> torch.Tensor:
    return rows.float()


def held_bytes(net: nn.Module) -> int:
    """Return the bytes of a model's frozen weights, their quantization scales and buffers."""
    frozen = [weight for weight in net.parameters() if not weight.requires_grad]
    return sum(tensor.nbytes for tensor in [*frozen, *net.buffers(), *(s for w in frozen for s in weight_scales(w))])


def linear_paths(model: PreTrainedModel) -> list[str]:
    """List the paths of the body's linear layers, which LoRA adapts: neither the head nor the output embedding."""
    inside = {id(m) for m in model.base_model.modules()} - {id(model.get_output_embeddings())}
    return [name for name, m in model.named_modules() if isinstance(m, LINEAR) and id(m) in inside]


def features(module: nn.Module) -> tuple[int, int]:
    """Return (inputs, outputs) of a linear layer: `nn.Linear`, a quantized one, or GPT-2's `Conv1D`."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def mean_vectors(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return unit vectors (rows, width): the mean of last hidden states (rows, tokens, width) where `mask` is 1.

    Reimers & Gurevych, Sentence-BERT, 2019.
    """
    weight = mask.unsqueeze(-1).to(states.dtype)
    return functional.normalize(((states * weight).sum(1) / weight.sum(1)).float(), dim=-1)


def similarity_probabilities(texts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return probabilities (texts, labels) from the unit vectors of both."""
    return (texts @ labels.T / TEMPERATURE).softmax(-1)
