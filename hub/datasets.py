"""Data sets of the Hugging Face Hub as files of one commit: listed, downloaded, and found again without the network.

A data set is never handed to a library that would follow what its card says. Its files are listed, a commit is chosen,
and files are fetched by their names; nothing of them is read here but the card's text.

    <root>/<owner>--<name>/<commit>.json   what there was at that commit
    <root>/<owner>--<name>/refs.json       which commit a name stood for when it was last asked for
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import DatasetInfo

from errors import DataError
from hub.client import DATA_SET, Unreachable, byte_counter, check_room, explained, within
from hub.progress import Meter, Progress, silent
from store import files

ID = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII)
REVISION = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*", re.ASCII)
SHA = re.compile(r"[0-9a-f]{40}")
REACH_SECONDS = 10.0
"""For the list of files, which can be long."""
MOST_FILES = 20_000
CARD = "README.md"
MOST_CARD = 2_000_000
"""Bytes of a card that is read."""


@dataclass(frozen=True)
class Listing:
    """A data set at one commit."""

    id: str
    revision: str
    """The commit's sha."""
    files: Mapping[str, int]
    """Bytes of each file, by its name inside the repository."""
    card: str
    """The text of its README.md; nobody vouches for it."""


class HubRows:
    """Data sets of the Hub, as one home knows them. Safe for threads and for several processes."""

    def __init__(self, root: Path, offline: bool = False, most: int = 5 * 10**9, token: bool | None = None) -> None:
        """`most` bytes are downloaded of one data set. `token` False asks as a stranger, None with the user's token."""
        self._root, self._offline, self._most, self._token = root, offline, most, token

    def look_up(self, id: str, revision: str = "") -> Listing:
        """What the Hub has under that name now, or had when it was last asked, where it cannot be reached.

        Raises `DataError`.
        """
        _check_name(id, revision)
        why = "Graft is offline (HF_HUB_OFFLINE)"
        try:
            if not self._offline:
                return self._keep(revision, self._ask(id, revision))
        except Unreachable as error:
            why = f"The Hugging Face Hub cannot be reached: {error}"
        known = self.known(id, revision)
        if known is None:
            next_ = "Connect and try again, or give a file of your own."
            raise DataError(f"The data set {id} is not on this computer.", f"{why}.", next_)
        return known

    def known(self, id: str, revision: str = "") -> Listing | None:
        """What is noted of that name; asks nothing of the network."""
        _check_name(id, revision)
        folder = self._folder(id)
        with suppress(OSError, ValueError, TypeError, KeyError):
            sha = revision if SHA.fullmatch(revision) else files.read_json(folder / "refs.json")[revision]
            return Listing(**files.read_json(folder / f"{sha}.json"))
        return None

    def fetch(self, listing: Listing, names: Sequence[str], progress: Progress = silent) -> list[Path]:
        """Download those files, as far as they are not there, and return where they lie. Raises `DataError`.

        A download that broke off goes on from where it was.
        """
        total = sum(listing.files[name] for name in names)
        self._check_size(listing.id, total)
        missing = [name for name in names if self._cached(listing, name) is None]
        if missing and self._offline:
            why = "Graft is offline (HF_HUB_OFFLINE)."
            raise DataError(f"The rows of {listing.id} are not on this computer.", why, "Connect and try again.")
        check_room(DATA_SET, listing.id, sum(listing.files[name] for name in missing))
        meter, done, paths = Meter(progress, "download", total), 0, []
        meter.at(0)
        for name in names:
            path = self._cached(listing, name) or self._download(listing, name, meter, done)
            done += listing.files[name]
            meter.at(done)
            paths.append(path)
        return paths

    def present(self, listing: Listing, names: Sequence[str]) -> list[Path] | None:
        """Where those files lie, if they are all there. Raises `DataError` for one that leads elsewhere."""
        found = [self._cached(listing, name) for name in names]
        return None if None in found else [path for path in found if path]

    def _ask(self, id: str, revision: str) -> Listing:
        described = partial(within, REACH_SECONDS, partial(_describe, id, revision or None, self._token))
        info = explained(DATA_SET, id, revision, described)
        names = {sibling.rfilename: int(sibling.size or 0) for sibling in info.siblings or ()}
        if not (info.sha and SHA.fullmatch(info.sha)):
            raise Unreachable("something else answered")
        if len(names) > MOST_FILES:
            raise DataError(f"{id} has too many files.", f"It has {len(names):,}, the limit is {MOST_FILES:,}.")
        for name in names:
            check_inside(id, name)
        listing = Listing(id, info.sha, names, "")
        return Listing(id, info.sha, names, self._card(listing))

    def _card(self, listing: Listing) -> str:
        if not 0 < listing.files.get(CARD, 0) <= MOST_CARD:
            return ""
        path = self._cached(listing, CARD) or self._download(listing, CARD, Meter(silent, "", 0), 0)
        return path.read_text(encoding="utf-8", errors="replace")

    def _download(self, listing: Listing, name: str, meter: Meter, done: int) -> Path:
        ask = partial(
            hf_hub_download, listing.id, name, repo_type="dataset", revision=listing.revision, token=self._token,
            etag_timeout=REACH_SECONDS, tqdm_class=byte_counter(meter, done),
        )  # fmt: skip
        try:
            path = Path(explained(DATA_SET, listing.id, listing.revision, ask))
        except Unreachable as error:
            what, next_ = f"{name} of {listing.id} did not arrive whole.", "Try again: it goes on from where it was."
            raise DataError(what, f"The Hugging Face Hub cannot be reached: {error}.", next_) from error
        _check_held(listing, name, path)
        return path

    def _cached(self, listing: Listing, name: str) -> Path | None:
        found = try_to_load_from_cache(listing.id, name, revision=listing.revision, repo_type="dataset")
        if not isinstance(found, str):
            return None
        _check_held(listing, name, Path(found))
        return Path(found)

    def _check_size(self, id: str, total: int) -> None:
        if total > self._most:
            why = f"It has {total / 1e6:,.0f} MB, the limit is {self._most / 1e6:,.0f} MB."
            raise DataError(f"{id} is too large.", why, "Choose a smaller split, or set GRAFT_DOWNLOAD_GB higher.")

    def _keep(self, revision: str, listing: Listing) -> Listing:
        folder = self._folder(listing.id)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / f"{listing.revision}.json", asdict(listing))
        refs: dict[str, Any] = {}
        with suppress(OSError, ValueError, TypeError):
            refs = dict(files.read_json(folder / "refs.json"))
        files.write_json(folder / "refs.json", {**refs, revision: listing.revision})
        return listing

    def _folder(self, id: str) -> Path:
        return self._root / id.replace("/", "--")


def check_inside(id: str, name: str) -> None:
    """Raise `DataError` unless `name` is a plain relative one, which cannot lead out of the repository."""
    parts = name.split("/")
    plain = len(name) <= 1_000 and name.isprintable() and "\\" not in name
    if not plain or any(part in ("", ".", "..") for part in parts):
        why = "Names inside a data set are relative and plain: no .., no address, no path of this computer."
        raise DataError(f"{id} names a file that is not its own: {name[:100]!r}.", why, "Do not use this data set.")


def _check_name(id: str, revision: str) -> None:
    if not ID.fullmatch(id):
        raise DataError(f"{id[:100]!r} is not a data set id.", "One looks like owner/name.", "Check the spelling.")
    if revision and not REVISION.fullmatch(revision):
        raise DataError(f"{revision[:100]!r} is not a revision.", "It is a branch, a tag or a commit.", "Check it.")


def _check_held(listing: Listing, name: str, path: Path) -> None:
    """A snapshot consists of links into its repository's own folder of the cache; one that leaves it is refused."""
    repository = path.parents[len(PurePosixPath(name).parts) + 1]
    if not path.resolve().is_relative_to(repository.resolve()):
        why = "Its place in the cache is a link to something else."
        raise DataError(f"{name} of {listing.id} is not the data set's own file.", why, "Delete it from the cache.")
    if path.stat().st_size != listing.files[name]:
        why = f"It has {path.stat().st_size:,} bytes instead of {listing.files[name]:,}."
        raise DataError(f"{name} of {listing.id} is not what the Hub lists.", why, "Delete it from the cache.")


def _describe(id: str, revision: str | None, token: bool | None) -> DatasetInfo:
    try:
        return HfApi().dataset_info(id, revision=revision, files_metadata=True, timeout=REACH_SECONDS, token=token)
    except HFValidationError:
        raise
    except (ValueError, TypeError, KeyError) as error:  # the login page of a hotel, say, in place of the Hub
        raise Unreachable("something else answered") from error
