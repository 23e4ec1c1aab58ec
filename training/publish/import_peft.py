"""Imports an adapter that was made elsewhere: verifies it against a base and publishes it as a version.

Any PEFT LoRA folder or a zip of one: rsLoRA, DoRA, ranks and alphas by layer, a classifier's head, in float32, float16
or bfloat16. It is loaded as PEFT loads it, and its fingerprint on a fixed probe goes into the manifest. It was not
measured on rows of this home, so it is never made live by itself.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from peft import PeftModel

from errors import AdapterError
from models import fingerprint
from models.adapter_check import HEADS, PREFIX, REQUIRED, Adapter, read_adapter
from models.loading import resolve_quantization, training_dtype
from models.resolve import Model, ModelStore, Origins
from models.tokenizer import first_line, load_tokenizer
from models.weights import Shapes, read_header
from settings import Settings
from store import files
from store.adapters import WEIGHTS, AdapterStore, Version, check_name
from store.archive import CONFIG, UnpackedAdapter, refusal, unpack
from tasks import TabSpec, resident_class, task_for
from training.loop import lora
from training.publish.lineage import base_facts, library_facts
from training.publish.model_card import readme
from training.publish.other_base import load_base

KEPT = {
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out"),
    *REQUIRED,
}
"""Fields of PEFT's configuration that are kept; others are dropped, or refused where they would change answers."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initializations that also change the base's own weights: such an adapter fits that changed base alone."""
LONGEST_LABEL = 100
OUTPUT_LAYERS = ("classifier", "score", "out_proj")
"""Names of the last layer of a classifier's head, in every supported architecture."""


def import_adapter(
    source: Path,
    spec: TabSpec,
    name: str,
    settings: Settings,
    labels: Sequence[str] = (),
    prompt: str | None = None,
    say: Callable[[str], object] = bool,
) -> Version:
    """Publish the adapter in the zip or folder `source` as the next version of `name`.

    `labels` are a classifier's, in the order of its logits, where `source` does not name them; `prompt` is the one it
    was trained with, by default the tab's. `say` is called with each phase: unpack, base, verify, publish. Raises
    `GraftError` with the first reason against it.
    """
    check_name(name)
    store = AdapterStore(settings.home, settings.shipped)
    with store.staging() as staging:
        say("unpack")
        bundle = unpack(source, staging)
        shapes = read_header(staging / WEIGHTS, bundle.name)
        say("base")
        model = ModelStore(settings.home / "models", settings.offline).resolve(spec.model)
        task = task_for(spec.task, model.config)
        names = _choose_labels(shapes, bundle, labels) if task.answers == "label" else []
        quantize, dtype = resolve_quantization(settings.quantize), training_dtype("auto")
        net, missing = load_base(model, task.auto_class, quantize, dtype, names)
        say("verify")
        base = base_facts(spec.model, model, quantize)
        files.write_json(staging / CONFIG, plain_config(bundle.config, shapes, base["id"], task.peft_type, bundle.name))
        # Of a classifier's base, a server holds the body alone.
        body = f"{net.base_model_prefix}." if resident_class(model.config) == "AutoModel" else ""
        layers = {path: size for path, size in lora.layers(net).items() if path.startswith(body)}
        _check_head(net, read_adapter(staging, layers, bundle.name), missing, names, bundle.name)
        facts = {
            "plugin": spec.name,
            "task": task.name,
            "labels": names,
            "prompt": _choose_prompt(spec, bundle, prompt),
            "base": base,
            "fingerprint": _fingerprint(net, staging, model, quantize, dtype),
            **library_facts(),
            "made_elsewhere": _origin(bundle, staging),
        }
        say("publish")
        (staging / "README.md").write_text(readme(name, facts), encoding="utf-8")
        Origins(settings.home, settings.models.values()).note(model)
        return store.publish(staging, name, facts)


def plain_config(given: Mapping[str, Any], keys: Iterable[str], base: str, peft_type: str, name: str) -> dict[str, Any]:
    """Return the PEFT configuration `given` for the base with the id `base`; `keys` are the names of its tensors.

    A pattern of layers becomes their names. Raises `AdapterError`, in which the adapter is `name`.
    """
    what = f"{name} was refused."
    initialization = str(given.get("init_lora_weights", True)).lower()
    if initialization.startswith(CHANGES_BASE):
        why = f"It began as {initialization}, which changes the weights of the base beside it."
        next = "Save it as plain LoRA; PEFT's save_pretrained does that with path_initial_model_for_weight_conversion."
        raise AdapterError(what, why, next)
    if odd := sorted(key for key, value in given.items() if key.startswith("use_") and value and key not in KEPT):
        raise AdapterError(what, f"It was made with {odd[0]}, which cannot be served.", "Nothing was published.")
    config = {key: value for key, value in given.items() if key in KEPT}
    if isinstance(config.get("target_modules"), str):
        config["target_modules"] = sorted({k.removeprefix(PREFIX).split(".lora_")[0] for k in keys if ".lora_" in k})
    bound = {"base_model_name_or_path": base, "revision": None, "task_type": peft_type}
    return {"peft_type": "LORA", **config, "init_lora_weights": True, "inference_mode": True, **bound}


def _choose_labels(shapes: Shapes, bundle: UnpackedAdapter, given: Sequence[str]) -> list[str]:
    """Return a classifier's labels, `given` or the bundle's; raises `AdapterError` unless one for each logit."""
    size = _count_logits(shapes)
    if not size:
        why = "It holds no classifier's head, and without one its answers have no labels."
        raise refusal(bundle.name, why, 'Save it with its head: modules_to_save=["classifier"] or ["score"] in PEFT.')
    names = [label.strip() for label in given if label.strip()] or bundle.labels
    what = f"{bundle.name} has a head of {size} labels."
    if len(names) != size:
        why = f"There are names of {len(names)}: {', '.join(names[:5])}." if names else "It does not name them."
        raise AdapterError(what, why, "Name them all, in the order of the logits, separated by commas.")
    if len(set(names)) != size or any(len(label) > LONGEST_LABEL for label in names):
        why = f"Two names are the same, or one has more than {LONGEST_LABEL} characters."
        raise AdapterError(what, why, "Name each label once.")
    return names


def _count_logits(shapes: Shapes) -> int:
    """Return the number of rows of a head's last matrix, by the shapes in a file; 0 where there is no head."""
    for key, shape in shapes.items():
        parts = key.split(".")
        if HEADS & set(parts) and parts[-1] == "weight" and parts[-2] in OUTPUT_LAYERS and ".lora_" not in key:
            return shape[0]
    return 0


def _check_head(net: Any, adapter: Adapter, missing: set[str], labels: list[str], name: str) -> None:  # noqa: ANN401
    """Refuse a head of other shapes than the base's, or without a parameter that the base's files lack too."""
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    for key, tensor in adapter.whole.items():
        if shapes.get(key) != tuple(tensor.shape):
            wanted = f"this base needs {shapes[key]}" if key in shapes else "this base has none"
            raise refusal(name, f"Its {key} is of shape {tuple(tensor.shape)}; {wanted}.")
    body = f"{net.base_model_prefix}."
    needed = {key for key in shapes if not key.startswith(body) or key in missing} if labels else set()
    if absent := sorted(needed - set(adapter.whole)):
        why = f"It does not bring {absent[0]}, and an adapter of a classifier brings its whole head."
        raise refusal(name, why, "Train it with that module in PEFT's modules_to_save.")


def _fingerprint(net: Any, staging: Path, model: Model, quantize: str, dtype: torch.dtype) -> dict[str, Any]:  # noqa: ANN401
    with warnings.catch_warnings():
        # PEFT warns of bases whose configuration has no vocabulary size, and of GPT-2's transposed layers.
        warnings.simplefilter("ignore")
        try:
            trained = PeftModel.from_pretrained(net, staging).eval()
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise refusal("The adapter", f"PEFT cannot load it: {first_line(error)}") from error
    found = fingerprint.measure(trained, load_tokenizer(model), quantize, dtype)
    if not (math.isfinite(found["change"]) and found["change"] > 0):
        raise refusal("The adapter", "It changes nothing: its answers to a fixed probe are those of the base.")
    return found


def _choose_prompt(spec: TabSpec, bundle: UnpackedAdapter, given: str | None) -> str:
    prompt = next((p for p in (given, bundle.prompt) if p is not None), spec.prompt)
    if prompt and prompt.count("{text}") != 1:
        why = f"{prompt[:80]!r} does not contain {{text}} once."
        raise AdapterError("The prompt cannot be used.", why, "Write it as the adapter saw it in training.")
    return prompt


def _origin(bundle: UnpackedAdapter, staging: Path) -> dict[str, Any]:
    """Return file, hash, base and PEFT's version as far as they are known, without paths of another machine."""
    base, tool = str(bundle.config.get("base_model_name_or_path") or ""), str(bundle.config.get("peft_version") or "")
    if PurePath(base).is_absolute() or base.count("/") > 1 or "\\" in base:
        base = base.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return {"file": bundle.name[:100], "sha256": files.sha256(staging / WEIGHTS), "base": base[:100], "peft": tool[:40]}
