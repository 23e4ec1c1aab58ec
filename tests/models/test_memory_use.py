"""models/memory_use.py: what a further base would take is compared with what is free before it is read."""

from __future__ import annotations

import pytest

from errors import ModelError
from models import memory_use
from tests.conftest import Trained


@pytest.mark.parametrize(
    ("quantize", "width", "least"), [("none", 4, 4), ("none", 2, 2), ("8bit", 4, 1), ("4bit", 2, 0.5)]
)
def test_a_base_is_refused_where_its_weights_do_not_fit(
    quantize: str, width: int, least: float, bert: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_use, "SPARE", 0)
    weights = (bert.model.path / "model.safetensors").stat().st_size // 4
    memory_use.require(bert.model, quantize, width, int(2 * least * weights))
    with pytest.raises(ModelError, match=f"no room for {bert.model.id}"):
        memory_use.require(bert.model, quantize, width, int(0.9 * least * weights))
