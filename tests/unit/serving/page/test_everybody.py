"""The page itself: safe with what models write, and usable by everybody, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.chromium import DESKTOP, PHONE, needs_browser
from tests.unit.serving.page.browser import Opener, Writer, answered, say
from tests.unit.serving.standin import DIGEST, MODEL, WAIT, Server
from tunegate.feedback import FeedbackLog

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = needs_browser().expect
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

HOSTILE = """Look: <script>window.hit = 1</script>

<img src=x onerror="window.hit = 2"><svg onload="window.hit = 3"></svg>

<iframe srcdoc="<script>parent.hit = 4</script>"></iframe>
<style>* { display: none }</style><form><input name=x></form>
<a href="https://elsewhere.example/" onclick="window.hit = 5" style="position: fixed" id="panel">raw</a>

[code](javascript:window.hit=6) [data](data:text/html,x) ![picture](https://elsewhere.example/leak.png)
[fine](https://elsewhere.example/ "<b onclick=hit()>")
"""
LONG = "word" * 200 + "\n\n|" + "wide|" * 40 + "\n|" + "-|" * 40 + "\n\n```\n" + "code " * 100 + "\n```\n"


def test_what_a_model_writes_runs_nothing_and_loads_nothing(open_page: Opener, engine: Writer, server: Server) -> None:
    engine.deltas = [HOSTILE[at : at + 7] for at in range(0, len(HOSTILE), 7)]
    with open_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        answered(page)

        text = page.locator(".answer .text")
        assert page.evaluate("window.hit") is None
        assert text.locator("script, img, svg, iframe, style, form, input, [onclick], [style], [id]").count() == 0
        expect(text).to_contain_text("Look: <script>window.hit = 1</script>")
        links = [link.get_attribute("href") for link in text.locator("a").all()]
        assert [link for link in links if link] == ["https://elsewhere.example/"]
        fine = text.get_by_role("link", name="fine")
        assert (fine.get_attribute("target"), fine.get_attribute("rel")) == ("_blank", "noopener noreferrer")
        assert [url for url in asked if not url.startswith(server.url)] == []


def test_html_is_made_by_the_sanitizer_or_not_at_all(open_page: Opener) -> None:
    with open_page(allowed="TrustedHTML") as page:
        refused = page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>'; } catch (e) { return e.name; } }")
        assert refused == "TypeError"


def test_everything_comes_from_this_server(open_page: Opener, server: Server) -> None:
    with open_page() as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.reload()
        answered(page)

    assert f"{server.url}/playground/vendor/marked.js" in asked
    assert [url for url in asked if not url.startswith(f"{server.url}/")] == []


def test_it_follows_the_answer_only_from_its_end(page: Page, engine: Writer) -> None:
    engine.deltas = ["line\n\n" * 60, WAIT, "last line\n\n" * 30]
    say(page)
    log = page.locator(".log")
    expect(page.locator(".answer .text")).to_contain_text("line")
    below = "log => Math.round(log.scrollHeight - log.clientHeight - log.scrollTop)"
    assert log.evaluate(below) <= 1

    log.evaluate("log => { log.scrollTop = 10; }")
    expect(page.get_by_role("button", name="To the latest")).to_be_visible()
    engine.go_on.set()
    expect(page.locator(".answer .text")).to_contain_text("last line")
    page.locator(".icon.up").wait_for()
    assert log.evaluate("log => log.scrollTop") == 10


def focused(page: Page) -> str:
    name: str = page.evaluate(
        "(e => e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.textContent)(document.activeElement)"
    )
    return name.split("\n")[0].strip()


def test_the_keyboard_alone_will_do(page: Page, engine: Writer, server: Server) -> None:
    expect(page.locator(".composer textarea")).to_be_focused()
    page.keyboard.type("One")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.locator(".composer .primary:enabled").wait_for()
    page.keyboard.press("Enter")
    page.locator(".icon.up").wait_for()
    assert engine.asked[0]["messages"][-1]["content"] == "One\ntwo"

    page.get_by_role("heading", level=1).click()
    order = []
    while "Copy JSON" not in order:
        page.keyboard.press("Tab")
        order.append(focused(page))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", order[-1]
    chat = ["Conversation", "Good answer", "Bad answer", "Copy", "Show its request", "Your message"]
    settings = ["System message", "temperature", "top_p", "max_tokens", "seed", "API key"]
    assert order[:2] == ["New chat", "Switch to 中文"]
    assert order[2:-3] == [*chat, *settings]
    assert order[-2:] == ["Copy as curl", "Copy JSON"]

    page.get_by_role("button", name="Bad answer").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Wrong")).to_be_focused()
    page.keyboard.press("Space")
    for _ in range(7):
        page.keyboard.press("Tab")
    assert focused(page) == "Send verdict"
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Bad answer")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Wrong")).to_be_focused()
    page.keyboard.press("Space")
    for _ in range(7):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Kept, thank you.")).to_be_visible()
    expect(page.locator(".composer textarea")).to_be_focused()
    assert FeedbackLog(server.store).list(DIGEST)[0].feedback.tags == ("wrong",)


def test_enter_that_ends_a_word_of_an_input_method_sends_nothing(page: Page, engine: Writer) -> None:
    field = page.locator(".composer textarea")
    field.fill("ni hao")
    page.locator(".composer .primary:enabled").wait_for()
    field.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    field.press("Enter")
    page.locator(".icon.up").wait_for()
    assert len(engine.asked) == 1


def test_a_phone_has_room_for_everything_and_loses_its_keyboard(open_page: Opener, engine: Writer) -> None:
    engine.deltas = [LONG]
    with open_page(**PHONE) as page:
        answered(page, "w" * 300)
        expect(page.locator(".composer textarea")).not_to_be_focused()
        page.get_by_role("button", name="Bad answer").click()
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0
        assert page.locator(".log").evaluate("log => log.scrollWidth - log.clientWidth") <= 0
        assert page.locator(".composer").bounding_box()["y"] < PHONE["viewport"]["height"]  # type: ignore[index]

        page.get_by_role("button", name="Settings").click()
        expect(page.get_by_label("API key")).to_be_visible()
        expect(page.locator(".composer")).to_be_hidden()
        assert page.evaluate(overflow) <= 0
        page.get_by_role("button", name="Back to the chat").click()
        expect(page.locator(".composer")).to_be_visible()


def test_the_browsers_language_is_spoken_and_can_be_changed(open_page: Opener) -> None:
    with open_page(locale="zh-CN") as page:
        expect(page.get_by_role("heading", name=f"与 {MODEL} 对话")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        answered(page)
        page.get_by_role("button", name="回答得不好").click()
        expect(page.get_by_text("哪里不好")).to_be_visible()

        page.get_by_role("button", name="English").click()
        expect(page.get_by_text("What was wrong?")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "en"
        page.reload()
        expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible()


def test_both_languages_say_the_same_things(page: Page) -> None:
    names = """async () => {
        const { TEXTS } = await import("./playground/language.js");
        const names = (texts) => Object.entries(texts).flatMap(([name, value]) =>
            typeof value === "object" ? names(value).map((inner) => `${name}.${inner}`) : [name]);
        return [names(TEXTS.en), names(TEXTS.zh)];
    }"""
    english, chinese = page.evaluate(names)
    assert english == chinese


@pytest.mark.parametrize(("device", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone, dark"])
def test_nothing_keeps_people_with_disabilities_out(
    open_page: Opener, engine: Writer, device: dict[str, Any], scheme: str
) -> None:
    engine.deltas = [
        {"reasoning_content": "Hm."},
        "**Yes**, [here](https://shop.example/), `code`\n\n> quote\n\n" + LONG,
    ]
    with open_page(color_scheme=scheme, **device) as page:
        assert_accessible(page)
        answered(page)
        page.get_by_role("button", name="Bad answer").click()
        assert_accessible(page)
        engine.refusal = 503
        say(page)
        expect(page.get_by_role("alert")).to_be_visible()
        assert_accessible(page)
        if device is PHONE:
            page.get_by_role("button", name="Settings").click()
            assert_accessible(page)


def assert_accessible(page: Page) -> None:
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    assert [(rule["id"], [node["html"][:150] for node in rule["nodes"]]) for rule in found] == []
