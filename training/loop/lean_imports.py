"""Blocks libraries in a run's process that transformers and PEFT import only because they are installed.

They take 200 MB of a run's memory and seconds of its start. Their importers can do without them.
"""

from __future__ import annotations

from pathlib import Path

import torch

from errors import GraftError
from process_setup import block_modules
from training.config import TrainConfig
from training.events import CONFIG

UNUSED = ("scipy", "sklearn")
"""Needed for the losses of object detection and for speculative decoding, which no run uses."""
QUANTIZING = "bitsandbytes"


def block_unused(folder: Path) -> None:
    """Block the modules that the run in `folder` does not need; must be called before transformers is imported."""
    try:
        config = TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, GraftError):
        return  # the run itself will say what is wrong
    plain = config.quantize == "none" or (config.quantize == "auto" and not torch.cuda.is_available())
    block_modules(*UNUSED, *([QUANTIZING] if plain else []))
