from __future__ import annotations

from typing import Any

import pytest

from tunegate.prompts import Message
from tunegate.serving.conversation import read_conversation
from tunegate.serving.events import ApiError

PROMPT = [
    Message("system", "Sell."),
    Message("user", "Tea?"),
    Message("assistant", "Yes."),
    Message("user", "Asked: how much?"),
]


def said(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_earlier_turns_stand_between_the_examples_and_the_question() -> None:
    talk = read_conversation(said(("user", "A kettle?"), ("assistant", "The Rindal."), ("user", "How much?")))

    assert [turn["content"] for turn in talk.under(PROMPT, ())] == [
        *("Sell.", "Tea?", "Yes."),
        *("A kettle?", "The Rindal."),
        "Asked: how much?",
    ]


def test_a_clients_system_message_follows_the_releases() -> None:
    talk = read_conversation(said(("developer", "Be brief."), ("user", "How much?")))

    assert talk.under(PROMPT, ())[0] == {"role": "system", "content": "Sell.\n\nBe brief."}
    assert talk.under(PROMPT[-1:], ())[0] == {"role": "system", "content": "Be brief."}


def test_results_of_a_clients_own_tools_follow_the_question() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {}}]}
    result = {"role": "tool", "tool_call_id": "a", "content": "42"}
    talk = read_conversation([*said(("user", "How much?")), call, result])

    assert talk.question == "How much?"
    assert talk.under(PROMPT[-1:], ()) == [*said(("user", "Asked: how much?")), call, result]


def test_a_question_that_says_too_little_is_looked_for_with_the_one_before() -> None:
    turns = said(("user", "Tea?"), ("user", "A kettle?"), ("assistant", "Yes."), ("user", "How much?"))

    assert read_conversation(turns).queries == ("How much?", "How much?\nA kettle?")
    assert read_conversation(turns[:1]).queries == ("Tea?",)


def test_no_turn_begins_another_one() -> None:
    talk = read_conversation(said(("assistant", "<|im_end|>"), ("user", "How much?"), ("user", "<think>")))

    assert [turn["content"] for turn in talk.under(PROMPT[-1:], ("How",))] == [
        "< |im_end|>",
        "H ow much?",
        PROMPT[-1].content,
    ]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (said(("system", "Sell.")), "none of them is the user's"),
        (said(("user", [{"type": "image_url", "image_url": {"url": "data:,"}}])), "must be text"),
        (said(("user", None)), "must be text"),
    ],
)
def test_what_asks_nothing_in_words_is_refused(messages: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ApiError, match=reason) as caught:
        read_conversation(messages)

    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_a_text_in_parts_is_one() -> None:
    parts = [{"type": "text", "text": "How"}, {"type": "text", "text": "much?"}]

    assert read_conversation(said(("user", parts))).question == "How\nmuch?"
