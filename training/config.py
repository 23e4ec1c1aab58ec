"""One training run's configuration: JSON that validates itself and reports all its errors at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from errors import AdapterError, ConfigError
from settings import QUANTIZATIONS
from store.adapters import MAX_RANK, check_name
from tasks import TASKS, Columns, TabSpec

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "label": {"epochs": 8.0, "batch_size": 16, "learning_rate": 2e-3, "max_length": 256},
    "text": {"epochs": 3.0, "batch_size": 4, "learning_rate": 5e-4, "max_length": 512},
}
"""What the two kinds of answers begin with; found by trying on the example data sets on two cores."""

RANGES: Mapping[str, tuple[float, float]] = {
    "rank": (1, MAX_RANK),
    "alpha": (1, 1024),
    "dropout": (0, 0.9),
    "learning_rate": (1e-7, 1),
    "epochs": (0.01, 1000),
    "batch_size": (1, 1024),
    "max_length": (8, 131072),
    "held_out": (0.01, 0.5),
    "seed": (0, 2**32 - 1),
    "max_steps": (0, 10**9),
    "card_rows": (0, 100_000),
}

TEXTS = ("name", "plugin", "model", "task", "data", "held_out_data", "prompt", "quantize")


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run needs to know. Raises `ConfigError` with every problem when made with invalid values."""

    name: str
    """The adapter that gets a new version."""
    plugin: str
    """The tab it is for."""
    model: str
    """The base: a Hub id or folder."""
    task: str
    """The tab's task."""
    data: str
    """The file of rows."""
    columns: Mapping[str, str]
    """The tab's own columns: text and target, or messages."""
    held_out_data: str = ""
    """A file of rows to hold out, instead of a share of `data`."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Columns of the file to use for them, where the user chose."""
    prompt: str = ""
    """How a row's text is put to a model that answers with text."""
    quantize: str = "auto"
    """How the base is held while training: auto (4bit on a GPU, none on a CPU), none, 8bit, 4bit."""
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    learning_rate: float = 5e-4
    epochs: float = 3.0
    max_steps: int = 0
    """If above 0, the number of steps, whatever `epochs` says."""
    batch_size: int = 8
    max_length: int = 512
    """Tokens of one row, question and answer together."""
    held_out: float = 0.1
    """The share of rows that are never trained on and make the card."""
    seed: int = 0
    card_rows: int = 200
    """Held-out rows kept word for word in the card, which travels with the version; 0 for rows that must not."""
    promote: bool = False
    """Whether the tab answers with the new version at once, if the card says that it is not worse."""

    def __post_init__(self) -> None:
        # Values of the right kind first: what they say can only be looked at then.
        problems = [*self._kind_problems(), *self._number_problems()] or [*self._fact_problems()]
        if problems:
            raise ConfigError("The training configuration", problems, "Correct these and start again.")

    @property
    def wanted(self) -> Columns:
        """The tab's own columns."""
        return Columns(**self.columns)

    @classmethod
    def for_tab(cls, spec: TabSpec, data: Path, name: str, **chosen: Any) -> TrainConfig:  # noqa: ANN401
        """The configuration of a tab with its task's defaults, changed by what the user has `chosen`."""
        if not spec.learns or spec.columns is None:
            raise ConfigError("The training configuration", [f"The tab {spec.name} names no columns to learn from."])
        values = {
            "name": name,
            "plugin": spec.name,
            "model": spec.model,
            "task": spec.task,
            "data": str(data.absolute()),
            "columns": {k: v for k, v in asdict(spec.columns).items() if v},
            "prompt": spec.prompt,
            **DEFAULTS[TASKS[spec.task].answers],
        }
        return cls(**{**values, **{k: v for k, v in chosen.items() if v is not None}})

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The inverse of `to_json`; unknown and missing fields are among the errors."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError("The training configuration", ["It is not JSON."]) from error
        if not isinstance(values, dict):
            raise ConfigError("The training configuration", ["It is not a JSON object."])
        problems = [f"{key} is not a field." for key in sorted(set(values) - {f.name for f in fields(cls)})]
        problems += [f"{f.name} is missing." for f in fields(cls) if _needed(f) and f.name not in values]
        if problems:
            raise ConfigError("The training configuration", problems)
        return cls(**values)

    def to_json(self) -> str:
        """Readable JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def _kind_problems(self) -> Iterator[str]:
        for key in TEXTS:
            if not isinstance(getattr(self, key), str):
                yield f"{key} is {getattr(self, key)!r}: expected text."
        for key in ("columns", "mapping"):
            value = getattr(self, key)
            if not (isinstance(value, Mapping) and all(isinstance(v, str) for v in (*value, *value.values()))):
                yield f"{key} is {value!r}: expected names of columns by their part of a row."
            elif unknown := sorted(set(value) - {f.name for f in fields(Columns)}):
                yield f"{key} has {', '.join(unknown)}: expected text and target, or messages."
        if not isinstance(self.promote, bool):
            yield f"promote is {self.promote!r}: expected true or false."

    def _fact_problems(self) -> Iterator[str]:
        try:
            check_name(self.name)
        except AdapterError as error:
            yield f"{error.what} {error.why}"
        for key in ("plugin", "model", "data"):
            if not getattr(self, key):
                yield f"{key} is empty."
        if self.task not in TASKS:
            yield f"task is {self.task!r}: expected one of {', '.join(TASKS)}."
        if self.quantize not in QUANTIZATIONS:
            yield f"quantize is {self.quantize!r}: expected one of {', '.join(QUANTIZATIONS)}."
        if self.prompt and self.prompt.count("{text}") != 1:
            yield "prompt must contain {text} once."
        if not (self.columns.get("messages") or (self.columns.get("text") and self.columns.get("target"))):
            yield "columns must name text and target, or messages."

    def _number_problems(self) -> list[str]:
        problems = []
        for key, (least, most) in RANGES.items():
            value = getattr(self, key)
            whole = isinstance(getattr(type(self), key), int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                problems.append(f"{key} is {value!r}: expected a {'whole ' if whole else ''}number.")
            elif not least <= value <= most:  # nor NaN, nor infinity
                problems.append(f"{key} is {str(value)[:40]}: expected {least:g} to {most:g}.")
        return problems


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
