"""Tests of training/data/files/hub_dataset.py: rows of a Hub data set, and files that must not be read."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from errors import ConfigError, DataError
from settings import Settings
from tasks import Columns, TabSpec
from tests.helpers.fake_hub import FakeHub, point_to
from tests.helpers.row_files import HUB_FILES
from tests.helpers.training_helpers import inspect
from training.__main__ import parser
from training.cli import run_arguments
from training.config import TrainConfig
from training.data.files.formats import read_selection, title
from training.data.files.hub_dataset import HubData, HubSplit, parse_hub_id
from training.data.rows import Row
from training.data.table import read_table
from training.runs.runs import Runs

LABELS = Columns(text="text", target="label")
SPEC = TabSpec("classification", "org/base", "text-classification", LABELS)
CANARY = "canary-of-the-hidden-file"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    found = FakeHub({"datasets/org/rows": HUB_FILES})
    with found.running() as url:
        point_to(monkeypatch, url, tmp_path / "cache")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield found
        close_session()


@pytest.fixture
def data(home: Path) -> HubData:
    return HubData(Settings(home=home))


def test_a_split_of_several_files_is_one_source_in_order(fake: FakeHub, data: HubData) -> None:
    path = data.fetch(HubSplit("org/rows"))
    rows: list[Row] = []
    table = read_table(path, "label", LABELS, keep=rows.append)
    assert [row["text"] for row in rows] == [f"row {i}" for i in range(20)]
    assert table.report.labels == {"bad": 10, "good": 10}, "names, not numbers"
    assert (table.report.file, table.report.format) == ("org/rows en train", "Parquet")
    assert read_selection(path).source == {"id": "org/rows", "revision": "a" * 40, "config": "en", "split": "train"}
    assert not [request for request in fake.requests if "test.csv" in request or "rows.jsonl" in request]


def test_configuration_split_and_revision_can_be_chosen(fake: FakeHub, data: HubData) -> None:
    test = data.fetch(HubSplit("org/rows", config="en", split="test"))
    other = data.fetch(HubSplit("org/rows", "dev", "de"))
    labels = [read_table(path, "label", LABELS).report.labels for path in (test, other)]
    assert labels == [{"bad": 6, "good": 6}, {"x": 5, "y": 4}]
    assert read_selection(other).revision == "b" * 40 and title(other) == "org/rows de train"
    for place, refusal in (({"config": "fr"}, "configuration 'fr'"), ({"split": "dev"}, "split in en 'dev'")):
        with pytest.raises(DataError, match=rf"has no {refusal}\. It has "):
            data.fetch(HubSplit("org/rows", **place))


def test_fetched_rows_are_found_offline(fake: FakeHub, data: HubData, home: Path) -> None:
    for known in (False, True):
        with pytest.raises(DataError, match="Fetch them first"):
            data.find(HubSplit("org/rows"))
        assert known or data.look_up(HubSplit("org/rows"))
    path = data.fetch(HubSplit("org/rows"))
    fake.requests.clear()
    assert data.find(HubSplit("org/rows")) == data.find(HubSplit("org/rows", "a" * 40, "en", "train")) == path
    assert HubData(Settings(home=home, offline=True)).fetch(HubSplit("org/rows")) == path
    assert fake.requests == []


OUTSIDE = [
    *("{canary}", "../secret.json", "en/../../../secret.json", "http://127.0.0.1:{port}/secret.json"),
    *("zip://secret.json::{canary}", "file://{canary}", "link.json"),
]


@pytest.mark.parametrize("pattern", OUTSIDE)
def test_r04_no_file_outside_a_data_set_is_read(
    fake: FakeHub, data: HubData, home: Path, tmp_path: Path, pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "secret.json"
    canary.write_text(json.dumps([{"text": f"{CANARY} {i}", "label": i % 2} for i in range(20)]))
    written = pattern.format(canary=canary, port=constants.ENDPOINT.rpartition(":")[2])
    card = f"---\nconfigs:\n- config_name: default\n  data_files: '{written}'\n---\n"
    size = canary.stat().st_size
    fake.repositories = {"datasets/org/evil": {"README.md": card.encode(), "link.json": b"x" * size}}
    with pytest.raises(DataError) as caught:
        place = HubSplit("org/evil")
        if pattern == "link.json":  # a link in the cache, as a git checkout of the repository could hold
            found = data.look_up(place)
            [path] = data._rows.fetch(found.listing, ["link.json"])
            path.unlink()
            path.symlink_to(canary)
        read_table(data.fetch(place), "label", LABELS)
    assert "own" in str(caught.value) and CANARY not in str(caught.value)
    assert not [request for request in fake.requests if "secret" in request]
    out, err = capfd.readouterr()
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert CANARY not in out + err + "".join(path.read_text(errors="replace") for path in kept)


def test_a_file_without_the_columns_of_the_first_is_refused(fake: FakeHub, data: HubData) -> None:
    fake.repositories = {"datasets/org/odd": {"train-1.csv": HUB_FILES["en/test.csv"], "train-2.csv": b"other\n1\n2\n"}}
    with pytest.raises(DataError, match=r"train-2\.csv cannot be read with the others"):
        read_table(data.fetch(HubSplit("org/odd")), "label", LABELS)


def test_a_run_keeps_its_rows_and_their_source(fake: FakeHub, data: HubData, runs: Runs, tmp_path: Path) -> None:
    path = data.fetch(HubSplit("org/rows", split="train"))
    source = read_selection(path).source
    config = TrainConfig.for_tab(SPEC, path, "mine", hub=source)
    run = runs.submit(config)
    kept = TrainConfig.from_json((run.folder / "config.json").read_text())
    assert kept.hub == source and Path(kept.data).parent == run.folder / "data"
    for blob in (tmp_path / "cache").rglob("*"):
        if blob.is_file():
            blob.unlink()
    assert read_table(Path(kept.data), "label", LABELS).report.labels == {"bad": 10, "good": 10}
    assert inspect(runs, Path(kept.data), SPEC).usable == 20, "read by a child process, which has no token"
    with pytest.raises(DataError, match="Fetch them first"):
        runs.submit(TrainConfig.for_tab(SPEC, None, "mine", hub=source))


def test_another_split_is_held_out_as_a_whole(fake: FakeHub, data: HubData, runs: Runs, tmp_path: Path) -> None:
    path, other = data.fetch_both(HubSplit("org/rows", config="en"), "test")
    assert other is not None and read_selection(other).split == "test"
    assert data.fetch_both(HubSplit("org/rows"), "") == (path, None)
    chosen = {"hub": read_selection(path).source, "held_out_split": "test"}
    config = TrainConfig.for_tab(SPEC, path, "mine", **chosen, held_out_data=str(other))
    kept = TrainConfig.from_json((runs.submit(config).folder / "config.json").read_text())
    assert read_table(Path(kept.held_out_data), "label", LABELS).report.rows == 12
    assert Path(kept.held_out_data).parent.name == "held_out" and kept.held_out_split == "test"
    assert run_arguments.write(config, SPEC, "").endswith("--hub-split train --name mine --held-out-split test")
    with pytest.raises(DataError, match="has no split"):
        data.fetch_both(HubSplit("org/rows"), "nothing")
    with pytest.raises(DataError, match="split test of org/rows is not on this computer"):
        runs.submit(TrainConfig.for_tab(SPEC, path, "mine", **chosen))


def read(arguments: str) -> Namespace:
    return parser().parse_args(["train", *shlex.split(arguments)])


def test_a_held_out_split_is_another_split_of_a_hub_data_set(fake: FakeHub, home: Path, tmp_path: Path) -> None:
    source = HubSplit("org/rows", "a" * 40, "en", "train").fields
    with pytest.raises(ConfigError, match="which is trained on"):
        TrainConfig.for_tab(SPEC, tmp_path, "mine", hub=source, held_out_split="train")
    with pytest.raises(ConfigError, match="is a split of a data set of the Hub"):
        TrainConfig.for_tab(SPEC, tmp_path, "mine", held_out_split="test")
    options = read("--plugin x --data org/rows --name mine --held-out-split test")
    with pytest.raises(ConfigError, match="in a file and as a split"):
        run_arguments.to_config(Namespace(**vars(options) | {"held_out_data": "rows.csv"}), SPEC)
    config = run_arguments.fetch_rows(run_arguments.to_config(options, SPEC), Settings(home=home))
    assert config.hub["split"] == "train" and config.held_out_split == "test"
    assert read_selection(Path(config.held_out_data)).split == "test"


@pytest.mark.parametrize(
    "place",
    [HubSplit("org/rows"), HubSplit("org/rows", "a" * 40, "default", "train"), HubSplit("a/b", "", "x y", "dev")],
)
def test_a_run_from_the_hub_becomes_a_command_and_back(tmp_path: Path, place: HubSplit) -> None:
    config = TrainConfig.for_tab(SPEC, tmp_path / "x.rows", "mine", hub=place.fields)
    command = run_arguments.write(config, SPEC, config.data)
    again = run_arguments.to_config(read(command.removeprefix("python -m training ")), SPEC)
    kept = place.fields | ({"config": ""} if place.config == "default" else {})
    assert again == TrainConfig.for_tab(SPEC, None, "mine", hub=kept)
    assert place.config != "x y" or "--data a/b --hub-config 'x y' --hub-split dev --name mine" in command


def test_the_path_of_a_file_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_hub_id("org/rows@v1", "c", "s") == HubSplit("org/rows", "v1", "c", "s")
    assert not any(parse_hub_id(path) for path in ("org/rows.csv", "rows", "../rows", "/a/b"))
    (tmp_path / "org" / "rows").mkdir(parents=True)
    assert parse_hub_id("org/rows") is None


def test_a_configuration_with_an_incomplete_hub_source_is_refused(tmp_path: Path) -> None:
    for hub in ({"id": "a/b"}, {"id": 1, "revision": "", "config": "", "split": ""}, 7):
        with pytest.raises(Exception, match="hub"):
            TrainConfig.for_tab(SPEC, tmp_path, "mine", hub=hub)
