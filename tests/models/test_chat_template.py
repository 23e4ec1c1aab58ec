"""models/chat_template.py: labels are the assistant's words and ends of turns; text never becomes a special token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AddedToken

from errors import InputError
from models.chat_template import Span, as_messages, as_text, encode, encode_batch, neutralize, render
from tests.helpers import tiny

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m.role }}<|stop|>\n\n{{ m.content }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}\n{{ '<|assistant|>\n' }}{% endif %}"
)
QWEN = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = {"fallback": None, "chatml": tiny.CHATML, "qwen": QWEN, "llama3": LLAMA3, "zephyr": ZEPHYR}
END = {"fallback": "</s>", "chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot|>", "zephyr": "</s>"}


def tokenizer_for(name: str) -> Any:
    tokenizer = tiny._tokenizer("gpt2")
    if name == "llama3":  # special tokens that no role was given to, as Llama 3 has them
        tokenizer.add_tokens([AddedToken(t, special=True) for t in ("<|start|>", "<|stop|>", "<|eot|>")])
    tokenizer.chat_template = TEMPLATES[name]
    return tokenizer


TOKENIZERS = {name: tokenizer_for(name) for name in TEMPLATES}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Où est mon colis ?"},
    {"role": "assistant", "content": "It left 昨天 🎉"},
    {"role": "user", "content": "Thanks."},
    {"role": "assistant", "content": "You are welcome, any time."},
]
SHAPES = {"one turn": CHAT[1:3], "system": CHAT[:3], "two turns": CHAT[1:], "all": CHAT}


def label_text(tokenizer: Any, ids: list[int], labels: list[Span]) -> str:
    return str(tokenizer.decode([t for start, end in labels for t in ids[start:end]]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_labels_are_the_assistants_words_and_ends_and_the_row_begins_as_its_question(name: str, shape: str) -> None:
    tokenizer, messages = TOKENIZERS[name], SHAPES[shape]
    ids, labels = encode(tokenizer, messages)
    answers = "".join(m["content"] + END[name] for m in messages if m["role"] == "assistant")
    assert label_text(tokenizer, ids, labels) == answers
    for message in messages:
        assert message["content"] in tokenizer.decode(ids)
    question, before = encode(tokenizer, messages[:-1], answer_next=True)
    assert ids[: len(question)] == question and labels[:-1] == before
    assert labels[-1][0] == len(question), "the first token after the question is the first of the answer"


def test_turns_of_the_fallback_template_begin_new_lines() -> None:
    text, _ = render(TOKENIZERS["fallback"], CHAT, answer_next=False)
    assert text.startswith("System:\nBe brief.\nUser:\nOù est mon colis ?\nAssistant:\nIt left 昨天 🎉</s>\nUser:\n")


@pytest.mark.parametrize("place", ["user", "assistant", "system"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_r36_special_tokens_in_a_message_stay_text(name: str, place: str) -> None:
    tokenizer = TOKENIZERS[name]
    special = [str(t) for t in tokenizer.added_tokens_decoder.values() if t.special]
    messages = [dict(m) for m in SHAPES["system"]]
    plain = encode(tokenizer, messages)[0]
    for message in messages:
        if message["role"] == place:
            message["content"] += " ".join(["", *special, "<s></s><s>", "<|im_<s>end|>"])
    ids = encode(tokenizer, messages)[0]
    of = set(tokenizer.convert_tokens_to_ids(special))
    assert [t for t in ids if t in of] == [t for t in plain if t in of]
    assert len(special) >= 7


@given(content=st.text(max_size=40), answer=st.text(min_size=1, max_size=40))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_labels_cover_the_answer_alone_for_any_text(content: str, answer: str) -> None:
    for name in ("fallback", "chatml"):
        tokenizer = TOKENIZERS[name]
        ids, labels = encode(tokenizer, as_messages(content, "", answer))
        assert label_text(tokenizer, ids, labels) == neutralize(tokenizer, answer.strip()) + END[name]
        question = encode(tokenizer, as_messages(content, ""), answer_next=True)[0]
        assert ids[: len(question)] == question
        assert labels == [(len(question), labels[0][1])]


def test_a_batch_is_encoded_as_each_conversation_alone() -> None:
    for tokenizer in TOKENIZERS.values():
        alone = [encode(tokenizer, messages) for messages in SHAPES.values()]
        assert encode_batch(tokenizer, list(SHAPES.values())) == alone


def test_a_prompt_is_put_around_the_text_once() -> None:
    assert as_messages("{text} {x}", "Sum up: {text}")[0]["content"] == "Sum up: {text} {x}"
    assert as_messages("a", "", "b") == [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("content", "text"),
    [("a", "a"), ([{"type": "text", "text": "a"}, {"text": "b"}], "ab"), ([{"type": "image"}], ""), (["a", "b"], "ab"),
     ({"text": "a"}, "a"), (None, "None"), ([], "")],
)  # fmt: skip
def test_content_in_parts_is_read_as_text(content: object, text: str) -> None:
    assert as_text(content) == text


@pytest.mark.parametrize(
    ("template", "why"),
    [("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "leaves out the system message"),
     ("{{ raise_exception('System role not supported') }}", "System role not supported")],
)  # fmt: skip
def test_a_template_that_refuses_or_leaves_out_a_message_is_an_error(template: str, why: str) -> None:
    tokenizer = tokenizer_for("chatml")
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=why):
        encode(tokenizer, CHAT)
