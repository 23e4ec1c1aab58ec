"""hub/datasets.py: data sets of the Hub as files of one commit, against a small real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from errors import DataError
from hub import datasets
from hub.datasets import HubDatasets
from tests.helpers.fake_hub import FakeHub, serving, silent_hub

REPO = "org/rows"
FILES = {"README.md": b"---\nx: 1\n---\n", "data/train [1].csv": b"text,label\n" + b"a,b\n" * 50, "big.bin": b"x" * 999}
ROWS = "data/train [1].csv"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with serving({f"datasets/{REPO}": FILES}, monkeypatch, tmp_path / "cache") as found:
        yield found


@pytest.fixture
def rows(tmp_path: Path) -> HubDatasets:
    return HubDatasets(tmp_path / "notes")


def test_files_of_one_commit_are_listed_and_only_named_ones_fetched(fake: FakeHub, rows: HubDatasets) -> None:
    listing = rows.look_up(REPO)
    assert (listing.id, listing.revision, listing.card) == (REPO, "a" * 40, FILES["README.md"].decode())
    assert listing.files == {name: len(data) for name, data in FILES.items()}
    seen: list[float] = []
    [path] = rows.fetch(listing, [ROWS], lambda phase, part: seen.append(part or 0.0))
    assert path.read_bytes() == FILES[ROWS]
    assert seen == sorted(seen) and (seen[0], seen[-1]) == (0, 1)
    assert not [request for request in fake.requests if "big.bin" in request]
    assert all(f"/{listing.revision}/" in request for request in fake.requests if "/resolve/" in request)
    assert rows.look_up(REPO, "dev").revision == "b" * 40


def test_fetched_files_are_found_without_the_network(fake: FakeHub, rows: HubDatasets, tmp_path: Path) -> None:
    listing = rows.look_up(REPO)
    assert rows.present(listing, [ROWS]) is None
    paths = rows.fetch(listing, [ROWS])
    fake.requests.clear()
    offline = HubDatasets(tmp_path / "notes", offline=True)
    for revision in ("", listing.revision):
        assert offline.look_up(REPO, revision) == listing
    assert offline.fetch(listing, [ROWS]) == offline.present(listing, [ROWS]) == paths
    assert fake.requests == []
    with pytest.raises(DataError, match=r"are not on this computer. Graft is offline"):
        offline.fetch(listing, ["big.bin"])
    with pytest.raises(DataError, match=r"org/other is not on this computer. Graft is offline \(HF_HUB_OFFLINE\)"):
        offline.look_up("org/other")


def test_a_hub_that_does_not_answer_is_an_error(
    rows: HubDatasets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets, "REACH_SECONDS", 0.3)
    why = "The Hugging Face Hub cannot be reached: it did not answer"
    with silent_hub(monkeypatch, tmp_path / "cache"), pytest.raises(DataError, match=why):
        rows.look_up(REPO)


def test_r42_a_download_that_broke_off_goes_on(fake: FakeHub, rows: HubDatasets) -> None:
    listing = rows.look_up(REPO)
    fake.status = 410
    with pytest.raises(DataError, match=r"did not arrive whole.*goes on from where it was"):
        rows.fetch(listing, [ROWS])
    fake.status, fake.drop[ROWS] = 0, 100
    [path] = rows.fetch(listing, [ROWS])
    assert path.read_bytes() == FILES[ROWS] and not fake.drop


def test_limits_of_size_are_kept_before_anything_is_fetched(fake: FakeHub, tmp_path: Path) -> None:
    rows = HubDatasets(tmp_path / "notes", most=500)
    listing = rows.look_up(REPO)
    fake.requests.clear()
    with pytest.raises(DataError, match="GRAFT_DOWNLOAD_GB"):
        rows.fetch(listing, ["big.bin"])
    assert fake.requests == []


@pytest.mark.parametrize("id", ["../rows", "rows", "org/rows/more", "http://x/y", "org/..", "/etc/passwd", "a b/c", ""])
def test_r24_only_ids_are_asked_for(fake: FakeHub, rows: HubDatasets, id: str) -> None:
    with pytest.raises(DataError, match="is not a data set id"):
        rows.look_up(id)
    with pytest.raises(DataError, match="is not a revision"):
        rows.look_up(REPO, "../main")
    assert fake.requests == []


@pytest.mark.parametrize(
    "name", ["../secret.json", "/etc/secret.json", "a/../../secret.json", "a\\..\\b.csv", "a//b.csv"]
)
def test_r04_a_repository_that_lists_files_of_others_is_refused(fake: FakeHub, rows: HubDatasets, name: str) -> None:
    fake.repositories = {f"datasets/{REPO}": {**FILES, name: b"x"}}
    with pytest.raises(DataError, match="names a file that is not its own"):
        rows.look_up(REPO)
    assert not [request for request in fake.requests if "/resolve/" in request]


def test_r04_a_link_that_leaves_the_cache_is_refused(fake: FakeHub, rows: HubDatasets, tmp_path: Path) -> None:
    canary = tmp_path / "secret.json"
    canary.write_bytes(b"x" * len(FILES[ROWS]))
    listing = rows.look_up(REPO)
    [path] = rows.fetch(listing, [ROWS])
    path.unlink()
    path.symlink_to(canary)
    for read in (rows.fetch, rows.present):
        with pytest.raises(DataError, match="is not the data set's own file"):
            read(listing, [ROWS])


def test_a_file_of_another_size_is_refused(fake: FakeHub, rows: HubDatasets) -> None:
    listing = rows.look_up(REPO)
    [path] = rows.fetch(listing, [ROWS])
    path.resolve().write_bytes(b"cut")
    with pytest.raises(DataError, match="is not what the Hub lists"):
        rows.present(listing, [ROWS])


@pytest.mark.parametrize(("token", "sent"), [(None, f"Bearer hf_{'x' * 34}"), (False, "")])
def test_r06_the_token_goes_to_the_hub_alone(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: bool | None, sent: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", f"hf_{'x' * 34}")
    rows = HubDatasets(tmp_path / "notes", token=token)
    rows.fetch(rows.look_up(REPO), [ROWS])
    assert set(fake.tokens) == {sent}
    written = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file())
    assert "hf_" not in written


def test_damaged_notes_count_as_none(fake: FakeHub, rows: HubDatasets, tmp_path: Path) -> None:
    listing = rows.look_up(REPO)
    folder = tmp_path / "notes" / "org--rows"
    assert json.loads((folder / "refs.json").read_text()) == {"": listing.revision}
    for name in ("refs.json", f"{listing.revision}.json"):
        (folder / name).write_text("[")
        assert rows.known(REPO) is None
        assert rows.look_up(REPO) == listing


def test_a_refusal_of_the_hub_is_a_data_error(fake: FakeHub, rows: HubDatasets) -> None:
    with pytest.raises(DataError, match="There is no data set org/none on the Hugging Face Hub"):
        rows.look_up("org/none")
    fake.gated.add(f"datasets/{REPO}")
    with pytest.raises(DataError, match="is gated"):
        rows.look_up(REPO)
    fake.status = 500
    with pytest.raises(DataError, match="cannot be reached: it answered with status 500"):
        rows.look_up(REPO)
