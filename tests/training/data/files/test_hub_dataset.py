"""hub_dataset.py: from a data set on the Hub to rows, by our own readers alone; and what must not be read."""

from __future__ import annotations

import io
import json
import shlex
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from errors import ConfigError, DataError
from settings import Settings
from tasks import Columns, TabSpec
from tests.helpers.fake_hub import FakeHub, point_to
from training.__main__ import parser
from training.cli import run_arguments
from training.config import TrainConfig
from training.data.files.hub_dataset import HubData, Place, parse_place
from training.data.files.selection import read_selection, title
from training.data.table import read_table
from training.runs.runs import Runs

LABELS = Columns(text="text", target="label")
SPEC = TabSpec("classification", "org/base", "text-classification", LABELS)
CANARY = "canary-of-the-hidden-file"
CARD = """---
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: en/train-*.parquet
  - split: test
    path: en/test.csv
- config_name: de
  data_files: de/rows.jsonl
dataset_info:
- config_name: en
  features:
  - name: label
    dtype:
      class_label:
        names: ['bad', 'good']
---
"""


def shard(start: int) -> bytes:
    written = io.BytesIO()
    rows = range(start, start + 10)
    pq.write_table(pa.table({"text": [f"row {i}" for i in rows], "label": [i % 2 for i in rows]}), written)
    return written.getvalue()


def lines(count: int) -> bytes:
    return "".join(json.dumps({"text": f"row {i}", "label": "xy"[i % 2]}) + "\n" for i in range(count)).encode()


FILES = {
    "README.md": CARD.encode(),
    "en/train-00000-of-00002.parquet": shard(0),
    "en/train-00001-of-00002.parquet": shard(10),
    "en/test.csv": b"text,label\n" + b"".join(f"test {i},{i % 2}\n".encode() for i in range(12)),
    "de/rows.jsonl": lines(9),
}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    found = FakeHub({"datasets/org/rows": FILES})
    with found.running() as url:
        point_to(monkeypatch, url, tmp_path / "cache")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield found
        close_session()


@pytest.fixture
def data(home: Path) -> HubData:
    return HubData.of(Settings(home=home))


def test_a_split_of_several_files_is_one_source_in_order(fake: FakeHub, data: HubData) -> None:
    path = data.fetch(Place("org/rows"))
    table = read_table(path, "label", LABELS)
    assert [row["text"] for row in table.rows()] == [f"row {i}" for i in range(20)]
    assert table.report.labels == {"bad": 10, "good": 10}, "names, not numbers"
    assert (table.report.file, table.report.format) == ("org/rows en train", "Parquet")
    assert read_selection(path).source == {"id": "org/rows", "revision": "a" * 40, "config": "en", "split": "train"}
    assert not [request for request in fake.requests if "test.csv" in request or "rows.jsonl" in request]


def test_configuration_split_and_revision_are_chosen(fake: FakeHub, data: HubData) -> None:
    test = data.fetch(Place("org/rows", config="en", split="test"))
    assert read_table(test, "label", LABELS).report.labels == {"bad": 6, "good": 6}
    other = data.fetch(Place("org/rows", "dev", "de"))
    assert read_table(other, "label", LABELS).report.labels == {"x": 5, "y": 4}
    assert read_selection(other).revision == "b" * 40 and title(other) == "org/rows de train"
    for place, told in ((Place("org/rows", config="fr"), "has no configuration 'fr'. It has en, de"),
                        (Place("org/rows", split="dev"), "no split in en 'dev'. It has train, test")):  # fmt: skip
        with pytest.raises(DataError, match=told.replace(".", r"\.")):
            data.fetch(place)


def test_rows_that_were_fetched_are_found_offline(fake: FakeHub, data: HubData, home: Path) -> None:
    with pytest.raises(DataError, match="Fetch them first"):
        data.find(Place("org/rows"))
    data.look_up(Place("org/rows"))
    with pytest.raises(DataError, match="Fetch them first"):
        data.find(Place("org/rows"))
    path = data.fetch(Place("org/rows"))
    fake.requests.clear()
    assert data.find(Place("org/rows")) == data.find(Place("org/rows", "a" * 40, "en", "train")) == path
    assert HubData.of(Settings(home=home, offline=True)).fetch(Place("org/rows")) == path
    assert fake.requests == []


OUTSIDE = ["{canary}", "../secret.json", "en/../../../secret.json", "http://127.0.0.1:{port}/secret.json",
           "zip://secret.json::{canary}", "file://{canary}", "link.json"]  # fmt: skip


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
        place = Place("org/evil")
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
    fake.repositories = {"datasets/org/odd": {"train-1.csv": FILES["en/test.csv"], "train-2.csv": b"other\n1\n2\n"}}
    with pytest.raises(DataError, match=r"train-2\.csv cannot be read with the others"):
        read_table(data.fetch(Place("org/odd")), "label", LABELS)


def test_a_run_keeps_its_rows_and_where_they_are_from(fake: FakeHub, data: HubData, runs: Runs, tmp_path: Path) -> None:
    path = data.fetch(Place("org/rows", split="train"))
    source = read_selection(path).source
    config = TrainConfig.for_tab(SPEC, path, "mine", hub=source)
    run = runs.submit(config)
    kept = TrainConfig.from_json((run.folder / "config.json").read_text())
    assert kept.hub == source and Path(kept.data).parent == run.folder / "data"
    for blob in (tmp_path / "cache").rglob("*"):
        if blob.is_file():
            blob.unlink()
    assert read_table(Path(kept.data), "label", LABELS).report.labels == {"bad": 10, "good": 10}
    assert runs.inspect(Path(kept.data), SPEC).usable == 20, "read by a child process, which has no token"
    with pytest.raises(DataError, match="Fetch them first"):
        runs.submit(TrainConfig.for_tab(SPEC, None, "mine", hub=source))


def test_another_split_is_held_out_whole(fake: FakeHub, data: HubData, runs: Runs, tmp_path: Path) -> None:
    path, other = data.fetch_both(Place("org/rows", config="en"), "test")
    assert other is not None and read_selection(other).split == "test"
    assert data.fetch_both(Place("org/rows"), "") == (path, None)
    chosen = {"hub": read_selection(path).source, "held_out_split": "test"}
    config = TrainConfig.for_tab(SPEC, path, "mine", **chosen, held_out_data=str(other))
    kept = TrainConfig.from_json((runs.submit(config).folder / "config.json").read_text())
    assert read_table(Path(kept.held_out_data), "label", LABELS).report.rows == 12
    assert Path(kept.held_out_data).parent.name == "held_out" and kept.held_out_split == "test"
    assert run_arguments.write(config, SPEC, "").endswith("--hub-split train --name mine --held-out-split test")
    with pytest.raises(DataError, match="has no split"):
        data.fetch_both(Place("org/rows"), "nothing")
    with pytest.raises(DataError, match="split test of org/rows is not on this computer"):
        runs.submit(TrainConfig.for_tab(SPEC, path, "mine", **chosen))


def read(arguments: str) -> Namespace:
    return parser().parse_args(["train", *shlex.split(arguments)])


def test_a_held_out_split_is_another_one_of_a_hub_data_set(tmp_path: Path) -> None:
    source = Place("org/rows", "a" * 40, "en", "train").named
    for wrong, why in (({"hub": source, "held_out_split": "train"}, "which is trained on"),
                       ({"held_out_split": "test"}, "is a split of a data set of the Hub")):  # fmt: skip
        with pytest.raises(ConfigError, match=why):
            TrainConfig.for_tab(SPEC, tmp_path, "mine", **wrong)
    both = "--plugin x --data org/rows --name mine --held-out-split test --held-out-data rows.csv"
    with pytest.raises(ConfigError, match="in a file and as a split"):
        run_arguments.to_config(read(both), SPEC)
    named = read("--plugin x --data org/rows --name mine --held-out-split test")
    assert run_arguments.to_config(named, SPEC).held_out_split == "test"


def test_a_command_fetches_the_split_that_it_holds_out(fake: FakeHub, home: Path) -> None:
    options = read("--plugin x --data org/rows --name mine --held-out-split test")
    run_arguments.fetch_rows(Settings(home=home), options)
    config = run_arguments.to_config(options, SPEC)
    assert config.hub["split"] == "train" and config.held_out_split == "test"
    assert read_selection(Path(config.held_out_data)).split == "test"


def test_a_run_from_the_hub_is_a_command_and_back(tmp_path: Path) -> None:
    for place in (Place("org/rows"), Place("org/rows", "a" * 40, "default", "train"), Place("a/b", "", "x y", "dev")):
        config = TrainConfig.for_tab(SPEC, tmp_path / "x.rows", "mine", hub=place.named)
        said = run_arguments.write(config, SPEC, config.data)
        again = run_arguments.to_config(read(said.removeprefix("python -m training ")), SPEC)
        kept = place.named | ({"config": ""} if place.config == "default" else {})
        assert again == TrainConfig.for_tab(SPEC, None, "mine", hub=kept)
    assert "--data a/b --hub-config 'x y' --hub-split dev --name mine" in said


def test_a_path_that_is_there_is_no_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_place("org/rows@v1", "c", "s") == Place("org/rows", "v1", "c", "s")
    assert parse_place("org/rows.csv") is parse_place("rows") is parse_place("../rows") is parse_place("/a/b") is None
    (tmp_path / "org" / "rows").mkdir(parents=True)
    assert parse_place("org/rows") is None


def test_the_configuration_says_where_on_the_hub(tmp_path: Path) -> None:
    for hub in ({"id": "a/b"}, {"id": 1, "revision": "", "config": "", "split": ""}, 7):
        with pytest.raises(Exception, match="hub is"):
            TrainConfig.for_tab(SPEC, tmp_path, "mine", hub=hub)
