"""Bases of each family, loaded once for a module."""

from collections.abc import Callable

import pytest

from models.resolve import ModelStore
from serving.loaded import Loaded
from tests.helpers import tiny


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    made: dict[str, Loaded] = {}

    def base(family: str) -> Loaded:
        if family not in made:
            home = tmp_path_factory.mktemp(family)
            folder = tiny.make(family, home / family)
            made[family] = Loaded(ModelStore(home / "models", offline=True).resolve(str(folder)), "none")
        return made[family]

    return base
