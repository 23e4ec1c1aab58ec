"""Bases into memory: a resolved model as a transformers model, full precision or quantized.

Imports torch and transformers; only background threads and child processes import this module.
Never runs code of a repository and never reads pickles: `trust_remote_code=False`, safetensors only, local files only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from errors import ModelError
from models.resolve import Model
from models.tokenizer import first_line
from models.transformers_private import bitsandbytes_functional, keep_weight_layout, weight_scales
from tasks import TASKS

HELD = torch.float16
LARGEST = 60_000.0
"""A value that float16 has; embeddings with larger ones stay as they are."""


@torch.no_grad()
def halve_embeddings(net: nn.Module) -> int:
    """Hold the float32 embeddings of a frozen model in float16, in place; returns how many were.

    One that another module shares (an output layer, which multiplies with it) stays as it is. A halved one is a buffer:
    what the model computes in goes by the type of its parameters, and that has not changed.
    """
    embeddings = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    owners = Counter(id(p) for m in net.modules() for p in m.parameters(recurse=False))
    halved = [
        module for module in embeddings
        if owners[id(module.weight)] == 1 and module.weight.dtype == torch.float32
        and module.weight.abs().amax() < LARGEST
    ]  # fmt: skip
    for module in halved:
        weight = module.weight.to(HELD)
        del module.weight
        module.register_buffer("weight", weight)
        module.register_forward_hook(_widen)
    return len(halved)


def _widen(module: nn.Module, args: tuple[torch.Tensor, ...], rows: torch.Tensor) -> torch.Tensor:
    return rows.float()


def held_bytes(net: nn.Module) -> int:
    """Bytes of what a model holds and does not learn: weights, the scales of quantized ones, buffers."""
    frozen = [weight for weight in net.parameters() if not weight.requires_grad]
    return sum(tensor.nbytes for tensor in [*frozen, *net.buffers(), *(s for w in frozen for s in weight_scales(w))])


LINEAR = (nn.Linear, Conv1D)

transformers.logging.disable_progress_bar()  # the page and the command line have bars of their own


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def compute_dtype(precision: str = "auto") -> torch.dtype:
    """`precision`; `auto` is bfloat16 where the accelerator computes in it, float16 on older ones, float32 on a CPU."""
    if precision != "auto":
        chosen: torch.dtype = getattr(torch, precision)
        return chosen
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def training_dtype(precision: str) -> torch.dtype:
    """What matrices are multiplied in while training; `auto` is bfloat16 on a CPU with instructions for it."""
    if precision != "auto" or torch.cuda.is_available():
        return compute_dtype(precision)
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def computing(dtype: torch.dtype) -> torch.autocast:
    """The context in which a model with float32 parts on a base of `dtype` is run; float32 changes nothing."""
    return torch.autocast(device().type, dtype=dtype, enabled=dtype != torch.float32)


def resolve_quantization(choice: str) -> str:
    """`auto` made definite: 4bit on a GPU, none on a CPU."""
    return ("4bit" if torch.cuda.is_available() else "none") if choice == "auto" else choice


def require_quantization(quantize: str) -> None:
    """Raise `ModelError` where a base cannot be quantized on this machine, before anything is downloaded for it."""
    if quantize == "none":
        return
    try:
        bitsandbytes_functional()
    except Exception as error:  # a library of another CUDA raises whatever it likes
        next_ = "Install bitsandbytes for this machine, or train without quantization."
        raise ModelError(
            "Bases cannot be quantized here.", f"bitsandbytes says: {first_line(error)}.", next_
        ) from error


def load_model(
    model: Model,
    auto_class: str,
    quantize: str = "none",
    dtype: torch.dtype | None = None,
    **config: Any,  # noqa: ANN401
) -> tuple[PreTrainedModel, set[str]]:
    """The base in evaluation mode on the best device, and the names of parameters that its files do not have.

    `quantize` is none, 8bit (LLM.int8) or 4bit (NF4 with double quantization, QLoRA's; Dettmers et al., 2023), and
    embeddings are then held in 16 bits (`models.loading`);
    `dtype` is that of what is not quantized, by default `compute_dtype()`; `config` overrides fields of the
    configuration, or says how attention is computed. Raises `ModelError` when the weights do not fit the architecture.
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
        raise ModelError(
            f"{model.id} cannot be loaded as {auto_class}.", first_line(error), "Choose a base of a supported family."
        ) from error
    if quantize != "none":
        halve_embeddings(loaded)
        keep_weight_layout(loaded)
    mismatched = {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    return loaded.eval(), set(info["missing_keys"]) | mismatched


def linear_paths(model: PreTrainedModel) -> list[str]:
    """Full names of the linear layers of the model's body: what LoRA adapts, head and output embedding left out."""
    inside = {id(m) for m in model.base_model.modules()} - {id(model.get_output_embeddings())}
    return [name for name, m in model.named_modules() if isinstance(m, LINEAR) and id(m) in inside]


def features(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer: `nn.Linear`, bitsandbytes' quantized ones, or GPT-2's `Conv1D`."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


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


TEMPERATURE = 0.05
"""Cosine similarities are divided by this before the softmax, as in the contrastive training of sentence encoders."""


def mean_vectors(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unit vectors (rows, width): the mean of last hidden states (rows, tokens, width) where `mask` is 1.

    Reimers & Gurevych, Sentence-BERT, 2019.
    """
    weights = mask.unsqueeze(-1).to(states.dtype)
    return functional.normalize(((states * weights).sum(1) / weights.sum(1)).float(), dim=-1)


def similarity_probabilities(texts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probabilities (texts, labels) from unit vectors of both."""
    return (texts @ labels.T / TEMPERATURE).softmax(-1)
