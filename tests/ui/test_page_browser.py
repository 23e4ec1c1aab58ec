"""The page in a browser: the reader's language, no markup from values, and a page that follows changes."""

import pytest
from playwright import sync_api

from tests.helpers.browser import opened, seen
from tests.helpers.ui_site import CHAT, ECHO, serve
from ui.shell import Reloader
from ui.web.access import Action

pytestmark = pytest.mark.filterwarnings("ignore")
NASTY = "${window.__x=1}{{x}}`</div><img src=x onerror=window.__x=1>"


def test_r30_a_tab_follows_new_versions_and_shows_values_as_text(chromium, site, monkeypatch) -> None:
    page = opened(chromium, site, viewport={"width": 1280, "height": 900})
    live = page.get_by_label("Answer with").locator("visible=true")
    sync_api.expect(live).to_have_value("live (base)")
    site.publish("mine")
    site.context.adapters.promote("echo", "mine@1")
    site.context.versions_changed()
    sync_api.expect(live).to_have_value("live (mine@1)", timeout=30_000)

    monkeypatch.setattr(type(site.context.plugin("echo")), "model", NASTY)
    page.get_by_label("Text").locator("visible=true").fill("ab")
    seen(page, "button", "Run").click()
    page.wait_for_selector(".g-badge")
    badge = page.locator(".g-badge").first.inner_text()
    assert badge.startswith("mine@1 · ") and badge.endswith(" ms")
    assert page.locator(".g-notes").first.inner_text() == "a <b>note"
    assert page.evaluate("window.__x") is None
    assert page.get_by_label("Said").locator("visible=true").input_value() == "abab"
    assert page.problems == []


@pytest.mark.parametrize("width", [1280, 390])
def test_versions_answer_side_by_side(chromium, site, width) -> None:
    ref = site.publish("beside")
    page = opened(chromium, site, viewport={"width": width, "height": 900})
    page.get_by_label("Text").locator("visible=true").fill("ab")
    page.get_by_role("button", name="Compare versions").locator("visible=true").click()
    third = page.get_by_label("Third").locator("visible=true")
    sync_api.expect(third).to_have_value(f"newest not live ({ref})")
    third.fill("nope@9")
    third.press("Enter")
    seen(page, "button", "Compare").click()
    columns = page.locator(".g-compared > .column").locator("visible=true")
    sync_api.expect(columns.nth(2).locator(".g-bad")).to_contain_text("There is no version 'nope@9'")
    for column in (columns.nth(0), columns.nth(1)):
        sync_api.expect(column.locator(".g-badge")).to_contain_text("ms")
        assert column.get_by_label("Said").input_value() == "abab"
    sync_api.expect(columns.nth(1).locator(".g-differs")).to_have_text("The same answer as base")
    assert columns.nth(0).locator(".g-differs").count() == columns.nth(2).locator(".g-badge").count() == 0
    tops = [columns.nth(number).bounding_box()["y"] for number in range(3)]
    assert (len(set(tops)) == 1) is (width == 1280)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.problems == []


def test_an_error_is_shown_as_a_sentence(chromium, site) -> None:
    page = opened(chromium, site)
    toast = page.locator(".toast-body").first
    seen(page, "button", "Run").click()
    sync_api.expect(toast).to_contain_text("There is no text. The input is empty & blank. Type one.")
    page = opened(chromium, site)
    page.get_by_role("tab", name="Adapters").click()
    page.get_by_role("button", name="Take in an adapter made elsewhere").locator("visible=true").click()
    seen(page, "button", "Take it in").click()
    sync_api.expect(page.locator(".toast-body").first).to_contain_text("There is no file. Nothing was chosen.")


def test_events_that_may_be_refused_go_through_the_queue(site) -> None:
    """Gradio shows no error of an event past its queue."""
    functions = [*site.demo.fns.values()]
    kept = [f for f in functions if getattr(f.fn, "action", None) in (Action.KEEP, Action.CORRECT)]
    acts = {f.name: f.queue for f in kept if f.targets and f.targets[0][1] == "click"}
    assert acts and all(acts.values()), acts


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_tab_fits_a_phone_and_is_in_chinese(chromium, site, theme) -> None:
    page = opened(chromium, site, locale="zh-CN", color_scheme=theme, viewport={"width": 390, "height": 800})
    for name in ("Stream", "训练", "适配器", "bad ⚠"):
        tab = page.get_by_role("tab", name=name, exact=True)
        if not tab.is_visible():
            page.locator(".overflow-menu > button").first.click()
            page.locator(".overflow-dropdown button", has_text=name).click()
        else:
            tab.click()
        if name == "Stream":
            page.get_by_role("button", name="版本对比").locator("visible=true").click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        text = page.locator("body").inner_text()
        assert "__i18n__" not in text and "task." not in text and "train." not in text
    assert "bad.py cannot be imported." in text
    sync_api.expect(page.locator("footer .divider").locator("visible=true")).to_have_count(0)
    assert page.problems == []


def test_a_page_is_asked_to_reload_when_its_tabs_changed(chromium, site) -> None:
    page = opened(chromium, site)
    reload = Reloader(site.context, site.demo)
    (site.folder / "fresh.py").write_text(ECHO.format(mark="").replace('"echo"', '"fresh"'), encoding="utf-8")
    reload()
    page.locator(".g-stale").click(timeout=30_000)
    page.wait_for_selector("button[role=tab]")
    assert "/fresh" in page.request.get(f"{site.url}/gradio_api/info").text()
    page.wait_for_timeout(2500)
    assert page.locator(".g-stale").count() == 0


def test_a_conversation_is_retried_undone_and_nothing_is_lost(chromium, tmp_path) -> None:
    with serve(tmp_path, plugins={"chat": CHAT}) as site:
        page = opened(chromium, site)
        page.get_by_role("tab", name="Chat", exact=True).click()
        box = page.get_by_role("textbox", name="Message")
        answers = page.locator(".message.bot").locator("visible=true")
        turns = page.locator(".message.user").locator("visible=true")
        asked = site.context.plugin("chat").asked

        for number, text in enumerate(("first", "second"), 1):
            box.fill(text)
            box.press("Enter")
            sync_api.expect(answers.last).to_contain_text(f"answer {number}")
            sync_api.expect(box).to_have_value("")
        page.get_by_label("Retry").last.click()
        sync_api.expect(answers.last).to_contain_text("answer 3")
        assert asked == [("first", 0), ("second", 2), ("second", 2)]
        assert turns.all_inner_texts() == ["first", "second"] and answers.count() == 2

        page.get_by_label("Undo").last.click()
        sync_api.expect(box).to_have_value("second")
        assert turns.all_inner_texts() == ["first"] and answers.count() == 1

        box.fill("boom")
        box.press("Enter")
        page.wait_for_selector(".toast-body")
        sync_api.expect(box).to_have_value("boom")
        assert turns.all_inner_texts() == ["first"] and len(asked) == 3
        failed = page.locator(".toast-body").inner_text()
        box.fill("half")  # fails too, but is in the conversation
        box.press("Enter")
        sync_api.expect(answers.last).to_contain_text("answer 4")
        sync_api.expect(page.locator(".toast-body")).not_to_have_text(failed, use_inner_text=True)
        page.wait_for_timeout(500)
        assert box.input_value() == "" and turns.all_inner_texts() == ["first", "half"]
        assert page.problems == []
