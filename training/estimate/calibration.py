"""Times a layer of a transformer beside LoRA on this machine: `python -m training.estimate.calibration` prints JSON.

Operations a second by width, learning, at the tokens that a CPU is given at once.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from torch import nn

from models.loading import device, training_dtype

WIDTHS = (384, 1024)
TOKENS, LENGTH, HEAD, RANK = 512, 64, 64, 8
LEAST_S, LEAST_TIMES = 1.0, 3


class Layer(nn.Module):
    """Attention and a feed-forward part, frozen, with LoRA on each matrix."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
        self.frozen = nn.ModuleList(nn.Linear(a, b).requires_grad_(requires_grad=False) for a, b in sizes)
        self.down = nn.ModuleList(nn.Linear(a, RANK, bias=False) for a, _ in sizes)
        self.up = nn.ModuleList(nn.Linear(RANK, b, bias=False) for _, b in sizes)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, length, width) to the same."""
        split = (*x.shape[:2], -1, HEAD)
        q, k, v = (self._linear(i, x).reshape(split).transpose(1, 2) for i in range(3))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        x = x + self._linear(3, mixed.transpose(1, 2).flatten(2))
        found: torch.Tensor = self.norm(x + self._linear(5, nn.functional.gelu(self._linear(4, x))))
        return found

    def _linear(self, i: int, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.frozen[i](x) + self.up[i](self.down[i](x))
        return found


def speed(width: int, tokens: int = TOKENS) -> float:
    """Operations a second, the way `training.estimate.duration` counts them."""
    where, dtype = device(), training_dtype("auto")
    layer = Layer(width).to(where)
    x = torch.randn(tokens // LENGTH, LENGTH, width, device=where, requires_grad=True)
    took: list[float] = []
    while len(took) < LEAST_TIMES or sum(took) < LEAST_S:
        began = time.perf_counter()
        with torch.autocast(where.type, dtype=dtype, enabled=dtype != torch.float32):
            found = layer(x).sum()
        found.backward()
        if where.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    frozen = sum(p.numel() for p in layer.frozen.parameters())
    trained = sum(p.numel() for p in [*layer.down.parameters(), *layer.up.parameters()])
    return tokens * (2 * (2 * frozen + 4 * LENGTH * width) + 6 * trained) / sorted(took)[len(took) // 2]


def main() -> dict[str, float]:
    """The speed at each width."""
    torch.manual_seed(0)
    return {str(width): speed(width) for width in WIDTHS}


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
    print()
