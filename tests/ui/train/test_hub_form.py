"""hub_form.py in a real browser, over a small Hub on loopback: looked up, stopped half way, fetched, inspected."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from playwright import sync_api

from tests.helpers.browser import opened
from tests.helpers.fake_hub import FakeHub, point_to
from tests.helpers.row_files import HUB_FILES
from tests.helpers.ui_site import serve

pytestmark = pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
SHARD = "en/train-00001-of-00002.parquet"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    found = FakeHub({"datasets/org/rows": HUB_FILES})
    with found.running() as url:
        point_to(monkeypatch, url, tmp_path / "cache")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield found
        close_session()


@pytest.fixture
def page(fake: FakeHub, tmp_path: Path, chromium: sync_api.Browser) -> Iterator[sync_api.Page]:
    with serve(tmp_path / "site") as site:
        page = opened(chromium, site, viewport={"width": 1280, "height": 900})
        page.get_by_role("tab", name="Train", exact=True).click()
        page.get_by_label("The Hub").check()
        yield page
        page.context.close()


def button(page: sync_api.Page, name: str) -> sync_api.Locator:
    return page.get_by_role("button", name=name, exact=True)


def test_a_data_set_is_looked_up_stopped_and_fetched(page: sync_api.Page, fake: FakeHub) -> None:
    hub, there = page.locator(".g-hub"), "not on this computer yet"
    page.get_by_label("Data set on the Hugging Face Hub").fill("org/nothing")
    page.keyboard.press("Enter")
    sync_api.expect(hub).to_contain_text("org/nothing")
    sync_api.expect(button(page, "Fetch these rows")).to_be_hidden()

    page.get_by_label("Data set on the Hugging Face Hub").fill("org/rows")
    button(page, "Look up").click()
    sync_api.expect(hub).to_contain_text(there)
    sync_api.expect(button(page, "Stop fetching")).to_be_hidden()

    fake.stall[SHARD] = 10
    button(page, "Fetch these rows").click()
    sync_api.expect(hub).to_contain_text("% fetched")
    assert fake.stalled.wait(30)
    button(page, "Stop fetching").click()
    sync_api.expect(hub).to_contain_text(there)
    sync_api.expect(button(page, "Stop fetching")).to_be_hidden()

    fake.stall.clear()
    fake.released.set()
    button(page, "Fetch these rows").click()
    sync_api.expect(hub).to_contain_text("on this computer.")
    sync_api.expect(button(page, "Fetch these rows")).to_be_hidden()
    sync_api.expect(page.locator("body")).to_contain_text(re.compile(r"20\s*usable"))


def test_a_split_of_its_own_is_held_out(page: sync_api.Page, fake: FakeHub) -> None:
    page.get_by_label("Data set on the Hugging Face Hub").fill("org/rows")
    button(page, "Look up").click()
    page.get_by_label("Rows to compare on").click()
    page.get_by_role("option", name="test").click()
    sync_api.expect(page.locator(".g-hub")).to_contain_text("in 3 file(s)")
    button(page, "Fetch these rows").click()
    report = page.locator(".g-report")
    sync_api.expect(report).to_contain_text("12 of the 12 rows of org/rows en test can be compared on")
    sync_api.expect(page.locator(".g-command")).to_contain_text("--held-out-split test")
