"""serving/: a base answers with the version each request pinned; bad versions are refused and leave nothing behind."""

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
from models.resolve import ModelStore
from serving.base.slots import CAPACITY
from serving.loaded import Loaded
from store import files
from store.adapters import MANIFEST, WEIGHTS, AdapterStore
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import classify, encode_texts, together, write
from tests.helpers.exact import ATOL
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train
from tests.helpers.versions import config, copy_of, fill, first, tensors

TEXTS = [f"where is parcel number {i}" for i in range(8)]


def test_threads_with_different_versions_each_get_their_own(bert: Trained) -> None:
    """Every concurrent answer equals the golden answer of the version that the request pinned."""
    loaded, versions = bert.load(), (bert.first, bert.second)
    golden = {(v.ref, t): classify(loaded, v, t) for v in versions for t in TEXTS}
    assert golden[bert.first.ref, TEXTS[0]] != golden[bert.second.ref, TEXTS[0]]
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in range(60):
            version, text = versions[(i + seed) % 2], TEXTS[(i * 3 + seed) % len(TEXTS)]
            if classify(loaded, version, text) != pytest.approx(golden[version.ref, text], abs=ATOL):
                wrong.append(f"{version.ref}: {text}")

    together(work, [(n,) for n in range(8)])
    assert wrong == []


def test_texts_of_any_length_beside_each_other_are_read_whole(bert: Trained) -> None:
    """Padding and truncation of one thread must not reach another's texts through the shared tokenizer."""
    loaded, long, short = bert.load(), "where is my parcel " * 200, "hello"
    alone = {t: classify(loaded, bert.first, t) for t in (long, short)}
    note = loaded.classifier.notes(long)
    assert len(note) == 1 and loaded.classifier.notes(short) == []
    wrong: list[object] = []

    def work(text: str, expected_note: list[str]) -> None:
        for _ in range(40):
            try:
                if loaded.classifier.notes(text) != expected_note or classify(
                    loaded, bert.first, text
                ) != pytest.approx(alone[text], abs=1e-5):
                    wrong.append(text[:20])
                loaded.classifier.embed(text)
            except Exception as error:
                wrong.append(error)

    together(work, [(long, note), (short, [])] * 3)
    assert wrong == []


def test_a_long_text_is_cut_as_transformers_cuts_it(bert: Trained) -> None:
    resident, long = bert.load().base, "where is my parcel " * 200
    _, batch = encode_texts(resident, [long, "hello"], None)
    theirs = resident.tokenizer(
        [long, "hello"], padding=True, truncation=True, max_length=resident.window, return_tensors="pt"
    ).to(resident.device)
    assert batch["input_ids"].shape[1] == resident.window
    assert torch.equal(batch["input_ids"], theirs["input_ids"])
    assert torch.equal(batch["attention_mask"], theirs["attention_mask"])


def with_more_tokens(folder: Path) -> Path:
    """A base whose tokenizer was given tokens, one of them for padding, and the base was not."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["outsider"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    return folder


def test_tokens_that_the_base_does_not_have_are_refused_and_none_is_padded_with(tmp_path: Path) -> None:
    base = with_more_tokens(tiny.make("bert", tmp_path / "bert"))
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(str(base)), "none")
    with pytest.raises(ModelError, match="cannot read this text"):
        loaded.classifier.embed("an outsider")
    assert len(loaded.classifier._embed(["of two lengths", "one"])) == 2
    spec = spec_of("bert", base)
    config = config_of(spec, tmp_path, "more")
    assert run_worker(config, tmp_path)["state"] == "done"
    rows = Path(config.data)
    rows.write_text(rows.read_text().replace("great", "outsider"))
    result = run_worker(config, tmp_path, "again")
    assert result["state"] == "failed" and "cannot read this text" in result["what"], result


def test_answers_in_tokens_that_the_base_does_not_have_are_not_learned(tmp_path: Path) -> None:
    spec = spec_of("t5", with_more_tokens(tiny.make("t5", tmp_path / "t5")))
    config = config_of(spec, tmp_path, "more")
    rows = Path(config.data)
    rows.write_text(rows.read_text().replace(': nothing"', ': outsider"'))
    result = run_worker(config, tmp_path)
    assert result["state"] == "failed" and "cannot read this text" in result["what"], result


def test_a_base_with_beam_search_of_its_own_still_streams(tmp_path: Path) -> None:
    folder = tiny.make("bart", tmp_path / "bart")
    (folder / "generation_config.json").write_text(
        json.dumps({"num_beams": 4, "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 0})
    )
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(str(folder)), "none")
    assert write(loaded, "a text", "", None, max_new_tokens=4) is not None


def test_a_base_that_classifies_takes_versions_with_other_labels(tmp_path: Path) -> None:
    """A base with a head of two labels: it answers with them itself, and a version of three with its own."""
    folder = tiny.make("distilbert", tmp_path / "base")
    net = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2, id2label={0: "no", 1: "yes"})
    net.save_pretrained(folder)
    spec = spec_of("distilbert", folder)
    data = tmp_path / "letters.csv"
    data.write_text("text,label\n" + "".join(f"row number {i},{'abc'[i % 3]}\n" for i in range(30)))
    config = replace(config_of(spec, tmp_path, "three"), data=str(data))
    assert run_worker(config, tmp_path)["state"] == "done"
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(str(folder)), "none")
    assert set(classify(loaded, None, "a text")) == {"no", "yes"}
    assert set(classify(loaded, AdapterStore(tmp_path).get("three@1"), "a text")) == {"a", "b", "c"}


def test_a_version_put_in_the_place_of_another_is_read_anew(bert: Trained, tmp_path: Path) -> None:
    loaded = bert.load()
    one = copy_of(bert.first, tmp_path, "same")
    before = classify(loaded, one, TEXTS[0])
    shutil.rmtree(one.path.parent)
    other = copy_of(bert.second, tmp_path, "same")
    assert other.ref == one.ref
    assert classify(loaded, other, TEXTS[0]) != pytest.approx(before)


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
    "infinite": (tensors(lambda held: held[first(held, "lora_B")].fill_(float("inf"))), "not finite"),
    "changes nothing": (tensors(fill("lora_B", 0.0)), "changes nothing"),
    "missing layer": (tensors(lambda held: [held.pop(k) for k in list(held) if "layer.1.attention" in k]), "lacks"),
    "one of a pair": (tensors(lambda held: held.pop(first(held, "lora_B"))), "only one of its two"),
    "extra layer": (
        tensors(lambda held: held.update({"base_model.model.bert.encoder.layer.9.x.lora_A.weight": torch.ones(8, 64)})),
        "does not have",
    ),
    "renamed": (tensors(lambda held: held.update(odd=held.pop(first(held, "lora_A")))), "neither a LoRA matrix"),
    "embedding": (
        tensors(lambda held: held.update({"base_model.model.bert.words.lora_embedding_A": torch.ones(2, 2)})),
        "bert.words, an embedding; only linear layers",
    ),
    "wrong shape": (
        tensors(lambda held: held.update({first(held, "lora_A"): torch.ones(8, 65)})),
        "this base's layer takes",
    ),
    "no head": (tensors(lambda held: [held.pop(k) for k in list(held) if "classifier" in k]), "head was refused"),
    "rank 0": (config(r=0), "rank is 0"),
    "dora": (config(use_dora=True), "lacks the magnitudes"),
    "pattern targets": (config(target_modules="([a-z]+)+!"), "target_modules is .* cannot be served"),
    "no targets": (config(target_modules=[]), "not a list"),
    "other kind": (config(peft_type="IA3"), "peft_type"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "missing"),
}


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("fault", BAD)
def test_r13_r29_a_bad_version_is_refused_and_the_other_answers_on(bert: Trained, tmp_path: Path, fault: str) -> None:
    change, reason = BAD[fault]
    loaded = bert.load()
    before = classify(loaded, bert.first, TEXTS[0])
    bad = copy_of(bert.first, tmp_path, "bad", change)
    with pytest.raises(AdapterError, match=reason):
        classify(loaded, bad, TEXTS[0])
    assert loaded.base.slots.loaded == [bert.first.ref]
    assert classify(loaded, bert.first, TEXTS[0]) == pytest.approx(before)


def test_r14_a_version_of_another_base_is_refused(bert: Trained, tmp_path: Path) -> None:
    spec = spec_of("bert", tiny.make("bert", tmp_path / "other", seed=5))
    other = train(spec, tmp_path, name="other")
    with pytest.raises(AdapterError, match="was made for"):
        classify(bert.load(), other, TEXTS[0])


def test_bytes_changed_after_publishing_are_refused(bert: Trained, tmp_path: Path) -> None:
    version = copy_of(bert.first, tmp_path, "later")
    held = load_file(version.path / WEIGHTS)
    held[first(held, "lora_A")] += 1
    save_file(held, version.path / WEIGHTS)
    with pytest.raises(AdapterError, match="changed since it was published"):
        classify(bert.load(), version, TEXTS[0])


def test_manifest_of_a_trained_version_tells_where_it_comes_from(bert: Trained) -> None:
    manifest = files.read_json(bert.first.path / MANIFEST)
    assert manifest["plugin"] == "classification" and manifest["labels"] == ["0", "1"]
    assert manifest["base"]["identity"] == bert.model.identity
    assert manifest["data"]["trained"] + bert.first.card["held_out"] == manifest["data"]["usable"] == 24
    assert manifest["measured"]["steps"] == 2
