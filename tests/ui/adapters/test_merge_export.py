"""merge_export.py: a merged model is made by a process of its own, and handed over where the page may serve it from."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder
from transformers import AutoModelForSequenceClassification

from errors import AdapterError, BusyError
from tests.conftest import Trained
from tests.helpers.versions import copy_of
from ui.adapters import merge_export
from ui.i18n import Words


def test_a_version_is_merged_by_a_process_of_its_own(bert: Trained, tmp_path: Path) -> None:
    """Its base is the folder that its run noted; nobody says again where that lies."""
    steps = list(merge_export.merged(Words(), bert.first.ref, bert.home))
    said = [html for html, _ in steps]
    assert "loading its base" in said[0]
    assert "merging" in "".join(said) and "packing" in said[-2] and said[-1] == ""
    path = Path(steps[-1][1] or "")
    assert path.name == "first-1-merged.zip" and path.is_relative_to(get_upload_folder())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "nothing else is left there"
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path)
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first-1", use_safetensors=True)
    assert list(found.config.id2label.values()) == bert.first.labels


def test_a_version_that_cannot_be_merged_says_why_and_leaves_nothing(bert: Trained, tmp_path: Path) -> None:
    version = copy_of(bert.first, tmp_path, "here")
    before = set(Path(get_upload_folder()).glob("*/*"))
    with pytest.raises(AdapterError, match="nobody has said where it lies here"):
        list(merge_export.merged(Words(), version.ref, tmp_path))
    assert set(Path(get_upload_folder()).glob("*/*")) == before


def test_one_is_made_at_a_time_and_a_reader_who_goes_ends_it(bert: Trained) -> None:
    going = merge_export.merged(Words(), bert.first.ref, bert.home)
    next(going)
    with pytest.raises(BusyError, match="Another merged model"):
        next(merge_export.merged(Words(), bert.first.ref, bert.home))
    going.close()
    again = merge_export.merged(Words(), bert.first.ref, bert.home)
    next(again)
    again.close()
