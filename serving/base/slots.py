"""Adapter slots: many versions beside one resident base, none of them merged into it.

Each linear layer of the base carries one forward hook for good. What adapts a forward pass is a fact of the thread that
runs it (`using`): one version, or a mixture of several, row by row. So a swap changes nothing that a running pass can
see, and no lock is held around inference. A version is verified in full before it is in a slot; one that nobody uses
leaves it when others need the room, the least recently used first.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import nn

from errors import BusyError
from serving.base.dora import Stretch
from serving.base.heads import Head
from store.adapters import Version

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]


class Adapting(Protocol):
    """What a pass is adapted by: one version for all of its rows (`Slot`), or several (`mixed_batch.Mixture`)."""

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """What the layer at `path`, which made `output` of `inputs`, answers instead; None: what it made.

        `output` may be written to: it was made for this pass, and nobody else has it.
        """


@dataclass(eq=False)
class Slot:
    """One version in memory. Immutable but for its users, so that passes of several threads may share it."""

    version: Version
    pairs: Pairs
    """Path of a layer -> A of shape (rank, inputs), B of shape (outputs, rank), scale."""
    whole: Mapping[str, torch.Tensor]
    head: Head | None
    stretches: Mapping[str, Stretch] = field(default_factory=dict)
    """Of a version that was trained with DoRA: what its layers' own outputs become."""
    users: int = field(default=0)

    @cached_property
    def size(self) -> int:
        """Bytes of its matrices."""
        held = [tensor for a, b, _ in self.pairs.values() for tensor in (a, b)] + [*self.whole.values()]
        return sum(tensor.nbytes for tensor in held)

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """The layer's output with this version, for every row alike; None where the version leaves it as it is."""
        if self.replaces(path):
            return nn.functional.linear(inputs, self.whole[f"{path}.weight"], self.whole.get(f"{path}.bias"))
        pair = self.pairs.get(path)
        if pair is None:
            return None
        a, b, scale = pair
        if stretch := self.stretches.get(path):
            output = stretch.of(output)
        low = nn.functional.linear(inputs.to(a.dtype), a).flatten(0, -2)
        if output.dtype == b.dtype:
            return output.flatten(0, -2).addmm_(low, b.T, alpha=scale).view(output.shape)
        return output + (low @ b.T * scale).view(output.shape).to(output.dtype)

    def replaces(self, path: str) -> bool:
        """Whether this version brings the layer's weights whole: a classifier's pooler, say."""
        return bool(self.whole) and f"{path}.weight" in self.whole


__all__ = ["CAPACITY", "IN_USE", "Slot", "Slots"]

CAPACITY = 8
"""Versions kept in memory beside a base when no request uses them; up to `IN_USE` where there is memory to spare."""
IN_USE = 32
"""Versions that requests use at the same time; whoever asks for one more waits."""
WAIT_S = 60.0
"""How long a request waits for that."""


class Slots:
    """The versions that one base holds, and the hooks that apply them."""

    def __init__(self, layers: Mapping[str, nn.Module], read: Callable[[Version], Slot], spare: int = 0) -> None:
        """`layers`: path -> linear layer. `read` verifies a version and prepares its tensors.

        `spare`: bytes that versions may take for which there is no other reason to be in memory.
        """
        self._slots: OrderedDict[str, Slot] = OrderedDict()
        self._read, self._spare = read, spare
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
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
        """The version's slot, kept until the block ends; loads it first if need be.

        Raises `AdapterError` for a version that is refused, and `BusyError` where too many others are in use too long.
        """
        slot = self._take(version) or self._load(version)
        try:
            yield slot
        finally:
            with self._lock:
                slot.users -= 1
                self._evict()
                self._freed.notify_all()

    def drop(self, ref: str) -> bool:
        """Forget a version that no request uses; whether it is out of memory now."""
        with self._lock:
            slot = self._slots.get(ref)
            if slot is None or slot.users == 0:
                self._slots.pop(ref, None)
                return True
            return False

    @contextmanager
    def using(self, adapting: Adapting | None) -> Iterator[None]:
        """Forward passes of this thread are adapted so (None: the bare base) until the block ends."""
        before = getattr(self._active, "adapting", None)
        self._active.adapting = adapting
        try:
            yield
        finally:
            self._active.adapting = before

    def _take(self, version: Version) -> Slot | None:
        with self._lock:
            slot = self._slots.get(version.ref)
            # A folder that was deleted and put there again may hold something else under the same name.
            if slot and slot.version.manifest == version.manifest:
                slot.users += 1
                self._slots.move_to_end(version.ref)
                return slot
            return None

    def _load(self, version: Version) -> Slot:
        """One version at a time is verified and brought into memory."""
        with self._loading:
            slot = self._take(version)
            if slot is None:
                self._wait_for_room(version)
                slot = self._read(version)
                with self._lock:
                    self._slots[version.ref] = slot
                    self._slots.move_to_end(version.ref)
                    slot.users += 1
                    self._evict()
            return slot

    def _wait_for_room(self, version: Version) -> None:
        deadline = time.monotonic() + WAIT_S
        with self._freed:
            while sum(slot.users > 0 for slot in self._slots.values()) >= IN_USE:
                if not self._freed.wait(deadline - time.monotonic()):
                    raise BusyError(
                        f"{version.ref} cannot be loaded now.",
                        f"{IN_USE} other versions are being answered with.",
                        "Try again in a moment.",
                    )

    def _evict(self) -> None:
        idle = [ref for ref, slot in self._slots.items() if slot.users == 0]
        for ref in idle[: max(0, len(self._slots) - CAPACITY)]:
            if len(self._slots) <= IN_USE and sum(slot.size for slot in self._slots.values()) <= self._spare:
                break
            del self._slots[ref]

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor | None]:
        active = self._active

        def apply(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
            adapting: Adapting | None = getattr(active, "adapting", None)
            return None if adapting is None else adapting.change(path, args[0], output)

        return apply
