"""adapters_page.py and card_rows.py: promote, roll back and delete; a card's rows filtered and taken away."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from playwright import sync_api

from errors import BusyError
from tests.helpers.browser import opened
from tests.helpers.cards import label_card, text_card
from tests.helpers.ui_site import PASSWORD, Site, make, serve
from ui import shell
from ui.adapters.adapters_page import Section
from ui.context import Context
from ui.i18n import Words
from ui.pulse import PagePoll
from ui.web.access import explained

pytestmark = pytest.mark.filterwarnings("ignore")
REQUEST = SimpleNamespace(headers={})


def section_of(context: Context) -> Section:
    with gr.Blocks():
        return Section(context, context.plugin("echo"), PagePoll(context.access, lambda: None))


def click(section: Section, act: Any, ref: str, why: str = "") -> str:
    return explain(section.handler(act), ref, why, REQUEST)


def explain(handler: Any, *values: Any) -> Any:
    with explained():
        return handler(*values)


def for_owner(section: Section, ref: str | None = None) -> dict[Any, Any]:
    return section.refresh_for_owner(Words(), ref)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    context, pool, folder = make(tmp_path)
    return Site(context, gr.Blocks(), "", pool, folder)


@pytest.fixture
def section(site: Site) -> Section:
    return section_of(site.context)


def test_promoting_and_going_back_keep_who_and_why(site: Site, section: Section) -> None:
    context, store = site.context, site.context.adapters
    site.publish("mine"), site.publish("mine")
    assert click(section, section.promote, "mine@1", "  customers\nasked  ") == "", "the box is emptied"
    click(section, section.promote, "mine@2", "x" * 999)
    assert "echo" in site.pool.warmed
    listed, version, _ = section.refresh(Words(), "mine@1")
    updates = for_owner(section, "mine@1")
    assert "g-live" in listed and all(text in updates[section._history] for text in ("customers asked", "page"))
    assert "value" not in version and updates[section._back]["value"] == "Roll back to mine@1", (
        "what is chosen is not sent back"
    )
    click(section, lambda _, why, who: store.roll_back("echo", why, who), "mine@1")
    told = [(e["version"], e["why"], e["who"]) for e in store.history("echo")]
    assert told == [("mine@1", "customers asked", "page"), ("mine@2", "x" * 200, "page"), ("mine@1", "", "page")]
    assert context.changes == 3


def test_the_newest_version_that_is_not_live_is_chosen(site: Site, section: Section) -> None:
    chosen = []
    for live in ("mine@1", "mine@2"):
        site.publish("mine")
        chosen.append(section.refresh(Words(), None)[1]["value"])
        site.context.adapters.promote("echo", live)
        chosen.append(section.refresh(Words(), None)[1]["value"])
    assert chosen == ["mine@1", "mine@1", "mine@2", "mine@1"]
    assert "value" not in section.refresh(Words(), "mine@2")[1], "what the user chose stays"


def test_only_changes_are_offered(site: Site, section: Section) -> None:
    site.publish("mine"), site.publish("mine")

    def offered(ref: str) -> list[bool]:
        updates = for_owner(section, ref)
        return [updates[button]["visible"] for button in (section._promote, section._back, section._base)]

    assert offered("mine@1") == [True, False, False]
    site.context.adapters.promote("echo", "mine@1")
    assert offered("mine@1") == [False, True, False], "the way back is the base, and one button for it is enough"
    site.context.adapters.promote("echo", "mine@2")
    assert offered("mine@1") == [True, True, True] and offered("mine@2") == [False, True, True]


def test_a_version_is_deleted_after_a_question_unless_it_is_needed(
    site: Site, section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        site.publish("mine")
    site.publish("foreign", plugin="stream")
    doubted, asked, box = explain(section._ask, "mine@3", REQUEST)
    assert doubted == "mine@3" and "Delete mine@3 for good?" in asked and box["visible"]
    click(section, section.delete, "mine@3", "no use")
    assert "released mine@3" in site.pool.warmed
    timeline = for_owner(section)[section._history]
    assert "mine@3 deleted" in timeline and "page" in timeline and "no use" in timeline and "g-now" not in timeline
    for ref, why in (("mine@3", "There is no version"), ("foreign@1", "not a version of echo")):
        with pytest.raises(gr.Error, match=why):
            click(section, section.delete, ref)
        with pytest.raises(gr.Error, match=why):
            explain(section._ask, ref, REQUEST)
    click(section, section.promote, "mine@1")
    with pytest.raises(gr.Error, match="echo answers with it"):
        click(section, section.delete, "mine@1")

    def in_use(ref: str) -> None:
        raise BusyError(f"{ref} is in use.")

    monkeypatch.setattr(site.pool, "release", in_use)
    with pytest.raises(gr.Error, match="in use"):
        click(section, section.delete, "mine@2")
    assert {v.ref for v in site.context.adapters.versions("echo")} == {"mine@1", "mine@2"}


def test_a_version_is_taken_away_in_one_file(site: Site, section: Section) -> None:
    ref = site.publish("mine")
    path = Path(explain(section._pack, ref))
    assert path.name == f"{ref}.zip"
    with zipfile.ZipFile(path) as file:
        assert {"mine/1/manifest.json", "mine/1/adapter_model.safetensors"} <= set(file.namelist())
    foreign = site.publish("foreign", plugin="stream")
    with pytest.raises(gr.Error, match="not a version of echo"):
        explain(section._pack, foreign)


def test_strangers_see_figures_and_neither_rows_nor_history(tmp_path: Path) -> None:
    context, pool, folder = make(tmp_path, host="192.0.2.1")
    site = Site(context, gr.Blocks(), "", pool, folder)
    site.publish("mine", card=label_card())
    context.adapters.promote("echo", "mine@1", "a reason", "ada")
    section = section_of(context)
    shown = str(section.refresh(Words(), None))
    assert "86.7 %" in shown and "parcel" not in shown and "a reason" not in shown
    labels = [b.value for b in shell.build(context).blocks.values() if isinstance(b, gr.Button)]
    assert len(labels) > 3 and not any(str(label).startswith(("adapters.", "import.")) for label in labels)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Site]:
    with serve(tmp_path) as found:
        yield found


def taken(page: Any, button: str) -> tuple[str, str]:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).filter(visible=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8-sig")


def test_rows_are_filtered_searched_and_taken_away(chromium: Any, served: Site) -> None:
    served.publish("mine", card=label_card())
    served.publish("mine", card=text_card())
    page = opened(chromium, served, viewport={"width": 1280, "height": 900})
    page.get_by_role("tab", name="Adapters", exact=True).click()
    shown = page.locator(".g-rows").filter(visible=True)
    sync_api.expect(shown.locator(".g-row")).to_have_count(3)
    page.get_by_text("Worse 1", exact=True).click()
    sync_api.expect(shown.locator(".g-row")).to_have_count(1)
    name, text = taken(page, "JSONL")
    assert name == "mine@2.jsonl" and [json.loads(line)["new"] for line in text.splitlines()] == ["天气坏"]
    page.get_by_text("All 3", exact=True).click()
    sync_api.expect(shown.locator("ins").first).to_be_visible()

    # Another version, another card: the filter stays and means that card's rows.
    version = page.get_by_label("Version").filter(visible=True)
    version.click()
    page.get_by_role("option", name="mine@1").click()
    sync_api.expect(shown.locator("tbody tr")).to_have_count(30)
    page.get_by_text("Fixed 6", exact=True).click()
    sync_api.expect(shown.locator("tbody tr")).to_have_count(6)
    page.get_by_placeholder("Search the rows").filter(visible=True).fill("PARCEL 21")
    sync_api.expect(shown.locator("tbody tr")).to_have_count(1)
    name, text = taken(page, "CSV")
    (row,) = csv.DictReader(text.splitlines())
    assert name == "mine@1.csv" and (row["text"], row["change"]) == ("parcel 21", "fixed")
    assert not list((served.context.settings.home).rglob("*.csv")), "files are made in Gradio's cache alone"
    assert page.problems == []


def test_the_owner_signs_in_and_sees_what_visitors_do_not(chromium: Any, tmp_path: Path) -> None:
    with serve(tmp_path, password=PASSWORD) as site:
        site.publish("mine", card=label_card())
        page = opened(chromium, site, viewport={"width": 1280, "height": 900})
        page.get_by_role("tab", name="Train", exact=True).click()
        sync_api.expect(page.get_by_text("are for the owner of this page").filter(visible=True)).to_be_visible()
        sync_api.expect(page.get_by_role("button", name="Train", exact=True)).to_have_count(0)
        page.get_by_role("tab", name="Adapters", exact=True).click()
        sync_api.expect(page.get_by_text("86.7 %").filter(visible=True).first).to_be_visible()
        sync_api.expect(page.get_by_role("button", name="Make live").filter(visible=True)).to_have_count(0)
        page.get_by_role("link", name="Sign in").click()
        page.get_by_label("The owner's password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("tab", name="Adapters", exact=True).click()
        page.get_by_placeholder("Why?").filter(visible=True).fill("because")
        page.get_by_role("button", name="Make live").filter(visible=True).click()
        sync_api.expect(page.locator(".g-timeline").filter(visible=True)).to_contain_text("mine@1 made live")
        sync_api.expect(page.locator(".g-why").filter(visible=True)).to_have_text("because")
        page.get_by_role("tab", name="Train", exact=True).click()
        sync_api.expect(page.get_by_role("button", name="Train", exact=True).filter(visible=True)).to_be_visible()
        page.get_by_role("link", name="Owner").filter(visible=True).click()
        page.get_by_role("button", name="Sign out").click()
        sync_api.expect(page.get_by_role("link", name="Sign in").filter(visible=True)).to_be_visible()
        assert page.problems == []


@contextmanager
def held_polls(page: Any, site: Site, ref: str) -> Iterator[None]:
    """Make `ref` live, and hold the poll's answers from the one that shows it on until the body has run."""
    polls = {number for number, event in site.demo.fns.items() if "tick" in {kind for _, kind in event.targets}}
    held: list[tuple[Any, Any]] = []
    holding = True

    def hold(route: Any) -> None:
        if route.request.post_data_json["fn_index"] not in polls:
            return route.continue_()
        answer = route.fetch()
        if holding and (held or f"{ref} made live" in answer.text()):
            return held.append((route, answer))
        return route.fulfill(response=answer)

    page.route("**/gradio_api/run/**", hold)
    site.context.adapters.promote("echo", ref)
    site.context.versions_changed()
    while not held:
        page.wait_for_timeout(100)
    yield
    holding = False
    for route, answer in held:
        route.fulfill(response=answer)
    sync_api.expect(page.locator(".g-timeline").filter(visible=True)).to_contain_text(f"{ref} made live")
    with page.expect_response("**/gradio_api/run/**"):  # to a later request: the held answers are on the page
        pass


def test_what_was_chosen_outlives_answers_that_were_on_their_way(chromium: Any, served: Site) -> None:
    """Neither a search nor a choice of a version is undone by a poll or a question that was sent before it."""
    for _ in range(3):
        served.publish("mine", card=label_card())
    page = opened(chromium, served, viewport={"width": 1280, "height": 900})
    page.get_by_role("tab", name="Adapters", exact=True).click()
    version = page.get_by_label("Version").filter(visible=True)
    question = page.locator(".g-confirm").filter(visible=True)
    rows = page.locator(".g-rows tbody tr").filter(visible=True)

    def choose(ref: str) -> None:
        version.click()
        page.get_by_role("option", name=ref).click()

    choose("mine@1")
    sync_api.expect(page.get_by_role("heading", name="mine@1")).to_be_visible()
    sync_api.expect(rows).to_have_count(30)
    with held_polls(page, served, "mine@3"):
        page.get_by_placeholder("Search the rows").filter(visible=True).fill("PARCEL 21")
        sync_api.expect(rows).to_have_count(1)
    sync_api.expect(rows).to_have_count(1)

    with held_polls(page, served, "mine@1"):
        choose("mine@2")
        sync_api.expect(page.get_by_role("heading", name="mine@2")).to_be_visible()
    sync_api.expect(version).to_have_value("mine@2")
    sync_api.expect(page.get_by_role("heading", name="mine@2")).to_be_visible()

    page.get_by_role("button", name="Delete", exact=True).filter(visible=True).click()
    sync_api.expect(question).to_contain_text("mine@2")
    choose("mine@1")
    page.get_by_role("button", name="Delete it").filter(visible=True).click()
    sync_api.expect(page.locator(".g-version").filter(visible=True)).to_have_count(2)
    assert {v.ref for v in served.context.adapters.versions()} == {"mine@1", "mine@3"}
    assert page.problems == []


def test_one_event_alone_writes_the_rows_of_a_card(site: Site) -> None:
    """The earlier of two events could be answered last."""
    page = shell.build(site.context)
    html = {id for id, block in page.blocks.items() if "g-rows" in str(getattr(block, "elem_classes", ""))}
    writers = [fn for fn in page.fns.values() for block in fn.outputs if block._id in html]
    assert len(writers) == len(html) == 2 and {fn.trigger_mode for fn in writers} == {"always_last"}
