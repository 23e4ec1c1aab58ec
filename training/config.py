"""The configuration of a training run: a dataclass that is saved as JSON and reports all invalid values at once.

A hyperparameter is declared once, as a field of `TrainConfig` with its type, default, group, help and bounds;
`HYPERPARAMETERS` has these for the command line and the page.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args, get_origin

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from errors import AdapterError, ConfigError
from store.adapters import MAX_RANK, check_name
from tasks import TASKS, Columns, TabSpec

SUBJECT = "The training configuration"
TENSORBOARD, TRACKIO = "tensorboard", "trackio"
"""Packages of trackers, and names of the folders they write to: one in the run's folder, the other in the home."""
TRACKERS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "tensorboard": (TENSORBOARD,),
    "trackio": (TRACKIO,),
    "both": (TENSORBOARD, TRACKIO),
}
"""Packages that each value of `track` needs."""
LONGEST_LENGTH = 131_072
"""Largest value of `max_length`, in tokens."""
HUB = ("id", "revision", "config", "split")
"""The parts of a place on the Hugging Face Hub."""
PRESET = "balanced"
"""The default preset."""
PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "label": {
        "quick": {"epochs": 3.0, "batch_size": 16, "learning_rate": 3e-3, "max_length": 128},
        "balanced": {"epochs": 8.0, "batch_size": 16, "learning_rate": 2e-3, "max_length": 256},
        "thorough": {"epochs": 20.0, "batch_size": 16, "learning_rate": 1e-3, "max_length": 512}
        | {"rank": 16, "alpha": 32.0, "evaluations": 20, "keep_best": True, "patience": 6},
    },
    "text": {
        "quick": {"epochs": 1.0, "batch_size": 4, "learning_rate": 1e-3, "max_length": 256},
        "balanced": {"epochs": 3.0, "batch_size": 4, "learning_rate": 5e-4, "max_length": 512},
        "thorough": {"epochs": 8.0, "batch_size": 8, "learning_rate": 5e-4, "max_length": 1024}
        | {"rank": 16, "alpha": 32.0, "evaluations": 8, "keep_best": True, "patience": 3},
    },
}
"""Hyperparameters by kind of answers and preset, tuned on the example files; others have the field's default."""


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """The declaration of a field of `TrainConfig`, for the command line, the page and messages of errors."""

    kind: Literal["whole", "number", "choice", "switch", "text", "names"]
    group: str = ""
    """Section of the form: length, lora, optimizer, memory or watch; empty for fields that users do not set."""
    help: str = ""
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()

    def expected(self, value: object) -> str:
        """Return a phrase for the values that the field accepts, as a reply to the invalid `value`."""
        if self.kind == "choice":
            return f"one of {', '.join(self.choices)}"
        if self.kind in ("whole", "number"):
            right = int if self.kind == "whole" else int | float
            if isinstance(value, right) and not isinstance(value, bool):
                return f"{self.least:g} to {self.most:g}"
            return "a whole number" if self.kind == "whole" else "a number"
        return {"switch": "true or false", "text": "text", "names": "texts by name"}[self.kind]


def _set(default: Any, group: str, least: float | None = None, most: float | None = None) -> Any:  # noqa: ANN401
    """Declare a hyperparameter; its help is the docstring below it."""
    return Field(default, json_schema_extra={"group": group}, ge=least, le=most)


def _check_name(name: str) -> str:
    try:
        check_name(name)
    except AdapterError as error:
        raise ValueError(f"{error.what} {error.why}") from error
    return name


def _check_task(task: str) -> str:
    if task not in TASKS:
        raise ValueError(f"task is {task!r}: expected one of {', '.join(TASKS)}.")
    return task


def _check_prompt(prompt: str) -> str:
    if prompt and prompt.count("{text}") != 1:
        raise ValueError("prompt must contain {text} once.")
    return prompt


def _check_parts(value: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
    if unknown := sorted(set(value) - {part.name for part in dataclasses.fields(Columns)}):
        raise ValueError(f"{info.field_name} has {', '.join(unknown)}: expected text and target, or messages.")
    return value


def _check_columns(columns: Mapping[str, str]) -> Mapping[str, str]:
    if not (columns.get("messages") or (columns.get("text") and columns.get("target"))):
        raise ValueError("columns must name text and target, or messages.")
    return columns


def _check_hub(hub: Mapping[str, str]) -> Mapping[str, str]:
    if hub and set(hub) != set(HUB):
        raise ValueError(f"hub is {hub!r}: expected {', '.join(HUB)}.")
    return hub


NonEmpty = Annotated[str, Field(min_length=1)]
ColumnNames = Annotated[Mapping[str, str], AfterValidator(_check_parts)]


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True))
class TrainConfig:
    """The settings of a run. Constructing one with invalid values raises `ConfigError` with every problem."""

    name: Annotated[str, AfterValidator(_check_name)]
    """Name of the adapter that gets a new version."""
    plugin: NonEmpty
    """Name of the tab that the adapter is for."""
    model: NonEmpty
    """The base: a Hub id or a folder."""
    task: Annotated[str, AfterValidator(_check_task)]
    """The tab's task."""
    data: str
    """The file of rows."""
    columns: Annotated[ColumnNames, AfterValidator(_check_columns)]
    """Names that the tab gives its columns: text and target, or messages."""
    tab_model: str = ""
    """The tab's default base; `model` may be another."""
    held_out_data: str = ""
    """File of rows to hold out, instead of a share of `data`."""
    mapping: ColumnNames = Field(default_factory=dict)
    """Columns of the file that the user chose for text, target or messages; others are guessed."""
    hub: Annotated[Mapping[str, str], AfterValidator(_check_hub)] = Field(default_factory=dict)
    """Source of `data` on the Hugging Face Hub: id, revision, config and split; empty for a local file."""
    held_out_split: str = ""
    """Split of the same data set whose rows are in `held_out_data`; empty where that is another file."""
    prompt: Annotated[str, AfterValidator(_check_prompt)] = ""
    """Prompt template with one {text}, for a model that answers with text; empty for the text itself."""
    corrections: str = ""
    """File of corrections, which are all trained on and never held out; `data` may then be empty."""
    correction_weight: int = Field(default=1, ge=1, le=1000)
    """Repetitions of each correction in an epoch."""
    replay_rows: int = Field(default=0, ge=0, le=10**9)
    """Largest number of rows of `data` to train on beside corrections; 0 is all."""

    epochs: float = _set(3.0, "length", 0.01, 1000)
    """Number of passes over the rows."""
    max_steps: int = _set(0, "length", 0, 10**9)
    """If above 0, the number of steps, whatever the epochs say."""
    batch_size: int = _set(8, "length", 1, 1024)
    """Rows that one step learns from together."""
    max_length: int = _set(512, "length", 8, LONGEST_LENGTH)
    """Tokens of one row; longer texts are cut, never the answers."""
    rank: int = _set(8, "lora", 1, MAX_RANK)
    """The size of the adapter: more can learn more, and needs more rows."""
    alpha: float = _set(16.0, "lora", 1, 1024)
    """How strongly the adapter acts; twice the rank is usual."""
    dropout: float = _set(0.0, "lora", 0, 0.9)
    """The share of inputs left out at random while learning; slower above 0."""
    targets: str = _set("all-linear", "lora")
    """Layers that are adapted: all-linear, attention, or names such as q_proj,v_proj."""
    use_rslora: bool = _set(False, "lora")
    """Scale by the root of the rank, so that high ranks learn as fast as low ones."""
    use_dora: bool = _set(False, "lora")
    """Learn the length of each row of a weight apart from its direction; often better, and slower."""
    start_from: str = _set("", "lora")
    """A version to train on from, such as tickets@3, instead of a fresh adapter."""
    learning_rate: float = _set(5e-4, "optimizer", 1e-7, 1)
    """How far one step goes; too high diverges, too low learns nothing."""
    schedule: Literal["cosine", "linear", "constant"] = _set("cosine", "optimizer")
    """How the learning rate falls over the run."""
    warmup: float = _set(0.05, "optimizer", 0, 0.5)
    """The share of the run in which the learning rate rises from 0."""
    weight_decay: float = _set(0.01, "optimizer", 0, 1)
    """How strongly weights are pulled to 0."""
    max_grad_norm: float = _set(1.0, "optimizer", 0.01, 1000)
    """Gradients longer than this are shortened to it."""
    quantize: Literal["auto", "none", "8bit", "4bit"] = _set("auto", "memory")
    """How the base is held: auto is 4bit on a GPU and none on a CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = _set("auto", "memory")
    """Type of the computation: auto is bfloat16 where the processor has it."""
    micro_batch_tokens: int = _set(0, "memory", 0, 10**6)
    """Tokens that go through the model at once: fewer need less memory; 0 chooses."""
    gradient_checkpointing: Literal["auto", "on", "off"] = _set("auto", "memory")
    """Compute parts twice to hold less in memory; auto: only where it is needed."""
    packing: bool = _set(False, "memory")
    """Put rows one after the other instead of padding them; for decoder-only bases."""
    evaluations: int = _set(4, "watch", 0, 1000)
    """Number of evaluations on validation rows during training."""
    keep_best: bool = _set(False, "watch")
    """Publish the state with the best loss on validation rows, not the last one."""
    patience: int = _set(0, "watch", 0, 1000)
    """Stop after so many evaluations without a better one; 0 never stops early."""
    checkpoint_steps: int = _set(0, "watch", 0, 10**9)
    """Steps between checkpoints; 0 is every two minutes."""
    held_out: float = _set(0.1, "watch", 0.01, 0.5)
    """The share of rows that are never learned from and make the card."""
    card_rows: int = _set(200, "watch", 0, 100_000)
    """Held-out rows kept word for word in the card."""
    track: Literal["none", "tensorboard", "trackio", "both"] = _set("none", "watch")
    """Write the curves for TensorBoard or Trackio too, on this machine only."""
    seed: int = _set(0, "watch", 0, 2**32 - 1)
    """The same seed and rows give the same run."""
    promote: bool = False
    """Make the new version live at once, if the card's gate passes."""
    anyway: bool = False
    """Start even where the estimate says that the run does not fit."""

    @model_validator(mode="wrap")
    @classmethod
    def _raise_all(cls, values: Any, validate: Any) -> Self:  # noqa: ANN401 - pydantic's
        try:
            config: Self = validate(values)
            problems = list(config._contradictions())
        except ValidationError as error:
            problems = list(dict.fromkeys(map(_sentence, error.errors(include_url=False))))
        if problems:
            raise ConfigError(SUBJECT, problems, "Correct these and start again.")
        return config

    @property
    def tab_columns(self) -> Columns:
        """The columns of the tab."""
        return Columns(**self.columns)

    @classmethod
    def for_tab(cls, spec: TabSpec, data: Path | None, name: str, preset: str = PRESET, **chosen: Any) -> TrainConfig:  # noqa: ANN401
        """Make the configuration for a tab from a preset; `chosen` values that are not None override it.

        `data` is None where `hub` names rows that are not on this computer yet.
        """
        if not spec.learns or spec.columns is None:
            raise ConfigError(SUBJECT, [f"The tab {spec.name} names no columns to learn from."])
        values = {
            "name": name,
            "plugin": spec.name,
            "model": spec.model,
            "tab_model": spec.model,
            "task": spec.task,
            "data": str(data.absolute()) if data else "",
            "columns": {k: v for k, v in dataclasses.asdict(spec.columns).items() if v},
            "prompt": spec.prompt,
            **PRESETS[TASKS[spec.task].answers][preset],
        }
        return cls(**{**values, **{k: v for k, v in chosen.items() if v is not None}})

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Parse the output of `to_json`; raises `ConfigError`, also for unknown and missing fields."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(SUBJECT, ["It is not JSON."]) from error
        if not isinstance(values, dict):
            raise ConfigError(SUBJECT, ["It is not a JSON object."])
        if isinstance(plain := values.get("gradient_checkpointing"), bool):  # of a run before it was a choice
            values["gradient_checkpointing"] = "on" if plain else "off"
        return cls(**values)

    def to_json(self) -> str:
        """Return the configuration as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"

    def _contradictions(self) -> Iterator[str]:
        """Yield a sentence for each combination of valid values that contradict each other."""
        if not (self.data or self.corrections or self.hub):
            yield "data is empty."
        if self.held_out_split and self.held_out_split == self.hub.get("split"):
            yield f"held_out_split is {self.held_out_split}, which is trained on."
        if self.held_out_split and not self.hub:
            yield "held_out_split is a split of a data set of the Hub; name a file in held_out_data."
        if self.corrections and (self.keep_best or self.patience):
            yield "keep_best and patience would take corrections to look at; they are off where there are corrections."
        if self.packing and self.task != "causal-lm":
            yield "packing is for decoder-only bases that write text."
        if (self.keep_best or self.patience) and not self.evaluations:
            yield "keep_best and patience need evaluations above 0."


def _describe(field: FieldInfo) -> Hyperparameter:
    """Convert a field from pydantic's form."""
    annotation, extra = field.annotation, field.json_schema_extra
    bounds = {key: getattr(part, key) for part in field.metadata for key in ("ge", "le") if hasattr(part, key)}
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    kinds: dict[Any, Any] = {int: "whole", float: "number", bool: "switch", str: "text"}
    return Hyperparameter(
        kind="choice" if choices else kinds.get(annotation, "names"),
        group=str(extra["group"]) if isinstance(extra, dict) else "",
        help=field.description or "",
        least=bounds.get("ge", 0),
        most=bounds.get("le", 0),
        choices=choices,
    )


_FIELDS = {name: _describe(field) for name, field in cast(Any, TrainConfig).__pydantic_fields__.items()}
HYPERPARAMETERS: Mapping[str, Hyperparameter] = {name: field for name, field in _FIELDS.items() if field.group}
"""The fields that users set, by name."""


def _sentence(error: Mapping[str, Any]) -> str:
    """Convert an error of pydantic to a sentence with the field, its value and what was expected."""
    if not error["loc"]:
        return "The name of a field is not text."
    key, *inside = error["loc"]
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "string_too_short":
        return f"{key} is empty."
    if error["type"] == "missing":
        return f"{key} is missing."
    if error["type"] == "unexpected_keyword_argument":
        return f"{key} is not a field."
    value, field = error["input"], _FIELDS[str(key)]
    expected = "text" if inside else field.expected(value)
    return f"{'.'.join(map(str, [key, *inside[:1]]))} is {repr(value)[:40]}: expected {expected}."


def require_trackers(track: str) -> None:
    """Raise `ConfigError` for packages that `track` needs and that are not installed; imports none of them."""
    missing = [name for name in TRACKERS[track] if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise ConfigError(
            "track",
            [f"It is {track!r}, and the package {names} is not installed; Graft needs it for nothing else."],
            f"Run: pip install {' '.join(missing)}. Or leave tracking out.",
        )
