"""Tiny bases, each loaded once for a module."""

from collections.abc import Callable
from functools import cache

import pytest

from serving.loaded import Loaded
from tests.helpers import tiny
from tests.helpers.answers import load


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    """Load the tiny base of a family."""
    return cache(lambda family: load(tiny.make(family, tmp_path_factory.mktemp(family) / family)))
