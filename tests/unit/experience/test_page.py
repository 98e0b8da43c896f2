"""The page: complete in itself, safe whatever users write, and readable on a phone, in a real browser.

Make the docs' pictures anew with: TUNEGATE_SCREENSHOTS=docs/experience python -m pytest tests/unit/experience
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chromium import DESKTOP, PHONE, check_for_everybody, needs_browser, opened
from tests.unit.experience.logs import DELIVERY, PRICE, WEEK, answered, log
from tunegate.experience.contents import Experience
from tunegate.experience.gather import experience_of
from tunegate.experience.page import render, summary

if TYPE_CHECKING:
    from playwright.sync_api import Browser

needs_browser()
OPTIONS = {"desktop": DESKTOP, "phone": {**PHONE, "viewport": {"width": 390, "height": 844}}}
DOCS = Path(__file__).parents[3] / "docs/experience"


def example() -> Experience:
    """A week in which questions about prices went wrong, because a page of the catalogue did."""
    served = {"prompt": "knowledge-zh.md@3f9a12", "sources": ("catalogue/kettles.csv",), "tools": {"catalogue": 1}}
    now = [answered(n, PRICE[n % 4], "down" if n < 22 else "up", answer="199 元。", **served) for n in range(30)]
    now += [answered(100 + n, DELIVERY[n % 4], "down" if n < 3 else "up", answer="两天。") for n in range(40)]
    now += [answered(200 + n, DELIVERY[n % 4]) for n in range(200)]
    now[0] = answered(
        0,
        PRICE[0],
        "down",
        answer="199 元。",
        correction="99 元。",
        comment="页面上写的是 99 元 <b>",
        tags=("wrong", "price"),
        rating=1,
        **served,
    )
    before = [answered(n, PRICE[n % 4], "down" if n < 3 else "up", week=-1, **served) for n in range(30)]
    before += [answered(100 + n, DELIVERY[n % 4], "down" if n < 4 else "up", week=-1) for n in range(40)]
    return experience_of(log(*before, *now), WEEK)


def test_it_comes_to_a_few_lines() -> None:
    lines = summary(example())
    assert lines[0].startswith("2026-03-02 to 2026-03-08: 270 answers, 70 judged, 25 disliked (35.7 %, ")
    assert any(line.startswith("Worse: topic ") and "10.0 %" in line and "73.3 %" in line for line in lines)
    assert any(line.startswith("Worse: source catalogue/kettles.csv") for line in lines)


def test_the_same_review_is_the_same_page_and_texts_are_texts() -> None:
    page = render(example())
    assert page == render(example())
    assert "&" not in page.partition("<style>")[2].partition("</style>")[0], "an escaped style loses rules"
    assert "99 元 &lt;b&gt;" in page
    assert "<script" not in page
    assert len(page) < 500_000


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_runs_off_the_side_and_everybody_can_use_it(browser: Browser, tmp_path: Path, name: str) -> None:
    page_file = tmp_path / "experience.html"
    page_file.write_text(render(example()))
    folder = Path(os.environ.get("TUNEGATE_SCREENSHOTS", tmp_path))
    with opened(browser, page_file.as_uri(), **OPTIONS[name]) as page:
        page.screenshot(path=folder / f"{name}.png")
        check_for_everybody(page)
    assert (DOCS / "desktop.png").stat().st_size < 200_000
