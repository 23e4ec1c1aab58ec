"""What tests compare is exact in float32 alone, so on a GPU, whose bases compute in bfloat16, they are held in float32.

Imported before anything that takes `compute_dtype` by name. The processes of runs are not reached by this: tests that
compare with them say the precision (`training_helpers.config_of` does).
"""

from __future__ import annotations

import torch

from store import loading

ON_GPU = torch.cuda.is_available()
ATOL = 1e-4 if ON_GPU else 1e-5
"""What two ways of computing the same in float32 may differ by: a GPU sums in another order for each shape."""
INT8_ATOL = 2e-2 if ON_GPU else 1e-4
"""What LLM.int8 may be off by beside itself: on a GPU its products are float16, where the last bit falls by chance."""


def _float32() -> torch.dtype:
    return torch.float32


if ON_GPU:
    loading.compute_dtype = _float32
