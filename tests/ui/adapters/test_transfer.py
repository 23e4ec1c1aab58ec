"""transfer.py: child processes take in an adapter made elsewhere, and merge a version into its base."""

from __future__ import annotations

import shutil
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio.utils import get_upload_folder
from playwright import sync_api
from transformers import AutoModelForSequenceClassification

from errors import AdapterError, BusyError
from plugins._discovery import discover
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.browser import opened
from tests.helpers.evaluations import LABELS, made_elsewhere
from tests.helpers.ui_site import Pool, serve
from tests.helpers.versions import copy_of
from training.runs.runs import Runs
from ui.adapters import transfer, versions_view
from ui.context import Context
from ui.i18n import Words
from ui.web.access import Action

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
REQUEST = SimpleNamespace(headers={})


def context_of(home: Path, **changes: object) -> Context:
    settings = Settings(home=home, shipped=home / "none", plugins=REPOSITORY / "plugins", **changes)  # type: ignore[arg-type]
    adapters = AdapterStore(settings.home)
    return Context(settings, discover(settings.plugins), Pool(adapters), adapters, Runs(settings))  # type: ignore[arg-type]


def form_of(context: Context) -> tuple[gr.HTML, dict[str, gr.Dropdown], Any]:
    """Place the form; returns its message, the menus of versions, and its handler."""
    with gr.Blocks():
        menus = {"classification": gr.Dropdown(), "generation": gr.Dropdown()}
        form = transfer.ImportForm(context, menus)
    return form.message, menus, partial(context.allow(Action.KEEP, form.take_in), REQUEST, REQUEST)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    base = tiny.make("bert", tmp_path / "bert")
    monkeypatch.setenv("GRAFT_MODEL_CLASSIFICATION", str(base))
    monkeypatch.setenv("GRAFT_QUANTIZE", "none")
    made_elsewhere("bert", base, tmp_path / "theirs")
    return shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "theirs")


def test_a_zip_becomes_a_version_that_waits_for_a_person(archive: str, tmp_path: Path) -> None:
    context = context_of(tmp_path / "home")
    message, menus, handler = form_of(context)
    menu = menus["classification"]
    *_, failed = handler(archive, "classification", "theirs", "")
    assert failed.keys() == {message} and "g-bad" in failed[message] and context.changes == 0
    assert "It was not taken in." in failed[message] and "a head of 3 labels" in failed[message]
    *steps, done = handler(archive, "classification", " theirs ", ", ".join(LABELS))
    shown = "".join(step[message] for step in steps)
    assert done.keys() == {message, menu}, "the menus of other tabs stay as they are"
    assert (done[menu]["value"], done[menu]["choices"]) == ("theirs@1", ["theirs@1"])
    assert "Unpacking" in shown and "Checking it against its base" in shown and "theirs@1 is here" in done[message]
    assert context.changes == 1 and context.adapters.live("classification") is None
    listed = versions_view.versions(Words(), context.adapters.versions("classification"), "")
    assert "made elsewhere" in listed and context.adapters.get("theirs@1").labels == LABELS


def test_the_page_looks_at_an_imported_version(chromium: Any, archive: str, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    shutil.copy(REPOSITORY / "plugins" / "classification.py", tmp_path / "plugins")
    with serve(tmp_path) as site:
        site.publish("mine", "classification"), site.publish("echoes")
        page = opened(chromium, site, viewport={"width": 1280, "height": 900})
        page.get_by_role("tab", name="Adapters", exact=True).click()
        versions = page.get_by_label("Version").filter(visible=True)
        sync_api.expect(versions.nth(0)).to_have_value("mine@1")
        page.get_by_role("button", name="Take in an adapter made elsewhere").filter(visible=True).click()
        page.locator(".g-import input[type=file]").set_input_files(archive)
        page.get_by_label("Name of the adapter").filter(visible=True).fill("theirs")
        page.get_by_label("Labels").filter(visible=True).fill(", ".join(LABELS))
        page.get_by_role("button", name="Take it in").filter(visible=True).click()
        sync_api.expect(page.locator(".g-import")).to_contain_text("theirs@1 is here", timeout=120_000)
        sync_api.expect(versions.nth(0)).to_have_value("theirs@1")
        sync_api.expect(page.locator(".g-version").filter(visible=True)).to_have_count(3)
        assert [versions.nth(number).input_value() for number in range(2)] == ["theirs@1", "echoes@1"]
        assert page.problems == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((None, "classification", "mine", ""), "Nothing was chosen"),
        (("a.zip", "nope", "mine", ""), "There is no tab"),
        (("a.zip", "classification", "--base=x", ""), "cannot name an adapter"),
    ],
)
def test_an_incomplete_form_is_refused_before_anything_begins(given, why: str, tmp_path: Path) -> None:
    *_, handler = form_of(context_of(tmp_path))
    with pytest.raises(gr.Error, match=why):
        list(handler(*given))


def test_visitors_import_nothing(tmp_path: Path) -> None:
    *_, handler = form_of(context_of(tmp_path, space=True))
    with pytest.raises(gr.Error, match="not for visitors"):
        list(handler("a.zip", "classification", "mine", ""))


def test_a_version_is_merged_by_a_process_of_its_own(bert: Trained, tmp_path: Path) -> None:
    """Its base is the folder that its run noted; nobody says again where that lies."""
    merge = partial(transfer.merged, Words(), bert.first.ref, bert.home)
    steps = merge()
    shown = [next(steps)]
    with pytest.raises(BusyError, match="Another merged model"):
        next(merge())
    shown += steps
    html = [html for html, _ in shown]
    assert "loading its base" in html[0]
    assert "merging" in "".join(html) and "packing" in html[-2] and html[-1] == ""
    path = Path(shown[-1][1] or "")
    assert path.name == "first-1-merged.zip" and path.is_relative_to(get_upload_folder())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "nothing else is left there"
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path)
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first-1", use_safetensors=True)
    assert list(found.config.id2label.values()) == bert.first.labels


def test_a_version_whose_base_is_gone_is_not_merged(bert: Trained, tmp_path: Path) -> None:
    version = copy_of(bert.first, tmp_path, "here")
    before = set(Path(get_upload_folder()).glob("*/*"))
    with pytest.raises(AdapterError, match="nobody has said where it lies here"):
        list(transfer.merged(Words(), version.ref, tmp_path))
    assert set(Path(get_upload_folder()).glob("*/*")) == before


def test_a_reader_who_leaves_ends_the_merge(bert: Trained) -> None:
    for _ in range(2):
        steps = transfer.merged(Words(), bert.first.ref, bert.home)
        next(steps)
        steps.close()
