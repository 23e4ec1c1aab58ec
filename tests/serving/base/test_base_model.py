"""serving/: a base answers with the version each request pinned; bad versions are refused and leave nothing behind."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from errors import AdapterError, InputError, ModelError
from models.resolve import ModelStore
from serving.base.slots import CAPACITY
from serving.loaded import Loaded
from store import files
from store.adapters import WEIGHTS, AdapterStore, Version
from store.staging import MANIFEST
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.exact import ATOL
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train

TEXTS = [f"where is parcel number {i}" for i in range(8)]


def answer(loaded: Loaded, version: Version | None, text: str) -> dict[str, float]:
    with loaded.resident.pin(version) as slot:
        return loaded.labels.classify(text, slot)


def together(work: Callable[..., None], arguments: Sequence[tuple[object, ...]]) -> None:
    """Call `work` with each of the arguments, all at the same time."""
    threads = [threading.Thread(target=work, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_answers_of_versions_differ_and_stay_what_they_are(bert: Trained) -> None:
    loaded = bert.load()
    alone = {v.ref: [answer(loaded, v, t) for t in TEXTS] for v in (bert.first, bert.second)}
    assert alone[bert.first.ref] != alone[bert.second.ref]
    again = {v.ref: [answer(loaded, v, t) for t in TEXTS] for v in (bert.second, bert.first)}
    for ref, answers in alone.items():
        for one, other in zip(answers, again[ref], strict=True):
            assert one == pytest.approx(other, abs=1e-6)


def test_threads_with_different_versions_each_get_their_own(bert: Trained) -> None:
    """Every concurrent answer equals the golden answer of the version that the request pinned."""
    loaded, versions = bert.load(), (bert.first, bert.second)
    golden = {(v.ref, t): answer(loaded, v, t) for v in versions for t in TEXTS}
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in range(60):
            version, text = versions[(i + seed) % 2], TEXTS[(i * 3 + seed) % len(TEXTS)]
            if answer(loaded, version, text) != pytest.approx(golden[version.ref, text], abs=ATOL):
                wrong.append(f"{version.ref}: {text}")

    together(work, [(n,) for n in range(8)])
    assert wrong == []


def test_generations_with_different_versions_run_side_by_side(llama: Trained) -> None:
    loaded = llama.load()

    def write(version: Version | None, text: str) -> str:
        from serving.generation.sampling import Sampling

        with loaded.resident.pin(version) as slot:
            return list(loaded.text.generate(text, "Sum up: {text}", Sampling(max_new_tokens=12), slot, []))[-1]

    versions = (None, llama.first, llama.second)
    golden = {(v.ref if v else "", t): write(v, t) for v in versions for t in TEXTS[:3]}
    assert len({golden[v.ref if v else "", TEXTS[0]] for v in versions}) == 3, "the versions must differ"
    wrong: list[str] = []

    def work(version: Version | None) -> None:
        for text in TEXTS[:3] * 2:
            if write(version, text) != golden[version.ref if version else "", text]:
                wrong.append(text)

    together(work, [(v,) for v in versions * 2])
    assert wrong == []


def test_texts_of_any_length_beside_each_other_are_read_whole(bert: Trained) -> None:
    """Padding and truncation of one thread must not reach another's texts through the shared tokenizer."""
    loaded, long, short = bert.load(), "where is my parcel " * 200, "hello"
    alone = {t: answer(loaded, bert.first, t) for t in (long, short)}
    note = loaded.labels.notes(long)
    assert len(note) == 1 and loaded.labels.notes(short) == []
    wrong: list[object] = []

    def work(text: str, expected_note: list[str]) -> None:
        for _ in range(40):
            try:
                if loaded.labels.notes(text) != expected_note or answer(loaded, bert.first, text) != pytest.approx(
                    alone[text], abs=1e-5
                ):
                    wrong.append(text[:20])
                loaded.labels.embed(text)
            except Exception as error:
                wrong.append(error)

    together(work, [(long, note), (short, [])] * 3)
    assert wrong == []


def test_a_long_text_is_cut_as_transformers_cuts_it(bert: Trained) -> None:
    resident, long = bert.load().resident, "where is my parcel " * 200
    _, batch = resident.encode([long, "hello"], None)
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
        loaded.labels.embed("an outsider")
    assert len(loaded.labels._embedded(["of two lengths", "one"])) == 2
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
    from serving.generation.sampling import Sampling

    folder = tiny.make("bart", tmp_path / "bart")
    (folder / "generation_config.json").write_text(
        json.dumps({"num_beams": 4, "decoder_start_token_id": 2, "eos_token_id": 2, "pad_token_id": 0})
    )
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(str(folder)), "none")
    assert list(loaded.text.generate("a text", "", Sampling(max_new_tokens=4), None, []))


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
    assert set(answer(loaded, None, "a text")) == {"no", "yes"}
    assert set(answer(loaded, AdapterStore(tmp_path).get("three@1"), "a text")) == {"a", "b", "c"}


def test_a_version_put_in_the_place_of_another_is_read_anew(bert: Trained, tmp_path: Path) -> None:
    loaded = bert.load()
    one = copy_of(bert.first, tmp_path, "same")
    before = answer(loaded, one, TEXTS[0])
    shutil.rmtree(one.path.parent)
    other = copy_of(bert.second, tmp_path, "same")
    assert other.ref == one.ref
    assert answer(loaded, other, TEXTS[0]) != pytest.approx(before)


def test_a_generation_ends_when_its_reader_goes(llama: Trained) -> None:
    from serving.generation.sampling import Sampling

    loaded = llama.load()
    stream = loaded.text.generate("a text", "", Sampling(max_new_tokens=200), None, [])
    next(stream)
    stream.close()
    for thread in [t for t in threading.enumerate() if t.name == "graft-generate"]:
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(("spare", "kept"), [(0, CAPACITY), (10**9, CAPACITY + 4), (1, CAPACITY)])
def test_r29_idle_versions_are_evicted_and_used_ones_are_not(
    bert: Trained, tmp_path: Path, spare: int, kept: int
) -> None:
    loaded = bert.load()
    loaded.resident.slots._spare = spare
    with loaded.resident.pin(bert.first):
        for n in range(CAPACITY + 3):
            answer(loaded, copy_of(bert.first, tmp_path, f"copy{n}"), "text")
        assert bert.first.ref in loaded.resident.slots.loaded
    assert len(loaded.resident.slots.loaded) == kept, "more than so many only where there is memory to spare"


def copy_of(
    version: Version, home: Path, name: str, change: Callable[[Path], None] | None = None, **other: object
) -> Version:
    """The version published again under another name, after `change` was made to its files; `other` facts are told."""
    store = AdapterStore(home)
    with store.staging() as staging:
        shutil.copytree(version.path, staging, dirs_exist_ok=True)
        (staging / MANIFEST).unlink()
        if change:
            change(staging)
        facts = {k: v for k, v in version.manifest.items() if k not in ("files", "name", "number")}
        return store.publish(staging, name, {**facts, **other})


def tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS)

    return apply


def config(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**values, **changes}))

    return apply


def first(held: dict[str, torch.Tensor], part: str) -> str:
    return next(key for key in sorted(held) if part in key)


def fill(part: str, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def apply(held: dict[str, torch.Tensor]) -> None:
        for key in held:
            if part in key:
                held[key] = torch.full_like(held[key], value)

    return apply


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
        tensors(lambda held: held.update({first(held, "lora_A"): torch.ones(8, 65)})), "this base's layer takes"
    ),
    "no head": (tensors(lambda held: [held.pop(k) for k in list(held) if "classifier" in k]), "head was refused"),
    "rank 0": (config(r=0), "rank is 0"),
    "dora": (config(use_dora=True), "lacks the magnitudes"),
    "pattern targets": (config(target_modules="([a-z]+)+!"), "target_modules is .* cannot be served"),
    "no targets": (config(target_modules=[]), "not a list"),
    "other kind": (config(peft_type="IA3"), "peft_type"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "missing"),
}  # fmt: skip


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("fault", BAD)
def test_r13_r29_a_bad_version_is_refused_and_the_other_answers_on(bert: Trained, tmp_path: Path, fault: str) -> None:
    change, reason = BAD[fault]
    loaded = bert.load()
    before = answer(loaded, bert.first, TEXTS[0])
    bad = copy_of(bert.first, tmp_path, "bad", change)
    with pytest.raises(AdapterError, match=reason):
        answer(loaded, bad, TEXTS[0])
    assert loaded.resident.slots.loaded == [bert.first.ref]
    assert answer(loaded, bert.first, TEXTS[0]) == pytest.approx(before)


def test_r14_a_version_of_another_base_is_refused(bert: Trained, tmp_path: Path) -> None:
    spec = spec_of("bert", tiny.make("bert", tmp_path / "other", seed=5))
    other = train(spec, tmp_path, name="other")
    with pytest.raises(AdapterError, match="was made for"):
        answer(bert.load(), other, TEXTS[0])


def test_bytes_changed_after_publishing_are_refused(bert: Trained, tmp_path: Path) -> None:
    version = copy_of(bert.first, tmp_path, "later")
    held = load_file(version.path / WEIGHTS)
    held[first(held, "lora_A")] += 1
    save_file(held, version.path / WEIGHTS)
    with pytest.raises(AdapterError, match="changed since it was published"):
        answer(bert.load(), version, TEXTS[0])


def test_the_base_without_a_head_says_what_to_do(bert: Trained) -> None:
    with pytest.raises(InputError, match="Type your own labels"):
        answer(bert.load(), None, "a text")


def test_zero_shot_gives_probabilities_for_own_labels(bert: Trained) -> None:
    scores = bert.load().labels.zero_shot("a text", ["one", "two", "three"])
    assert list(scores) == ["one", "two", "three"]
    assert sum(scores.values()) == pytest.approx(1)


def test_manifest_of_a_trained_version_tells_where_it_comes_from(bert: Trained) -> None:
    manifest = files.read_json(bert.first.path / MANIFEST)
    assert manifest["plugin"] == "classification" and manifest["labels"] == ["0", "1"]
    assert manifest["base"]["identity"] == bert.model.identity
    assert manifest["data"]["trained"] + bert.first.card["held_out"] == manifest["data"]["usable"] == 24
    assert manifest["measured"]["steps"] == 2
