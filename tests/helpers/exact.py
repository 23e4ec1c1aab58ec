"""Makes bases compute in float32 on a GPU too, where they would take bfloat16: comparisons are exact in float32 alone.

Imported before anything that takes `compute_dtype` by name. The processes of runs are not reached by this: tests that
compare with them say the precision (`training_helpers.config_of` does).
"""

from __future__ import annotations

import torch

from models import loading

ON_GPU = torch.cuda.is_available()
ATOL = 1e-4 if ON_GPU else 1e-5
"""Tolerance between two ways of computing the same in float32: a GPU sums in another order for each shape."""
INT8_ATOL = 1e-1 if ON_GPU else 1e-4
"""Tolerance between two passes of LLM.int8, which rounds a layer's input to 127 steps: where the last bit of float32
differs, a value lies a step away. 0.03 of a tiny model's logits were seen on a GPU."""


def _float32(_: str = "auto") -> torch.dtype:
    return torch.float32


if ON_GPU:
    loading.compute_dtype = _float32
