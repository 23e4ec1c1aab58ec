"""training/config.py: no invalid configuration exists, and every error is told at once, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ConfigError
from tasks import TASKS, Columns, TabSpec
from training.config import HYPERPARAMETERS, PRESET, PRESETS, TrainConfig

NUMBERS = [name for name, field in HYPERPARAMETERS.items() if field.kind in ("whole", "number")]
TEXTS = ["name", "plugin", "model", "task", "data", "held_out_data", "prompt", "quantize"]
VALID: dict[str, Any] = {
    "name": "tickets",
    "plugin": "classification",
    "model": "org/name",
    "task": "text-classification",
    "data": "/tmp/rows.csv",  # noqa: S108 - never opened
    "columns": {"text": "text", "target": "label"},
}
SPECS = {
    "text-classification": TabSpec("sort", "org/bert", "text-classification", Columns(text="text", target="label")),
    "causal-lm": TabSpec("sum", "org/llm", "causal-lm", Columns(text="t", target="s"), "Sum up: {text}"),
    "seq2seq-lm": TabSpec("talk", "org/t5", "seq2seq-lm", Columns(messages="messages")),
}


def problems(**changed: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{**VALID, **changed})
    return caught.value.problems


def test_all_errors_are_reported_at_once() -> None:
    found = problems(rank=0, alpha=-1, dropout=2, learning_rate=9, epochs=0, batch_size=0, seed=-1, held_out=0.9)
    assert " ".join(text.split()[0] for text in found) == (
        "epochs batch_size rank alpha dropout learning_rate held_out seed"
    )
    found = problems(name="No Name", plugin="", task="painting", quantize="2bit", prompt="x", columns={"text": "a"})
    assert len(found) == 6 and found[1] == "plugin is empty."
    assert "painting" in found[2] and "text-classification" in found[2]


@pytest.mark.parametrize("key", NUMBERS)
def test_ranges_include_their_ends_and_nothing_beyond(key: str) -> None:
    least, most = HYPERPARAMETERS[key].least, HYPERPARAMETERS[key].most
    for end in (least, most):
        assert getattr(TrainConfig(**VALID, **{key: end}), key) == end
    for beyond in (least - 1, most + 1, 10**400):
        assert problems(**{key: beyond})[0].startswith(f"{key} is")


WRONG = {
    **{key: ["5", None, True, [], {}, float("nan"), float("inf"), -float("inf")] for key in NUMBERS},
    **{key: [None, 5, ["a"], {"a": 1}, True] for key in TEXTS},
    **{key: [None, 5, "text", ["text"], {"text": 5}, {"text": None}, {"odd": "a"}] for key in ["columns", "mapping"]},
    "promote": ["yes", 1, None],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_another_type_is_refused(key: str) -> None:
    for value in WRONG[key]:
        assert problems(**{key: value})[0].startswith(key)
    assert problems(rank=8.5) == ("rank is 8.5: expected a whole number.",)


@pytest.mark.parametrize("columns", [{}, {"text": "a"}, {"target": "a"}, {"messages": ""}])
def test_columns_that_name_too_little_are_refused(columns: dict[str, str]) -> None:
    assert problems(columns=columns) == ("columns must name text and target, or messages.",)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "Big", "base", "live", "a" * 41, "a b", "-a", "a\n"])
def test_r16_names_that_cannot_be_folders_are_refused(name: str) -> None:
    assert "cannot name an adapter" in problems(name=name)[0]


def test_json_is_read_back_and_unknown_and_missing_fields_are_named() -> None:
    config = TrainConfig(**VALID, held_out_data="/tmp/ü.csv", mapping={"text": "文本"}, rank=4, promote=True, epochs=2)  # noqa: S108
    assert TrainConfig.from_json(config.to_json()) == config and "文本" in config.to_json()
    values = {k: v for k, v in VALID.items() if k not in ("data", "columns")}
    with pytest.raises(ConfigError) as caught:
        TrainConfig.from_json(json.dumps({**values, "rnak": 8, "code": "x"}))
    missing, unknown = ["columns is missing.", "data is missing."], ["code is not a field.", "rnak is not a field."]
    assert sorted(caught.value.problems) == sorted(missing + unknown)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '["name", "rank"]', "null", "5", '"text"', "[" * 100_000, "{} {}", "\x00"], ids=range(10)
)
def test_text_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        TrainConfig.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(changed=st.dictionaries(st.sampled_from([*TrainConfig.__dataclass_fields__, "odd"]), JSON, min_size=1))
def test_any_json_is_a_configuration_or_a_config_error(changed: dict[str, Any]) -> None:
    try:
        config = TrainConfig.from_json(json.dumps({**VALID, **changed}))
    except ConfigError as error:
        assert error.problems
    else:
        assert TrainConfig.from_json(config.to_json()) == config and config.tab_columns.names


@pytest.mark.parametrize("task", TASKS)
def test_a_tab_begins_with_the_defaults_of_its_task_and_the_choices_of_the_user(task: str) -> None:
    spec, preset = SPECS[task], PRESETS[TASKS[task].answers][PRESET]
    config = TrainConfig.for_tab(spec, Path("rows.csv"), "tickets", rank=2, epochs=None, promote=True)
    assert all(getattr(config, key) == value for key, value in preset.items())
    assert (config.rank, config.promote) == (2, True)
    assert config.tab_columns == spec.columns and Path(config.data).is_absolute()
    assert (config.plugin, config.model, config.prompt) == (spec.name, spec.model, spec.prompt)
    with pytest.raises(ConfigError, match="rank"):
        TrainConfig.for_tab(spec, Path("rows.csv"), "tickets", rank=0)
    with pytest.raises(ConfigError, match="names no columns"):
        TrainConfig.for_tab(TabSpec("own", "", task), Path("rows.csv"), "tickets")
