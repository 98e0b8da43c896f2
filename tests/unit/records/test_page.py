"""The page of a record, as Chromium shows it: whole, from one file, on a phone too."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import DESKTOP, PHONE, needs_browser, opened
from tests.unit.records.conftest import PLACE, POLICY, Recorded, with_status
from tunegate.records.checking import explained
from tunegate.records.page import render

needs_browser()
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def page_of(recorded: Recorded, folder: Path) -> Path:
    file = folder / "why.html"
    keys = [recorded.signer.public_key]
    file.write_text(render(*explained(recorded.store, recorded.promotion, (POLICY, PLACE), keys)))
    return file


@pytest.mark.parametrize("options", [DESKTOP, PHONE, {"color_scheme": "dark"}], ids=["desktop", "phone", "dark"])
def test_the_page_says_why_a_model_is_live(
    recorded: Recorded, browser: Browser, tmp_path: Path, options: dict[str, Any]
) -> None:
    file = page_of(recorded, tmp_path)
    with opened(browser, file.as_uri(), **options) as page:
        text = page.inner_text("main")
        for said in ("Promoted", "ada (Approved): reads well", "shop-dialogues, 1200 rows", "base/base/checkpoint-0"):
            assert said in text
        assert "decides at 20" in (page.text_content("figure svg") or "")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.evaluate("performance.getEntriesByType('resource').length") == 0
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_words_of_people_are_no_markup(recorded: Recorded, browser: Browser, tmp_path: Path) -> None:
    status = recorded.promotion.status
    recorded.promotion = with_status(
        recorded.promotion, record=None, waiting="<script>document.title = 'taken'</script>"
    )
    recorded.promotion = with_status(recorded.promotion, decision=None, phase="Paused")
    assert status.decision is not None
    with opened(browser, page_of(recorded, tmp_path).as_uri()) as page:
        assert page.title() != "taken"
        assert "nobody: the record is written when the promotion is over" in page.inner_text("main")


def test_a_page_is_the_same_each_time(recorded: Recorded, tmp_path: Path) -> None:
    assert page_of(recorded, tmp_path).read_bytes() == page_of(recorded, tmp_path).read_bytes()


def test_one_that_nobody_judged_says_so(recorded: Recorded, tmp_path: Path) -> None:
    recorded.promotion = with_status(
        recorded.promotion, record=None, comparison=None, canary_started=None, gates=(), phase="Rejected"
    )
    assert "users never saw it" in page_of(recorded, tmp_path).read_text()
