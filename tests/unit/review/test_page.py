"""The page of a review in a real browser: keys, what is kept, and that everybody can use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import DESKTOP, PHONE, needs_browser, opened
from tests.unit.experience.logs import PRICE, WEEK, answered, log
from tests.unit.review.builders import CRITERIA, build_review
from tests.unit.review.conftest import Serve, process
from tests.waiting import wait_for
from tunegate.corpus.queue import to_review
from tunegate.corpus.records import Rejected
from tunegate.evaluation.criteria import Criterion
from tunegate.experience.gather import experience_of
from tunegate.experience.proposals import to_review as proposals
from tunegate.review.decisions import take
from tunegate.review.marks import Mark, latest, read

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = needs_browser().expect
axe = pytest.importorskip("axe_playwright_python.sync_playwright")


def join(page: Page, name: str = "Li") -> None:
    """Take a name and wait for the first item, where that is taken."""
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    page.locator(".judge, [role=alert]").first.wait_for()


def marks(folder: Path) -> list[tuple[str, int | str]]:
    lines = read(folder / "marks.jsonl")[0]
    return [(line.criterion, line.value) for line in lines if isinstance(line, Mark)]


def says(page: Page, text: str) -> None:
    expect(page.locator(".progress")).to_contain_text(text)


def test_the_keyboard_alone_judges_single_answers(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    with opened(browser, serve(build_review(questions=2, share=0))) as page:
        join(page)
        says(page, "0 of 2")
        page.keyboard.press("Enter")  # nothing is judged yet, so it stays
        page.keyboard.press("y")
        page.keyboard.press("4")
        says(page, "1 of 2")
        page.keyboard.press("c")
        page.keyboard.type("Says y and 4 too.")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("button", name="Yes")).to_have_attribute("aria-pressed", "false")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("2")
        page.keyboard.press("n")
        says(page, "2 of 2")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Nothing is left for you")).to_be_visible()

    told = [("correct", 1), ("tone", 4), ("comment", "Says y and 4 too."), ("tone", 2), ("correct", 0)]
    assert marks(tmp_path) == told


def test_pairs_are_shown_blind_and_judged_by_side(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    review = build_review("pairs", versions=2, questions=3, share=0, criteria=())
    with opened(browser, serve(review)) as page:
        join(page)
        for done, key in enumerate("atx"):
            says(page, f"{done} of 3")
            expect(page.locator("[aria-pressed=true]")).to_have_count(0)
            expect(page.get_by_role("article", name="Answer B")).to_contain_text("$30 says number")
            page.keyboard.press(key)
            says(page, f"{done + 1} of 3")
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Nothing is left for you")).to_be_visible()
        assert "run-" not in page.content()
    values = [value for _, value in marks(tmp_path)]
    assert values[0] in ("first", "second")
    assert values[1:] == ["tie", "both_bad"]


def test_a_hundred_answers_are_annotated_by_the_keyboard_alone(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    doubts = [Rejected(reason="not judged", question=f"{n}号水壶多少钱？", answer=f"{n}元。") for n in range(100)]
    review = to_review("shop", doubts)
    at = "done => document.querySelector('.progress span')?.textContent === `${done} / 100`"
    fresh = at + " && !document.querySelector('[aria-pressed=true]') && document.querySelector('.judge')"
    with opened(browser, serve(review), locale="zh-CN") as page:
        page.get_by_label("您的姓名").wait_for()
        page.keyboard.press("Tab")  # past the other language
        page.keyboard.press("Tab")
        page.keyboard.type("小林")
        page.keyboard.press("Enter")
        for done in range(100):
            page.wait_for_function(fresh, arg=done)
            if done % 10 == 5:
                page.keyboard.press("e")
                page.keyboard.type("包邮。")
                page.keyboard.press("Escape")
            page.keyboard.press("n" if done % 10 == 9 else "y")
            page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="您的任务已全部完成")).to_be_visible()
    taken = take(review, latest(read(tmp_path / "marks.jsonl")[0]))
    answers = [row["messages"][-1]["content"] for row in taken.rows]
    assert (len(answers), taken.undecided, len(taken.pairs)) == (90, 0, 10)
    assert sum(answer.endswith("元。包邮。") for answer in answers) == 10


def test_what_users_disliked_is_decided_on_in_both_languages(browser: Browser, serve: Serve) -> None:
    found = log(answered(1, PRICE[0], "down", answer="免费。", correction="99 元。", comment="不对", rating=1))
    url = serve(proposals(experience_of(found, WEEK)))
    for locale, name, texts in (
        ("en-US", "Your name", ("Learn from this?", "Proposed instead", "A better answer (optional)")),
        ("zh-CN", "您的姓名", ("把这条用于训练吗？", "建议改为", "更好的回答（可不填）")),
    ):
        with opened(browser, url, locale=locale) as page:
            page.get_by_label(name).fill(locale)
            page.keyboard.press("Enter")
            for text in texts:
                expect(page.get_by_text(text)).to_be_visible()
            page.keyboard.press("e")
            expect(page.locator("#comment")).to_have_value("99 元。")
            expect(page.locator("#comment")).to_be_focused()


def test_an_earlier_mark_is_changed_with_a_reason(browser: Browser, serve: Serve, tmp_path: Path) -> None:
    with opened(browser, serve(build_review(questions=2, share=0, criteria=CRITERIA[1:]))) as page:
        join(page)
        page.keyboard.press("2")
        says(page, "1 of 2")
        page.keyboard.press("3")  # at once: no reason is asked for
        page.keyboard.press("Enter")
        expect(page.locator("[aria-pressed=true]")).to_have_count(0)
        page.keyboard.press("ArrowLeft")
        expect(page.locator("[aria-pressed=true]")).to_have_text("3")
        page.keyboard.press("5")
        expect(page.get_by_label("Why do you change it?")).to_be_focused()
        page.keyboard.type("misread")
        page.keyboard.press("Enter")
        expect(page.locator("[aria-pressed=true]")).to_have_text("5")
        says(page, "Saved")
        page.keyboard.press("ArrowRight")
        expect(page.locator("[aria-pressed=true]")).to_have_count(0)

    lines = [line for line in read(tmp_path / "marks.jsonl")[0] if isinstance(line, Mark)]
    assert [line.value for line in lines] == [2, 3, 5]
    assert [line.reason for line in lines] == ["", "changed before going on", "misread"]
    assert [line.replaces for line in lines] == ["", lines[0].id, lines[1].id]


@pytest.mark.parametrize("device", [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")])
def test_no_question_hides_behind_the_buttons(browser: Browser, serve: Serve, device: dict[str, Any]) -> None:
    criteria = [Criterion(name=f"c{n}", points=4, labels=("never", "hardly", "nearly", "yes")) for n in range(4)]
    with opened(browser, serve(build_review(questions=2, share=0, criteria=criteria)), **device) as page:
        join(page)
        for criterion in criteria:
            page.locator(f"#criterion-{criterion.name}").get_by_role("button", name="yes").click()
        page.get_by_role("button", name="Next").click()
        expect(page.locator("[aria-pressed=true]")).to_have_count(0)
        page.get_by_role("button", name="Back").click()
        # Until the question is there with its marks, none is taken.
        expect(page.locator("[aria-pressed=true]")).to_have_count(len(criteria))
        page.locator("#criterion-c3").get_by_role("button", name="never").click()
        expect(page.get_by_label("Why do you change it?")).to_be_focused()
        below = "(element) => element.getBoundingClientRect().bottom"
        form, top = page.locator(".reasons"), "(element) => element.getBoundingClientRect().top"
        assert form.evaluate(below) <= page.locator(".ways").evaluate(top)


def test_what_was_opened_is_open_for_the_next_item(browser: Browser, serve: Serve) -> None:
    with opened(browser, serve(build_review(questions=2, share=0, criteria=CRITERIA[1:]))) as page:
        join(page)
        told = page.get_by_text("Catalogue: Lovi lamp")
        expect(told).to_be_hidden()
        page.get_by_text("What the assistant was told").click()
        expect(told).to_be_visible()
        page.keyboard.press("4")
        page.keyboard.press("ArrowRight")
        expect(page.locator("[aria-pressed=true]")).to_have_count(0)
        expect(told).to_be_visible()


def test_nothing_is_lost_when_the_server_dies_and_the_page_is_loaded_again(browser: Browser, tmp_path: Path) -> None:
    review = build_review(questions=2, share=0)
    with process(review, tmp_path) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        context = browser.new_context(**DESKTOP, locale="en-US")
        page = context.new_page()
        page.goto(url)
        join(page)
        page.keyboard.press("y")
        wait_for(lambda: marks(tmp_path), what="the mark")
        page.get_by_label("Comment").fill("half a thought")
    page.get_by_role("button", name="4").click()
    says(page, "Not saved yet")
    with process(review, tmp_path, port) as url:
        says(page, "Saved")
        page.goto(url)
        expect(page.locator("[aria-pressed=true]")).to_have_count(0)  # the next item
        says(page, "1 of 2")
        page.get_by_role("button", name="Back").click()
        expect(page.locator("[aria-pressed=true]")).to_have_count(2)
        expect(page.get_by_label("Comment")).to_have_value("half a thought")
        context.close()
    assert set(marks(tmp_path)) >= {("correct", 1), ("tone", 4)}


def test_what_waits_in_the_browser_is_sent_after_a_reload(browser: Browser, tmp_path: Path) -> None:
    review = build_review(questions=1, share=0)
    with process(review, tmp_path) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        context = browser.new_context(**DESKTOP, locale="en-US")
        page = context.new_page()
        page.goto(url)
        join(page)
        page.get_by_label("Comment").fill("a draft\nof two lines")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    says(page, "Not saved yet")
    page.close()
    with process(review, tmp_path, port) as url:
        page = context.new_page()
        page.goto(url)
        expect(page.get_by_role("button", name="No")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_label("Comment")).to_have_value("a draft\nof two lines")
        context.close()
    assert ("correct", 0) in marks(tmp_path)


def test_a_second_person_of_one_name_is_asked_for_the_code(browser: Browser, serve: Serve) -> None:
    url = serve(build_review())
    with opened(browser, url) as page:
        join(page)
        code = page.locator(".badge code").inner_text()
    with opened(browser, url) as page:
        join(page, "LI")
        expect(page.get_by_role("alert")).to_contain_text("Somebody has this name")
        page.get_by_label("The code of that name").fill(code)
        page.keyboard.press("Enter")
        expect(page.locator(".badge")).to_contain_text("Li")


def test_the_token_of_the_address_opens_the_page_and_leaves_the_address(browser: Browser, serve: Serve) -> None:
    url = serve(build_review(), token="secret-of-the-test")
    with opened(browser, url) as page:
        join(page)
        expect(page.get_by_role("alert")).to_contain_text("Open the whole address")
    with opened(browser, f"{url}#token=secret-of-the-test") as page:
        join(page)
        says(page, "0 of 10")
        assert page.url == url


def test_everything_comes_from_this_server_and_html_of_answers_stays_text(browser: Browser, serve: Serve) -> None:
    review = build_review(questions=1, share=0)
    url = serve(review)
    with opened(browser, url, allowed="TrustedHTML") as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        join(page)
        page.reload()
        expect(page.locator(".asked")).to_contain_text("what is the **Lovi lamp**?")
        refused = page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } }")
        assert refused == "TypeError"
        assert f"{url}playground/vendor/marked.js" in asked
        assert [found for found in asked if not found.startswith(url)] == []


@pytest.mark.parametrize("device", [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(browser: Browser, serve: Serve, device: dict[str, Any], scheme: str) -> None:
    review = build_review("pairs", versions=2, questions=2, criteria=())
    with opened(browser, serve(review), **device, color_scheme=scheme, allowed="Trusted") as page:
        join(page)
        page.get_by_role("button", name="A is better").click()
        says(page, "1 of 2")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_language_can_be_changed_and_both_say_the_same_things(browser: Browser, serve: Serve) -> None:
    with opened(browser, serve(build_review(questions=1, share=0)), locale="zh-CN") as page:
        page.get_by_label("您的姓名").fill("小林")
        page.keyboard.press("Enter")
        expect(page.get_by_text("1 最差，5 最好")).to_be_visible()
        page.get_by_role("button", name="English").click()
        expect(page.get_by_text("1 is worst, 5 is best")).to_be_visible()
        names = """async () => {
            const { TEXTS } = await import("./page/language.js");
            return [TEXTS.en, TEXTS.zh].map((texts) => Object.keys(texts).join());
        }"""
        english, chinese = page.evaluate(names)
        assert english == chinese
