"""Data sets of the Hugging Face Hub: choose a configuration and a split, and download its files to train on.

    path = HubData(settings).fetch(HubSplit("owner/name", split="train"))

The path is that of a `Selection`: files of one commit in the Hub's cache, read in order by our own readers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from errors import DataError
from hub.client import Progress, silent
from hub.dataset_card import Labels, read_card
from hub.datasets import ID, HubDatasets, Listing
from hub.splits import DEFAULT, Layout, lay_out
from settings import Settings
from training.data.files.formats import FORMATS, SELECTION_SUFFIX, Selection, read_selection

FOLDER = Path("data") / "hub"
"""Folder below a home for listings of data sets, and selections of their files."""


class NotFetched(DataError):
    """Rows of the Hub that are not on this computer yet."""


@dataclass(frozen=True)
class HubSplit:
    """A split of a Hub data set; an empty field means the newest commit, the first configuration or the first split."""

    id: str
    revision: str = ""
    config: str = ""
    split: str = ""

    @property
    def fields(self) -> dict[str, str]:
        """The fields by name, as a run's configuration stores them."""
        return asdict(self)


@dataclass(frozen=True)
class DataSet:
    """A data set at one commit: its files, their layout in configurations and splits, and label names."""

    listing: Listing
    layout: Layout
    labels: Mapping[str, Labels]

    def choose(self, wanted: HubSplit) -> HubSplit:
        """Return a split with every field filled; raises `DataError` where the data set has none of that name."""
        config = wanted.config or next(iter(self.layout))
        if config not in self.layout:
            raise self._lacks("configuration", config, self.layout)
        split = wanted.split or next(iter(self.layout[config]))
        if split not in self.layout[config]:
            raise self._lacks(f"split in {config}" if len(self.layout) > 1 else "split", split, self.layout[config])
        return HubSplit(self.listing.id, self.listing.revision, config, split)

    def files(self, chosen: HubSplit) -> tuple[str, ...]:
        """Return the file names of a split that `choose` returned."""
        return self.layout[chosen.config][chosen.split]

    def size(self, chosen: HubSplit) -> int:
        """Return the bytes of its files."""
        return sum(self.listing.files[name] for name in self.files(chosen))

    def _lacks(self, noun: str, name: str, there: Mapping[str, object]) -> DataError:
        names = ", ".join([*there][:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        return DataError(f"{self.listing.id} has no {noun} {name[:100]!r}.", f"It has {names}.", "Choose one of them.")


class HubData:
    """Data sets of the Hub for one home."""

    def __init__(self, settings: Settings, token: bool | None = None) -> None:
        """`token`: None sends the user's token to the Hub, False none."""
        self._root = settings.home / FOLDER
        self._rows = HubDatasets(self._root, settings.offline, settings.download_bytes, token)

    def look_up(self, wanted: HubSplit) -> DataSet:
        """Ask the Hub for a data set; returns the last answer where it cannot be reached. Raises `DataError`."""
        return _laid_out(self._rows.look_up(wanted.id, wanted.revision))

    def noted(self, wanted: HubSplit) -> DataSet | None:
        """Return a data set as last looked up, without the network; None if it never was. Raises `DataError`."""
        listing = self._rows.known(wanted.id, wanted.revision)
        return None if listing is None else _laid_out(listing)

    def fetch(self, wanted: HubSplit, progress: Progress = silent) -> Path:
        """Look a split up, download its missing files, and return the path of its rows. Raises `DataError`."""
        found = self.look_up(wanted)
        chosen = found.choose(wanted)
        return self._select(found, chosen, self._rows.fetch(found.listing, found.files(chosen), progress))

    def fetch_both(self, wanted: HubSplit, held_out: str, progress: Progress = silent) -> tuple[Path, Path | None]:
        """Fetch a split, and the one named `held_out` if any; returns the paths of both. Raises `DataError`."""
        path = self.fetch(wanted, progress)
        return path, self.fetch(beside(path, held_out), progress) if held_out else None

    def is_here(self, found: DataSet, chosen: HubSplit) -> bool:
        """Return whether the files of a split that `choose` returned are on this computer."""
        return self._rows.present(found.listing, found.files(chosen)) is not None

    def find(self, wanted: HubSplit) -> Path:
        """Return the path of a split that was fetched, without the network; raises `NotFetched` where it was not."""
        found = self.noted(wanted)
        if found is not None:
            chosen = found.choose(wanted)
            paths = self._rows.present(found.listing, found.files(chosen))
            if paths is not None:
                return self._select(found, chosen, paths)
        raise NotFetched(f"The rows of {wanted.id} are not on this computer yet.", "", "Fetch them first.")

    def _select(self, found: DataSet, split: HubSplit, paths: list[Path]) -> Path:
        labels = {column: list(names) for column, names in found.labels.get(split.config, {}).items()}
        chosen = Selection(**split.fields, files=tuple(map(str, paths)), labels=labels)
        path = self._root / split.id.replace("/", "--") / split.revision / f"{_file_name(split)}{SELECTION_SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # An unchanged file keeps its date, which is part of the key of its reports.
        if not path.exists() or read_selection(path) != chosen:
            chosen.write(path)
        return path


def beside(path: Path, split: str) -> HubSplit:
    """Return the split named `split` of the same data set and commit as the selection `path`. Raises `DataError`."""
    return HubSplit(**{**read_selection(path).source, "split": split})


def parse_hub_id(text: str, config: str = "", split: str = "", local: bool = True) -> HubSplit | None:
    """Parse `owner/name` or `owner/name@revision`; returns None for other text and, with `local`, for a path."""
    id, _, revision = text.partition("@")
    is_path = local and (Path(text).suffix.lower() in (*FORMATS, SELECTION_SUFFIX) or Path(text).exists())
    return None if is_path or not ID.fullmatch(id) else HubSplit(id, revision, config, split)


def _laid_out(listing: Listing) -> DataSet:
    card = read_card(listing.id, listing.card)
    return DataSet(listing, lay_out(listing.id, listing.files, card), card.labels)


def _file_name(chosen: HubSplit) -> str:
    """Return a readable file name that no other split of that commit has."""
    words = [chosen.id.replace("/", "--"), *([] if chosen.config == DEFAULT else [chosen.config]), chosen.split]
    plain = [re.sub(r"[^\w.-]+", "-", word)[:60] for word in words]
    if plain != words:
        plain.append(hashlib.sha256("\n".join(words).encode()).hexdigest()[:8])
    return " ".join(plain)
