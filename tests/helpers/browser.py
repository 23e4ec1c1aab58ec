"""Chromium, and pages of the app in it."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright import sync_api

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
]
sync_api.expect.set_options(timeout=30_000)  # the machine may be busy


@contextmanager
def launch() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(chromium: sync_api.Browser, site, tab: str = "Echo", alone: bool = True) -> sync_api.Page:
    """Open the site in English and show a tab; `problems` of the page are errors of its scripts."""
    for earlier in chromium.contexts if alone else ():  # each page is drawn, and asks once a second
        earlier.close()
    page = chromium.new_context(locale="en", viewport={"width": 1280, "height": 900}).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(site.url)
    page.wait_for_selector("button[role=tab] >> nth=2")
    page.wait_for_timeout(1000)  # the first beat
    page.get_by_role("tab", name=tab, exact=True).click()
    return page
