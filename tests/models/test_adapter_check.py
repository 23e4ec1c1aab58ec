"""models/adapter_check.py: configurations, headers and tensors of adapters are read or refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from errors import AdapterError
from models import adapter_check
from models.adapter_check import read_adapter
from store.adapters import WEIGHTS

LAYERS = {"encoder.layer.0.query": (16, 16), "encoder.layer.1.query": (16, 16)}
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"], "bias": "none"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted(
    {*CONFIG, *adapter_check.REQUIRED, *adapter_check.FIELD_TYPES, "use_dora", "use_rslora", "fan_in_fan_out"}
)


def write(folder: Path, config: Any = CONFIG, layers: Any = tuple(LAYERS)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    held = {}
    for layer in layers:
        held[f"base_model.model.{layer}.lora_A.weight"] = torch.ones(4, 16)
        held[f"base_model.model.{layer}.lora_B.weight"] = torch.ones(16, 4)
    save_file(held, folder / WEIGHTS)
    return folder


def test_a_good_one_is_read(tmp_path: Path) -> None:
    adapter = read_adapter(write(tmp_path), LAYERS, "mine@1")
    assert set(adapter.pairs) == set(LAYERS) and adapter.pairs["encoder.layer.0.query"][2] == 2.0


BAD = [
    *({"r": r} for r in (0, -8, 257, 1024, 10**30, 4.0, "4", None, True, [4])),
    *({"lora_alpha": a} for a in (float("nan"), float("inf"), "8", None, [8], 1e300)),
    *({"target_modules": t} for t in ("([a-z_.0-9]+)+!", "query", [], [1], {"query": 1}, None, 5)),
    *({"modules_to_save": m} for m in (["embed_tokens"], ["lm_head", "wte"], "classifier", 7, [None])),
    *({"peft_type": k} for k in ("IA3", "PREFIX_TUNING", "lora", None, ["LORA"])),
    *({field: {"x": 1}} for field in adapter_check.UNSUPPORTED), {"bias": "all"}, {"use_qalora": True},
    {"rank_pattern": {"(a+)+$": 8}}, {"alpha_pattern": {".*": 8}}, {"rank_pattern": 5}, {"rank_pattern": ["query"]},
    {"exclude_modules": "([a-z]+)+!"}, {"layers_to_transform": "0"}, {"use_dora": True},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=lambda change: json.dumps(change)[:40])
def test_r28_an_odd_configuration_is_refused_before_anything_is_loaded(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = write(tmp_path, {**CONFIG, **change})
    tracemalloc.start()
    with pytest.raises(AdapterError, match="mine@1 was refused"):
        read_adapter(folder, LAYERS, "mine@1")
    assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    tracemalloc.stop()


def test_r28_a_rank_that_cannot_be_served_is_refused_before_the_weights_are_read(tmp_path: Path) -> None:
    folder = write(tmp_path, {**CONFIG, "r": 257})
    (folder / WEIGHTS).unlink()
    with pytest.raises(AdapterError, match=r"Its rank is 257; 1 to 256 can be served"):
        read_adapter(folder, LAYERS, "mine@1")


def test_r28_a_configuration_that_is_too_large_is_not_parsed(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="larger than 1000 kB"):
        read_adapter(write(tmp_path, {**CONFIG, "more": "x" * 1_000_000}), LAYERS, "mine@1")


@pytest.mark.parametrize("text", ["", "[", "[]", "5", '"x"', "null", "[" * 100_000, '{"r":' * 100_000, " " * 2_000_000])
def test_r28_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(AdapterError):
        read_adapter(write(tmp_path, text), LAYERS, "mine@1")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3))
def test_r28_any_configuration_is_read_or_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = write(tmp_path, {**CONFIG, **changes})
    try:
        read_adapter(folder, LAYERS, "mine@1")
    except AdapterError as error:
        assert "mine@1" in str(error) and len(str(error)) < 400


def test_r14_layers_are_compared_both_ways(tmp_path: Path) -> None:
    for layers, reason in ((["encoder.layer.0.query"], "lacks"), ([*LAYERS, "encoder.layer.2.query"], "does not have")):
        with pytest.raises(AdapterError, match=reason):
            read_adapter(write(tmp_path, layers=layers), LAYERS, "mine@1")
    with pytest.raises(AdapterError, match="this base's layer takes"):
        read_adapter(write(tmp_path), dict.fromkeys(LAYERS, (32, 32)), "mine@1")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_r13_a_value_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    folder = write(tmp_path)
    held = load_file(folder / WEIGHTS)
    held["base_model.model.encoder.layer.1.query.lora_A.weight"][3, 15] = value
    save_file(held, folder / WEIGHTS)
    with pytest.raises(AdapterError, match="not finite"):
        read_adapter(folder, LAYERS, "mine@1")


def test_r45_the_header_is_looked_at_before_a_library_opens_the_file(tmp_path: Path) -> None:
    folder = write(tmp_path)
    save_file({key: tensor.double() for key, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    with pytest.raises(AdapterError, match="is held as F64"):
        read_adapter(folder, LAYERS, "mine@1")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_r45_a_file_with_any_bytes_changed_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    folder = write(tmp_path)
    whole = bytearray((folder / WEIGHTS).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder / WEIGHTS).write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        read_adapter(folder, LAYERS, "mine@1")
    except AdapterError as error:
        assert "mine@1" in str(error)
