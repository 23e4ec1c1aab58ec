"""training/cli/run_arguments.py: what it writes, it reads; what it cannot read, it says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ConfigError, GraftError
from settings import REPOSITORY
from tasks import Columns, TabSpec
from training.cli import run_arguments
from training.config import KNOBS, PRESETS, Knob, TrainConfig

SPEC = TabSpec("talk", "org/llm", "causal-lm", Columns(messages="messages"))


def values_of(name: str, knob: Knob) -> st.SearchStrategy[Any]:
    if knob.kind == "switch":
        return st.booleans()
    if knob.kind == "choice":
        return st.sampled_from(knob.choices)
    if knob.kind == "text":
        return st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).filter(
            lambda s: not s.startswith("-")
        )
    if knob.kind == "whole":
        return st.integers(max(int(knob.least), name == "evaluations"), int(knob.most))
    return st.floats(knob.least, knob.most).map(lambda value: float(repr(value)))


CONFIGS = st.tuples(
    st.sampled_from(list(PRESETS["text"])),
    st.fixed_dictionaries({}, optional={name: values_of(name, knob) for name, knob in KNOBS.items()}),
    st.booleans(),
)


@given(CONFIGS)
def test_what_is_written_is_read(chosen: Any) -> None:
    preset, changed, promote = chosen
    config = TrainConfig.for_tab(SPEC, Path("rows.jsonl"), "mine", preset, promote=promote, **changed)
    said = run_arguments.write(config, SPEC, config.data)
    assert run_arguments.to_config(run_arguments.read(said), SPEC) == config


def test_columns_and_line_ends_are_read() -> None:
    config = replace(TrainConfig.for_tab(SPEC, Path("my rows.csv"), "mine"), mapping={"text": "a b", "target": "c"})
    said = run_arguments.write(config, SPEC, config.data).replace(" --name", " \\\n  --name")
    assert run_arguments.to_config(run_arguments.read(said), SPEC) == config


@pytest.mark.parametrize("wrong", ["", "--help", "'", "--plugin a", "--plugin a --data b --name c --nothing 1",
                                   "--plugin a --data b --name c --rank many"])  # fmt: skip
def test_what_cannot_be_read_is_said(wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run_arguments.read(wrong)
    assert len(caught.value.problems) == 1
    assert "whole python -m training command" in caught.value.next


@pytest.mark.parametrize("wrong", ["--held-out-data a --held-out-split b", "--columns {", "--columns text", "--rank 0"])
def test_what_does_not_fit_says_what_to_do_next(wrong: str) -> None:
    options = run_arguments.read(f"--plugin talk --data owner/rows --name mine {wrong}")
    with pytest.raises(GraftError) as caught:
        run_arguments.to_config(options, SPEC)
    assert caught.value.why and caught.value.next


def test_the_page_says_what_the_command_says() -> None:
    words = json.loads((REPOSITORY / "ui" / "locales" / "en.json").read_text())
    assert all(words[f"help.{name}"] == knob.help for name, knob in KNOBS.items()) and len(KNOBS) >= 25


def test_presets_get_longer() -> None:
    for presets in PRESETS.values():
        lengths = [preset["epochs"] * preset["max_length"] for preset in presets.values()]
        assert lengths == sorted(lengths) and all(map(math.isfinite, lengths))
