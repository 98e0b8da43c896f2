"""The page in a real browser: on a phone nothing runs off the side, everybody can use it, and the pictures of the docs.

Make those anew with: TUNEGATE_SCREENSHOTS=docs/report python -m pytest tests/unit/report/test_screenshots.py
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.chromium import DESKTOP, PHONE, check_for_everybody, needs_browser, opened
from tests.unit.report.builders import business, evaluation, exam, make
from tunegate.api.evaluation import Metric
from tunegate.evaluation.choice.exams import names
from tunegate.report.contents import LeakCheck, Leaks, Report
from tunegate.report.leaks import Hit
from tunegate.report.page import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

needs_browser()
DOCS = Path(__file__).parents[3] / "docs/report"
SIZE_LIMIT = 200_000  # bytes
OPTIONS = {
    "desktop": DESKTOP,
    "phone": {**PHONE, "viewport": {"width": 390, "height": 844}, "device_scale_factor": 1.5},
}


def example() -> Report:
    """Three versions: one that learned the shop and forgot some of the exam, and one that was measured in part."""
    draw = random.Random(7)  # noqa: S311 - no secret

    def signs(share: float, count: int) -> str:
        return "".join("+" if draw.random() < share else "-" for _ in range(count))

    exams = [
        exam(place, {handle: signs(share, 26) for handle in names("ceval")}, tokens_read=1_220_000, seconds=310.0)
        for place, share in enumerate((0.62, 0.55))
    ]
    judged = [
        evaluation(
            place,
            "shop.pairs",
            [Metric(name="preference", value=value, low=value - 0.08, high=value + 0.08, n=120)],
            [],
            settings="people",
            topic="",
        )
        for place, value in enumerate((0.39, 0.61))
    ]
    shop = [business(place, signs(share, 150)) for place, share in enumerate((0.62, 0.84, 0.8))]
    hit = Hit(
        item="q7",
        question="Which kettle is number 7 of the catalogue?",
        line=33,
        text="Which kettle is number 7 of the catalogue, please?",
        similarity=0.93,
        records=2,
    )
    about = {"suite": "shop", "dataset": "shop-train", "digest": "sha256:0", "letters": ("B", "C"), "records": 1200}
    leaks = LeakCheck(found=(Leaks(items=150, hits=(hit,), **about),))  # type: ignore[arg-type]
    facts = {
        "method": "lora",
        "trainable_parameters": 500_000,
        "parameters": 134_000_000,
        "seconds": 61.5,
        "bytes": 2**28,
    }
    return make([exams[0], shop[0], judged[0]], [exams[1], shop[1], judged[1]], [shop[2]], leaks=leaks, **facts)


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_runs_off_the_side_and_everybody_can_use_it(browser: Browser, tmp_path: Path, name: str) -> None:
    page_file = tmp_path / "report.html"
    page_file.write_text(render(example()))
    folder = Path(os.environ.get("TUNEGATE_SCREENSHOTS", tmp_path))
    with opened(browser, page_file.as_uri(), **OPTIONS[name]) as page:
        if name == "desktop":
            page.get_by_text("By subject (52)").click()
            page.get_by_role("heading", name="ceval").evaluate("heading => heading.scrollIntoView()")
        page.screenshot(path=folder / f"{name}.png")
        check_for_everybody(page)

    assert (folder / f"{name}.png").stat().st_size < SIZE_LIMIT
    assert (DOCS / f"{name}.png").stat().st_size < SIZE_LIMIT
