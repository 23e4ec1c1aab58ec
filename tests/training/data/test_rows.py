"""Tests of training/data/rows.py: columns are guessed, and each record becomes a row or a reason."""

from __future__ import annotations

from typing import Any

import pytest

from errors import DataError
from tasks import Columns
from training.data.rows import Row, RowProblem, choose_columns, columns_read, parse_columns, question_of, to_row

PAIR = Columns(text="text", target="summary")
LABEL = Columns(text="text", target="label")
CHAT = Columns(messages="messages")

GUESSES: list[tuple[str, str, Columns, dict[str, str], tuple[str, ...]]] = [
    ("text summary", "text", PAIR, {}, ("text", "summary")),
    ("TEXT Summary", "text", PAIR, {}, ("TEXT", "Summary")),
    ("article highlights id", "text", PAIR, {}, ("article", "highlights")),
    ("id dialogue summary", "text", PAIR, {}, ("dialogue", "summary")),
    ("document summary id", "text", PAIR, {}, ("document", "summary")),
    ("sentence label", "label", LABEL, {}, ("sentence", "label")),
    ("sentence sentiment", "label", LABEL, {}, ("sentence", "sentiment")),
    ("review Sentiment", "label", LABEL, {}, ("review", "Sentiment")),
    ("input output", "text", Columns("text", "target"), {}, ("input", "output")),
    ("content text", "text", Columns("title", "text"), {}, ("content", "text")),
    ("kind body label", "label", LABEL, {"target": "kind"}, ("body", "kind")),
    ("conversations id", "text", CHAT, {}, ("conversations",)),
    ("log text target", "text", CHAT, {"messages": "log"}, ("log",)),
    ("chat chat.0.text", "text", CHAT, {"messages": "chat"}, ("chat",)),
    ("prompt completion", "text", CHAT, {}, ("prompt", "completion")),
    ("prompt response", "text", CHAT, {}, ("prompt", "response")),
    ("question answer", "text", CHAT, {}, ("question", "answer")),
    ("instruction output", "text", CHAT, {}, ("instruction", "output")),
    ("messages prompt completion", "text", CHAT, {"text": "prompt"}, ("prompt", "completion")),
    ("instruction input output text", "text", PAIR, {"text": "instruction"}, ("instruction", "output")),
    ("input instruction output", "text", PAIR, {}, ("instruction+input", "output")),
    ("instruction context response", "text", CHAT, {}, ("instruction+context", "response")),
    ("context question answers answers.text.0", "text", CHAT, {}, ("question+context", "answers.text.0")),
    ("id row row.text row.label", "label", LABEL, {}, ("row.text", "row.label")),
    ("l l.0.text", "label", LABEL, {"text": "l.1.text", "target": "l"}, ("l.1.text", "l")),
]


@pytest.mark.parametrize(("names", "answers", "wanted", "given", "columns"), GUESSES)
def test_columns_are_guessed(
    names: str, answers: Any, wanted: Columns, given: dict[str, str], columns: tuple[str, ...]
):
    parts = ("messages",) if len(columns) == 1 else ("text", "target")
    mapping = dict(zip(parts, columns, strict=True))
    assert choose_columns("a.csv", names.split(), answers, wanted, given) == (mapping, ())


def test_a_guess_among_several_columns_warns():
    mapping, warnings = choose_columns("a.csv", ["prompt", "question", "output"], "text", PAIR, {})
    assert mapping == {"text": "question", "target": "output"}
    assert warnings == ("text is read from the column 'question'; 'prompt' could be meant too.",)


@pytest.mark.parametrize(
    ("names", "answers", "wanted", "given", "refusal"),
    [
        ("id words", "text", PAIR, {}, ["no column for text and target", "'id', 'words'", "--columns text=COLUMN"]),
        ("text words", "text", PAIR, {}, ["no column for target"]),
        ("messages", "text", PAIR, {}, ["no column for text and target"]),
        ("id", "text", CHAT, {}, ["messages, or text and target", "--columns messages=COLUMN"]),
        ("text summary", "text", PAIR, {"text": "body"}, ["no column 'body' for text", "'text', 'summary'"]),
        ("text summary", "text", PAIR, {"text": "text+more"}, ["no column 'text+more' for text"]),
        ("a a.text b b.text summary", "text", PAIR, {}, ["no column for text"]),
        ("text summary", "text", PAIR, {"topic": "text"}, ["no 'topic'"]),
        ("text summary", "text", PAIR, {"text": "text", "target": "text"}, ["cannot be both"]),
        (" ".join(f"c{i}" for i in range(99)), "text", PAIR, {}, ["and 79 more"]),
    ],
)
def test_columns_that_cannot_be_guessed_are_refused(
    names: str, answers: Any, wanted: Columns, given: dict[str, str], refusal: list[str]
):
    with pytest.raises(DataError) as caught:
        choose_columns("a.csv", names.split(), answers, wanted, given)
    assert all(part in str(caught.value) for part in refusal), str(caught.value)


def row(text: object, target: object, answers: Any = "label", chat: bool = False) -> Row:
    return to_row({"text": text, "target": target}, {"text": "text", "target": "target"}, answers, chat, 20)


LABELS = [(1, "1"), (1.0, "1"), (-2.0, "-2"), (0.5, "0.5"), (1e300, "1e+300"), (True, "true"), (" None ", "None")]


@pytest.mark.parametrize(("target", "label"), LABELS)
def test_labels_are_text(target: object, label: str):
    assert row("x", target) == {"text": "x", "target": label}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "text is missing"),
        (float("nan"), "text is missing"),
        (" \t\n", "text is empty"),
        (["a"], "text is of type list, not text"),
        (b"a", "text is of type bytes, not text"),
        ("x" * 21, "text has 21 characters, more than 20"),
        ("a\ud800", "text has half of a surrogate pair"),
    ],
)
def test_a_bad_cell_gives_a_reason(text: object, reason: str):
    with pytest.raises(RowProblem, match=f"^{reason}$"):
        row(text, "a")
    with pytest.raises(RowProblem, match=f"^{reason.replace('text', 'target', 1)}$"):
        row("a", text)


def test_text_answers_keep_their_white_space_and_a_chat_gets_messages():
    assert row("a", " b\n", "text") == {"text": "a", "target": " b\n"}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert row("a", "b", "text", chat=True) == {"messages": messages}


def messages(value: object) -> Row:
    return to_row({"chat": value}, {"messages": "chat"}, "text", True, 20)


USER, ASSISTANT = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


@pytest.mark.parametrize(
    "value",
    [
        [USER, ASSISTANT],
        '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]',
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        [USER | {"name": "x", "from": None}, {"role": None, "content": None, "from": "gpt", "value": "b"}],
    ],
)
def test_messages_are_read_in_each_spelling(value: object):
    assert messages(value) == {"messages": [USER, ASSISTANT]}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "messages is missing"),
        ("", "messages is missing"),
        ("hello", "messages is text, but not a JSON list"),
        ("[" * 100_000, "messages is text, but not a JSON list"),
        ({"role": "user"}, "messages is not a list"),
        ("1", "messages is not a list"),
        ([], "messages is empty"),
        ([USER], "the last message is not the assistant's"),
        ([ASSISTANT], "no message is the user's"),
        ([USER, "b"], "message 2 is not an object"),
        ([USER, {"role": "tool", "content": "b"}], "message 2 has the role 'tool', not system, user, assistant"),
        ([USER, {"role": ["x"], "content": "b"}], "message 2 has the role"),
        ([USER, {"role": "assistant"}], "the content of message 2 is missing"),
        ([USER, {"role": "assistant", "content": " "}], "the content of message 2 is empty"),
        ([USER, {"role": "assistant", "content": [1]}], "the content of message 2 is not text"),
        ([USER, {"role": "assistant", "content": "x" * 21}], "the content of message 2 has 21 characters"),
        ('[{"role": "user", "content": "\\ud800"}]', "the content of message 1 has half of a surrogate pair"),
    ],
)
def test_bad_messages_give_a_reason(value: object, reason: str):
    with pytest.raises(RowProblem) as caught:
        messages(value)
    assert str(caught.value).startswith(reason)


def test_joined_columns_make_one_text():
    mapping = {"text": "instruction+input", "target": "output"}
    record: dict[str, Any] = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
    assert columns_read([*record], mapping) == tuple(record)
    assert columns_read(["instruction+input", "output"], mapping) == ("instruction+input", "output")
    assert to_row(record, mapping, "text", False, 20) == {"text": "Add.\n\n1 and 2", "target": "3"}
    for nothing in ("", "  ", None):
        assert to_row(record | {"input": nothing}, mapping, "text", False, 20) == {"text": "Add.", "target": "3"}
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    for wrong, reason in (
        ({"instruction": ""}, "text is empty"),
        ({"instruction": "x" * 5, "input": "y" * 20}, "text has 27 characters, more than 20"),
        ({"input": nested}, "input is of type list"),
    ):
        with pytest.raises(RowProblem, match=reason):
            to_row(record | wrong, mapping, "text", False, 20)
    assert to_row({"a+b": "x", "c": "y"}, {"text": "a+b", "target": "c"}, "text", False, 20)["text"] == "x"


@pytest.mark.parametrize("answer", ["b", [ASSISTANT]])
def test_a_prompt_may_be_a_list_of_messages(answer: object):
    mapping, record = {"text": "prompt", "target": "completion"}, {"prompt": [USER], "completion": answer}
    assert to_row(record, mapping, "text", True, 20) == {"messages": [USER, ASSISTANT]}
    with pytest.raises(RowProblem, match="the last message is not the assistant's"):
        to_row({"prompt": [USER], "completion": [USER]}, mapping, "text", True, 20)
    with pytest.raises(RowProblem, match="text is of type list"):
        to_row(record, mapping, "text", False, 20)


def test_the_question_of_a_row_lacks_its_answer():
    assert question_of({"messages": [{"role": "system", "content": "s"}, USER, ASSISTANT]}) == "s\na"
    assert question_of({"text": "a", "target": "b"}) == "a"


def test_a_choice_of_columns_is_parsed():
    assert parse_columns("text=body, target=a=b,") == {"text": "body", "target": "a=b"}
    assert parse_columns("text=Question, full,target=a") == {"text": "Question, full", "target": "a"}
    for wrong in ("text", "text=", "=x", "topic=x"):
        with pytest.raises(DataError, match="cannot be read"):
            parse_columns(wrong)
