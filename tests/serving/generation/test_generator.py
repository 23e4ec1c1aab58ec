"""generator.py: text that grows token by token is the text of all tokens, and never shows half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from models.resolve import Model
from serving.generation.generator import UNFINISHED, Words
from tests.helpers import tiny

TEXTS = ["a plain sentence, with words.", "我的包裹在哪里？", "🎉🎉 naïve café", "<|im_end|>mid<|im_end|>", " \n\n x"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    return AutoTokenizer.from_pretrained(tiny.make("llama", tmp_path_factory.mktemp("words")), trust_remote_code=False)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_pieces_make_the_whole(tokenizer: object, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS) | st.text(max_size=30))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]  # type: ignore[operator]
    words, seen = Words(tokenizer), [""]  # type: ignore[arg-type]
    while ids:
        some = data.draw(st.integers(1, len(ids)))
        grown = words.add(ids[:some])
        assert grown == (words.text != seen[-1]) and words.text.startswith(seen[-1])
        assert UNFINISHED in text or UNFINISHED not in words.text
        seen.append(words.text)
        ids = ids[some:]
    words.add((), last=True)
    whole = tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True)  # type: ignore[attr-defined, operator]
    assert words.text == whole


def test_what_never_becomes_a_character_is_shown_at_the_end(tokenizer: object) -> None:
    words = Words(tokenizer)  # type: ignore[arg-type]
    half = tokenizer("🎉", add_special_tokens=False)["input_ids"][:1]  # type: ignore[operator]
    assert not words.add(half) and words.text == ""
    assert words.add((), last=True) and words.text == UNFINISHED


def test_a_sentence_of_the_real_tokenizer(smollm: Model) -> None:
    real = AutoTokenizer.from_pretrained(smollm.path, trust_remote_code=False)
    for text in TEXTS[:3]:
        words = Words(real)
        for token in real(text)["input_ids"]:
            words.add([token])
        assert words.text == text
