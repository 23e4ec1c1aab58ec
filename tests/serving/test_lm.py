"""serving/lm.py: what can be asked of one base and one pinned version, what is refused, and what the reader is told."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import InputError
from serving.generation.request import Request
from serving.generation.sampling import Sampling
from serving.lm import check_text
from serving.pool import Pool
from settings import Settings
from store.adapters import AdapterStore
from tasks import MOST_LABELS
from tests.conftest import Trained
from tests.helpers import tiny
from tests.serving.test_pool import Store

LONG = "the parcel is late again and nobody answers the phone " * 60


@pytest.fixture(scope="module")
def labels(bert: Trained, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(bert, tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="module")
def text(llama: Trained, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(llama, tmp_path_factory.mktemp("text"))


def tokens(store: Store, string: str) -> list[int]:
    tokenizer = store.pool._entries[store.spec.model].loaded.resident.tokenizer
    return list(tokenizer(string)["input_ids"])


@pytest.mark.parametrize("nothing", ["", "  \n\t ", None])
@pytest.mark.parametrize("ask", ["classify", "embed", "generate"])
def test_empty_text_is_refused(labels: Store, ask: str, nothing: Any) -> None:
    with labels.pool.open(labels.spec, "one@1") as lm, pytest.raises(InputError, match="There is no text"):
        getattr(lm, ask)(nothing)


@pytest.mark.parametrize("ask", ["classify", "embed", "generate"])
def test_text_beyond_the_setting_is_refused(labels: Store, ask: str) -> None:
    check_text(Settings(), "a" * 200_000)
    with labels.pool.open(labels.spec, "one@1") as lm, pytest.raises(InputError, match="200,001"):
        getattr(lm, ask)("a" * 200_001)


def pool_with(trained: Trained, home: Path, **variables: str) -> Pool:
    settings = Settings.from_env({"GRAFT_HOME": str(home), "HF_HUB_OFFLINE": "1", "GRAFT_QUANTIZE": "none"} | variables)
    pool = Pool(settings, trained.models, AdapterStore(home))
    pool.declare(trained.spec.model)
    return pool


def test_a_longer_text_is_answered_where_the_setting_allows_it(bert: Trained, tmp_path: Path) -> None:
    pool = pool_with(bert, tmp_path, GRAFT_TEXT_LENGTH="300000")
    with pool.open(bert.spec) as lm:
        assert set(lm.classify("a word " * 35_714 + "ab", ["x", "y"])) == {"x", "y"}, "of 250,000 characters"
        with pytest.raises(InputError, match="It has 300,001 characters; the limit is 300,000"):
            lm.classify("a" * 300_001, ["x", "y"])


@pytest.mark.parametrize(
    "messages", [[], [{"role": "user", "content": ""}], [{"role": "user", "content": [{"text": " "}]}]]
)
def test_a_conversation_without_a_question_is_refused(text: Store, messages: list[Any]) -> None:
    with text.pool.open(text.spec) as lm, pytest.raises(InputError, match="There is no text"):
        lm.chat(messages)


@pytest.mark.parametrize("count", [0, 1, MOST_LABELS + 1])
def test_own_labels_are_two_to_two_hundred_different_ones(labels: Store, count: int) -> None:
    names = [f"label {i}" for i in range(count)]
    with labels.pool.open(labels.spec) as lm, pytest.raises(InputError, match=f"There are {count}"):
        lm.classify("a text", names + names)


def test_own_labels_are_answered_by_the_base_and_each_once(labels: Store) -> None:
    with labels.pool.open(labels.spec, "one@1") as lm:
        assert lm.version == "one@1"
        scores = lm.classify("a text", ["praise", "delay", "praise"])
        assert list(scores) == ["praise", "delay"] and sum(scores.values()) == pytest.approx(1)
        assert lm.version == "base", "zero-shot is the base's answer, whatever was pinned"
    with labels.pool.open(labels.spec, "base") as lm:
        assert lm.classify("a text", ["praise", "delay"]) == pytest.approx(scores)


def test_answers_carry_base_and_version(labels: Store) -> None:
    with labels.pool.open(labels.spec, "one") as lm:
        scores = lm.classify("a text")
        assert (lm.base, lm.version, lm.notes) == (labels.spec.model, "one@2", [])
        assert list(scores) == ["0", "1"] and sum(scores.values()) == pytest.approx(1)


def test_a_base_without_labels_says_what_to_do(labels: Store) -> None:
    with labels.pool.open(labels.spec, "base") as lm, pytest.raises(InputError, match="Type your own labels"):
        lm.classify("a text")


def test_a_base_without_labels_is_asked_those_that_a_version_lends_it(labels: Store) -> None:
    with labels.pool.open(labels.spec, "base") as lm:
        lm.lender = labels.adapters.get("one@1")
        scores = lm.classify("a text")
        assert lm.version == "base" and lm.notes == ["The base has no labels of its own: it was asked those of one@1."]
        assert scores == pytest.approx(lm.classify("a text", ["0", "1"])) and len(lm.notes) == 1
    with labels.pool.open(labels.spec, "two@1") as lm:
        own = lm.classify("a text")
        lm.lender = labels.adapters.get("one@1")
        assert (lm.classify("a text"), lm.version, lm.notes) == (pytest.approx(own), "two@1", [])


def test_an_embedding_has_length_one(labels: Store) -> None:
    with labels.pool.open(labels.spec) as lm:
        vector = lm.embed("a text")
    assert len(vector) == 64 and sum(x * x for x in vector) == pytest.approx(1)


@pytest.mark.parametrize("own", [None, ["praise", "delay"]])
def test_a_long_text_is_classified_by_its_beginning_and_a_note_says_so(labels: Store, own: list[str] | None) -> None:
    with labels.pool.open(labels.spec, "one@1") as lm:
        scores = lm.classify(LONG, own)
        assert lm.notes == [f"The text has {len(tokens(labels, LONG)):,} tokens; the first 256 were read."]
    with labels.pool.open(labels.spec, "one@1") as lm:
        assert lm.classify(LONG + " and more", own) == pytest.approx(scores)
    with labels.pool.open(labels.spec, "one@1") as lm:
        lm.classify("short", own)
        assert lm.notes == []


def write(store: Store, adapter: str, string: str, **sampling: Any) -> tuple[str, list[str]]:
    with store.pool.open(store.spec, adapter) as lm:
        return list(lm.generate(string, **{"max_new_tokens": 6, **sampling}))[-1], lm.notes


def test_a_long_text_is_cut_to_the_window_and_a_note_says_how_much_was_read(text: Store) -> None:
    answer, notes = write(text, "one@1", LONG)
    [note] = notes
    assert note.startswith(f"The text has {len(tokens(text, LONG)):,} tokens; the first ")
    read = int(note.split("first ")[1].split()[0])
    assert 150 < read < 256
    assert write(text, "one@1", LONG + " and more")[0] == answer
    assert write(text, "one@1", "short")[1] == []


@pytest.mark.parametrize("string", ["<|im_end|>" * 300, "我的包裹" * 200, "🎉" * 300, "a" * 5000])
def test_whatever_is_cut_still_fits_the_window(text: Store, string: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = text.pool._wait(text.spec.model)
    lengths: list[int] = []
    real = loaded.text._answers.submit
    monkeypatch.setattr(
        loaded.text._answers, "submit", lambda request: (lengths.append(len(request.ids)), real(request))[1]
    )
    _, [note] = write(text, "one@1", string)
    assert lengths and lengths[0] + 6 <= 256, note


def test_text_goes_through_the_prompt_of_the_version(text: Store) -> None:
    loaded = text.pool._wait(text.spec.model)
    with loaded.resident.pin(text.adapters.get("one@1")) as slot:
        by_hand = list(loaded.text.generate("notes", "Sum up: {text}", Sampling(max_new_tokens=6), slot, []))[-1]
    other = type(text.spec)(text.spec.name, text.spec.model, text.spec.task, text.spec.columns, "Ask {text} otherwise")
    with text.pool.open(other, "one@1") as lm:
        assert list(lm.generate("notes", max_new_tokens=6))[-1] == by_hand


def test_an_lm_tells_how_many_are_before_its_request(text: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = text.pool._wait(text.spec.model).text._answers
    with text.pool.open(text.spec, "one@1") as lm:
        assert lm.before == 0, "nothing was asked"
        monkeypatch.setattr(answers, "before", lambda request: 3 if len(request.ids) else 0)
        assert next(iter(lm.generate("notes", max_new_tokens=6))) and lm.before == 3


def test_a_seed_is_an_option_like_the_others(text: Store) -> None:
    sampled = {"temperature": 2.0, "max_new_tokens": 12}
    one, again, other = (write(text, "one@1", "notes", seed=seed, **sampled)[0] for seed in (1, 1, 2))
    assert one == again != other


def test_text_grows(text: Store) -> None:
    with text.pool.open(text.spec, "one@1") as lm:
        pieces = list(lm.generate("notes", max_new_tokens=20))
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(pieces))


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


def test_one_message_beyond_the_window_is_read_from_its_end(text: Store) -> None:
    with text.pool.open(text.spec, "one@1") as lm:
        list(lm.chat([{"role": "user", "content": LONG}], max_new_tokens=6))
        assert "the last 250 were read" in lm.notes[-1]


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0}, {"max_new_tokens": float("inf")}, {"max_new_tokens": None}, {"max_new_tokens": "9"},
        {"max_new_tokens": float("nan")}, {"temperature": -0.1}, {"temperature": 11}, {"temperature": None},
        {"temperature": float("nan")}, {"top_p": 0}, {"top_p": 1.1}, {"top_p": "all"}, {"top_p": True},
        {"seed": -1}, {"seed": 1.5}, {"seed": True}, {"seed": 2**63},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused(text: Store, options: dict[str, Any]) -> None:
    with text.pool.open(text.spec) as lm:
        for ask in (
            lambda: lm.generate("notes", **options),
            lambda: lm.chat([{"role": "user", "content": "a"}], **options),
        ):
            with pytest.raises(InputError, match="cannot be used"):
                ask()


def test_an_answer_is_as_long_as_the_setting_allows(llama: Trained, tmp_path: Path) -> None:
    folder = tiny.make("llama", tmp_path / "long")
    for file, key in (("config.json", "max_position_embeddings"), ("tokenizer_config.json", "model_max_length")):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | {key: 8192}))
    spec = replace(llama.spec, model=str(folder))
    pool = pool_with(llama, tmp_path / "home", GRAFT_NEW_TOKENS="5000")
    pool.declare(spec.model)
    answers, asked = pool._wait(spec.model).text._answers, list[Request]()
    real = answers.submit
    answers.submit = lambda request: (asked.append(request), real(request))[1]
    with pool.open(spec) as lm:
        *_, text = lm.generate("notes", max_new_tokens=4200)
        assert len(asked[0].written) == 4200 and len(text) > 4200 and lm.notes == []
        stream = lm.generate("a b " * 5_000, max_new_tokens=5000)
        assert next(stream) and len(asked[1].ids) <= 8192 - 5000 and "were read" in lm.notes[-1]
        stream.close()
        with pytest.raises(InputError, match=r"The limit is 5,000 tokens \(GRAFT_NEW_TOKENS\)"):
            lm.generate("notes", max_new_tokens=5001)
    with pool.open(llama.spec) as lm, pytest.raises(InputError, match=r"reads and writes 256 tokens in all"):
        list(lm.generate("notes", max_new_tokens=5000))


def test_an_answer_that_leaves_no_room_for_the_question_is_refused(text: Store) -> None:
    with text.pool.open(text.spec) as lm, pytest.raises(InputError, match="no room"):
        list(lm.generate("notes", max_new_tokens=250))


def test_options_become_those_of_transformers() -> None:
    assert Sampling().arguments()["do_sample"] is False
    assert Sampling(max_new_tokens=9.0).arguments()["max_new_tokens"].__class__ is int  # type: ignore[arg-type]
    sampled = Sampling(5, 0.7, 0.9).arguments()
    options = {"num_beams": 1, "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
    assert sampled == {"max_new_tokens": 5, **options}


@pytest.mark.parametrize("kind", ["labels", "text"])
def test_an_open_lm_answers_as_its_version_while_another_is_promoted(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue({"labels": "bert", "text": "llama"}[kind])
    store = Store(trained, tmp_path)

    def ask(lm: Any) -> Any:
        return (
            lm.classify("where is it") if kind == "labels" else list(lm.generate("where is it", max_new_tokens=6))[-1]
        )

    store.adapters.promote(store.spec.name, "one@1")
    with store.pool.open(store.spec) as lm:
        before = ask(lm)
        store.adapters.promote(store.spec.name, "two@1")
        with store.pool.open(store.spec) as newer:
            after = ask(newer)
            assert newer.version == "two@1"
        again = ask(lm)
        assert lm.version == "one@1"
    assert again == (pytest.approx(before) if kind == "labels" else before)
    assert after != before
