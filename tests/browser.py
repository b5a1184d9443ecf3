"""The system's Chromium, driven by Playwright, where both are there."""

import shutil

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def browser():
    """A Playwright browser; `browser.new_context().new_page()` gives a page of its own."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright here: pip install playwright"
    )
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine; on Debian and Ubuntu: apt install chromium")
    with playwright.sync_playwright() as driver:
        # Without a sandbox, for root in a container has none; it opens the project's pages alone.
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def requests_of():
    """Give a function that watches a page, and returns a list of the URLs it asks for."""

    def watch(page):
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        return asked

    return watch
