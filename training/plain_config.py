"""adapter_config.json of an adapter made elsewhere, as it is published: the fields that say what it is, and no others.

PEFT acts on some fields when it loads an adapter: one imports a module by its name, some change the base's weights.
What is kept here is plain LoRA, rsLoRA or DoRA; what `store/verify.py` refuses is kept too, so that it is seen there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from errors import AdapterError
from store.verify import PLAIN, PREFIX

KEPT = ("r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
        "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "modules_to_save", "fan_in_fan_out")  # fmt: skip
OF_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that also change the base's own weights: such an adapter fits that changed base alone."""


def plain_config(told: Mapping[str, Any], keys: Iterable[str], base: str, peft_type: str, name: str) -> dict[str, Any]:
    """The configuration `told`, bound to the base of that id; `keys` are the file's tensors, `name` what messages say.

    A pattern of layers becomes the names of those that the file holds. Raises `AdapterError`.
    """
    begun = str(told.get("init_lora_weights", True)).lower()
    if begun.startswith(OF_THE_BASE):
        why = f"It began as {begun}, which changes the weights of the base beside it."
        next = "Save it as plain LoRA; PEFT's save_pretrained does that with path_initial_model_for_weight_conversion."
        raise AdapterError(f"{name} was refused.", why, next)
    known = {*KEPT, *PLAIN}
    if odd := sorted(key for key, value in told.items() if key.startswith("use_") and value and key not in known):
        raise AdapterError(f"{name} was refused.", f"It was made with {odd[0]}, which cannot be served.",
                           "Nothing was published.")  # fmt: skip
    config = {key: value for key, value in told.items() if key in known}
    if isinstance(config.get("target_modules"), str):
        config["target_modules"] = sorted({k.removeprefix(PREFIX).split(".lora_")[0] for k in keys if ".lora_" in k})
    return {"peft_type": "LORA", **config, "init_lora_weights": True, "base_model_name_or_path": base, "revision": None,
            "inference_mode": True, "task_type": peft_type}  # fmt: skip
