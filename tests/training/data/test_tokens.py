"""Tests of training/data/tokens.py: an answer is kept whole, or its row is left out and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.chat_template import encode, neutralize
from models.resolve import ModelStore
from serving.loaded import Loaded
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import encode_texts
from tests.helpers.training_helpers import bare_config
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
    return bare_config(task, max_length=max_length, prompt=prompt)


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
def test_an_answer_is_kept_whole(family: str, text: str) -> None:
    found = encode_one(family, {"text": text, "target": "an answer, with 中文 in it"})
    [example] = found.examples
    assert answer_of(family, example) == "an answer, with 中文 in it"
    assert len(example["input_ids"]) <= 64
    assert found.truncated == (text == LONG)
    if family != "t5":
        prompt = TOKENIZERS[family].decode(question(example, encoder_decoder=False))
        assert "Sum up: " in prompt, "the text is cut, and not the tab's prompt"


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_r35_a_row_whose_answer_does_not_fit_is_left_out_and_counted(family: str) -> None:
    rows = [{"text": "a", "target": LONG}, {"text": "b", "target": "fits"}, {"text": LONG, "target": LONG}]
    found = encode_rows(rows, TOKENIZERS[family], config(task_of(family)), (), task_of(family))
    assert found.kept == [rows[1]]
    assert len(found.examples) == 1
    assert found.truncated == 2


def test_a_conversation_is_left_out_where_only_its_answer_fits() -> None:
    messages = [{"role": role, "content": f"{role} says"} for role in ("user", "assistant", "user", "assistant")]
    ids, spans = encode(TOKENIZERS["llama"], messages)
    answer = len(ids) - spans[-1][0]
    found = [
        encode_one("llama", {"messages": messages}, max_length=length) for length in (answer, answer + 1, len(ids))
    ]
    assert [(len(one.kept), one.truncated) for one in found] == [(0, 1), (1, 1), (1, 0)]


def test_the_loss_is_over_each_answer_and_the_end_of_its_turn() -> None:
    messages = [{"role": role, "content": f"{role}{i}"} for i in range(2) for role in ("user", "assistant")]
    [example] = encode_one("llama", {"messages": messages}, max_length=256).examples
    learned = TOKENIZERS["llama"].decode([token for token in example["labels"] if token != IGNORED])
    assert learned == "assistant0<|im_end|>assistant1<|im_end|>"
    assert all(label in (token, IGNORED) for label, token in zip(example["labels"], example["input_ids"], strict=True))
    asked = TOKENIZERS["llama"].decode(question(example, encoder_decoder=False))
    assert asked.count("assistant0") == 1 and "assistant1" not in asked


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
    """Encode one row in plain steps, with the tokenizer's own truncation: (example or None, whether it was cut)."""

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
        rows, chosen = pairs if task == "text-classification" else pairs + others, config(task, longest)
        alone = [by_the_row(row, tokenizer, chosen, ["no", "yes"]) for row in rows]
        found = encode_rows(rows, tokenizer, chosen, ["no", "yes"], task)
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


@pytest.fixture(scope="module")
def served(bert: Trained, llama: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    home = tmp_path_factory.mktemp("t5")
    t5 = Loaded(ModelStore(home, offline=True).resolve(str(tiny.make("t5", home / "t5"))), "none")
    return {"text-classification": bert.load(), "causal-lm": llama.load(), "seq2seq-lm": t5}


@pytest.mark.parametrize("text", ["where is my parcel", " white space ", "Où 我的 🎉", "</s><|im_end|><s>", "{text}"])
def test_a_server_reads_a_text_as_training_does(served: dict[str, Loaded], text: str) -> None:
    for task, loaded in served.items():
        row = {"text": text, "target": "yes"}
        [example] = encode_rows([row], loaded.base.tokenizer, config(task, 256), ["yes"], task).examples
        if task == "text-classification":
            _, batch = encode_texts(loaded.base, [text], None)
            assert batch["input_ids"][0].tolist() == example["input_ids"]
        else:
            assert loaded.generator._text_ids(text, PROMPT) == question(example, task == "seq2seq-lm")
    chat = {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]}
    [example] = encode_rows([chat], loaded.base.tokenizer, config(task, 256), [], task).examples
    assert loaded.generator._chat_ids(chat["messages"][:-1]) == question(example, encoder_decoder=True)


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
    assert write_dataset(tmp_path / "empty", [], task, "none") == 0
    empty = TokenDataset(tmp_path / "empty", task)
    assert (len(empty), len(empty.lengths), len(load_from_disk(str(tmp_path / "empty")))) == (0, 0, 0)


def test_a_data_set_is_mapped_and_not_read_into_memory(tmp_path: Path) -> None:
    def mapped_bytes() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssFile:")).split()[1]) * 1024

    row = TokenizedRow(list(range(8192)), [0, 2])
    write_dataset(tmp_path / "train", (row for _ in range(1024)), "causal-lm", "large")
    before = mapped_bytes()
    dataset = TokenDataset(tmp_path / "train", "causal-lm")
    assert dataset.lengths.sum() == 1024 * 8192 and len(dataset[512]["input_ids"]) == 8192
    assert mapped_bytes() - before < 8e6, "of 32 MB"
