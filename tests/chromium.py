"""A real Chromium, for the tests of our pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 375, "height": 720}, "has_touch": True, "is_mobile": True}
DEADLINE_MILLISECONDS = 100_000


def needs_browser() -> Any:
    """Playwright; the module that asks for it is skipped where there is nothing to drive."""
    if CHROMIUM is None:
        reason = "there is no Chromium to look at our pages with: apt-get install chromium"
        pytest.skip(reason, allow_module_level=True)
    return pytest.importorskip("playwright.sync_api")


# Not for the session: while it is there, its event loop is the one of this thread, and other tests run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = needs_browser()
    driver.expect.set_options(timeout=DEADLINE_MILLISECONDS)
    with driver.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM)
        yield launched
        launched.close()


@contextmanager
def opened(browser: Browser, url: str, allowed: str = "Failed to load resource", **options: Any) -> Iterator[Page]:
    """The page as someone sees it who just opened it, with options of a browser's context.

    At the end nothing may stand in the browser's console, such as a violated policy, but that a request failed, or
    what is `allowed`.
    """
    problems: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and allowed not in message.text:
            problems.append(message.text)

    with browser.new_context(**{"locale": "en-US", **DESKTOP, **options}) as context:
        context.set_default_timeout(DEADLINE_MILLISECONDS)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        yield page
    assert problems == []


def check_for_everybody(page: Page) -> None:
    """With all of it open, nothing runs off the side, and axe finds nothing that keeps people with disabilities out."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
    width, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    found = axe.Axe().run(page)
    assert width <= room
    assert found.violations_count == 0, found.generate_report()
