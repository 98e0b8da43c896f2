"""A real Chromium on the playground, before our routes and an engine that writes what a test gives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.serving.page.browser import CHROMIUM, DESKTOP, Opener, Writer, needs_browser
from tests.unit.serving.standin import Server, run_engine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

DEADLINE_MILLISECONDS = 20_000


@pytest.fixture
def engine() -> Iterator[Writer]:
    writer = Writer(usage_at_finish=True)
    with run_engine(writer):
        yield writer


# Not for the session: while it is there, its event loop is the one of this thread, and other tests run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    driver = needs_browser()
    driver.expect.set_options(timeout=DEADLINE_MILLISECONDS)
    with driver.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM)
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Opener:
    """The page as someone sees it who just opened it, with options of a browser's context.

    At the end nothing may stand in the browser's console, such as a violated policy, but that a request failed, or
    what is `allowed`.
    """

    @contextmanager
    def opened(allowed: str = "Failed to load resource", **options: Any) -> Iterator[Page]:
        problems: list[str] = []

        def note(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning") and allowed not in message.text:
                problems.append(message.text)

        with browser.new_context(**{"locale": "en-US", **DESKTOP, **options}) as context:
            context.set_default_timeout(DEADLINE_MILLISECONDS)
            page = context.new_page()
            page.on("console", note)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.goto(server.url)
            yield page
        assert problems == []

    return opened


@pytest.fixture
def page(open_page: Opener) -> Iterator[Page]:
    with open_page() as opened:
        yield opened
