"""Choose the columns to learn from, and turn a record of a file into a row: text and target, or chat messages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from errors import DataError
from tasks import Columns
from training.data.files.records import is_unicode

Row = dict[str, Any]
"""`{"text": str, "target": str}`, or `{"messages": [{"role": str, "content": str}, ...]}` that ends with the answer."""
Answers = Literal["label", "text"]

PARTS = ("text", "target", "messages")

TEXTS = (
    *("text", "sentence", "content", "body", "message", "review", "comment", "tweet", "article", "document"),
    *("dialogue", "dialog", "transcript", "input", "inputs", "question", "prompt", "instruction"),
)
LABELS = ("label", "labels", "category", "class", "intent", "sentiment", "target", "output")
TARGETS = (
    *("summary", "target", "targets", "output", "answer", "response", "completion"),
    *("highlights", "abstract", "answers.text.0", "label"),
)
CHATS = ("messages", "conversation", "conversations", "chat")
SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant"}
ROLES = ("system", "user", "assistant")
INSTRUCTIONS = ("instruction", "question")
"""Columns with an instruction about the text of a column of `INPUTS`."""
INPUTS = ("input", "context")
JOIN = "+"
"""Separator of columns whose texts are put one below the other: `instruction+input`. An empty cell is left out."""


class UnknownColumns(DataError):
    """Columns that could not be guessed, or are not there; `columns` are those to choose from."""

    def __init__(self, what: str, why: str, next: str, columns: Sequence[str]) -> None:
        super().__init__(what, why, next)
        self.columns = tuple(columns)

    def to_dict(self) -> dict[str, Any]:
        """Return the sentences and the columns as JSON values; the inverse of `from_dict`."""
        return super().to_dict() | {"columns": self.columns}


class RowProblem(Exception):
    """The reason why one record cannot be learned from, in a few words for the report."""


def choose_columns(
    file: str, columns: Sequence[str], answers: Answers, wanted: Columns, given: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the column of the file for each part of a row, and warnings about guesses. Raises `DataError`.

    `given` is the user's choice and taken as it is; `wanted` are the tab's own names.
    """
    _check_given(file, columns, given)
    chat = bool(wanted.messages) and answers == "text"
    if chat and not given.keys() & {"text", "target"}:
        guesses = _guess(columns, given.get("messages", wanted.messages), CHATS, ())
        if guesses:
            warning = _ambiguous("messages", guesses, wanted.messages, given)
            return {"messages": guesses[0]}, (warning,) if warning else ()
    parts = {"text": (wanted.text, TEXTS), "target": (wanted.target, LABELS if answers == "label" else TARGETS)}
    mapping, warnings = dict(given), dict[str, str]()
    # A tab's own names before synonyms: the text must not take the column that is the target by name.
    for synonyms in (False, True):
        for part, (name, known) in parts.items():
            guesses = _guess(columns, name, known if synonyms else (), mapping.values())
            if part not in mapping and guesses:
                mapping[part] = guesses[0]
                warnings[part] = _ambiguous(part, guesses, name, given)
    if answers == "text" and "text" not in given and (joined := _joined(columns, mapping)):
        mapping["text"], warnings["text"] = joined, ""
    missing = [part for part in parts if part not in mapping]
    if missing:
        raise _missing(file, columns, missing, wanted if chat else None)
    return {part: mapping[part] for part in parts}, tuple(text for part in parts if (text := warnings.get(part)))


def columns_read(columns: Sequence[str], mapping: Mapping[str, str]) -> tuple[str, ...]:
    """Return the columns of the file that a mapping names, joined ones apart."""
    return tuple(dict.fromkeys(name for joined in mapping.values() for name in _split(joined, columns)))


def to_row(record: Mapping[str, Any], mapping: Mapping[str, str], answers: Answers, chat: bool, cell: int) -> Row:
    """Turn a record into a row whose texts have at most `cell` characters each; raises `RowProblem`."""
    if "messages" in mapping:
        return {"messages": _messages(record.get(mapping["messages"]), cell)}
    if chat and isinstance(record.get(mapping["text"]), list):
        return {"messages": _messages(_turns(record, mapping), cell)}
    text, target = (_joined_text(record, mapping[part], part, cell) for part in ("text", "target"))
    if chat:
        return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": target}]}
    return {"text": text, "target": target.strip() if answers == "label" else target}


def question_of(row: Row) -> str:
    """Return the question of a row: its text, or every message before the last one."""
    if "messages" in row:
        return "\n".join(message["content"] for message in row["messages"][:-1])
    return str(row["text"])


def texts_of(row: Row) -> list[str]:
    """Return every text of a row."""
    return [message["content"] for message in row["messages"]] if "messages" in row else [row["text"], row["target"]]


def count_characters(row: Row) -> int:
    """Return the characters of every text of a row."""
    return sum(map(len, texts_of(row)))


def _check_given(file: str, columns: Sequence[str], given: Mapping[str, str]) -> None:
    have = f"The file has {quoted(columns) or 'no columns'}."
    for part, name in given.items():
        if part not in PARTS:
            raise DataError(f"There is no {part!r} to choose a column for.", "", "Choose text and target, or messages.")
        if not all(_is_there(one, columns) for one in _split(name, columns)):
            raise UnknownColumns(f"{file} has no column {name!r} for {part}.", have, "Choose one of them.", columns)
    if len(set(given.values())) < len(given):
        raise DataError("One column cannot be both.", have, "Choose one column for text and another for target.")


def _is_there(name: str, columns: Sequence[str]) -> bool:
    """Return whether a file has a column; of a list, `columns` name the first element and any can be chosen."""
    return name in columns or re.sub(r"\.[0-9]+(?=\.|$)", ".0", name) in columns


def _guess(columns: Sequence[str], name: str, synonyms: Sequence[str], taken: Collection[str]) -> list[str]:
    """Return the free columns that `name` or a synonym may mean, likeliest first."""
    free = [column for column in columns if column not in taken]
    if name in free:
        return [name]
    names = [wanted for wanted in dict.fromkeys([name.lower(), *synonyms]) if wanted]
    found = [column for wanted in names for column in free if column.strip().lower() == wanted]
    # Inside other columns only where there is no doubt.
    inside = [column for column in free if column.rpartition(".")[2].strip().lower() in names and ".0." not in column]
    return found or (inside if len(inside) == 1 else [])


def _joined(columns: Sequence[str], mapping: Mapping[str, str]) -> str:
    """Return the joined name of an instruction and its input, where the file has both; otherwise ""."""
    free = {name.strip().lower(): name for name in columns if name != mapping.get("target")}
    task = next((free[name] for name in INSTRUCTIONS if name in free), None)
    about = next((free[name] for name in INPUTS if name in free), None)
    return f"{task}{JOIN}{about}" if task and about and mapping.get("text") in (task, about) else ""


def _split(name: str, columns: Collection[str]) -> list[str]:
    """Return the columns that a name joins with `+`, or the name itself."""
    return [name] if name in columns or JOIN not in name else [one.strip() for one in name.split(JOIN)]


def _ambiguous(part: str, guesses: Sequence[str], name: str, given: Mapping[str, str]) -> str:
    """Return a warning about a guess among several columns, otherwise ""."""
    if len(guesses) == 1 or name in guesses or part in given:
        return ""
    return f"{part} is read from the column {guesses[0]!r}; {quoted(guesses[1:])} could be meant too."


def _missing(file: str, columns: Sequence[str], parts: Sequence[str], chat: Columns | None) -> UnknownColumns:
    needs = "messages, or text and target" if chat else "text and target"
    advice = "--columns messages=COLUMN or " if chat else ""
    return UnknownColumns(
        f"{file} has no column for {' and '.join(['messages', *parts] if chat else parts)}.",
        f"Rows need {needs}, which is the right answer; the columns here are {quoted(columns) or 'no columns'}.",
        f"Choose its columns on the page, or in a terminal with {advice}--columns text=COLUMN,target=COLUMN.",
        columns,
    )


def quoted(names: Sequence[str], most: int = 20) -> str:
    """Return the first names in quotes, and the number of the others."""
    shown = ", ".join(repr(name[:60]) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _joined_text(record: Mapping[str, Any], name: str, part: str, cell: int) -> str:
    first, *others = _split(name, record)
    texts = [_text(record.get(first), part, cell)]
    for other in others:
        value = record.get(other)
        if value is not None and (not isinstance(value, str) or value.strip()):
            texts.append(_text(value, other, cell))
    return _text("\n\n".join(texts), part, cell) if others else texts[0]


def _turns(record: Mapping[str, Any], mapping: Mapping[str, str]) -> list[Any]:
    """Return the messages of a prompt that is a list of messages, and of its answer."""
    answer = record.get(mapping["target"])
    turns = answer if isinstance(answer, list) else [{"role": "assistant", "content": answer}]
    return [*record[mapping["text"]], *turns]


def _text(value: object, part: str, cell: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RowProblem(f"{part} is missing")
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(int(value)) if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15) else repr(value)
    if not isinstance(value, str):
        raise RowProblem(f"{part} is of type {type(value).__name__}, not text")
    if not value.strip():
        raise RowProblem(f"{part} is empty")
    if len(value) > cell:
        raise RowProblem(f"{part} has {len(value):,} characters, more than {cell:,}")
    if not is_unicode(value):
        raise RowProblem(f"{part} has half of a surrogate pair")
    return value


def _messages(value: object, cell: int) -> list[dict[str, str]]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowProblem("messages is text, but not a JSON list") from None
    if not isinstance(value, list):
        raise RowProblem("messages is missing" if value in (None, "") else "messages is not a list")
    messages = [_message(message, number, cell) for number, message in enumerate(value, 1)]
    if not messages:
        raise RowProblem("messages is empty")
    if messages[-1]["role"] != "assistant":
        raise RowProblem("the last message is not the assistant's")
    if all(message["role"] != "user" for message in messages):
        raise RowProblem("no message is the user's")
    return messages


def _message(message: object, number: int, cell: int) -> dict[str, str]:
    """Check one message, which may have ShareGPT's names: `{"from": "human", "value": ...}`."""
    if not isinstance(message, dict):
        raise RowProblem(f"message {number} is not an object")
    role, content = _either(message, "role", "from"), _either(message, "content", "value")
    role = SPEAKERS.get(role, role) if isinstance(role, str) else role
    if role not in ROLES:
        raise RowProblem(f"message {number} has the role {str(role)[:40]!r}, not {', '.join(ROLES)}")
    if not isinstance(content, str) and content is not None:
        raise RowProblem(f"the content of message {number} is not text")
    return {"role": role, "content": _text(content, f"the content of message {number}", cell)}


def _either(message: Mapping[str, object], name: str, other: str) -> object:
    """Return the value under `name`, or under `other` where that is absent or, as in Parquet, null."""
    return message.get(other) if message.get(name) is None else message[name]


def parse_columns(text: str) -> dict[str, str]:
    """Parse `text=COLUMN,target=COLUMN`; raises `DataError`."""
    mapping: dict[str, str] = {}
    # A comma may belong to a name; the next pair begins with a part.
    for pair in filter(None, re.split(rf",(?=\s*(?:{'|'.join(PARTS)})\s*=|\s*$)", text)):
        part, _, name = pair.partition("=")
        if part.strip() not in PARTS or not name.strip():
            why = f"{pair!r} is not one of {', '.join(PARTS)}, an equals sign and the name of a column."
            raise DataError("The choice of columns cannot be read.", why, "Write text=COLUMN,target=COLUMN.")
        mapping[part.strip()] = name.strip()
    return mapping
