"""A real Chromium on the playground, before our routes and an engine that writes what a test gives it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.chromium import browser, opened  # noqa: F401 (a fixture)
from tests.unit.serving.page.browser import Opener, Writer
from tests.unit.serving.standin import Server, run_engine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture
def engine() -> Iterator[Writer]:
    writer = Writer(usage_at_finish=True)
    with run_engine(writer):
        yield writer


@pytest.fixture
def open_page(browser: Browser, server: Server) -> Opener:  # noqa: F811
    """The page as someone sees it who just opened it; see `opened`."""
    return partial(opened, browser, server.url)


@pytest.fixture
def page(open_page: Opener) -> Iterator[Page]:
    with open_page() as shown:
        yield shown
