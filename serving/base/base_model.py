"""A base model: one frozen model in memory with its tokenizer, and the slots of the versions that adapt it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from errors import AdapterError
from models import fingerprint
from models.adapter_check import Adapter, read_adapter
from models.chat_template import TokenizedText, truncate
from models.loading import LINEAR, compute_dtype, features, load_model, require_memory, resolve_quantization
from models.resolve import Model, fits
from models.tokenizer import check_tokens, load_tokenizer, window
from serving import compute_thread
from serving.base.mixed_batch import MixedBatch
from serving.base.slots import DoraScale, Head, LayerAdapter, Slot, Slots
from store.adapters import BASE, Version
from tasks import resident_class

SPARE = 1 / 16
"""Share of a GPU's memory for unused versions beyond `serving.base.slots.CAPACITY`."""


class BaseModel:
    """A base, loaded once and shared by all tabs and versions that name it."""

    def __init__(self, model: Model, quantize: str, precision: str = "auto", beside: bool = False) -> None:
        """Load weights and tokenizer, which takes seconds; `quantize` and `precision` as in `Settings`.

        `beside`: whether to refuse a base that does not fit beside those in memory. Raises `ModelError`.
        """
        self.model = model
        self.quantization = resolve_quantization(quantize)
        self.dtype = compute_dtype(precision)
        if beside:
            free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
            require_memory(model, self.quantization, self.dtype.itemsize, free)
        self.tokenizer = load_tokenizer(model)
        self.net, _ = load_model(model, resident_class(model.config), self.quantization, self.dtype)
        self.net.requires_grad_(False)
        self.config: PretrainedConfig = self.net.config
        self.body: nn.Module = self.net.base_model
        self.device: torch.device = next(self.net.parameters()).device
        self.window = window(self.config, self.tokenizer)
        """Longest input in tokens."""
        self._vocabulary = int(self.net.get_input_embeddings().weight.shape[0])
        self.check_tokens(self.tokenizer(fingerprint.PROBE)["input_ids"])
        self.layers = _linear_layers(self.net)
        # bitsandbytes' 8-bit layers keep state of the running pass in the module, so passes must not overlap.
        self._alone: AbstractContextManager[Any] = threading.RLock() if self.quantization == "8bit" else nullcontext()
        spare = int(torch.cuda.mem_get_info(self.device)[1] * SPARE) if self.device.type == "cuda" else 0
        self.slots = Slots(self.layers, self._read, spare)
        self.own_head = self._own_head()
        """Classifier head of a base that was fine-tuned as one."""
        self._probe = fingerprint.probe(self.tokenizer, self.config.is_encoder_decoder, self.device)
        self._bare_states = self._probe_states(None)
        self.mixes = self._can_mix()
        """True if rows of different versions may share a pass."""

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize a text, truncated to the window; raises `ModelError` for tokens the base lacks."""
        [found] = truncate(self.tokenizer, [text], self.window)
        self.check_tokens(found.inputs["input_ids"])
        return found

    def check_tokens(self, ids: Sequence[int]) -> None:
        """Raise `ModelError` if the base lacks one of these tokens."""
        if (largest := max(ids, default=0)) >= self._vocabulary:
            check_tokens(largest, self._vocabulary, self.model)

    @torch.inference_mode()
    def run(
        self, rows: Sequence[Mapping[str, list[int]]], slots: Sequence[Slot | None]
    ) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """Run the body over rows as one padded batch, each with its slot; returns its outputs and the batch."""
        batch = self.tokenizer.pad({key: [row[key] for row in rows] for key in rows[0]}, return_tensors="pt")
        batch = batch.to(self.device)
        with self.using(adapter_of(slots)):
            return self.body(**batch), batch

    @contextmanager
    def using(self, adapter: LayerAdapter | None) -> Iterator[None]:
        """Adapt forward passes of this thread until the block ends; None is the bare base."""
        with self._alone, self.slots.using(adapter):
            yield

    def _read(self, version: Version) -> Slot:
        """Verify a version in full, move its tensors to this base's device, and check its effect."""
        version.check_files()
        _check_base(version, self.model)
        return compute_thread.run(partial(self._make_slot, version))

    def _make_slot(self, version: Version) -> Slot:
        sizes = {path: features(layer) for path, layer in self.layers.items()}
        adapter = read_adapter(version.path, sizes, version.ref)
        dtype = self.net.dtype if self.net.dtype.is_floating_point else torch.float32
        # On a CPU products as thin as LoRA's take up to three times as long in bfloat16 as in float32.
        low = torch.float32 if self.device.type == "cpu" else dtype
        pairs = {path: (a.to(self.device, low), b.to(self.device, low), s) for path, (a, b, s) in adapter.pairs.items()}
        whole = {name: tensor.to(self.device, dtype) for name, tensor in adapter.whole.items()}
        head = Head(self.config, version.labels, whole) if version.labels else None
        dora = self._dora_scales(adapter, pairs, version.ref)
        slot = Slot(version, pairs, whole, head, dora)
        self._check_effect(slot)
        return slot

    @torch.inference_mode()
    def _dora_scales(self, adapter: Adapter, pairs: dict[str, Any], name: str) -> dict[str, DoraScale]:
        """Return DoRA's scales by layer; replaces the B matrices of `pairs` by the scaled ones."""
        scales: dict[str, DoraScale] = {}
        with self._alone:
            for path, magnitude in adapter.magnitudes.items():
                a, _, scale = pairs[path]
                scales[path], b = DoraScale.of_layer(self.layers[path], pairs[path], magnitude)
                if not torch.isfinite(b).all() or not torch.isfinite(scales[path].excess).all():
                    raise _refusal(name, f"A row of {path} has no length in this base, so DoRA cannot scale it.")
                pairs[path] = (a, b, scale)
        return scales

    def _check_effect(self, slot: Slot) -> None:
        """Refuse a version that changes nothing on this base, or not what it changed when it was published."""
        published = slot.version.manifest.get("fingerprint")
        key = fingerprint.base_key(self.quantization, self.dtype)
        why = fingerprint.find_mismatch(published, self._bare_states, self._probe_states(slot), key)
        if why:
            raise _refusal(slot.version.ref, why)

    def _probe_states(self, slot: Slot | None) -> torch.Tensor:
        with self.using(slot):
            return fingerprint.states(self.body, self._probe)

    @torch.inference_mode()
    def _can_mix(self) -> bool:
        """Return whether every layer sees the rows of a batch apart.

        Not in DeBERTa: the layers of its queries and keys also transform positions that all rows share.
        """
        count = 3
        sizes = _BatchSizes()
        with self.using(sizes):
            self.body(**{key: ids.repeat(count, 1) for key, ids in self._probe.items()})
        return all(size % count == 0 for size in sizes.seen)

    def _own_head(self) -> Head | None:
        if not type(self.net).__name__.endswith("ForSequenceClassification"):
            return None
        names = self.config.id2label
        return Head(self.config, [names[i] for i in sorted(names)], dict(self.net.state_dict()))


class _BatchSizes:
    """Records the batch size each layer sees, to detect layers that fold rows together; adapts nothing."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def adapt(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        self.seen.add(inputs.shape[0])


def adapter_of(slots: Sequence[Slot | None]) -> LayerAdapter | None:
    """Return the adapter of a pass over rows with these slots; None where all are the bare base."""
    return slots[0] if len(set(map(id, slots))) == 1 else MixedBatch(slots)


def _check_base(version: Version, model: Model) -> None:
    """Refuse a version of another base: either its name and shapes or its weights must be the same."""
    if not fits(version, model):
        name = (version.manifest.get("base") or {}).get("id", "another base")
        why = f"It was made for {name}, and {model.id} has other weights."
        raise _refusal(version.ref, why, f"Restore that base, or choose {BASE} or another version.")


def _refusal(name: str, why: str, then: str = "What answered before goes on answering.") -> AdapterError:
    return AdapterError(f"{name} was refused.", why, then)


def _linear_layers(net: PreTrainedModel) -> dict[str, nn.Module]:
    """Return linear layers by their path in the model that adapters are trained on: the body with a head."""
    bare = resident_class(net.config.to_dict()) == "AutoModel"
    inside = f"{net.base_model_prefix}." if bare else ""
    return {f"{inside}{name}": m for name, m in net.named_modules() if isinstance(m, LINEAR)}
