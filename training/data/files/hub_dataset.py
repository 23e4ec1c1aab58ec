"""Rows from the Hugging Face Hub: choose a configuration and a split of a data set, and download it to train on.

    path = HubData.of(settings).fetch(HubSplit("owner/name", split="train"))

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
from hub.datasets import ID, HubRows, Listing
from hub.splits import DEFAULT, Layout, lay_out
from settings import Settings
from training.data.files.formats import FORMATS, SELECTION_SUFFIX, Selection, read_selection

FOLDER = Path("data") / "hub"
"""Folder of a home with the listings of data sets that were looked up."""


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
    def named(self) -> dict[str, str]:
        """The place as a run's configuration keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class DataSet:
    """A data set at one commit: its files, their layout in configurations and splits, and label names."""

    listing: Listing
    layout: Layout
    labels: Mapping[str, Labels]

    def choose(self, place: HubSplit) -> HubSplit:
        """Return the place with every field filled; raises `DataError` for a configuration or split it lacks."""
        config = place.config or next(iter(self.layout))
        if config not in self.layout:
            raise self._lacks("configuration", config, self.layout)
        split = place.split or next(iter(self.layout[config]))
        if split not in self.layout[config]:
            raise self._lacks(f"split in {config}" if len(self.layout) > 1 else "split", split, self.layout[config])
        return HubSplit(self.listing.id, self.listing.revision, config, split)

    def files(self, place: HubSplit) -> tuple[str, ...]:
        """Return the names of the files of a place that `choose` returned."""
        return self.layout[place.config][place.split]

    def size(self, place: HubSplit) -> int:
        """Return the bytes of those files."""
        return sum(self.listing.files[name] for name in self.files(place))

    def _lacks(self, noun: str, name: str, there: Mapping[str, object]) -> DataError:
        names = ", ".join([*there][:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        return DataError(f"{self.listing.id} has no {noun} {name[:100]!r}.", f"It has {names}.", "Choose one of them.")


class HubData:
    """The data sets of the Hub as one home knows them."""

    def __init__(self, root: Path, rows: HubRows) -> None:
        """`root` is the folder for selections."""
        self._root, self._rows = root, rows

    @classmethod
    def of(cls, settings: Settings, token: bool | None = None) -> HubData:
        """Return those of `settings`; `token` False asks the Hub without the user's token, None with it."""
        root = settings.home / FOLDER
        return cls(root, HubRows(root, settings.offline, settings.download_bytes, token))

    def look_up(self, place: HubSplit) -> DataSet:
        """Return the data set of a place, from the Hub, or as kept where that cannot be reached. Raises `DataError`."""
        return _laid_out(self._rows.look_up(place.id, place.revision))

    def noted(self, place: HubSplit) -> DataSet | None:
        """Return the data set as it was last looked up, without asking the network. Raises `DataError`."""
        listing = self._rows.known(place.id, place.revision)
        return None if listing is None else _laid_out(listing)

    def fetch(self, place: HubSplit, progress: Progress = silent) -> Path:
        """Look the place up, download missing files, and return the path of its rows. Raises `DataError`."""
        found = self.look_up(place)
        chosen = found.choose(place)
        return self._select(found, chosen, self._rows.fetch(found.listing, found.files(chosen), progress))

    def fetch_both(self, place: HubSplit, held_out: str, progress: Progress = silent) -> tuple[Path, Path | None]:
        """Return the path of the rows, and that of the split `held_out` if one is named. Raises `DataError`."""
        path = self.fetch(place, progress)
        return path, self.fetch(beside(path, held_out), progress) if held_out else None

    def is_here(self, found: DataSet, place: HubSplit) -> bool:
        """Return whether the files of a place that `found` chose are on this computer."""
        return self._rows.present(found.listing, found.files(place)) is not None

    def find(self, place: HubSplit) -> Path:
        """Return the path of rows on this computer, without asking the network; raises `NotFetched` otherwise."""
        found = self.noted(place)
        if found is not None:
            chosen = found.choose(place)
            paths = self._rows.present(found.listing, found.files(chosen))
            if paths is not None:
                return self._select(found, chosen, paths)
        raise NotFetched(f"The rows of {place.id} are not on this computer yet.", "", "Fetch them first.")

    def _select(self, found: DataSet, place: HubSplit, paths: list[Path]) -> Path:
        labels = {column: list(names) for column, names in found.labels.get(place.config, {}).items()}
        chosen = Selection(**place.named, files=tuple(map(str, paths)), labels=labels)
        path = self._root / place.id.replace("/", "--") / place.revision / f"{_file_name(place)}{SELECTION_SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # An unchanged file keeps its date, which is part of the key of its reports.
        if not path.exists() or read_selection(path) != chosen:
            chosen.write(path)
        return path


def beside(path: Path, split: str) -> HubSplit:
    """Return another split of the data set, at the same commit, as the selection `path`. Raises `DataError`."""
    return HubSplit(**{**read_selection(path).source, "split": split})


def parse_place(text: str, config: str = "", split: str = "", local: bool = True) -> HubSplit | None:
    """Parse `owner/name` or `owner/name@revision`; returns None for text that is no such id.

    With `local`, text that is a path of an existing file or has the name of a file of rows is no id either.
    """
    id, _, revision = text.partition("@")
    is_path = local and (Path(text).suffix.lower() in (*FORMATS, SELECTION_SUFFIX) or Path(text).exists())
    return None if is_path or not ID.fullmatch(id) else HubSplit(id, revision, config, split)


def _laid_out(listing: Listing) -> DataSet:
    card = read_card(listing.id, listing.card)
    return DataSet(listing, lay_out(listing.id, listing.files, card), card.labels)


def _file_name(place: HubSplit) -> str:
    """Return a name that people recognize, and that no other place at that commit has."""
    words = [place.id.replace("/", "--"), *([] if place.config == DEFAULT else [place.config]), place.split]
    plain = [re.sub(r"[^\w.-]+", "-", word)[:60] for word in words]
    if plain != words:
        plain.append(hashlib.sha256("\n".join(words).encode()).hexdigest()[:8])
    return " ".join(plain)
