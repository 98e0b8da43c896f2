"""Steps and sources on the playground: as they happen, by their numbers, and readable by everybody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import PHONE, needs_browser
from tests.unit.serving.page.browser import Opener, answered, say
from tests.unit.serving.page.test_screenshots import DOCS, SIZE_LIMIT
from tests.unit.serving.releases import opened
from tests.unit.serving.standin import WAIT, Server, StandIn, run_engine
from tunegate.serving.parts import Parts

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = needs_browser().expect
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

RETURNS = "How many days do I have to send something back?"
LOOK = f"Thought: I look it up.\nAction: Knowledge base\nInput: {RETURNS}\n"
END = "Final Result: Within **14 days** [1], unused [9]."


@pytest.fixture
def engine() -> Iterator[StandIn]:
    with run_engine(StandIn(usage_at_finish=True)) as running:
        yield running


@pytest.fixture
def parts(shop_index: Path) -> Parts:
    return opened(index=shop_index, tools=("calculator", "knowledge"))


def test_steps_show_while_they_are_taken_and_fold_for_the_answer(page: Page, server: Server) -> None:
    server.engine.says = [LOOK, WAIT, END]
    say(page, RETURNS)

    expect(page.locator(".steps")).to_have_attribute("open", "")
    expect(page.locator(".step")).to_contain_text("1. knowledge")
    expect(page.locator(".step")).to_contain_text("I look it up.")
    expect(page.locator(".step .observed")).to_contain_text("You may send anything back within 14 days")
    expect(page.locator(".sources li").first).to_contain_text("Returns and refunds")
    server.engine.go_on.set()
    page.locator(".icon.up").wait_for()
    expect(page.locator(".steps")).not_to_have_attribute("open", "")
    page.get_by_text("Steps (1)").click()
    expect(page.locator(".step")).to_be_visible()


def test_a_number_leads_to_the_source_that_it_cites(page: Page, server: Server) -> None:
    server.engine.says = [LOOK, END]
    answered(page, RETURNS)

    expect(page.locator(".answer .text")).to_have_text("Within 14 days [1], unused.")
    source = page.locator(".sources li").first
    expect(source).to_have_class("cited")
    expect(source.get_by_text("You may send anything back")).to_be_hidden()
    page.locator(".text").get_by_role("link", name="[1]").press("Enter")
    expect(source.get_by_text("You may send anything back")).to_be_visible()
    expect(source.get_by_text("help_en.md, line 10")).to_be_visible()
    expect(source.locator("summary")).to_be_focused()
    assert page.url == f"{server.url}/"


def test_an_answer_that_cites_nothing_says_so(page: Page, server: Server) -> None:
    server.engine.says = [LOOK, "Final Result: Fourteen, see a[2] list[7]."]
    answered(page, RETURNS)
    expect(page.get_by_text("cites none of its sources")).to_have_count(0)

    server.engine.says = [LOOK, "Final Result: Fourteen."]
    answered(page, RETURNS)
    expect(page.get_by_text("The answer cites none of its sources.")).to_be_visible()


def test_a_step_that_failed_is_marked(page: Page, server: Server) -> None:
    server.engine.says = ["Action: Calculator\nInput: two and two", "Final Result: I can't."]
    answered(page)
    page.get_by_text("Steps (1)").click()
    expect(page.locator(".step.failed")).to_contain_text("1. calculator failed")


def test_a_picture_of_the_docs_shows_them(open_page: Opener, server: Server, tmp_path: Path) -> None:
    """Make it anew as those of test_screenshots.py."""
    server.engine.says = [LOOK, "Final Result: Within **14 days** of receiving it, unused and in its box [1]."]
    folder = Path(os.environ.get("TUNEGATE_SCREENSHOTS", tmp_path))
    with open_page(viewport={"width": 1280, "height": 900}) as page:
        answered(page, RETURNS)
        page.locator(".steps summary").click()
        page.locator(".text a").click()
        page.screenshot(path=folder / "sources.png")

    assert (folder / "sources.png").stat().st_size < SIZE_LIMIT
    assert (DOCS / "sources.png").stat().st_size < SIZE_LIMIT


@pytest.mark.parametrize(
    "options", [{}, {**PHONE, "color_scheme": "dark", "locale": "zh-CN"}], ids=["desktop", "phone"]
)
def test_everybody_can_read_them(open_page: Opener, server: Server, options: dict[str, Any]) -> None:
    server.engine.says = [LOOK, END]
    with open_page(**options) as page:
        answered(page, RETURNS)
        page.locator(".steps summary").click()
        page.locator(".text a").click()
        violations = axe.Axe().run(page).response["violations"]
        assert [(it["id"], [node["html"] for node in it["nodes"]]) for it in violations] == []
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0
