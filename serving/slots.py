"""Adapter slots: many versions beside one resident base, none of them merged into it.

Each linear layer of the base carries one forward hook for good. Which version a forward pass uses is a fact of the
thread that runs it (`using`), so passes with different versions may run at the same time, a swap changes nothing that
a running pass can see, and no lock is held around inference. LoRA: y + scale * B(A x) (Hu et al., 2021).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from serving.heads import Head
from serving.magnitude import Stretch
from store.adapters import Version

CAPACITY = 8
"""Versions kept in memory beside a base when no request uses them."""

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]


@dataclass
class Slot:
    """One version in memory."""

    version: Version
    pairs: Pairs
    whole: Mapping[str, torch.Tensor]
    head: Head | None
    stretches: Mapping[str, Stretch] = field(default_factory=dict)
    """Of a version that was trained with DoRA: what its layers' own outputs become."""
    users: int = field(default=0)


class Slots:
    """The versions that one base holds, and the hooks that apply them."""

    def __init__(self, layers: Mapping[str, nn.Module], read: Callable[[Version], Slot]) -> None:
        """`layers`: path -> linear layer. `read` verifies a version and prepares its tensors."""
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._read = read
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._active = threading.local()
        for path, module in layers.items():
            module.register_forward_hook(self._hook(path))

    @property
    def loaded(self) -> list[str]:
        """The versions in memory, least recently used first."""
        with self._lock:
            return list(self._slots)

    @contextmanager
    def pin(self, version: Version) -> Iterator[Slot]:
        """The version's slot, kept until the block ends; loads it first if need be. Raises `AdapterError`."""
        slot = self._take(version)
        if slot is None:
            with self._loading:
                slot = self._take(version)
                if slot is None:
                    loaded = self._read(version)
                    with self._lock:
                        self._slots[version.ref] = slot = loaded
                        slot.users += 1
        try:
            yield slot
        finally:
            with self._lock:
                slot.users -= 1
                self._evict()

    def drop(self, ref: str) -> bool:
        """Forget a version that no request uses; whether it is out of memory now."""
        with self._lock:
            slot = self._slots.get(ref)
            if slot is None or slot.users == 0:
                self._slots.pop(ref, None)
                return True
            return False

    @contextmanager
    def using(self, slot: Slot | None) -> Iterator[None]:
        """Forward passes of this thread answer with `slot` (None: the bare base) until the block ends."""
        before = getattr(self._active, "slot", None)
        self._active.slot = slot
        try:
            yield
        finally:
            self._active.slot = before

    def _take(self, version: Version) -> Slot | None:
        with self._lock:
            slot = self._slots.get(version.ref)
            # A folder that was deleted and put there again may hold something else under the same name.
            if slot and slot.version.manifest == version.manifest:
                slot.users += 1
                self._slots.move_to_end(version.ref)
                return slot
            return None

    def _evict(self) -> None:
        idle = [ref for ref, slot in self._slots.items() if slot.users == 0]
        for ref in idle[: max(0, len(self._slots) - CAPACITY)]:
            del self._slots[ref]

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor | None]:
        def apply(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
            slot: Slot | None = getattr(self._active, "slot", None)
            if slot is None:
                return None
            if f"{path}.weight" in slot.whole:
                return nn.functional.linear(args[0], slot.whole[f"{path}.weight"], slot.whole.get(f"{path}.bias"))
            pair = slot.pairs.get(path)
            if pair is None:
                return None
            a, b, scale = pair
            change: torch.Tensor = (args[0].to(a.dtype) @ a.T) @ b.T * scale
            stretch = slot.stretches.get(path)
            return (stretch.of(output) if stretch else output) + change.to(output.dtype)

        return apply
