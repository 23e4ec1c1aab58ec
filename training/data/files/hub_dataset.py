"""Rows from the Hugging Face Hub: which configuration and split of which data set, fetched, as a path to train on.

    path = HubData.of(settings).fetch(Place("owner/name", split="train"))

The path is a `training.data.files.selection`: files of one commit in the Hub's cache, read in order by our own readers.
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
from training.data.files.formats import FORMATS
from training.data.files.selection import SUFFIX, Selection, read_selection

FOLDER = Path("data") / "hub"
"""Of a home, where it is noted what data sets there are."""


class NotFetched(DataError):
    """Rows of the Hub that are not on this computer yet."""


@dataclass(frozen=True)
class Place:
    """Rows on the Hub; what is empty is chosen: the newest commit, the first configuration, the rows to train on."""

    id: str
    revision: str = ""
    config: str = ""
    split: str = ""

    @property
    def named(self) -> dict[str, str]:
        """As a run's configuration keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class DataSet:
    """A data set at one commit: what there is to choose from."""

    listing: Listing
    layout: Layout
    labels: Mapping[str, Labels]

    def choose(self, place: Place) -> Place:
        """A place with nothing left open; raises `DataError` for what is not there."""
        config = place.config or next(iter(self.layout))
        if config not in self.layout:
            raise self._lacks("configuration", config, self.layout)
        split = place.split or next(iter(self.layout[config]))
        if split not in self.layout[config]:
            raise self._lacks(f"split in {config}" if len(self.layout) > 1 else "split", split, self.layout[config])
        return Place(self.listing.id, self.listing.revision, config, split)

    def files(self, place: Place) -> tuple[str, ...]:
        """The names of the files of a place that `choose` gave."""
        return self.layout[place.config][place.split]

    def size(self, place: Place) -> int:
        """Their bytes."""
        return sum(self.listing.files[name] for name in self.files(place))

    def _lacks(self, noun: str, name: str, there: Mapping[str, object]) -> DataError:
        names = ", ".join([*there][:20]) + (f" and {len(there) - 20} more" if len(there) > 20 else "")
        return DataError(f"{self.listing.id} has no {noun} {name[:100]!r}.", f"It has {names}.", "Choose one of them.")


class HubData:
    """The data sets of the Hub as one home knows them."""

    def __init__(self, root: Path, rows: HubRows) -> None:
        """`root` is where it is noted what there is."""
        self._root, self._rows = root, rows

    @classmethod
    def of(cls, settings: Settings, token: bool | None = None) -> HubData:
        """Those of `settings`; `token` False asks the Hub as a stranger would, None with the user's token."""
        root = settings.home / FOLDER
        return cls(root, HubRows(root, settings.offline, settings.download_bytes, token))

    def look_up(self, place: Place) -> DataSet:
        """What there is, by the Hub, or by what is noted where it cannot be reached. Raises `DataError`."""
        return _laid_out(self._rows.look_up(place.id, place.revision))

    def noted(self, place: Place) -> DataSet | None:
        """What it is known that there is; asks nothing of the network. Raises `DataError`."""
        listing = self._rows.known(place.id, place.revision)
        return None if listing is None else _laid_out(listing)

    def fetch(self, place: Place, progress: Progress = silent) -> Path:
        """Look it up, download what is not there yet, and give the path of the rows. Raises `DataError`."""
        found = self.look_up(place)
        chosen = found.choose(place)
        return self._select(found, chosen, self._rows.fetch(found.listing, found.files(chosen), progress))

    def fetch_both(self, place: Place, held_out: str, progress: Progress = silent) -> tuple[Path, Path | None]:
        """The path of the rows, and of those of the split to compare on, if one is named. Raises `DataError`."""
        path = self.fetch(place, progress)
        return path, self.fetch(beside(path, held_out), progress) if held_out else None

    def is_here(self, found: DataSet, place: Place) -> bool:
        """Whether the rows of a place that `found` chose are on this computer."""
        return self._rows.present(found.listing, found.files(place)) is not None

    def find(self, place: Place) -> Path:
        """The path of rows that are on this computer; asks nothing of the network. Raises `DataError`."""
        found = self.noted(place)
        if found is not None:
            chosen = found.choose(place)
            paths = self._rows.present(found.listing, found.files(chosen))
            if paths is not None:
                return self._select(found, chosen, paths)
        raise NotFetched(f"The rows of {place.id} are not on this computer yet.", "", "Fetch them first.")

    def _select(self, found: DataSet, place: Place, paths: list[Path]) -> Path:
        labels = {column: list(names) for column, names in found.labels.get(place.config, {}).items()}
        chosen = Selection(**place.named, files=tuple(map(str, paths)), labels=labels)
        path = self._root / place.id.replace("/", "--") / place.revision / f"{_file_name(place)}{SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that stays as it is keeps its date, by which what is known of its rows is found again.
        if not path.exists() or read_selection(path) != chosen:
            chosen.write(path)
        return path


def beside(path: Path, split: str) -> Place:
    """Another split of the data set, at the commit, that the rows of `path` are of. Raises `DataError`."""
    return Place(**{**read_selection(path).source, "split": split})


def parse_place(text: str, config: str = "", split: str = "", local: bool = True) -> Place | None:
    """The place that `owner/name` or `owner/name@revision` means; None for what is no such id.

    Where `local` paths may be meant too, one that is there wins, and a name of a file is never an id.
    """
    id, _, revision = text.partition("@")
    is_path = local and (Path(text).suffix.lower() in (*FORMATS, SUFFIX) or Path(text).exists())
    return None if is_path or not ID.fullmatch(id) else Place(id, revision, config, split)


def _laid_out(listing: Listing) -> DataSet:
    card = read_card(listing.id, listing.card)
    return DataSet(listing, lay_out(listing.id, listing.files, card), card.labels)


def _file_name(place: Place) -> str:
    """A name that people recognize, and that no other place at that commit has."""
    words = [place.id.replace("/", "--"), *([] if place.config == DEFAULT else [place.config]), place.split]
    plain = [re.sub(r"[^\w.-]+", "-", word)[:60] for word in words]
    if plain != words:
        plain.append(hashlib.sha256("\n".join(words).encode()).hexdigest()[:8])
    return " ".join(plain)
