"""Convert a GGUF file to a folder of safetensors, in a child process: `python -m hub.gguf SOURCE.gguf FOLDER`.

The child gives its memory back, and keeps torch out of the parent. It prints `progress FRACTION` lines. Weights are
saved as bfloat16, half the size of float32: a GGUF file has 4 to 8 bits a weight, and greedy answers are the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel, Digits
from tokenizers.pre_tokenizers import Sequence as PreTokenizers

from errors import ModelError
from hub.client import Meter, Progress, silent
from settings import child_environment
from store import processes

TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"


def convert(source: Path, destination: Path, progress: Progress = silent) -> None:
    """Convert the GGUF file `source` into the folder `destination` in a child process; raises `ModelError`."""
    meter = Meter(progress, "convert", 1)
    command = processes.python("hub.gguf", str(source.absolute()), str(destination.absolute()))
    environment = child_environment(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    killed = _failure(source, "It was killed, perhaps for lack of memory.")
    for line in processes.lines(command, ModelError.from_dict, killed, environment):
        if line.startswith("progress "):
            meter.at(float(line.split()[1]))


def main(source: Path, destination: Path) -> int:
    """Convert and report progress on standard output; returns the exit status."""
    try:
        _convert(source, destination)
    except Exception as error:
        return processes.fail(_failure(source, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))
    return 0


def _convert(source: Path, destination: Path) -> None:
    import torch  # noqa: PLC0415 - in the child alone
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig  # noqa: PLC0415

    _report(0.0)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, trust_remote_code=False)
    _report(0.25)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    _report(0.9)
    _correct_chatml(model, tokenizer)
    model.to(torch.bfloat16).save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    _report(1.0)


def _correct_chatml(model: Any, tokenizer: Any) -> None:  # noqa: ANN401 - a transformers model and tokenizer
    """Correct settings of a ChatML model that GGUF files lack or state wrongly; other models keep theirs."""
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
    # A vocabulary without numbers longer than a digit belongs to a tokenizer that splits digits first, which the reader
    # of GGUF files leaves out. It matters for two blanks before a digit.
    if not any(len(token) > 1 and token.isascii() and token.isdigit() for token in vocabulary):
        byte_level = ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizers([Digits(individual_digits=True), byte_level])


def _report(fraction: float) -> None:
    print(f"progress {fraction}", flush=True)


def _failure(source: Path, why: str) -> ModelError:
    return ModelError(f"{source.name} could not be converted.", why, "Free memory and disk, or choose another model.")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
