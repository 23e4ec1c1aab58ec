"""The table of tasks: what each task name means to transformers, to PEFT, to the data reader and to the card.

A new task is a new row here and its own way into token ids: `tokens.py` makes them, `tokens.py`
counts and `preview.py` shows what of them is learned. Beside these only packing, which causal-lm alone has,
asks for a task by name.
Importing this module imports neither torch nor transformers: classes are named, not referenced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from errors import ConfigError


@dataclass(frozen=True)
class Columns:
    """The columns that a tab learns from: `text` and `target`, or one column of chat `messages`."""

    text: str = ""
    target: str = ""
    messages: str = ""

    def __post_init__(self) -> None:
        if not (self.messages or (self.text and self.target)):
            raise ConfigError("Columns", ["Name text and target, or messages."])

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are named."""
        return tuple(name for name in (self.messages, self.text, self.target) if name)


MOST_LABELS = 200
"""Labels that can be told apart: of a file to learn from, and of those that somebody types."""
LONGEST_CELL = 100_000
"""Characters of one text of a row to learn from."""
LOWER_IS_BETTER = ("loss", "perplexity", "log_loss")
"""Figures of a card that are better when they are lower; all others are better when higher."""


@dataclass(frozen=True)
class Task:
    """One row of the table."""

    name: str
    """The field's standard name, as in a plugin's `task`."""
    auto_class: str
    """The transformers class a base is trained as."""
    peft_type: str
    """The member of `peft.TaskType`."""
    answers: Literal["label", "text"]
    """Whether a target is one of a few labels or free text."""
    metric: str
    """The figure that the card leads with and the gate compares: accuracy (higher is better) or loss (lower is)."""
    pipeline_tag: str
    """What the Hub calls the task."""
    head: tuple[str, ...] = ()
    """Names of modules that a version may bring whole (trained from scratch) beside its LoRA matrices."""


TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-classification",
            auto_class="AutoModelForSequenceClassification",
            peft_type="SEQ_CLS",
            answers="label",
            metric="accuracy",
            pipeline_tag="text-classification",
            head=("classifier", "pre_classifier", "classification_head", "head", "score", "pooler"),
        ),
        Task("causal-lm", "AutoModelForCausalLM", "CAUSAL_LM", "text", "loss", "text-generation"),
        Task("seq2seq-lm", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", "text", "loss", "text-generation"),
    )
}


def task_for(declared: str, config: Mapping[str, Any]) -> Task:
    """The task that `declared` means for a base with this `config.json`.

    A tab that answers with text works on decoder-only and on encoder-decoder bases alike; the base decides.
    Raises `ConfigError` for an unknown name.
    """
    if declared not in TASKS:
        raise ConfigError("The task", [f"{declared!r} is none of {', '.join(TASKS)}."])
    if TASKS[declared].answers == "text":
        return TASKS["seq2seq-lm" if config.get("is_encoder_decoder") else "causal-lm"]
    return TASKS[declared]


def resident_class(config: Mapping[str, Any]) -> str:
    """The transformers class to keep a base resident as: with the heads its own weights have, and no others."""
    architecture = next(iter(config.get("architectures") or ()), "")
    if config.get("is_encoder_decoder"):
        return "AutoModelForSeq2SeqLM"
    if architecture.endswith("ForSequenceClassification"):
        return "AutoModelForSequenceClassification"
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "AutoModelForCausalLM"
    return "AutoModel"


@dataclass(frozen=True)
class TabSpec:
    """What the rest of Graft needs to know of a tab, without knowing its plugin: a plugin's facts as plain values."""

    name: str
    model: str
    task: str
    columns: Columns | None = None
    prompt: str = ""

    @property
    def learns(self) -> bool:
        """Whether rows can become an adapter of this tab."""
        return bool(self.model and self.columns)
