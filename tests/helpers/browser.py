"""Chromium for tests: its path and flags, and a page of a site that has been polled once."""

from typing import Any

from playwright import sync_api

from tests.helpers.ui_site import Site

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


def opened(chromium: sync_api.Browser, site: Site, **settings: Any) -> Any:
    """Open a site's page after closing earlier ones; errors of its scripts are collected in `page.problems`."""
    for earlier in chromium.contexts:  # each page is drawn, and polls once a second
        earlier.close()
    page: Any = chromium.new_context(**{"locale": "en", **settings}).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(site.url)
    page.wait_for_selector("button[role=tab] >> nth=2")
    page.wait_for_timeout(1000)  # the first poll
    if settings.get("locale", "en") == "en":
        page.get_by_role("tab", name="Echo", exact=True).click()
    return page


def seen(page: sync_api.Page, role: Any, name: str) -> sync_api.Locator:
    """Return the visible elements of a role and name."""
    return page.get_by_role(role, name=name, exact=True).locator("visible=true")
