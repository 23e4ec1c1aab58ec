"""training/cli/run_arguments.py: what it writes, it reads; what it cannot read, it says."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
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
)


@given(CONFIGS)
def test_what_is_written_is_read(chosen: Any) -> None:
    preset, changed, promote = chosen
    config = TrainConfig.for_tab(SPEC, Path("rows.jsonl"), "mine", preset, promote=promote, **changed)
    said = run_arguments.write(config, SPEC, config.data)
    assert read(said) == config


def read(command: str) -> TrainConfig:
    """The configuration of a command as a shell passes it on."""
    python, module, name, *arguments = shlex.split(command)
    assert (python, module, name) == ("python", "-m", "training")
    return run_arguments.to_config(parser().parse_args(["train", *arguments]), SPEC)


def test_columns_are_read() -> None:
    config = replace(TrainConfig.for_tab(SPEC, Path("my rows.csv"), "mine"), mapping={"text": "a b", "target": "c"})
    assert read(run_arguments.write(config, SPEC, config.data)) == config


@pytest.mark.parametrize("wrong", ["--held-out-data a --held-out-split b", "--columns {", "--columns text", "--rank 0"])
def test_what_does_not_fit_says_what_to_do_next(wrong: str) -> None:
    with pytest.raises(GraftError) as caught:
        read(f"python -m training --plugin talk --data owner/rows --name mine {wrong}")
    assert caught.value.why and caught.value.next


def test_the_page_says_what_the_command_says() -> None:
    words = json.loads((REPOSITORY / "ui" / "locales" / "en.json").read_text())
    assert (
        all(words[f"help.{name}"] == field.help for name, field in HYPERPARAMETERS.items())
        and len(HYPERPARAMETERS) >= 25
    )


def test_presets_get_longer() -> None:
    for presets in PRESETS.values():
        lengths = [preset["epochs"] * preset["max_length"] for preset in presets.values()]
        assert lengths == sorted(lengths) and all(map(math.isfinite, lengths))
