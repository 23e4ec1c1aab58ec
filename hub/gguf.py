"""Turn a GGUF file into a folder of safetensors: `python -m hub.gguf SOURCE.gguf DESTINATION_FOLDER`.

A child process, so that its memory goes back and the parent imports no torch. It prints `progress FRACTION` lines;
when it fails the last line is the reason and the exit status 1.

Weights are saved as bfloat16, half the size of float32: the file they come from has 4 to 8 bits a weight, and greedy
answers are the same. Loaders cast to float32 on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel, Digits
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


def convert(source: Path, destination: Path) -> None:
    """Write model, tokenizer and chat template of the GGUF file `source` into the folder `destination`."""
    _tell(0.0)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    _tell(0.25)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    _tell(0.9)
    mend(model, tokenizer)
    model.to(torch.bfloat16).save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    _tell(1.0)


def mend(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put right what a GGUF file says wrongly or not at all about a ChatML model; other models stay as they are."""
    model.hf_quantizer = None  # the weights are plain floats now; save_pretrained refuses while this is set
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    tokenizer.model_max_length = model.config.max_position_embeddings
    vocabulary = tokenizer.get_vocab()
    if not {TURN_START, TURN_END} <= vocabulary.keys():
        return
    tokenizer.eos_token = tokenizer.pad_token = TURN_END
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = vocabulary[TURN_END]
    # The vocabulary has no number longer than a digit: its tokenizer splits digits first, which the reader of GGUF
    # files leaves out. It matters for two blanks before a digit.
    if not any(len(token) > 1 and token.isascii() and token.isdigit() for token in vocabulary):
        byte_level = ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizers([Digits(individual_digits=True), byte_level])


def _tell(fraction: float) -> None:
    print(f"progress {fraction}", flush=True)


if __name__ == "__main__":
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]))
    except Exception as error:  # the parent shows this line and nothing else
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
