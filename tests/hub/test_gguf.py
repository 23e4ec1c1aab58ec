"""GGUF to safetensors: a tiny file made here, and the real one that the package index has."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from errors import ModelError
from hub.gguf import convert
from models.resolve import Model

pytestmark = pytest.mark.slow

WIDTH, INNER, HEADS = 32, 64, 4
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def tiny_gguf(path: Path) -> None:
    """A one-layer Llama with a byte-level vocabulary whose file says the wrong end of text."""
    alphabet = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *alphabet, "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    config = {"context_length": 128, "embedding_length": WIDTH, "block_count": 1, "feed_forward_length": INNER}
    config |= {"head_count": HEADS, "head_count_kv": HEADS, "layer_norm_rms_eps": 1e-5, "rope_freq_base": 10000.0}
    config |= {"rope_dimension_count": WIDTH // HEADS, "vocab_size": len(tokens), "tokenizer_model": "gpt2"}
    config |= {"token_list": tokens, "token_types": [3] * 3 + [1] * (len(tokens) - 3), "token_merges": ["a b"]}
    config |= {"bos_token_id": 1, "eos_token_id": 0, "chat_template": TEMPLATE}
    for name, value in config.items():
        getattr(writer, f"add_{name}")(value)
    square, norm = (WIDTH, WIDTH), (WIDTH,)
    shapes = {"attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square, "attn_norm": norm}
    shapes |= {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER), "ffn_norm": norm}
    named = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    generator = np.random.default_rng(0)
    for name, shape in named.items():
        writer.add_tensor(name, generator.normal(size=shape).astype("f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    folder, seen = tmp_path_factory.mktemp("gguf"), []
    tiny_gguf(folder / "tiny.gguf")
    (folder / "out").mkdir()
    convert(folder / "tiny.gguf", folder / "out", lambda phase, fraction: seen.append(fraction or 0.0))
    return folder / "out", seen


def test_a_file_becomes_a_folder_of_safetensors_in_bfloat16(converted: tuple[Path, list[float]]) -> None:
    folder, seen = converted
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False)
    assert model.dtype == torch.bfloat16
    assert model.model.layers[0].mlp.up_proj.weight.shape == (INNER, WIDTH)
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert (folder / "model.safetensors").is_file() and not list(folder.glob("*.bin"))
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())


def test_a_chatml_model_ends_its_turns_and_splits_digits(converted: tuple[Path, list[float]]) -> None:
    folder, _ = converted
    config, generation = (json.loads((folder / n).read_text()) for n in ("config.json", "generation_config.json"))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = {config["eos_token_id"], config["pad_token_id"], generation["eos_token_id"], generation["pad_token_id"]}
    assert ids == {end} == {tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert tokenizer.model_max_length == 128 and tokenizer.chat_template == TEMPLATE
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")
    assert [piece for piece, _ in pieces] == ["a", "ĠĠ", "1", "2"], "as the original tokenizer does"


def test_a_damaged_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"bad\.gguf could not be converted\. \w+: (?!.*Traceback)"):
        convert(tmp_path / "bad.gguf", tmp_path / "out")


def test_a_conversion_that_is_killed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, seen = tmp_path / "python", list[float | None]()
    python.write_text("#!/bin/sh\necho progress 0.5; echo noise; kill -9 $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelError, match=r"m\.gguf could not be converted\. It was killed"):
        convert(tmp_path / "m.gguf", tmp_path / "out", lambda phase, fraction: seen.append(fraction))
    assert seen == [0.5]


@pytest.mark.skipif(shutil.disk_usage(".").free < 2_000_000_000, reason="needs 2 GB of disk")
def test_the_real_model_answers_in_chatml(smollm: Model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm.path, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(smollm.path, dtype=torch.float32, trust_remote_code=False)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert prompt.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
    with torch.inference_mode():
        answer = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0][inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.pad_token_id == 2
