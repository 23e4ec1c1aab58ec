"""A resident base: one frozen model in memory with its tokenizer, its slots, and what can be asked of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from errors import AdapterError
from models import fingerprint
from models.adapter_check import Adapter, read_adapter
from models.chat_template import neutralize
from models.loading import LINEAR, compute_dtype, features, load_model, resolve_quantization
from models.resolve import Model, fits
from models.tokenizer import check_tokens, load_tokenizer, window
from serving import compute_thread
from serving.base.dora import Stretch, stretch
from serving.base.heads import Head
from serving.base.mixed_batch import mixed
from serving.base.slots import Adapting, Slot, Slots
from store.adapters import BASE, Version
from tasks import resident_class

SPARE = 1 / 16
"""Of a GPU's memory, for versions beyond `serving.base.slots.CAPACITY` that nobody uses at the moment."""


@dataclass(frozen=True)
class Read:
    """A text as a base reads it."""

    inputs: Mapping[str, list[int]]
    """Token ids, and what else the tokenizer gives, cut to the window."""
    tokens: int
    """How many there are before anything is cut."""


class Resident:
    """One base, loaded once; every tab and version that names it shares it."""

    def __init__(self, model: Model, quantize: str, precision: str = "auto") -> None:
        """Load weights and tokenizer, as `Settings` have both; takes seconds. Raises `ModelError`."""
        self.model = model
        self.quantization = resolve_quantization(quantize)
        self.tokenizer = load_tokenizer(model)
        self.dtype = compute_dtype(precision)
        self.net, _ = load_model(model, resident_class(model.config), self.quantization, self.dtype)
        self.net.requires_grad_(False)
        self.config: PretrainedConfig = self.net.config
        self.body: nn.Module = self.net.base_model
        self._vocabulary = int(self.net.get_input_embeddings().weight.shape[0])
        self.check(self.tokenizer(fingerprint.PROBE)["input_ids"])
        self._closing = _count_closing(self.tokenizer)
        self.layers = _layers(self.net)
        # bitsandbytes' 8-bit layers keep state of the running pass in the module, so passes must not overlap.
        self._alone: AbstractContextManager[Any] = threading.RLock() if self.quantization == "8bit" else nullcontext()
        self.slots = Slots(self.layers, self._read, self._spare())
        self.own_head = self._own_head()
        self._probe = fingerprint.probe(self.tokenizer, self.config.is_encoder_decoder, self.device)
        self._unadapted = self._probed(None)
        self.mixes = self._mixes()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        found: torch.device = next(self.net.parameters()).device
        return found

    @property
    def window(self) -> int:
        """The longest input in tokens."""
        return window(self.config, self.tokenizer)

    def _spare(self) -> int:
        """Bytes for versions that nobody uses at the moment: of a GPU's memory, which waits for nothing else."""
        if self.device.type != "cuda":
            return 0
        return int(torch.cuda.mem_get_info(self.device)[1] * SPARE)

    @contextmanager
    def pin(self, version: Version | None) -> Iterator[Slot | None]:
        """The slot of a version, or None for the bare base, kept until the block ends."""
        if version is None:
            yield None
        else:
            with self.slots.pin(version) as slot:
                yield slot

    def encode(self, texts: Sequence[str], slot: Slot | None) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """Run the body over `texts` as one padded batch; returns its outputs and the batch."""
        return self.run([self.read(text).inputs for text in texts], [slot] * len(texts))

    def read(self, text: str) -> Read:
        """The text as the base reads it, its special tokens broken up; no more of it than the window takes.

        Raises `ModelError` where the tokenizer makes tokens of it that the base does not have.
        """
        # Padding and truncation are set in the tokenizer itself, which other threads read; so both are done here.
        row = self.tokenizer(neutralize(self.tokenizer, text))
        inputs = {key: _cut(row[key], self.window, self._closing) for key in row}
        self.check(inputs["input_ids"])
        return Read(inputs, len(row["input_ids"]))

    def check(self, ids: Sequence[int]) -> None:
        """Raise `ModelError` where the base does not have one of these tokens."""
        check_tokens(max(ids, default=0), self._vocabulary, self.model)

    @torch.inference_mode()
    def run(
        self, rows: Sequence[Mapping[str, list[int]]], slots: Sequence[Slot | None]
    ) -> tuple[Any, Mapping[str, torch.Tensor]]:
        """Run the body over rows as one padded batch, each with its version; returns its outputs and the batch."""
        keys = rows[0].keys()
        batch = self.tokenizer.pad({key: [row[key] for row in rows] for key in keys}, return_tensors="pt")
        batch = batch.to(self.device)
        with self.using(mixed(slots)):
            return self.body(**batch), batch

    @contextmanager
    def using(self, adapting: Adapting | None) -> Iterator[None]:
        """Forward passes of this thread are adapted so until the block ends."""
        with self._alone, self.slots.using(adapting):
            yield

    def _read(self, version: Version) -> Slot:
        """Verify a version in full, prepare its tensors for this base, and prove that it does something."""
        version.check_files()
        check_base(version, self.model)
        return compute_thread.run(partial(self._prepare, version))

    def _prepare(self, version: Version) -> Slot:
        """What is computed of that: one job, since a thread that stays may load it (`serving/compute_thread.py`)."""
        sizes = {path: features(layer) for path, layer in self.layers.items()}
        adapter = read_adapter(version.path, sizes, version.ref)
        dtype = self.net.dtype if self.net.dtype.is_floating_point else torch.float32
        # On a CPU products as thin as LoRA's take up to three times as long in bfloat16 as in float32.
        low = torch.float32 if self.device.type == "cpu" else dtype
        pairs = {path: (a.to(self.device, low), b.to(self.device, low), s) for path, (a, b, s) in adapter.pairs.items()}
        whole = {name: tensor.to(self.device, dtype) for name, tensor in adapter.whole.items()}
        head = Head(self.config, version.labels, whole) if version.labels else None
        stretches = self._stretch(adapter, pairs, version.ref)
        slot = Slot(version, pairs, whole, head, stretches)
        self._prove(slot)
        return slot

    @torch.inference_mode()
    def _stretch(self, adapter: Adapter, pairs: dict[str, Any], name: str) -> dict[str, Stretch]:
        """What DoRA makes of the layers' outputs; puts its part of it into the B matrices of `pairs`."""
        found: dict[str, Stretch] = {}
        with self._alone:
            for path, magnitude in adapter.magnitudes.items():
                a, b, scale = pairs[path]
                found[path], b = stretch(self.layers[path], (a, b, scale), magnitude, b.dtype)
                if not torch.isfinite(b).all() or not torch.isfinite(found[path].excess).all():
                    why = f"A row of {path} has no length in this base, so DoRA cannot scale it."
                    raise AdapterError(f"{name} was refused.", why, "What answered before goes on answering.")
                pairs[path] = (a, b, scale)
        return found

    def _prove(self, slot: Slot) -> None:
        """Refuse a version that changes nothing here, or something else than when it was published."""
        told = slot.version.manifest.get("fingerprint")
        how = fingerprint.held(self.quantization, self.dtype)
        why = fingerprint.fault(told, self._unadapted, self._probed(slot), how)
        if why:
            raise AdapterError(f"{slot.version.ref} was refused.", why, "What answered before goes on answering.")

    @torch.inference_mode()
    def _mixes(self) -> bool:
        """Whether rows of different versions may share a pass: every layer must see the rows apart.

        DeBERTa's do not: the layers of its queries and keys also transform positions that all rows share.
        """
        count = 3
        seen = _Seen()
        with self.using(seen):
            self.body(**{key: ids.repeat(count, 1) for key, ids in self._probe.items()})
        return all(first % count == 0 for first in seen.first)

    def _probed(self, slot: Slot | None) -> torch.Tensor:
        with self.using(slot):
            return fingerprint.states(self.body, self._probe)

    def _own_head(self) -> Head | None:
        """The head of a base that was fine-tuned as a classifier, with the labels it names."""
        if not type(self.net).__name__.endswith("ForSequenceClassification"):
            return None
        names = self.config.id2label
        return Head(self.config, [names[i] for i in sorted(names)], dict(self.net.state_dict()))


class _Seen:
    """Adapts nothing, and notes the size of the first dimension of what each layer gets."""

    def __init__(self) -> None:
        self.first: set[int] = set()

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> None:
        self.first.add(inputs.shape[0])


def _cut(values: list[int], longest: int, closing: int) -> list[int]:
    """The first `longest` of a row's values, its closing special tokens kept."""
    return values if len(values) <= longest else values[: longest - closing] + values[len(values) - closing :]


def _count_closing(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many special tokens the tokenizer puts after a text."""
    special = set(tokenizer.all_special_ids)
    return next((n for n, token in enumerate(reversed(tokenizer("a")["input_ids"])) if token not in special), 0)


def check_base(version: Version, model: Model) -> None:
    """Refuse a version made for another base: it must have the same name and shapes, or the very same weights."""
    name = (version.manifest.get("base") or {}).get("id", "another base")
    if not fits(version, model):
        raise AdapterError(
            f"{version.ref} was refused.",
            f"It was made for {name}, and {model.id} has other weights.",
            f"Restore that base, or choose {BASE} or another version.",
        )


def _layers(net: PreTrainedModel) -> dict[str, nn.Module]:
    """Linear layers by their path in the model that an adapter is trained on, which has a head around the body."""
    bare = resident_class(net.config.to_dict()) == "AutoModel"
    inside = f"{net.base_model_prefix}." if bare else ""
    return {f"{inside}{name}": m for name, m in net.named_modules() if isinstance(m, LINEAR)}
