"""Keeps libraries out of a run's process that transformers and PEFT import only because they are installed.

They are 200 MB of a run's memory and seconds of its start, and optional to their importers, which ask first whether
they are there. A module that is None in `sys.modules` is not:
https://docs.python.org/3/reference/import.html#the-module-cache
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from errors import GraftError
from training.config import TrainConfig
from training.events import CONFIG

UNUSED = ("scipy", "sklearn")
"""For the losses of object detection and for speculative decoding, which no run uses."""
QUANTIZING = "bitsandbytes"


def leave_out(folder: Path) -> None:
    """Hide the modules that the run in `folder` does not need; to be called before transformers is imported."""
    for name in unneeded(folder):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def unneeded(folder: Path) -> list[str]:
    """Return the modules that the run in `folder` does not need."""
    try:
        config = TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, GraftError):
        return []  # the run itself will say what is wrong
    plain = config.quantize == "none" or (config.quantize == "auto" and not torch.cuda.is_available())
    return [*UNUSED, *([QUANTIZING] if plain else [])]
