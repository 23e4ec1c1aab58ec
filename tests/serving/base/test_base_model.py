"""base_model.py: a base answers with the version each request pinned; bad versions are refused and leave nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from errors import AdapterError, ModelError
from serving.base.slots import CAPACITY
from serving.loaded import Loaded
from store.adapters import WEIGHTS, AdapterStore, Version
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import encode_texts, load, together, write
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train
from tests.helpers.versions import config, copy_of, fill, first, tensors

TEXT = "where is my parcel"


def classify(loaded: Loaded, version: Version | None, text: str) -> dict[str, float]:
    with loaded.base.slots.pin(version) as slot:
        return loaded.classifier.classify(text, slot)


def test_texts_of_any_length_beside_each_other_are_read_whole(bert: Trained) -> None:
    """Padding and truncation of one thread must not reach another's texts through the shared tokenizer."""
    loaded, long, short = bert.load(), "where is my parcel " * 200, "hello"
    alone = {text: classify(loaded, bert.first, text) for text in (long, short)}
    notes = {text: loaded.classifier.notes(text) for text in (long, short)}
    assert len(notes[long]) == 1 and notes[short] == []

    def work(text: str) -> None:
        for _ in range(40):
            assert loaded.classifier.notes(text) == notes[text]
            assert classify(loaded, bert.first, text) == pytest.approx(alone[text], abs=1e-5)
            loaded.classifier.embed(text)

    together(work, [(long,), (short,)] * 3)


def test_a_long_text_is_cut_as_transformers_cuts_it(bert: Trained) -> None:
    base, texts = bert.load().base, ["where is my parcel " * 200, "hello"]
    _, batch = encode_texts(base, texts, None)
    options = {"padding": True, "truncation": True, "max_length": base.window, "return_tensors": "pt"}
    theirs = base.tokenizer(texts, **options).to(base.device)
    assert batch["input_ids"].shape[1] == base.window
    assert all(torch.equal(batch[key], theirs[key]) for key in ("input_ids", "attention_mask"))


def with_more_tokens(folder: Path) -> Path:
    """A base whose tokenizer was given tokens, one of them for padding, and the base was not."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["outsider"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_that_the_base_does_not_have_are_refused_and_none_is_padded_with(tmp_path: Path) -> None:
    loaded = load(with_more_tokens(tiny.make("bert", tmp_path / "bert")))
    with pytest.raises(ModelError, match="cannot read this text"):
        loaded.classifier.embed("an outsider")
    assert len(loaded.classifier._embed(["of two lengths", "one"])) == 2


@pytest.mark.parametrize(("family", "old", "new"), [("bert", "great", "outsider"), ("t5", ': nothing"', ': outsider"')])
def test_texts_and_answers_in_tokens_that_the_base_does_not_have_are_not_learned(
    family: str, old: str, new: str, tmp_path: Path
) -> None:
    spec = spec_of(family, with_more_tokens(tiny.make(family, tmp_path / family)))
    config = config_of(spec, tmp_path, "more")
    assert run_worker(config, tmp_path)["state"] == "done"
    rows = Path(config.data)
    rows.write_text(rows.read_text().replace(old, new))
    result = run_worker(config, tmp_path, "again")
    assert result["state"] == "failed" and "cannot read this text" in result["what"], result


def test_a_base_with_beam_search_of_its_own_still_streams(tmp_path: Path) -> None:
    folder = tiny.make("bart", tmp_path / "bart")
    options = {"num_beams": 4, "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(options))
    assert write(load(folder), "a text", "", None, max_new_tokens=4) is not None


def test_a_base_that_classifies_takes_versions_with_other_labels(tmp_path: Path) -> None:
    """A base with a head of two labels: it answers with them itself, and a version of three with its own."""
    folder = tiny.make("distilbert", tmp_path / "base")
    net = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, id2label={0: "no", 1: "yes"})
    net.save_pretrained(folder)
    data = tmp_path / "letters.csv"
    data.write_text("text,label\n" + "".join(f"row number {i},{'abc'[i % 3]}\n" for i in range(30)))
    config = replace(config_of(spec_of("distilbert", folder), tmp_path, "three"), data=str(data))
    assert run_worker(config, tmp_path)["state"] == "done"
    loaded = load(folder)
    assert set(classify(loaded, None, "a text")) == {"no", "yes"}
    assert set(classify(loaded, AdapterStore(tmp_path).get("three@1"), "a text")) == {"a", "b", "c"}


def test_a_version_put_in_the_place_of_another_is_read_anew(bert: Trained, tmp_path: Path) -> None:
    loaded = bert.load()
    one = copy_of(bert.first, tmp_path, "same")
    before = classify(loaded, one, TEXT)
    shutil.rmtree(one.path.parent)
    other = copy_of(bert.second, tmp_path, "same")
    assert other.ref == one.ref
    assert classify(loaded, other, TEXT) != pytest.approx(before)


@pytest.mark.parametrize(("spare", "kept"), [(0, CAPACITY), (10**9, CAPACITY + 4), (1, CAPACITY)])
def test_r29_idle_versions_are_evicted_and_used_ones_are_not(
    bert: Trained, tmp_path: Path, spare: int, kept: int
) -> None:
    loaded = bert.load()
    loaded.base.slots._spare = spare
    with loaded.base.slots.pin(bert.first):
        for n in range(CAPACITY + 3):
            classify(loaded, copy_of(bert.first, tmp_path, f"copy{n}"), "text")
        assert bert.first.ref in loaded.base.slots.loaded
    assert len(loaded.base.slots.loaded) == kept, "more than so many only where there is memory to spare"


BAD = {
    "truncated": (lambda folder: _truncate(folder / WEIGHTS), "cut short or damaged"),
    "nan": (tensors(fill("lora_A", float("nan"))), "not finite"),
    "changes nothing": (tensors(fill("lora_B", 0.0)), "changes nothing"),
    "one of a pair": (tensors(lambda held: held.pop(first(held, "lora_B"))), "only one of its two"),
    "renamed": (tensors(lambda held: held.update(odd=held.pop(first(held, "lora_A")))), "neither a LoRA matrix"),
    "embedding": (
        tensors(lambda held: held.update({"base_model.model.bert.words.lora_embedding_A": torch.ones(2, 2)})),
        "bert.words, an embedding; only linear layers",
    ),
    "no head": (tensors(lambda held: [held.pop(k) for k in list(held) if "classifier" in k]), "head was refused"),
    "dora": (config(use_dora=True), "lacks the magnitudes"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "missing"),
}
"""Faults in the files of a version; tests/models/test_adapter_check.py has more of them."""


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("fault", BAD)
def test_r13_r29_a_bad_version_is_refused_and_the_other_answers_on(bert: Trained, tmp_path: Path, fault: str) -> None:
    change, reason = BAD[fault]
    loaded = bert.load()
    before = classify(loaded, bert.first, TEXT)
    bad = copy_of(bert.first, tmp_path, "bad", change)
    with pytest.raises(AdapterError, match=reason):
        classify(loaded, bad, TEXT)
    assert loaded.base.slots.loaded == [bert.first.ref]
    assert classify(loaded, bert.first, TEXT) == pytest.approx(before)


def test_r14_a_version_of_another_base_is_refused(bert: Trained, tmp_path: Path) -> None:
    spec = spec_of("bert", tiny.make("bert", tmp_path / "other", seed=5))
    other = train(spec, tmp_path, name="other")
    with pytest.raises(AdapterError, match="was made for"):
        classify(bert.load(), other, TEXT)


def test_bytes_changed_after_publishing_are_refused(bert: Trained, tmp_path: Path) -> None:
    version = copy_of(bert.first, tmp_path, "later")
    held = load_file(version.path / WEIGHTS)
    held[first(held, "lora_A")] += 1
    save_file(held, version.path / WEIGHTS)
    with pytest.raises(AdapterError, match="changed since it was published"):
        classify(bert.load(), version, TEXT)
