"""What tests compare is exact in float32 alone, so on a GPU, whose bases compute in bfloat16, they are held in float32.

Imported before anything that takes `compute_dtype` by name. The processes of runs are not reached by this: tests that
compare with them say the precision (`training_helpers.config_of` does).
"""

from __future__ import annotations

import torch

from models import loading

ON_GPU = torch.cuda.is_available()
ATOL = 1e-4 if ON_GPU else 1e-5
"""What two ways of computing the same in float32 may differ by: a GPU sums in another order for each shape."""
INT8_ATOL = 1e-1 if ON_GPU else 1e-4
"""What LLM.int8 may be off by beside itself. It rounds what a layer is given to 127 steps, and where the last bit of
float32 falls otherwise, one value comes to lie a step away: 0.03 of a tiny model's logits were seen. Here it is the CPU
whose sums are known to fall alike."""


def _float32(_: str = "auto") -> torch.dtype:
    return torch.float32


if ON_GPU:
    loading.compute_dtype = _float32
