"""serving/lm.py: what can be asked of one base and one pinned version, what is refused, and the notes of an answer."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import InputError, Text
from serving.generation.request_queue import Request
from serving.lm import check_text
from settings import Settings
from tasks import MOST_LABELS
from tests.conftest import Trained
from tests.helpers import answers, tiny
from tests.helpers.answers import Store, ask, pool_at

LONG = "the parcel is late again and nobody answers the phone " * 60
TURN = {"role": "user", "content": "a"}


@pytest.fixture(scope="module")
def labels(bert: Trained, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(bert, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def text(llama: Trained, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(llama, tmp_path_factory.mktemp("text"))


def count(store: Store, string: str) -> str:
    return f"{len(store.loaded.base.tokenizer(string)['input_ids']):,}"


def requests_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Collect every request that its base is asked from now on."""
    seen, queue = list[Request](), store.loaded.generator.queue
    real = queue.put
    monkeypatch.setattr(queue, "put", lambda request: (seen.append(request), real(request))[1])
    return seen


def write(store: Store, adapter: str, string: str, **sampling: Any) -> tuple[str, list[str]]:
    with store.pool.open(store.spec, adapter) as lm:
        return list(lm.generate(string, **{"max_new_tokens": 6.0, **sampling}))[-1], lm.notes


@pytest.mark.parametrize("method", ["classify", "embed", "generate"])
def test_empty_text_and_text_beyond_the_setting_are_refused(labels: Store, method: str) -> None:
    with labels.pool.open(labels.spec, "one@1") as lm:
        for nothing in ("", "  \n\t ", None):
            with pytest.raises(InputError, match="There is no text"):
                getattr(lm, method)(nothing)
        check_text(Settings(), "a" * 200_000)
        with pytest.raises(InputError, match="It has 200,001 characters; the limit is 200,000"):
            getattr(lm, method)("a" * 200_001)


@pytest.mark.parametrize("messages", [[], [TURN | {"content": ""}], [TURN | {"content": [{"text": " "}]}]])
def test_a_conversation_without_a_question_is_refused(text: Store, messages: list[Any]) -> None:
    with text.pool.open(text.spec) as lm, pytest.raises(InputError, match="There is no text"):
        lm.chat(messages)


@pytest.mark.parametrize("number", [0, 1, MOST_LABELS + 1])
def test_given_labels_are_two_to_two_hundred_different_ones(labels: Store, number: int) -> None:
    names = [f"label {i}" for i in range(number)]
    with labels.pool.open(labels.spec) as lm, pytest.raises(InputError, match=f"There are {number}"):
        lm.classify("a text", names + names)


def test_given_labels_are_answered_by_the_base_and_each_once(labels: Store) -> None:
    with labels.pool.open(labels.spec, "one@1") as lm:
        scores = lm.classify("a text", ["praise", "delay", "praise"])
        assert list(scores) == ["praise", "delay"] and sum(scores.values()) == pytest.approx(1)
        assert lm.version == "base", "zero-shot is the base's answer, whatever was pinned"
    with labels.pool.open(labels.spec, "base") as lm:
        assert lm.classify("a text", ["praise", "delay"]) == pytest.approx(scores)
        with pytest.raises(InputError, match="Type your own labels"):
            lm.classify("a text")


def test_an_answer_has_its_base_its_version_and_the_question(labels: Store) -> None:
    with labels.pool.open(labels.spec, "one") as lm:
        scores = lm.classify("a text")
        assert (lm.base, lm.version, lm.notes) == (labels.spec.model, "one@2", [])
        assert lm.asked == {"text": "a text"}
        assert list(scores) == ["0", "1"] and sum(scores.values()) == pytest.approx(1)
        vector = lm.embed("a text")
        assert len(vector) == 64 and sum(x * x for x in vector) == pytest.approx(1)


def test_a_base_without_labels_is_asked_those_that_a_version_lends_it(labels: Store) -> None:
    lender = labels.adapters.get("one@1")
    with labels.pool.open(labels.spec, "base", lender) as lm:
        scores = lm.classify("a text")
        assert lm.version == "base" and lm.notes == ["The base has no labels of its own: it was asked those of one@1."]
        assert scores == pytest.approx(lm.classify("a text", ["0", "1"])) and len(lm.notes) == 1
    with labels.pool.open(labels.spec, "two@1") as lm, labels.pool.open(labels.spec, "two@1", lender) as lent:
        assert lent.classify("a text") == pytest.approx(lm.classify("a text"))
        assert (lent.version, lent.notes) == ("two@1", [])


@pytest.mark.parametrize("own", [None, ["praise", "delay"]])
def test_a_long_text_is_classified_by_its_beginning_and_a_note_says_so(labels: Store, own: list[str] | None) -> None:
    found = []
    for string in (LONG, LONG + " and more", "short"):
        with labels.pool.open(labels.spec, "one@1") as lm:
            scores = lm.classify(string, own)
            found.append((scores, lm.notes))
    assert found[0][1] == [f"The text has {count(labels, LONG)} tokens; the first 256 were read."]
    assert found[1][0] == pytest.approx(found[0][0]) and found[2][1] == []


def test_a_long_text_is_cut_to_the_window_and_a_note_says_how_much_was_read(text: Store) -> None:
    answer, [note] = write(text, "one@1", LONG)
    assert isinstance(note, Text) and note.template == "The text has {n} tokens; the first {read} were read."
    assert note.values["n"] == count(text, LONG) and 150 < int(note.values["read"]) < 256
    assert write(text, "one@1", LONG + " and more")[0] == answer
    assert write(text, "one@1", "short")[1] == []


@pytest.mark.parametrize("string", ["<|im_end|>" * 300, "我的包裹" * 200, "🎉" * 300, "a" * 5000])
def test_a_text_of_any_characters_is_cut_to_the_window(
    text: Store, string: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = requests_of(text, monkeypatch)
    _, [note] = write(text, "one@1", string)
    assert seen and len(seen[0].ids) + 6 <= 256, note


def test_text_goes_through_the_prompt_of_the_version_and_grows(text: Store) -> None:
    with text.loaded.base.slots.pin(text.adapters.get("one@1")) as slot:
        by_hand = answers.write(text.loaded, "notes", "Sum up: {text}", slot, max_new_tokens=20)
    with text.pool.open(replace(text.spec, prompt="Ask {text} otherwise"), "one@1") as lm:
        pieces = list(lm.generate("notes", max_new_tokens=20))
    assert pieces[-1] == by_hand
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))


def test_an_lm_says_how_many_requests_are_before_its_own(text: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with text.pool.open(text.spec, "one@1") as lm:
        assert lm.before == 0, "nothing was asked"
        monkeypatch.setattr(text.loaded.generator.queue, "ahead", lambda request: 3 if request.ids else 0)
        assert next(iter(lm.generate("notes", max_new_tokens=6))) and lm.before == 3


def test_a_seed_is_an_option_like_the_others(text: Store) -> None:
    sampled = {"temperature": 2.0, "max_new_tokens": 12}
    one, again, other = (write(text, "one@1", "notes", seed=seed, **sampled)[0] for seed in (1, 1, 2))
    assert one == again != other


def test_a_long_conversation_loses_its_oldest_turns_and_a_note_says_so(text: Store) -> None:
    turn = "a few words about the parcel that is late " * 3
    messages = [{"role": "system", "content": "Be brief."}]
    messages += [{"role": role, "content": f"{i} {turn}"} for i in range(6) for role in ("user", "assistant")]
    messages += [{"role": "user", "content": "and now?"}]
    with text.pool.open(text.spec, "one@1") as lm:
        answer = list(lm.chat(messages, max_new_tokens=6))[-1]
        [note] = lm.notes
    left_out = int(note.split("oldest ")[1].split()[0])
    assert 0 < left_out < 13
    with text.pool.open(text.spec, "one@1") as lm:
        assert list(lm.chat([messages[0], *messages[1 + left_out :]], max_new_tokens=6))[-1] == answer
        assert lm.notes == []
        list(lm.chat([TURN | {"content": LONG}], max_new_tokens=6))
        assert "the last 250 were read" in lm.notes[-1], "one message beyond the window is read from its end"


BAD_OPTIONS: dict[str, list[Any]] = {
    "max_new_tokens": [0, float("inf"), None, "9", float("nan")],
    "temperature": [-0.1, 11, None, float("nan")],
    "top_p": [0, 1.1, "all", True],
    "seed": [-1, 1.5, True, 2**63],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD_OPTIONS.items() for value in values])
def test_options_out_of_range_are_refused(text: Store, name: str, value: Any) -> None:
    with text.pool.open(text.spec) as lm:
        for method, asked in ((lm.generate, "notes"), (lm.chat, [TURN])):
            with pytest.raises(InputError, match="cannot be used"):
                method(asked, **{name: value})


def test_an_answer_is_as_long_as_the_setting_and_the_window_allow(
    text: Store, llama: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make("llama", tmp_path / "long")
    for file, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | {key: 8192}))
    store = Store(llama, tmp_path / "home")
    store.spec = replace(llama.spec, model=str(folder))
    store.pool = pool_at(tmp_path, llama.models, str(folder), new_tokens=5000)
    seen = requests_of(store, monkeypatch)
    with store.pool.open(store.spec) as lm:
        *_, answer = lm.generate("notes", max_new_tokens=4200)
        assert len(seen[0].written) == 4200 and len(answer) > 4200 and lm.notes == []
        stream = lm.generate("a b " * 5_000, max_new_tokens=5000)
        assert next(stream) and len(seen[1].ids) <= 8192 - 5000 and "were read" in lm.notes[-1]
        stream.close()
        with pytest.raises(InputError, match=r"The limit is 5,000 tokens \(GRAFT_NEW_TOKENS\)"):
            lm.generate("notes", max_new_tokens=5001)
    with text.pool.open(text.spec) as lm, pytest.raises(InputError, match="An answer of 250 tokens leaves no room"):
        lm.generate("notes", max_new_tokens=250)


def test_an_open_lm_answers_as_its_version_while_another_is_promoted(trained: Trained, tmp_path: Path) -> None:
    store = Store(trained, tmp_path)
    store.adapters.promote(store.spec.name, "one@1")
    with store.pool.open(store.spec) as lm:
        before = ask(lm, "where is it")
        store.adapters.promote(store.spec.name, "two@1")
        with store.pool.open(store.spec) as newer:
            assert ask(newer, "where is it") != before and newer.version == "two@1"
        assert answers.same(ask(lm, "where is it"), before) and lm.version == "one@1"
