"""What a command fetches before its child processes begin, here, where the user's token is: they get none."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from hub.client import Progress
from models.resolve import ModelStore
from settings import Settings
from training.cli import run_arguments
from training.data.files.formats import read_selection
from training.data.files.hub_dataset import HubData


def fetch_rows(settings: Settings, options: Namespace) -> None:
    """Fetch rows that are on the Hub, and put where they lie into the options. Raises `DataError`."""
    place = run_arguments.place_of(options)
    if place is not None:
        with _bar(place.id) as progress:
            options.data, held_out = HubData.of(settings).fetch_both(place, options.held_out_split, progress)
        options.hub = read_selection(options.data).source
        options.held_out_data = str(held_out) if held_out else options.held_out_data


def fetch_model(settings: Settings, model: str) -> None:
    """Fetch the base. Raises `ModelError`."""
    with _bar(model) as progress:
        ModelStore(settings.home / "models", settings.offline).resolve(model, progress)


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    """Draws what is told of a download."""
    with tqdm(total=100, desc=name, unit="%", leave=False, disable=None) as bar:

        def progress(phase: str, fraction: float | None) -> None:
            bar.set_description(f"{phase} {name}")
            bar.update(round(100 * (fraction or 0)) - bar.n)

        yield progress
