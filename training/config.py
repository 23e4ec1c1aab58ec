"""One training run's configuration: JSON that validates itself and reports all its errors at once."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from errors import AdapterError, ConfigError
from settings import QUANTIZATIONS
from store.adapters import MAX_RANK, check_name
from tasks import TASKS, Columns, TabSpec


@dataclass(frozen=True)
class Knob:
    """One setting: a number within bounds, a choice, a switch or a text."""

    help: str
    kind: Literal["whole", "number", "choice", "switch", "text"]
    least: float = 0
    most: float = 0
    choices: tuple[str, ...] = ()
    group: Literal["lora", "optimizer", "length", "memory", "watch"] = "lora"
    """Where the page puts it."""


def _whole(least: int, most: int, group: Any, help: str) -> Knob:  # noqa: ANN401 - the literal of Knob.group
    return Knob(help, "whole", least, most, group=group)


def _number(least: float, most: float, group: Any, help: str) -> Knob:  # noqa: ANN401 - as above
    return Knob(help, "number", least, most, group=group)


def _choice(choices: tuple[str, ...], group: Any, help: str) -> Knob:  # noqa: ANN401 - as above
    return Knob(help, "choice", choices=choices, group=group)


def _switch(group: Any, help: str) -> Knob:  # noqa: ANN401 - as above
    return Knob(help, "switch", group=group)


TENSORBOARD, TRACKIO = "tensorboard", "trackio"
"""Packages of trackers, and the folders that they write to: in a run's folder, and in the home."""
TRACKERS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "tensorboard": (TENSORBOARD,),
    "trackio": (TRACKIO,),
    "both": (TENSORBOARD, TRACKIO),
}
"""Values of `track`, and the packages that each needs."""


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


KNOBS: Mapping[str, Knob] = {
    "epochs": _number(0.01, 1000, "length", "How many times every row is learned from."),
    "max_steps": _whole(0, 10**9, "length", "If above 0, the number of steps, whatever the epochs say."),
    "batch_size": _whole(1, 1024, "length", "Rows that one step learns from together."),
    "max_length": _whole(8, 131_072, "length", "Tokens of one row; longer texts are cut, never the answers."),
    "rank": _whole(1, MAX_RANK, "lora", "The size of the adapter: more can learn more, and needs more rows."),
    "alpha": _number(1, 1024, "lora", "How strongly the adapter acts; twice the rank is usual."),
    "dropout": _number(0, 0.9, "lora", "The share of inputs left out at random while learning; slower above 0."),
    "targets": Knob("Layers that are adapted: all-linear, attention, or names such as q_proj,v_proj.", "text"),
    "use_rslora": _switch("lora", "Scale by the root of the rank, so that high ranks learn as fast as low ones."),
    "use_dora": _switch("lora",
                        "Learn the length of each row of a weight apart from its direction; often better, and slower."),
    "start_from": Knob("A version to train on from, such as tickets@3, instead of a fresh adapter.", "text"),
    "learning_rate": _number(1e-7, 1, "optimizer", "How far one step goes; too high diverges, too low learns nothing."),
    "schedule": _choice(("cosine", "linear", "constant"), "optimizer", "How the learning rate falls over the run."),
    "warmup": _number(0, 0.5, "optimizer", "The share of the run in which the learning rate rises from 0."),
    "weight_decay": _number(0, 1, "optimizer", "How strongly weights are pulled to 0."),
    "max_grad_norm": _number(0.01, 1000, "optimizer", "Gradients longer than this are shortened to it."),
    "quantize": _choice(QUANTIZATIONS, "memory", "How the base is held: auto is 4bit on a GPU and none on a CPU."),
    "precision": _choice(("auto", "float32", "bfloat16"), "memory",
                         "What is computed in: auto is bfloat16 where the processor has it."),
    "micro_batch_tokens": _whole(0, 10**6, "memory",
                                 "Tokens that go through the model at once: fewer need less memory; 0 chooses."),
    "gradient_checkpointing": _choice(("auto", "on", "off"), "memory",
                                      "Compute parts twice to hold less in memory; auto: only where it is needed."),
    "packing": _switch("memory", "Put rows one after the other instead of padding them; for decoder-only bases."),
    "evaluations": _whole(0, 1000, "watch", "How many times rows that are not learned from are looked at on the way."),
    "keep_best": _switch("watch", "Publish the state with the best loss on validation rows, not the last one."),
    "patience": _whole(0, 1000, "watch", "Stop after so many evaluations without a better one; 0 never stops early."),
    "checkpoint_steps": _whole(0, 10**9, "watch", "Steps between checkpoints; 0 is every two minutes."),
    "held_out": _number(0.01, 0.5, "watch", "The share of rows that are never learned from and make the card."),
    "card_rows": _whole(0, 100_000, "watch", "Held-out rows kept word for word in the card."),
    "track": _choice(tuple(TRACKERS), "watch",
                     "Write the curves for TensorBoard or Trackio too, on this machine only."),
    "seed": _whole(0, 2**32 - 1, "watch", "The same seed and rows give the same run."),
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "label": {
        "quick": {"epochs": 3.0, "batch_size": 16, "learning_rate": 3e-3, "max_length": 128},
        "balanced": {"epochs": 8.0, "batch_size": 16, "learning_rate": 2e-3, "max_length": 256},
        "thorough": {"epochs": 20.0, "batch_size": 16, "learning_rate": 1e-3, "max_length": 512, "rank": 16,
                     "alpha": 32.0, "evaluations": 20, "keep_best": True, "patience": 6},
    },
    "text": {
        "quick": {"epochs": 1.0, "batch_size": 4, "learning_rate": 1e-3, "max_length": 256},
        "balanced": {"epochs": 3.0, "batch_size": 4, "learning_rate": 5e-4, "max_length": 512},
        "thorough": {"epochs": 8.0, "batch_size": 8, "learning_rate": 5e-4, "max_length": 1024, "rank": 16,
                     "alpha": 32.0, "evaluations": 8, "keep_best": True, "patience": 3},
    },
}  # fmt: skip
"""For each kind of answers; what a preset does not name is as `TrainConfig` has it. Found by trying on the examples."""
PRESET = "balanced"
"""The one to begin with."""


TEXTS = (
    "name",
    "plugin",
    "model",
    "tab_model",
    "task",
    "data",
    "held_out_data",
    "prompt",
    "corrections",
    "held_out_split",
)
HUB = ("id", "revision", "config", "split")
"""What names rows on the Hugging Face Hub."""
COUNTS = {"correction_weight": (1, 1000), "replay_rows": (0, 10**9)}
"""Whole numbers that are no knobs, because Teach chooses them: least and most."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run needs to know. Raises `ConfigError` with every problem when made with invalid values."""

    name: str
    """The adapter that gets a new version. What the fields from `rank` on mean is in `training.config`."""
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
    tab_model: str = ""
    """The tab's own base, which may be another than `model`."""
    held_out_data: str = ""
    """A file of rows to hold out, instead of a share of `data`."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Columns of the file to use for them, where the user chose."""
    hub: Mapping[str, str] = field(default_factory=dict)
    """Where on the Hugging Face Hub the rows of `data` are from: id, revision, config and split; else nothing."""
    held_out_split: str = ""
    """The split of the same data set that `held_out_data` has, where it is one."""
    prompt: str = ""
    """How a row's text is put to a model that answers with text."""
    corrections: str = ""
    """A file of rows that are always learned from and never held out; `data` may be empty beside it."""
    correction_weight: int = 1
    """How many times an epoch goes through each of them."""
    replay_rows: int = 0
    """The most rows of `data` to learn from beside them; 0 is all."""
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "all-linear"
    use_rslora: bool = False
    use_dora: bool = False
    start_from: str = ""
    learning_rate: float = 5e-4
    schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    epochs: float = 3.0
    max_steps: int = 0
    batch_size: int = 8
    max_length: int = 512
    quantize: str = "auto"
    precision: str = "auto"
    micro_batch_tokens: int = 0
    gradient_checkpointing: str = "auto"
    packing: bool = False
    evaluations: int = 4
    keep_best: bool = False
    patience: int = 0
    checkpoint_steps: int = 0
    held_out: float = 0.1
    seed: int = 0
    card_rows: int = 200
    track: str = "none"
    promote: bool = False
    """Whether the tab answers with the new version at once, if the card says that it is not worse."""
    anyway: bool = False
    """Whether it starts where the estimate says that it does not fit."""

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
    def for_tab(cls, spec: TabSpec, data: Path | None, name: str, preset: str = PRESET, **chosen: Any) -> TrainConfig:  # noqa: ANN401
        """The configuration of a tab with a preset for its task, changed by what the user has `chosen`.

        `data` is None where `hub` names rows that are not on this computer yet.
        """
        if not spec.learns or spec.columns is None:
            raise ConfigError("The training configuration", [f"The tab {spec.name} names no columns to learn from."])
        values = {
            "name": name,
            "plugin": spec.name,
            "model": spec.model,
            "tab_model": spec.model,
            "task": spec.task,
            "data": str(data.absolute()) if data else "",
            "columns": {k: v for k, v in asdict(spec.columns).items() if v},
            "prompt": spec.prompt,
            **PRESETS[TASKS[spec.task].answers][preset],
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
        if isinstance(plain := values.get("gradient_checkpointing"), bool):  # of a run before it was a choice
            values["gradient_checkpointing"] = "on" if plain else "off"
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
        if not isinstance(self.hub, Mapping) or (self.hub and set(self.hub) != set(HUB)):
            yield f"hub is {self.hub!r}: expected {', '.join(HUB)}."
        elif not all(isinstance(value, str) for value in self.hub.values()):
            yield f"hub is {self.hub!r}: expected texts."
        for key in ("promote", "anyway"):
            if not isinstance(getattr(self, key), bool):
                yield f"{key} is {getattr(self, key)!r}: expected true or false."

    def _fact_problems(self) -> Iterator[str]:
        try:
            check_name(self.name)
        except AdapterError as error:
            yield f"{error.what} {error.why}"
        for key in ("plugin", "model", *(() if self.corrections or self.hub else ("data",))):
            if not getattr(self, key):
                yield f"{key} is empty."
        if self.held_out_split and self.held_out_split == self.hub.get("split"):
            yield f"held_out_split is {self.held_out_split}, which is trained on."
        if self.held_out_split and not self.hub:
            yield "held_out_split is a split of a data set of the Hub; name a file in held_out_data."
        if self.corrections and (self.keep_best or self.patience):
            yield "keep_best and patience would take corrections to look at; they are off where there are corrections."
        if self.task not in TASKS:
            yield f"task is {self.task!r}: expected one of {', '.join(TASKS)}."
        for key, knob in KNOBS.items():
            if knob.kind == "choice" and getattr(self, key) not in knob.choices:
                yield f"{key} is {getattr(self, key)!r}: expected one of {', '.join(knob.choices)}."
        if self.packing and self.task != "causal-lm":
            yield "packing is for decoder-only bases that write text."
        if (self.keep_best or self.patience) and not self.evaluations:
            yield "keep_best and patience need evaluations above 0."
        if self.prompt and self.prompt.count("{text}") != 1:
            yield "prompt must contain {text} once."
        if not (self.columns.get("messages") or (self.columns.get("text") and self.columns.get("target"))):
            yield "columns must name text and target, or messages."

    def _number_problems(self) -> list[str]:
        problems = []
        for key, knob in KNOBS.items():
            value = getattr(self, key)
            if knob.kind == "switch":
                if not isinstance(value, bool):
                    problems.append(f"{key} is {value!r}: expected true or false.")
            elif knob.kind in ("choice", "text"):
                if not isinstance(value, str):
                    problems.append(f"{key} is {value!r}: expected text.")
            elif isinstance(value, bool) or not isinstance(value, int if knob.kind == "whole" else int | float):
                problems.append(f"{key} is {value!r}: expected a {'whole ' if knob.kind == 'whole' else ''}number.")
            elif not knob.least <= value <= knob.most:  # nor NaN, nor infinity
                problems.append(f"{key} is {str(value)[:40]}: expected {knob.least:g} to {knob.most:g}.")
        for key, (least, most) in COUNTS.items():
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                problems.append(f"{key} is {str(value)[:40]}: expected a whole number from {least} to {most:,}.")
        return problems


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
