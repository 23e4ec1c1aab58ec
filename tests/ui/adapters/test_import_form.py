"""ui/adapters/import_form.py: an adapter made elsewhere is taken in on the page by a process of its own."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from playwright import sync_api

from plugins._discovery import discover
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tests.helpers import tiny
from tests.helpers.browser import opened
from tests.helpers.evaluations import LABELS, made_elsewhere
from tests.helpers.ui_site import Pool, serve
from training.runs.runs import Runs
from ui.adapters import import_form, versions_view
from ui.context import Context
from ui.i18n import Words
from ui.pulse import PagePoll
from ui.web.access import Action

pytestmark = pytest.mark.filterwarnings("ignore")
REQUEST = SimpleNamespace(headers={})


def context_of(home: Path, **changes: object) -> Context:
    settings = Settings(home=home, shipped=home / "none", plugins=REPOSITORY / "plugins", **changes)  # type: ignore[arg-type]
    adapters = AdapterStore(settings.home)
    return Context(settings, discover(settings.plugins), Pool(adapters), adapters, Runs(settings))  # type: ignore[arg-type]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    base = tiny.make("bert", tmp_path / "bert")
    monkeypatch.setenv("GRAFT_MODEL_CLASSIFICATION", str(base))
    monkeypatch.setenv("GRAFT_QUANTIZE", "none")
    made_elsewhere("bert", base, tmp_path / "theirs")
    return shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "theirs")


def handler_of(context: Context, message: Any = None, menus: Any = None) -> Any:
    return partial(context.allow(Action.KEEP, import_form.take_in(context, message, menus or {})), REQUEST, REQUEST)


def test_a_zip_becomes_a_version_that_waits_for_a_person(archive: str, tmp_path: Path) -> None:
    context = context_of(tmp_path / "home")
    with gr.Blocks():
        message, menu, other = gr.HTML(), gr.Dropdown(), gr.Dropdown()
    handler = handler_of(context, message, {"classification": menu, "generation": other})
    *_, failed = handler(archive, "classification", "theirs", "")
    assert failed.keys() == {message} and "g-bad" in failed[message] and context.changes == 0
    assert "It was not taken in." in failed[message] and "a head of 3 labels" in failed[message]
    *steps, done = handler(archive, "classification", " theirs ", ", ".join(LABELS))
    said = "".join(step[message] for step in steps)
    assert done.keys() == {message, menu}, "the menus of other tabs stay as they are"
    assert (done[menu]["value"], done[menu]["choices"]) == ("theirs@1", ["theirs@1"])
    assert "Unpacking" in said and "Checking it against its base" in said and "theirs@1 is here" in done[message]
    assert context.changes == 1 and context.adapters.live("classification") is None
    listed = versions_view.versions(Words(), context.adapters.versions("classification"), "")
    assert "made elsewhere" in listed and context.adapters.get("theirs@1").labels == LABELS


def test_what_was_taken_in_is_what_the_page_looks_at(chromium: Any, archive: str, tmp_path: Path) -> None:
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
def test_what_is_missing_is_said_before_anything_begins(given, why: str, tmp_path: Path) -> None:
    context = context_of(tmp_path)
    with pytest.raises(gr.Error, match=why):
        list(handler_of(context)(*given))


def test_nobody_takes_anything_in_where_the_page_may_not_train(tmp_path: Path) -> None:
    context = context_of(tmp_path, space=True)
    with pytest.raises(gr.Error, match="not for visitors"):
        list(handler_of(context)("a.zip", "classification", "mine", ""))
    for found, functions in ((context, 0), (context_of(tmp_path), 2)):
        with gr.Blocks() as page:
            import_form.build(found, PagePoll(found.access, lambda: None), {})
        assert len(page.fns) == functions
