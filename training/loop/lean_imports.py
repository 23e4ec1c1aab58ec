"""What the process of a run leaves out: libraries that transformers and PEFT import only because they are installed.

A run's memory is all that its process holds, and these are 200 MB of it and seconds of its start. Each of them is
optional to whoever imports it, which asks first whether it is there. A module that is None in `sys.modules` is not:
https://docs.python.org/3/reference/import.html#the-module-cache
"""

from __future__ import annotations

from pathlib import Path

import torch

from errors import GraftError
from process_setup import block_modules
from training.config import TrainConfig
from training.events import CONFIG

UNUSED = ("scipy", "sklearn")
"""For the losses of object detection and for speculative decoding, neither of which a run has."""
QUANTIZING = "bitsandbytes"


def leave_out(folder: Path) -> None:
    """Leave out of this process what the run in `folder` does not need; before transformers is imported."""
    block_modules(*unneeded(folder))


def unneeded(folder: Path) -> list[str]:
    """The modules that the run in `folder` does without."""
    try:
        config = TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, GraftError):
        return []  # the run itself says what is wrong
    plain = config.quantize == "none" or (config.quantize == "auto" and not torch.cuda.is_available())
    return [*UNUSED, *([QUANTIZING] if plain else [])]
