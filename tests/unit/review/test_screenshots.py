"""The pictures in the docs: the page as it is, and what they may not be.

Make them anew with: TUNEGATE_SCREENSHOTS=docs/review python -m pytest tests/unit/review/test_screenshots.py
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import DESKTOP, PHONE, needs_browser, opened
from tests.unit.review.builders import DIGESTS, SUITE_DIGEST
from tests.unit.review.conftest import Serve
from tunegate.evaluation.business import Message
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import CORPUS, SUITE, Answer, Item, Mode, Review, Reviewed

if TYPE_CHECKING:
    from playwright.sync_api import Browser

expect = needs_browser().expect
DOCS = Path(__file__).parents[3] / "docs/review"
SIZE_LIMIT = 200_000  # bytes


@dataclass(frozen=True)
class Picture:
    options: dict[str, Any]
    mode: Mode
    criteria: tuple[Criterion, ...]
    question: str
    context: str
    answers: tuple[str, ...]
    name: str
    keys: str
    comment: str
    reference: str = ""


PICTURES = {
    "desktop": Picture(
        DESKTOP,
        "pairs",
        (
            Criterion(name="preference", question="Which answer would you rather get?"),
            Criterion(name="truth", question="Which one is truer to the catalogue?"),
        ),
        "I need a kettle for the office, for about eight people. Which one?",
        "Catalogue: Serin kettle, 1.7 l, $29; Kest kettle, 0.8 l, $35; both in stock.",
        (
            "The **Serin kettle**: 1.7 litres make about eight cups at a time, and it costs $29.\n\n"
            "The Kest holds 0.8 litres, so you would have to boil twice.",
            "Both are good kettles! We have:\n\n- Serin kettle, $29\n- Kest kettle, $35\n\nWould you like one?",
        ),
        "Ana",
        "bt",
        "A doesn't say which.",
    ),
    "phone": Picture(
        {**PHONE, "locale": "zh-CN", "color_scheme": "dark", "device_scale_factor": 2},
        "single",
        (
            Criterion(name="correct", question="内容是否符合商品信息？"),
            Criterion(name="tone", question="语气是否得体？", points=5),
        ),
        "刚买的台灯不亮了，还能退吗？",
        "七天内可无理由退货，质量问题由商家承担运费。",
        ("可以的。收货七天内都能退；如果是质量问题，**来回运费由我们承担**。方便告诉我订单号吗？",),
        "小林",
        "y",
        "",
    ),
    "decisions": Picture(
        DESKTOP,
        "single",
        (SUITE, CORPUS),
        "Is the Serin kettle quiet enough for an office at night?",
        "Topic: how loud is the kettle\nRated 1 of 5\nThe user said: that is no answer",
        ("It is a great kettle! Buy it today, only a few are left.",),
        "Ana",
        "y",
        "",
        "It boils at 65 dB, about as loud as talking, and stops by itself after three minutes.",
    ),
    "annotation": Picture(
        {**PHONE, "viewport": {"width": 390, "height": 844}, "locale": "zh-CN", "device_scale_factor": 2},
        "single",
        (CORPUS,),
        "买两个双肩包能便宜多少？",
        "打分偏低：2 / 5",
        ("两个一起买有优惠，具体以页面为准。",),
        "小林",
        "y",
        "同款买两个打九五折，结算时自动减；两个双肩包一共 284 元。",
    ),
}


def make(picture: Picture) -> Review:
    items = [
        Item(
            question=f"q{number}",
            messages=(Message(role="user", content=picture.question),),
            context=picture.context,
            reference=picture.reference,
            answers=tuple(Answer(version=place, text=text) for place, text in enumerate(picture.answers)),
            digest=f"sha256:{number:064x}",
        )
        for number in range(12)
    ]
    versions = tuple(
        Reviewed(name=f"shop/run-{n}/checkpoint-1", digest=DIGESTS[n]) for n in range(len(picture.answers))
    )
    about = {"suite": f"shop.{picture.mode}", "digest": SUITE_DIGEST, "versions": versions, "items": tuple(items)}
    return Review(mode=picture.mode, criteria=picture.criteria, share=0, **about)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_the_docs_is_small(browser: Browser, serve: Serve, tmp_path: Path, name: str) -> None:
    picture = PICTURES[name]
    folder = Path(os.environ.get("TUNEGATE_SCREENSHOTS", tmp_path))
    with opened(browser, serve(make(picture)), **picture.options) as page:
        page.locator("input").fill(picture.name)
        page.keyboard.press("Enter")
        for _ in range(4):  # of twelve, all alike
            page.locator(".judge").wait_for()
            expect(page.locator("[aria-pressed=true]")).to_have_count(0)
            for criterion in picture.criteria:
                page.keyboard.press("4" if criterion.points > 2 else "t" if picture.mode == "pairs" else "y")
            expect(page.locator(".ways [aria-disabled=true]")).to_have_count(0)
            page.keyboard.press("Enter")
        expect(page.locator("[aria-pressed=true]")).to_have_count(0)
        for key in picture.keys:
            page.keyboard.press(key)
        page.get_by_text("已保存" if "locale" in picture.options else "Saved").wait_for()
        if picture.comment:
            page.locator("#comment").fill(picture.comment)
        page.screenshot(path=folder / f"{name}.png")

    assert (folder / f"{name}.png").stat().st_size < SIZE_LIMIT
    assert (DOCS / f"{name}.png").stat().st_size < SIZE_LIMIT
