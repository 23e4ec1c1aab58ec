"""Adapter slots: many versions in memory beside one base model, none of them merged into its weights.

Each linear layer of the base has one permanent forward hook. It applies the adapter that is active in the thread of the
pass (`Slots.using`): one version, or a `MixedBatch` of several, row by row. So loading and evicting versions cannot
change a running pass, and inference takes no lock. A version is verified in full before it gets a slot; unused versions
are evicted, the least recently used first.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from errors import AdapterError, BusyError, Text
from models.transformers_private import dense_weight
from store.adapters import Version

CAPACITY = 8
"""Versions kept in memory beside a base; up to `IN_USE` while the unused ones fit into the spare memory."""
IN_USE = 32
"""Versions in use by requests at the same time; a request for one more waits."""
WAIT_S = 60.0
"""Longest wait for a slot."""

LoraPair = tuple[torch.Tensor, torch.Tensor, float]
"""A of shape (rank, inputs), B of shape (outputs, rank), and the scale."""


class LayerAdapter(Protocol):
    """Adapter of a forward pass: one version for all rows (`Slot`), or several (`mixed_batch.MixedBatch`)."""

    def adapt(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the adapted output of the layer at `path`, or None to leave `output` as it is; may overwrite it."""


@dataclass(frozen=True)
class DoraScale:
    """DoRA's rescaling of one layer's output y (Liu et al., 2024): y + excess * y + shift, both of shape (outputs,).

    DoRA learns the length m of each row of a weight apart from its direction: W' = m * V / ||V|| with V = W + scale *
    B A, so the layer's output is m / ||V|| * (W x + scale * B A x) + bias. W and V do not change while a version is in
    memory, so the norms are computed once.
    """

    excess: torch.Tensor
    """m / ||V|| - 1, which is small, so that 16 bits lose nothing to rounding."""
    shift: torch.Tensor | None
    """Undoes the scaling of the layer's bias, which DoRA leaves alone; None without a bias."""

    @classmethod
    def of_layer(cls, layer: nn.Module, pair: LoraPair, magnitude: torch.Tensor) -> tuple[DoraScale, torch.Tensor]:
        """Return the scale for a layer, and B multiplied by m / ||V||; not finite where a row of V has length 0."""
        a, b, scale = pair[0].float(), pair[1].float(), pair[2]
        rows = torch.addmm(dense_weight(layer), b, a, alpha=scale)
        ratio = magnitude.float().to(rows.device) / torch.linalg.vector_norm(rows, dim=1)
        bias, excess, dtype = getattr(layer, "bias", None), ratio - 1, pair[1].dtype
        shift = None if bias is None else (-excess * bias.float()).to(dtype)
        return cls(excess.to(dtype), shift), (ratio[:, None] * b).to(dtype)

    def rescale(self, output: torch.Tensor) -> torch.Tensor:
        """Return the layer's rescaled output, to which the adapter's product is then added."""
        scaled = torch.addcmul(output, output, self.excess.to(output.dtype))
        return scaled if self.shift is None else scaled + self.shift.to(output.dtype)


class _Replay(nn.Module):
    """Returns the given encoder outputs for any arguments."""

    outputs: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - an encoder's outputs
        return self.outputs


class Head:
    """A version's classifier head of `len(labels)` labels, over the encoder that all versions share.

    It is the architecture's own `...ForSequenceClassification` with an encoder that returns what the shared one has
    computed, so that pooling is transformers' code for every family.
    """

    def __init__(self, config: PretrainedConfig, labels: list[str], tensors: Mapping[str, torch.Tensor]) -> None:
        """`tensors`: parameters of the classification model by name. Raises `AdapterError` if they do not fit."""
        config = copy.deepcopy(config)
        config.num_labels = len(labels)
        # Otherwise torch's default type is set meanwhile, for the whole process: a base that loads then would take it.
        config.dtype = None
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        self._replay = _Replay()
        setattr(model, model.base_model_prefix, self._replay)
        own = {name: tensors[name] for name in model.state_dict() if name in tensors}
        for name, expected in model.state_dict().items():
            if name not in own or own[name].shape != expected.shape:
                shape = f"of shape {tuple(own[name].shape)}" if name in own else "missing"
                why = f"{name} is {shape}; this base and these labels need {tuple(expected.shape)}."
                raise AdapterError("A classifier head was refused.", why, "What answered before goes on answering.")
        model.load_state_dict(own, assign=True)
        self._model, self._lock, self.labels = model.eval(), threading.Lock(), labels

    def __call__(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ANN401
        """Return logits of shape (rows, labels) from the encoder's outputs for `batch`."""
        with self._lock:
            self._replay.outputs = outputs
            logits: torch.Tensor = self._model(**batch).logits
            self._replay.outputs = None
        return logits


@dataclass(eq=False)
class Slot:
    """A version in memory. Only `users` changes, so that passes of several threads may share it."""

    version: Version
    pairs: Mapping[str, LoraPair]
    """LoRA matrices by the layer's path."""
    whole: Mapping[str, torch.Tensor]
    """Weights by name that replace the base's, such as a classifier's pooler."""
    head: Head | None
    dora: Mapping[str, DoraScale] = field(default_factory=dict)
    """Scales by the layer's path, for a version trained with DoRA."""
    users: int = field(default=0)

    @cached_property
    def size(self) -> int:
        """Bytes of all matrices."""
        tensors = [tensor for a, b, _ in self.pairs.values() for tensor in (a, b)] + [*self.whole.values()]
        return sum(tensor.nbytes for tensor in tensors)

    def adapt(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the layer's output with this version for all rows; None if the version does not adapt the layer."""
        if self.whole and f"{path}.weight" in self.whole:
            return nn.functional.linear(inputs, self.whole[f"{path}.weight"], self.whole.get(f"{path}.bias"))
        pair = self.pairs.get(path)
        if pair is None:
            return None
        a, b, scale = pair
        if dora := self.dora.get(path):
            output = dora.rescale(output)
        low = nn.functional.linear(inputs.to(a.dtype), a).flatten(0, -2)
        if output.dtype == b.dtype:
            return output.flatten(0, -2).addmm_(low, b.T, alpha=scale).view(output.shape)
        return output + (low @ b.T * scale).view(output.shape).to(output.dtype)


def segments(slots: Sequence[Slot | None]) -> Iterator[tuple[Slot | None, int, int]]:
    """Yield runs of neighbouring rows with the same slot: (slot, first row, row after the last)."""
    start = 0
    for _, run in groupby(slots, key=id):
        same = list(run)
        yield same[0], start, start + len(same)
        start += len(same)


class Slots:
    """The versions in memory beside one base, and the hooks that apply them."""

    def __init__(self, layers: Mapping[str, nn.Module], read: Callable[[Version], Slot], spare: int = 0) -> None:
        """`layers`: linear layers by path. `read` verifies a version and returns its slot.

        `spare`: bytes for unused versions beyond `CAPACITY`.
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
        """References of the versions in memory, least recently used first."""
        with self._lock:
            return list(self._slots)

    @contextmanager
    def pin(self, version: Version | None) -> Iterator[Slot | None]:
        """Yield a version's slot, and keep it in memory until the block ends; None for the bare base.

        Raises `AdapterError` if the version is refused, and `BusyError` if too many others stay in use.
        """
        if version is None:
            yield None
            return
        slot = self._take(version) or self._load(version)
        try:
            yield slot
        finally:
            with self._lock:
                slot.users -= 1
                self._evict()
                self._freed.notify_all()

    def drop(self, ref: str) -> bool:
        """Evict a version unless a request uses it; returns whether it is out of memory."""
        with self._lock:
            if (slot := self._slots.get(ref)) and slot.users == 0:
                del self._slots[ref]
            return ref not in self._slots

    @contextmanager
    def using(self, adapter: LayerAdapter | None) -> Iterator[None]:
        """Adapt forward passes of this thread until the block ends; None is the bare base."""
        before = getattr(self._active, "adapter", None)
        self._active.adapter = adapter
        try:
            yield
        finally:
            self._active.adapter = before

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
        with self._loading:  # one version at a time is verified and brought into memory
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
                    what = Text("{version} cannot be loaded now.", version=version.ref)
                    why = Text("{n} other versions are being answered with.", n=IN_USE)
                    raise BusyError(what, why, "Try again in a moment.")

    def _evict(self) -> None:
        unused = [ref for ref, slot in self._slots.items() if slot.users == 0]
        for ref in unused[: max(0, len(self._slots) - CAPACITY)]:
            if len(self._slots) <= IN_USE and sum(slot.size for slot in self._slots.values()) <= self._spare:
                break
            del self._slots[ref]

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Any, ...], torch.Tensor], torch.Tensor | None]:
        active = self._active

        def apply(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
            adapter: LayerAdapter | None = getattr(active, "adapter", None)
            return None if adapter is None else adapter.adapt(path, args[0], output)

        return apply
