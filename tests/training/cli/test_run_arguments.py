"""training/cli/run_arguments.py: a command that is written is read back; others are refused with the next step."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import GraftError
from settings import REPOSITORY
from tasks import Columns, TabSpec
from training.__main__ import parser
from training.cli import run_arguments
from training.config import HYPERPARAMETERS, PRESETS, Hyperparameter, TrainConfig

SPEC = TabSpec("talk", "org/llm", "causal-lm", Columns(messages="messages"))


def values_of(name: str, field: Hyperparameter) -> st.SearchStrategy[Any]:
    if field.kind == "switch":
        return st.booleans()
    if field.kind == "choice":
        return st.sampled_from(field.choices)
    if field.kind == "text":
        return st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(
            lambda s: not s.startswith("-")
        )
    if field.kind == "whole":
        return st.integers(max(int(field.least), name == "evaluations"), int(field.most))
    return st.floats(field.least, field.most).map(lambda value: float(repr(value)))


CONFIGS = st.tuples(
    st.sampled_from(list(PRESETS["text"])),
    st.fixed_dictionaries({}, optional={name: values_of(name, field) for name, field in HYPERPARAMETERS.items()}),
    st.booleans(),
    st.sampled_from([{}, {"text": "a b", "target": "c"}]),
)


def read(command: str) -> TrainConfig:
    """The configuration of a command as a shell passes it on."""
    python, module, name, *arguments = shlex.split(command)
    assert (python, module, name) == ("python", "-m", "training")
    return run_arguments.to_config(parser().parse_args(["train", *arguments]), SPEC)


@given(CONFIGS)
def test_a_written_command_is_read_back(chosen: Any) -> None:
    preset, changed, promote, mapping = chosen
    path = Path("my rows.jsonl")
    config = TrainConfig.for_tab(SPEC, path, "mine", preset, promote=promote, mapping=mapping, **changed)
    assert read(run_arguments.write(config, SPEC, config.data)) == config


@pytest.mark.parametrize("wrong", ["--held-out-data a --held-out-split b", "--columns {", "--columns text", "--rank 0"])
def test_a_command_that_cannot_be_read_is_refused_with_the_next_step(wrong: str) -> None:
    with pytest.raises(GraftError) as caught:
        read(f"python -m training --plugin talk --data owner/rows --name mine {wrong}")
    assert caught.value.why and caught.value.next


def test_the_page_and_the_command_have_the_same_help() -> None:
    words = json.loads((REPOSITORY / "ui" / "locales" / "en.json").read_text())
    assert all(words[f"help.{name}"] == field.help for name, field in HYPERPARAMETERS.items())
    assert len(HYPERPARAMETERS) >= 25


def test_presets_get_longer() -> None:
    for presets in PRESETS.values():
        lengths = [preset["epochs"] * preset["max_length"] for preset in presets.values()]
        assert lengths == sorted(lengths) and all(map(math.isfinite, lengths))
