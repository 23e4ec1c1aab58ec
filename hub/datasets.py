"""List and download the files of a Hub data set at one commit; find them again without the network.

A data set is never given to a library that would follow its card: files are downloaded by name.

    <root>/<owner>--<name>/<commit>.json   the files at that commit
    <root>/<owner>--<name>/refs.json       the commit of each branch or tag when the Hub was last asked
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from huggingface_hub import hf_hub_download, try_to_load_from_cache

from errors import DataError
from hub import client
from hub.client import DATA_SET, Meter, Progress, Unreachable, byte_counter, require_room, silent
from store import files

ID = re.compile(r"(?!\.)[\w.-]+/(?!\.)[\w.-]+", re.ASCII)
REVISION = re.compile(r"(?!\.)[\w.-]+(/(?!\.)[\w.-]+)*", re.ASCII)
SHA = re.compile(r"[0-9a-f]{40}")
REACH_SECONDS = 10.0
"""Time limit of the request for the list of files."""
MOST_FILES = 20_000
CARD = "README.md"
MOST_CARD = 2_000_000
"""Bytes; a larger card is not read."""


@dataclass(frozen=True)
class Listing:
    """The files of a data set at one commit."""

    id: str
    revision: str
    """The commit's sha."""
    files: Mapping[str, int]
    """Bytes of each file, by its path inside the repository."""
    card: str
    """The text of its README.md."""


class HubDatasets:
    """Data sets of the Hub whose listings are kept in a folder. Safe for threads and for several processes."""

    def __init__(self, root: Path, offline: bool = False, most: int = 5 * 10**9, token: bool | None = None) -> None:
        """`most` bytes are downloaded of one data set; `token` False asks without the user's token."""
        self._root, self._offline, self._most, self._token = root, offline, most, token

    def look_up(self, id: str, revision: str = "") -> Listing:
        """Return the Hub's listing, or the kept one where the Hub cannot be reached. Raises `DataError`."""
        _check_name(id, revision)
        why = "Graft is offline (HF_HUB_OFFLINE)"
        try:
            if not self._offline:
                return self._keep(revision, self._request(id, revision))
        except Unreachable as error:
            why = f"The Hugging Face Hub cannot be reached: {error}"
        known = self.known(id, revision)
        if known is None:
            next_ = "Connect and try again, or give a file of your own."
            raise DataError(f"The data set {id} is not on this computer.", f"{why}.", next_)
        return known

    def known(self, id: str, revision: str = "") -> Listing | None:
        """Return the kept listing, or None, without the network."""
        _check_name(id, revision)
        folder = self._folder(id)
        with suppress(OSError, ValueError, TypeError, KeyError):
            sha = revision if SHA.fullmatch(revision) else files.read_json(folder / "refs.json")[revision]
            return Listing(**files.read_json(folder / f"{sha}.json"))
        return None

    def fetch(self, listing: Listing, names: Sequence[str], progress: Progress = silent) -> list[Path]:
        """Download the files that are missing, and return the paths of all. Raises `DataError`.

        A download that broke off continues from where it was.
        """
        total = sum(listing.files[name] for name in names)
        if total > self._most:
            why = f"It has {total / 1e6:,.0f} MB, the limit is {self._most / 1e6:,.0f} MB."
            raise DataError(
                f"{listing.id} is too large.", why, "Choose a smaller split, or set GRAFT_DOWNLOAD_GB higher."
            )
        missing = [name for name in names if _cached(listing, name) is None]
        if missing and self._offline:
            why = "Graft is offline (HF_HUB_OFFLINE)."
            raise DataError(f"The rows of {listing.id} are not on this computer.", why, "Connect and try again.")
        require_room(DATA_SET, listing.id, sum(listing.files[name] for name in missing))
        meter, done, paths = Meter(progress, "download", total), 0, []
        meter.at(0)
        for name in names:
            paths.append(_cached(listing, name) or self._download(listing, name, meter, done))
            done += listing.files[name]
            meter.at(done)
        return paths

    def present(self, listing: Listing, names: Sequence[str]) -> list[Path] | None:
        """Return the paths of the files if all are in the cache. Raises `DataError` for one that leads elsewhere."""
        paths = [path for name in names if (path := _cached(listing, name))]
        return paths if len(paths) == len(names) else None

    def _request(self, id: str, revision: str) -> Listing:
        info = client.look_up(DATA_SET, id, revision or None, REACH_SECONDS, self._token)
        sizes = {sibling.rfilename: int(sibling.size or 0) for sibling in info.siblings or ()}
        if not (info.sha and SHA.fullmatch(info.sha)):
            raise Unreachable("something else answered")
        if len(sizes) > MOST_FILES:
            raise DataError(f"{id} has too many files.", f"It has {len(sizes):,}, the limit is {MOST_FILES:,}.")
        for name in sizes:
            check_inside(id, name)
        listing = Listing(id, info.sha, sizes, "")
        if not 0 < sizes.get(CARD, 0) <= MOST_CARD:
            return listing
        card = _cached(listing, CARD) or self._download(listing, CARD, Meter(silent, "", 0), 0)
        return replace(listing, card=card.read_text(encoding="utf-8", errors="replace"))

    def _download(self, listing: Listing, name: str, meter: Meter, done: int) -> Path:
        ask = partial(
            hf_hub_download,
            listing.id,
            name,
            repo_type="dataset",
            revision=listing.revision,
            token=self._token,
            etag_timeout=REACH_SECONDS,
            tqdm_class=byte_counter(meter, done),
        )
        try:
            path = Path(client.request(DATA_SET, listing.id, listing.revision, ask))
        except Unreachable as error:
            what, next_ = f"{name} of {listing.id} did not arrive whole.", "Try again: it goes on from where it was."
            raise DataError(what, f"The Hugging Face Hub cannot be reached: {error}.", next_) from error
        return _checked(listing, name, path)

    def _keep(self, revision: str, listing: Listing) -> Listing:
        """Write the listing into the folder; returns it."""
        folder = self._folder(listing.id)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(folder / f"{listing.revision}.json", asdict(listing))
        refs: dict[str, str] = {}
        with suppress(OSError, ValueError, TypeError):
            refs = dict(files.read_json(folder / "refs.json"))
        files.write_json(folder / "refs.json", {**refs, revision: listing.revision})
        return listing

    def _folder(self, id: str) -> Path:
        return self._root / id.replace("/", "--")


def check_inside(id: str, name: str) -> None:
    """Raise `DataError` unless `name` is a plain relative path, which cannot lead out of the repository."""
    plain = len(name) <= 1_000 and name.isprintable() and "\\" not in name
    if not plain or any(part in ("", ".", "..") for part in name.split("/")):
        why = "Names inside a data set are relative and plain: no .., no address, no path of this computer."
        raise DataError(f"{id} names a file that is not its own: {name[:100]!r}.", why, "Do not use this data set.")


def _check_name(id: str, revision: str) -> None:
    if not ID.fullmatch(id):
        raise DataError(f"{id[:100]!r} is not a data set id.", "One looks like owner/name.", "Check the spelling.")
    if revision and not REVISION.fullmatch(revision):
        raise DataError(f"{revision[:100]!r} is not a revision.", "It is a branch, a tag or a commit.", "Check it.")


def _cached(listing: Listing, name: str) -> Path | None:
    found = try_to_load_from_cache(listing.id, name, revision=listing.revision, repo_type="dataset")
    return _checked(listing, name, Path(found)) if isinstance(found, str) else None


def _checked(listing: Listing, name: str, path: Path) -> Path:
    """Return `path`, a file of the cache, if it lies in its repository's folder there and has the listed size."""
    repository = path.parents[len(PurePosixPath(name).parts) + 1]
    if not path.resolve().is_relative_to(repository.resolve()):
        why = "Its place in the cache is a link to something else."
        raise DataError(f"{name} of {listing.id} is not the data set's own file.", why, "Delete it from the cache.")
    if path.stat().st_size != listing.files[name]:
        why = f"It has {path.stat().st_size:,} bytes instead of {listing.files[name]:,}."
        raise DataError(f"{name} of {listing.id} is not what the Hub lists.", why, "Delete it from the cache.")
    return path
