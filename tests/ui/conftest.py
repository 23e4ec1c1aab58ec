"""Fixtures of the page's tests."""

from collections.abc import Iterator

import pytest
from playwright import sync_api

from tests.helpers.browser import CHROMIUM, FLAGS
from tests.helpers.ui_site import Site, serve


@pytest.fixture(scope="module")
def chromium() -> Iterator[sync_api.Browser]:
    """A browser for one module: Playwright keeps an event loop running as long as it lasts."""
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A served page with the plugins of `ui_site`."""
    with serve(tmp_path_factory.mktemp("site")) as found:
        yield found
