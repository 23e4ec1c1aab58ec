"""Corrections in Chromium: an answer is corrected, undone, listed, and taught by a stand-in for the worker."""

import json
from dataclasses import replace

import pytest
from playwright import sync_api

from store.corrections import Corrections
from tests.helpers.browser import opened, seen
from tests.helpers.run_helpers import STAND_IN, end_all
from tests.helpers.ui_site import make, serve
from training.runs.runs import Runs
from ui import shell
from ui.tab.answer import Answer

pytestmark = pytest.mark.filterwarnings("ignore")
NASTY = "<img src=x onerror=window.__x=1>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("site")) as found:
        found.context.runs = Runs(found.context.settings, STAND_IN)
        yield found
        end_all(found.context.runs)


def ask(page, text):
    page.get_by_label("Text").locator("visible=true").fill(text)
    seen(page, "button", "Run").click()
    sync_api.expect(page.get_by_label("Said").locator("visible=true")).to_have_value(text * 2)


def correct(page, text, label):
    ask(page, text)
    page.get_by_label("Text").locator("visible=true").fill("what the box says now")
    seen(page, "button", "This is wrong").click()
    sync_api.expect(page.locator(".g-asked").locator("visible=true")).to_contain_text(text)
    page.get_by_label("The right label").locator("visible=true").fill(label)
    page.keyboard.press("Enter")
    seen(page, "button", "Save").click()
    sync_api.expect(page.locator(".g-fix").locator("visible=true")).to_have_count(0)


def test_a_wrong_answer_is_corrected_undone_listed_and_taught(chromium, site) -> None:
    page, kept = opened(chromium, site), Corrections(site.context.settings.home)
    sync_api.expect(seen(page, "button", "This is wrong")).to_have_count(0)  # nothing was answered yet
    correct(page, NASTY, "good")
    (first,) = kept.list("echo")
    assert first.row == {"text": NASTY, "target": "good"} and first.answered == NASTY * 2 and first.version == "base"
    correct(page, "second", "bad")
    sync_api.expect(page.get_by_text("Corrections: 2, not yet taught: 2.").locator("visible=true")).to_be_visible()

    seen(page, "button", "Undo").click()
    sync_api.expect(page.get_by_text("Corrections: 1, not yet taught: 1.").locator("visible=true")).to_be_visible()
    correct(page, "second", "bad")

    page.locator("button.label-wrap", has_text="Corrections").locator("visible=true").click()
    page.locator(".g-correction", has_text="second").locator("visible=true").click()
    page.get_by_label("The right label").locator("visible=true").fill("worse")
    page.keyboard.press("Enter")
    seen(page, "button", "Save").click()
    sync_api.expect(page.locator(".g-correction", has_text="worse").locator("visible=true")).to_be_visible()
    with page.expect_download() as download:
        seen(page, "button", "Download as JSONL").click()
    rows = [json.loads(line) for line in download.value.path().read_text(encoding="utf-8").splitlines()]
    assert rows == [{"text": "second", "label": "worse"}, {"text": NASTY, "label": "good"}]

    seen(page, "button", "Teach").click()
    sync_api.expect(page.get_by_text("It is learning from your corrections.").locator("visible=true")).to_be_visible()
    sync_api.expect(seen(page, "button", "Teach")).to_have_count(0)
    (run,) = site.context.runs.list()
    assert run.plugin == "echo" and run.teaches and len(run.config.corrections) and run.config.data == ""
    (run.folder / "finish").touch()
    sync_api.expect(page.get_by_text("taught@1 is ready, but does not answer yet.")).to_be_visible()
    seen(page, "button", "See its card").click()
    sync_api.expect(seen(page, "tab", "Adapters")).to_have_attribute("aria-selected", "true")
    assert page.evaluate("window.__x") is None and page.problems == []


def test_the_form_fits_a_phone_and_is_in_chinese(chromium, site) -> None:
    site.context.corrections.add("echo", {"text": "long " * 60, "target": "good"}, "bad", "base")
    page = opened(chromium, site, locale="zh-CN", color_scheme="dark", viewport={"width": 390, "height": 800})
    page.get_by_role("tab", name="Echo", exact=True).click()
    page.get_by_label("Text").locator("visible=true").fill("ab")
    seen(page, "button", "运行").click()
    seen(page, "button", "答得不对").click()
    page.locator("button.label-wrap", has_text="更正记录").locator("visible=true").click()
    sync_api.expect(seen(page, "button", "保存")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "teach." not in page.locator("body").inner_text() and page.problems == []


def test_a_page_without_owner_has_no_correction(tmp_path) -> None:
    context, _, _ = make(tmp_path, host="0.0.0.0")
    labels = [block.value for block in shell.build(context).blocks.values() if block.__class__.__name__ == "Button"]
    assert len(labels) > 3 and not any("teach.wrong" in str(label) for label in labels)


def test_the_record_of_an_answer_has_question_answer_version_and_labels() -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [{"text": "yo", "type": "text"}]}]
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    chat = Answer([turns], "mine@2", "org/base", (), asked, 1).record
    assert chat == {"row": asked, "answer": "yo", "version": "mine@2", "labels": []}
    labels = Answer([{"a": 0.2, "b": 0.8}], "base", "org/base", (), {"text": "x"}, 1)
    assert labels.record == {"row": {"text": "x"}, "answer": "b", "version": "base", "labels": ["a", "b"]}
    assert replace(labels, value=[7]).record is None and replace(labels, value=[]).record is None
    assert replace(labels, asked={}).record is None
