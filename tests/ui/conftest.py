"""Fixtures of the page's tests."""

from collections.abc import Iterator

import pytest
from playwright import sync_api

from tests.helpers.browser import CHROMIUM, FLAGS


@pytest.fixture(scope="module")
def chromium() -> Iterator[sync_api.Browser]:
    """A browser for one module: Playwright keeps an event loop running as long as it lasts."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()
