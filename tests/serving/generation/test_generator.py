"""generator.py: text that grows token by token is the text of all tokens, and never shows half a character."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteFallback, Fuse, Replace, Sequence
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from models.resolve import Model
from serving.generation.generator import UNFINISHED, Detokenizer
from tests.helpers import tiny

TEXTS = ["a plain sentence, with answer.", "我的包裹在哪里？", "🎉🎉 naïve café", "<|im_end|>mid<|im_end|>", " \n\n x"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(tiny.make("llama", tmp_path_factory.mktemp("words")), trust_remote_code=False)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_pieces_of_an_answer_make_the_whole(tokenizer: Any, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(TEXTS) | st.text(max_size=30))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    answer, seen = Detokenizer(tokenizer), [""]
    while ids:
        some = data.draw(st.integers(1, len(ids)))
        grown = answer.add(ids[:some])
        assert grown == (answer.text != seen[-1]) and answer.text.startswith(seen[-1])
        assert UNFINISHED in text or UNFINISHED not in answer.text
        seen.append(answer.text)
        ids = ids[some:]
    answer.add((), last=True)
    assert answer.text == whole


def test_an_answer_of_the_real_tokenizer_grows_to_its_text(smollm: Model) -> None:
    real = AutoTokenizer.from_pretrained(smollm.path, trust_remote_code=False)
    for text in TEXTS[:3]:
        answer = Detokenizer(real)
        for token in real(text)["input_ids"]:
            answer.add([token])
        assert answer.text == text
    answer = Detokenizer(real)
    assert not answer.add(real("🎉")["input_ids"][:1]) and answer.text == "", "an incomplete character is shown last"
    assert answer.add((), last=True) and answer.text == UNFINISHED


def test_bytes_of_no_character_do_not_end_an_answer_where_the_tokenizer_falls_back_to_bytes() -> None:
    """As those of Llama 2, Mistral and Gemma do: one bad byte turns all bytes beside it into U+FFFD."""
    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"\u2581hello": 256, "<unk>": 257}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.decoder = Sequence([Replace("\u2581", " "), ByteFallback(), Fuse()])
    answer = Detokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    for token in (0x41, 0xF0, 256):
        answer.add([token])
    assert answer.text.startswith("A") and answer.text.endswith(" hello")
