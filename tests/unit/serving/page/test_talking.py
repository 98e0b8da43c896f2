"""Talking to the model on the playground: answers, verdicts, requests and failures, in a real browser."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.chromium import needs_browser
from tests.unit.serving.page.browser import Opener, Writer, answered, relay, say
from tests.unit.serving.standin import DIGEST, MODEL, WAIT, Server
from tests.waiting import wait_for
from tunegate.api.errors import StoreError
from tunegate.feedback import FeedbackLog

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = needs_browser().expect


def test_text_shows_before_the_answer_ends(page: Page, engine: Writer) -> None:
    engine.deltas = ["First ", "half,", WAIT, " **second**."]
    say(page)

    expect(page.locator(".answer .text")).to_have_text("First half,")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    engine.go_on.set()
    expect(page.locator(".answer .text").locator("strong")).to_have_text("second")
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator(".unseen")).to_have_text("Answer: First half, **second**.")


def test_a_conversation_is_sent_with_its_earlier_turns(page: Page, engine: Writer) -> None:
    page.get_by_label("System message").fill("Sell TVs.")
    answered(page, "One?")
    answered(page, "Two?")

    said = [message["content"] for message in engine.asked[1]["messages"]]
    assert "Sell TVs." in said[0]
    assert said[1:] == ["One?", "Hello.", "Two?"]

    page.get_by_role("button", name="New chat").click()
    answered(page, "Three?")
    assert "One?" not in str(engine.asked[2]["messages"])


@pytest.mark.parametrize("by", ["button", "Escape"])
def test_stop_ends_the_engines_work_and_keeps_what_came(page: Page, engine: Writer, by: str) -> None:
    engine.deltas = ["So far", WAIT]
    say(page)
    expect(page.locator(".answer .text")).to_have_text("So far")
    if by == "button":
        page.get_by_role("button", name="Stop", exact=True).click()
    else:
        page.keyboard.press("Escape")

    expect(page.get_by_text("Stopped. What had come is kept.")).to_be_visible()
    expect(page.locator(".answer .text")).to_have_text("So far")
    wait_for(engine.ended.is_set, what="the engine to be released")


def test_a_thumb_down_reaches_the_store_with_version_reason_and_correction(page: Page, server: Server) -> None:
    answered(page)
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_label("Wrong").check()
    page.get_by_label("Tone").check()
    page.get_by_label("Reason (optional)").fill("Too short.")
    page.get_by_label("What it should have said (optional)").fill("Good day.")
    page.get_by_role("button", name="Send verdict").click()
    expect(page.get_by_text("Kept, thank you.")).to_be_visible()
    expect(page.get_by_role("button", name="Bad answer")).to_have_attribute("aria-pressed", "true")

    [record] = FeedbackLog(server.store).list(DIGEST)
    assert record.digest == DIGEST
    assert record.feedback.verdict == "down"
    assert record.feedback.tags == ("wrong", "tone")
    assert (record.feedback.comment, record.feedback.correction) == ("Too short.", "Good day.")


def test_a_verdict_can_be_changed_and_get_a_reason_later(page: Page, server: Server) -> None:
    answered(page)
    for thumb, reason, told in (("Good", "", "Kept"), ("Bad", "", "Changed"), ("Bad", "It is not.", "Changed")):
        page.get_by_role("button", name=f"{thumb} answer").click()
        page.get_by_label("Reason (optional)").fill(reason)
        page.get_by_role("button", name="Send verdict").click()
        expect(page.get_by_text(f"{told}, thank you.")).to_be_visible()
        expect(page.get_by_role("button", name=f"{thumb} answer")).to_have_attribute("aria-pressed", "true")

    [record] = FeedbackLog(server.store).list(DIGEST)
    assert (record.feedback.verdict, record.feedback.comment) == ("down", "It is not.")


def test_a_thumb_up_needs_no_reason_and_counts_for_one_visitor(page: Page, server: Server, engine: Writer) -> None:
    for turn in range(2):
        answered(page)
        page.get_by_role("button", name="Good answer").nth(turn).click()
        page.get_by_role("button", name="Send verdict").click()
        expect(page.get_by_text("Kept, thank you.")).to_have_count(turn + 1)

    records = FeedbackLog(server.store).list(DIGEST)
    users = {server.ids.read(record.feedback.response_id).user for record in records}
    assert [record.feedback.verdict for record in records] == ["up", "up"]
    assert len(users) == 1
    assert users != {None}


def test_a_verdict_that_was_not_stored_says_so_and_can_be_sent_again(page: Page, server: Server) -> None:
    answered(page)
    server.store.failure = StoreError("The store is away.")
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_role("button", name="Send verdict").click()
    expect(page.locator(".reasons .problem")).to_contain_text("could not be stored")

    server.store.failure = None
    page.get_by_role("button", name="Send verdict").click()
    expect(page.get_by_text("Kept, thank you.")).to_be_visible()


def test_the_exact_request_and_answer_are_shown(page: Page) -> None:
    page.get_by_label("max_tokens").fill("7")
    with page.expect_request("**/v1/chat/completions") as sent:
        answered(page, "It's?")

    words = shlex.split(page.locator("#curl").inner_text().replace("\\\n", ""))
    assert words[:3] == ["curl", "-N", sent.value.url]
    assert words[words.index("--data-raw") + 1] == sent.value.post_data
    body = json.loads(sent.value.post_data or "")
    assert (body["model"], body["max_tokens"], body["stream"]) == (MODEL, 7, True)
    assert body.keys() & {"temperature", "top_p", "seed"} == set()

    facts = dict(zip(page.locator("dt").all_inner_texts(), page.locator("dd").all_inner_texts(), strict=True))
    assert facts["status"] == "200"
    assert facts["version"] == f"run-1/checkpoint-10 {DIGEST}"
    assert facts["response id"].startswith("chatcmpl-")
    assert facts["ended by"] == "stop"
    assert facts["tokens"] == "1 asked, 2 answered"
    expect(page.locator(".answer .origin")).to_have_text(f"version run-1/checkpoint-10 {DIGEST[7:19]}")


def test_an_earlier_answers_request_can_be_looked_at(page: Page) -> None:
    answered(page, "First?")
    answered(page, "Second?")
    expect(page.locator("#curl")).to_contain_text("Second?")
    page.get_by_role("button", name="Show its request").first.click()
    expect(page.locator("#curl")).to_be_focused()
    expect(page.locator("#curl")).not_to_contain_text("Second?")


def test_the_canarys_step_is_named(open_page: Opener) -> None:
    with open_page(extra_http_headers={"tunegate-step": "shop-run-2/1"}) as page:  # as a route sets it
        answered(page)
        expect(page.locator(".badge.canary")).to_have_text("canary shop-run-2, step 2")
        assert re.search(r"canary step\s+shop-run-2/1", page.locator("dl").inner_text())


def test_steps_and_sources_have_their_place(page: Page, engine: Writer) -> None:
    engine.deltas = [
        {"reasoning_content": "The wall is 130 cm."},
        {
            "tool_calls": [
                {"index": 0, "id": "1", "type": "function", "function": {"name": "look_up", "arguments": '{"q"'}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": ': "tv"}'}}]},
        "The 55.",
        {
            "annotations": [
                {"type": "url_citation", "url_citation": {"url": "https://shop.example/55", "title": "Sheet"}}
            ]
        },
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "javascript:hit()", "title": "No link"}}]},
    ]
    answered(page)
    page.get_by_text("Steps (2)").click()

    expect(page.locator(".steps")).to_contain_text("The wall is 130 cm.")
    expect(page.locator(".steps pre")).to_have_text('{"q": "tv"}')
    expect(page.locator(".sources a")).to_have_attribute("href", "https://shop.example/55")
    expect(page.locator(".sources li").nth(1)).to_have_text("No link")


def test_an_answer_that_was_cut_off_says_so(page: Page, engine: Writer) -> None:
    engine.finish = "length"
    answered(page)
    expect(page.get_by_text("Cut off at max_tokens.")).to_be_visible()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, "Too many requests at the moment."),
        (503, "The model isn't ready"),
        (400, "The engine refused the request: no"),
    ],
)
def test_a_refusal_is_told_in_words_and_can_be_tried_again(page: Page, engine: Writer, status: int, said: str) -> None:
    engine.refusal = status
    say(page)
    expect(page.get_by_role("alert")).to_contain_text(said)

    engine.refusal = None
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".answer .text")).to_have_text("Hello.")
    expect(page.locator(".question")).to_have_count(1)


def test_an_engine_that_breaks_off_is_told_and_what_came_stays(page: Page, engine: Writer) -> None:
    engine.deltas = ["Half an", {"content": object}]  # no JSON: the stand-in fails here
    say(page)
    expect(page.get_by_role("alert")).to_contain_text("The connection broke before the end of the answer.")
    expect(page.locator(".answer .text")).to_have_text("Half an")


def test_a_connection_that_drops_is_told_and_what_came_stays(page: Page, engine: Writer, server: Server) -> None:
    engine.deltas = ["Half an", WAIT]
    with relay(server) as (url, cut):
        page.goto(url)
        say(page)
        expect(page.locator(".answer .text")).to_have_text("Half an")
        cut()
        expect(page.get_by_role("alert")).to_contain_text("The connection broke before the end of the answer.")
        expect(page.locator(".answer .text")).to_have_text("Half an")


def test_a_model_that_is_not_ready_is_waited_for(open_page: Opener, server: Server) -> None:
    server.state.ready = False
    with open_page() as page:
        expect(page.get_by_role("alert")).to_contain_text("The model isn't ready")
        say(page, "Anybody there?")
        expect(page.get_by_text("Not sent yet")).to_be_visible()
        expect(page.locator(".composer textarea")).to_have_value("Anybody there?")
        expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()
        server.state.ready = True
        expect(page.locator(".answer .text")).to_have_text("Hello.")
        expect(page.locator(".question")).to_have_text("Anybody there?")
        expect(page.locator(".composer textarea")).to_have_value("")
        expect(page.get_by_text("Not sent yet")).to_have_count(0)


def test_a_message_that_waits_is_kept_back_by_changing_it(open_page: Opener, engine: Writer, server: Server) -> None:
    server.state.ready = False
    with open_page() as page:
        say(page, "Anybody there?")
        expect(page.get_by_text("Not sent yet")).to_be_visible()
        page.keyboard.type(" Hello?")
        expect(page.get_by_text("Not sent yet")).to_have_count(0)
        server.state.ready = True
        expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible()
        expect(page.locator(".composer textarea")).to_have_value("Anybody there? Hello?")
        assert engine.asked == []


def test_a_server_that_is_away_is_told_and_asked_again(open_page: Opener, server: Server) -> None:
    with open_page() as page:
        page.route("**/v1/models", lambda route: route.abort())
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("The server can't be reached.")
        page.unroute("**/v1/models")
        expect(page.get_by_role("heading", name=f"Talk to {MODEL}")).to_be_visible()


EVENTS: list[tuple[str, list[str], list[str]]] = [
    ("each line end", ["data: a\n\ndata: b\r\rdata: c\r\n\r\n"], ["a", "b", "c"]),
    ("a CRLF in two pieces", ["data: a\r", "\n\r", "\ndata: b\n\n"], ["a", "b"]),
    ("a character in two pieces is for the decoder", ["data: 夏\n\n"], ["夏"]),
    ("line ends of Unicode are text", ["data: a\u2028b\u2029c\u0085d\n\n"], ["a\u2028b\u2029c\u0085d"]),
    ("several lines of data", ["data: a\ndata:b\ndata:  c\n\n"], ["a\nb\n c"]),
    ("comments and names", [": ping\n\nevent: x\nid: 1\ndata: a\n\n"], ["a"]),
    ("an end that is missing", ["data: a\n\ndata: b\n"], ["a"]),
]


def test_a_stream_of_events_is_read_as_its_standard_says(page: Page) -> None:
    read = """async ([pieces, size]) => {
        const { events } = await import("./playground/chat.js");
        const stream = new ReadableStream({ start(to) {
            for (const piece of pieces) {
                const bytes = new TextEncoder().encode(piece);
                for (let at = 0; at < bytes.length; at += size) to.enqueue(bytes.slice(at, at + size));
            }
            to.close();
        } });
        const found = [];
        for await (const data of events(stream)) found.push(data);
        return found;
    }"""
    for name, pieces, expected in EVENTS:
        for size in (1, 1000):
            assert page.evaluate(read, [pieces, size]) == expected, f"{name}, {size} bytes at a time"
