"""The table of a run's settings: kind, bounds and one sentence of help for each, and the presets that begin with them.

The configuration validates itself by it, the command line and the page are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from settings import QUANTIZATIONS
from store.adapters import MAX_RANK


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


TRACKERS: Mapping[str, tuple[str, ...]] = {
    "none": (), "tensorboard": ("tensorboard",), "trackio": ("trackio",), "both": ("tensorboard", "trackio"),
}  # fmt: skip
"""What `track` may be, and the packages that it needs."""

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
