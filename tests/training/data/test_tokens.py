"""Tests of training/data/tokens.py: the answer survives any cut whole, or the row is left out and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.chat_template import as_messages, encode, neutralize
from serving.loaded import Loaded
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import encode_texts
from training.config import TrainConfig
from training.data.tokens import (
    IGNORED,
    TokenDataset,
    TokenizedRow,
    batches,
    conversation,
    encode_rows,
    last_answer,
    source_text,
    tokenize_rows,
    write_dataset,
)
from training.publish.evaluate import question

TOKENIZERS = {family: tiny._tokenizer(family) for family in ("bert", "llama", "gpt2", "t5")}
LONG = " ".join(f"word{i}" for i in range(400))
PROMPT = "Sum up: {text}"


def config(task: str, max_length: int = 64, prompt: str = PROMPT) -> TrainConfig:
    columns = {"text": "text", "target": "target"}
    return TrainConfig(
        name="a", plugin="p", model="m", task=task, data="d", columns=columns, prompt=prompt, max_length=max_length
    )


def task_of(family: str) -> str:
    return {"bert": "text-classification", "t5": "seq2seq-lm"}.get(family, "causal-lm")


def encode_one(family: str, row: dict[str, Any], labels: tuple[str, ...] = ("no", "yes"), **chosen: Any) -> Any:
    task = task_of(family)
    return encode_rows([row], TOKENIZERS[family], config(task, **chosen), labels, task)


def answer_of(family: str, example: dict[str, Any]) -> str:
    learned = [t for t in example["labels"] if t != IGNORED]
    return str(TOKENIZERS[family].decode(learned, skip_special_tokens=True)).strip()


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("text", ["short", "Où est 我的 🎉?", LONG, " spaces around ", "</s> and <|im_end|>"])
def test_the_answer_survives_whole(family: str, text: str) -> None:
    found = encode_one(family, {"text": text, "target": "an answer, with 中文 in it"})
    [example] = found.examples
    assert answer_of(family, example) == "an answer, with 中文 in it"
    assert len(example["input_ids"]) <= 64
    assert found.truncated == (text == LONG)
    if family != "t5":
        assert len(example["labels"]) == len(example["input_ids"])
        assert all(a in (b, IGNORED) for a, b in zip(example["labels"], example["input_ids"], strict=True))
        prompt = TOKENIZERS[family].decode(question(example, encoder_decoder=False))
        assert "Sum up: " in prompt, "the text is cut, and not what the tab says about it"


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_r35_a_row_whose_answer_does_not_fit_is_left_out_and_counted(family: str) -> None:
    rows = [{"text": "a", "target": LONG}, {"text": "b", "target": "fits"}, {"text": LONG, "target": LONG}]
    found = encode_rows(rows, TOKENIZERS[family], config(task_of(family)), (), task_of(family))
    assert found.kept == [rows[1]]
    assert len(found.examples) == 1
    assert found.truncated == 2


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_text_that_fits_exactly_is_not_cut(family: str) -> None:
    ids = TOKENIZERS[family](neutralize(TOKENIZERS[family], LONG))["input_ids"]
    row = {"text": LONG, "target": "yes"}
    for length, cut in ((len(ids), 0), (len(ids) - 1, 1)):
        found = encode_one(family, row, max_length=length, prompt="")
        assert len(found.examples[0]["input_ids"]) == length
        assert found.truncated == cut


def test_a_long_conversation_loses_its_oldest_turns() -> None:
    messages = [
        {"role": role, "content": f"{role} {i} says a few words"} for i in range(9) for role in ("user", "assistant")
    ]
    found = encode_one("llama", {"messages": messages})
    [example] = found.examples
    assert found.truncated == 1 and len(example["input_ids"]) == 64
    assert answer_of("llama", example).endswith("assistant 8 says a few words")


def test_every_turn_of_the_assistant_is_learned() -> None:
    messages = [{"role": role, "content": f"{role}{i}"} for i in range(2) for role in ("user", "assistant")]
    [example] = encode_one("llama", {"messages": messages}, max_length=256).examples
    assert answer_of("llama", example) == "assistant0assistant1"
    asked = TOKENIZERS["llama"].decode(question(example, encoder_decoder=False))
    assert asked.count("assistant0") == 1 and "assistant1" not in asked


def test_a_label_is_its_index() -> None:
    for label, index in (("no", 0), ("yes", 1)):
        assert encode_one("bert", {"text": "a", "target": label}).examples[0]["labels"] == index


@pytest.mark.parametrize("family", TOKENIZERS)
def test_r36_special_tokens_in_a_row_stay_text(family: str) -> None:
    tokenizer = TOKENIZERS[family]
    special = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    of = set(tokenizer.convert_tokens_to_ids(special))

    def count(extra: str) -> list[int]:
        target = "yes" if family == "bert" else f"yes{extra}"
        [example] = encode_one(family, {"text": f"a{extra}", "target": target}, max_length=256).examples
        labels = example["labels"] if isinstance(example["labels"], list) else []
        return [t for t in (*example["input_ids"], *labels) if t in of]

    assert count(" ".join(["", *special])) == count("")
    assert len(special) == 7


def by_the_row(row: dict[str, Any], tokenizer: Any, config: TrainConfig, labels: list[str]) -> tuple[Any, bool]:
    """One row in plain steps, with the tokenizer's own truncation: (example or None, whether it was cut)."""

    def cut(text: str) -> tuple[list[int], bool]:
        text = neutralize(tokenizer, text)
        ids = tokenizer(text, truncation=True, max_length=config.max_length)["input_ids"]
        return ids, len(tokenizer(text)["input_ids"]) > config.max_length

    if config.task == "text-classification":
        ids, was_cut = cut(row["text"])
        return {"input_ids": ids, "labels": labels.index(row["target"])}, was_cut
    messages = conversation(row, config.prompt)
    if config.task == "seq2seq-lm":
        source, was_cut = cut(source_text(messages))
        target = tokenizer(text_target=neutralize(tokenizer, messages[-1]["content"]))["input_ids"]
        fits = len(target) <= config.max_length
        return ({"input_ids": source, "labels": target} if fits else None), was_cut or not fits
    ids, spans = encode(tokenizer, messages)
    excess = len(ids) - config.max_length
    if excess > 0 and "text" in row:
        tokens = tokenizer(neutralize(tokenizer, row["text"]), add_special_tokens=False)["input_ids"]
        shorter = tokenizer.decode(tokens[: max(0, len(tokens) - excess - 2)])
        ids, spans = encode(tokenizer, conversation({**row, "text": shorter}, config.prompt))
    learned = [any(start <= i < end for start, end in spans) for i in range(len(ids))]
    if last_answer(learned) <= max(0, len(ids) - config.max_length):
        return None, True
    pairs = list(zip(ids, learned, strict=True))[-config.max_length :]
    return {"input_ids": [t for t, _ in pairs], "labels": [t if m else IGNORED for t, m in pairs]}, excess > 0


WORDS = st.lists(
    st.sampled_from(["a", "Où 我的 🎉", "</s>", "<|im_end|>", "\n", "  two words ", "x" * 90]), max_size=40
)
TEXT = st.builds(" ".join, WORDS)
PAIR = st.fixed_dictionaries({"text": TEXT, "target": st.sampled_from(["no", "yes"])})
LONG_PAIR = st.fixed_dictionaries({"text": TEXT, "target": TEXT})
CHAT = st.builds(
    lambda contents, answer: {
        "messages": [
            *({"role": ("user", "assistant")[i % 2], "content": c or "-"} for i, c in enumerate(contents)),
            *([{"role": "user", "content": "and?"}] if len(contents) % 2 == 0 else []),
            {"role": "assistant", "content": answer or "-"},
        ]
    },
    st.lists(TEXT, min_size=1, max_size=5),
    TEXT,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(PAIR, min_size=1, max_size=5), others=st.lists(LONG_PAIR | CHAT, max_size=5), data=st.data())
def test_a_batch_is_encoded_as_each_row_alone(pairs: Any, others: Any, data: Any) -> None:
    longest = data.draw(st.integers(8, 90))
    for family, tokenizer in TOKENIZERS.items():
        task = task_of(family)
        rows, told = pairs if task == "text-classification" else pairs + others, config(task, longest)
        alone = [by_the_row(row, tokenizer, told, ["no", "yes"]) for row in rows]
        found = encode_rows(rows, tokenizer, told, ["no", "yes"], task)
        assert found.examples == [example for example, _ in alone if example]
        assert found.kept == [row for row, (example, _) in zip(rows, alone, strict=True) if example]
        assert found.truncated == sum(was_cut for _, was_cut in alone)


def test_batches_are_small_in_rows_and_in_characters() -> None:
    rows = [{"text": "x" * n, "target": "y"} for n in [1] * 2_500 + [400_000] * 5 + [3_000_000, 1]]
    found = list(batches(rows))
    assert [row for batch in found for row in batch] == rows
    assert [len(batch) for batch in found] == [1000, 1000, 503, 3, 1]
    chat = {"messages": [{"role": "user", "content": "x" * 600_000}] * 2}
    assert [len(batch) for batch in batches([chat, chat])] == [1, 1]


@pytest.mark.parametrize("text", ["where is my parcel", " white space ", "Où 我的 🎉", "</s><|im_end|><s>", "{text}"])
def test_training_and_answering_read_the_same(served: dict[str, Loaded], text: str) -> None:
    """The ids that a version was trained on for a text are the ids that the server makes of it."""
    for task, loaded in served.items():
        row = {"text": text, "target": "yes"}
        [example] = encode_rows([row], loaded.base.tokenizer, config(task, 256), ["yes"], task).examples
        if task == "causal-lm":
            assert loaded.generator._text_ids(text, PROMPT) == question(example, encoder_decoder=False)
        else:
            _, batch = encode_texts(loaded.base, [text], None)
            assert batch["input_ids"][0].tolist() == example["input_ids"]


@pytest.mark.parametrize("text", ["notes of a meeting", "</s> ends <s>", " spaced "])
def test_an_encoder_decoder_is_asked_as_it_was_trained(text: str, t5: Loaded) -> None:
    row = {"text": text, "target": "x"}
    [example] = encode_rows([row], t5.base.tokenizer, config("seq2seq-lm", 256), [], "seq2seq-lm").examples
    assert t5.generator._text_ids(text, PROMPT) == question(example, encoder_decoder=True)
    chat = [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]
    [example] = encode_rows([{"messages": chat}], t5.base.tokenizer, config("seq2seq-lm"), [], "seq2seq-lm").examples
    assert t5.generator._chat_ids(chat[:-1]) == question(example, encoder_decoder=True)


@pytest.fixture(scope="module")
def served(bert: Trained, llama: Trained) -> dict[str, Loaded]:
    return {"text-classification": bert.load(), "causal-lm": llama.load()}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    from models.resolve import ModelStore

    home = tmp_path_factory.mktemp("t5")
    return Loaded(ModelStore(home, offline=True).resolve(str(tiny.make("t5", home / "t5"))), "none")


def test_a_conversation_is_made_of_either_kind_of_row() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}]
    assert conversation({"messages": messages}, PROMPT) == as_messages("a", "", "b")
    assert conversation({"text": "a", "target": "b"}, PROMPT) == as_messages("a", PROMPT, "b")


@pytest.mark.parametrize(
    ("learned", "start"),
    [([], 0), ([False, False], 0), ([False, True, True], 1), ([True, False, True, False], 2), ([True, True], 0)],
)
def test_last_answer_begins_at_the_last_run(learned: list[bool], start: int) -> None:
    assert last_answer(learned) == start


def test_the_loss_is_over_the_answer_and_the_end_of_the_turn() -> None:
    [example] = encode_one("llama", {"text": "a", "target": "b"}).examples
    ids, [(start, end)] = encode(TOKENIZERS["llama"], conversation({"text": "a", "target": "b"}, PROMPT))
    assert example["labels"] == [t if start <= i < end else IGNORED for i, t in enumerate(ids)]
    assert TOKENIZERS["llama"].decode([t for t in example["labels"] if t != IGNORED]) == "b<|im_end|>"


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_a_data_set_on_disk_has_the_examples_and_their_lengths(tmp_path: Path, family: str) -> None:
    task, rows = task_of(family), [{"text": f"text {i} " * i, "target": "yes" * (1 + i % 3)} for i in range(1, 9)]
    chosen, labels = config(task), ["yes", "yesyes", "yesyesyes"]
    tokens = [row for _, row, _ in tokenize_rows(rows, TOKENIZERS[family], chosen, labels, task) if row]
    largest = write_dataset(tmp_path / "train", iter(tokens), task, "a-fingerprint")
    examples = encode_rows(rows, TOKENIZERS[family], chosen, labels, task).examples
    dataset = TokenDataset(tmp_path / "train", task)
    assert (list(dataset), dataset[:], dataset[-1], len(dataset)) == (examples, examples, examples[-1], len(examples))
    assert dataset.lengths.tolist() == [len(example["input_ids"]) for example in examples]
    learned = [e["labels"] if isinstance(e["labels"], list) else [0] for e in examples]
    assert dataset.learned.tolist() == [sum(token != IGNORED for token in row) for row in learned]
    assert largest == max(max(e["input_ids"] + (e["labels"] if family == "t5" else [])) for e in examples)
    opened = load_from_disk(str(tmp_path / "train"))
    assert (opened["input_ids"][:], str(opened.split)) == ([example["input_ids"] for example in examples], "train")
    with pytest.raises(IndexError):
        dataset[len(examples)]


def test_an_empty_data_set_has_no_rows(tmp_path: Path) -> None:
    assert write_dataset(tmp_path / "train", [], "causal-lm", "none") == 0
    dataset = TokenDataset(tmp_path / "train", "causal-lm")
    assert (len(dataset), len(dataset.lengths), len(load_from_disk(str(tmp_path / "train")))) == (0, 0, 0)


def test_a_data_set_is_not_read_into_memory(tmp_path: Path) -> None:
    def mapped_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssFile:")).split()[1]) * 1024

    row = TokenizedRow(list(range(8192)), [0, 2])
    write_dataset(tmp_path / "train", (row for _ in range(1024)), "causal-lm", "large")
    before = mapped_bytes()
    dataset = TokenDataset(tmp_path / "train", "causal-lm")
    assert dataset.lengths.sum() == 1024 * 8192 and len(dataset[512]["input_ids"]) == 8192
    assert mapped_bytes() - before < 8e6, "of 32 MB"
