"""tasks.py: the table, and what a base's config.json makes of a tab's task."""

from __future__ import annotations

import pytest
import transformers
from peft import TaskType

from errors import ConfigError
from tasks import TASKS, Columns, TabSpec, resident_class, task_for


def test_every_row_names_things_that_exist() -> None:
    assert len(TASKS) == 3
    for name, task in TASKS.items():
        assert task.name == name
        assert hasattr(transformers, task.auto_class)
        assert TaskType[task.peft_type]


@pytest.mark.parametrize(
    ("declared", "config", "expected"),
    [
        ("causal-lm", {}, "causal-lm"),
        ("causal-lm", {"is_encoder_decoder": True}, "seq2seq-lm"),
        ("seq2seq-lm", {"is_encoder_decoder": False}, "causal-lm"),
        ("text-classification", {"is_encoder_decoder": True}, "text-classification"),
    ],
)
def test_the_base_decides_how_text_is_written(declared: str, config: dict, expected: str) -> None:
    assert task_for(declared, config).name == expected


def test_an_unknown_task_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match="causal-lm"):
        task_for("translation", {})


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["BertModel"]}, "AutoModel"),
        ({"architectures": ["BertForMaskedLM"]}, "AutoModel"),
        ({"architectures": ["DistilBertForSequenceClassification"]}, "AutoModelForSequenceClassification"),
        ({"architectures": ["LlamaForCausalLM"]}, "AutoModelForCausalLM"),
        ({"architectures": ["GPT2LMHeadModel"]}, "AutoModelForCausalLM"),
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "AutoModelForSeq2SeqLM"),
        ({}, "AutoModel"),
        ({"architectures": None}, "AutoModel"),
    ],
)
def test_a_base_stays_in_memory_with_the_heads_its_weights_have(config: dict, expected: str) -> None:
    assert resident_class(config) == expected


def test_columns_need_a_question_and_an_answer() -> None:
    assert Columns(text="text", target="label").names == ("text", "label")
    assert Columns(messages="messages").names == ("messages",)
    for half in ({}, {"text": "text"}, {"target": "label"}):
        with pytest.raises(ConfigError):
            Columns(**half)


def test_a_tab_learns_with_a_base_and_columns() -> None:
    assert TabSpec("a", "org/model", "causal-lm", Columns(messages="m")).learns
    assert not TabSpec("a", "org/model", "causal-lm").learns
    assert not TabSpec("a", "", "", Columns(messages="m")).learns
