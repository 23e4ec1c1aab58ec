"""The browser of the tests of the page."""

import pytest

from tests.helpers.browser import launch


@pytest.fixture(scope="module")
def chromium():
    with launch() as browser:
        yield browser
