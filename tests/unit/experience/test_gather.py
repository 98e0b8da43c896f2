"""What users disliked: by topic and by what was served, beside the time before, with what says most first."""

from __future__ import annotations

from datetime import date

import pytest

from tests.unit.experience.logs import DELIVERY, PRICE, WEEK, answered, log
from tunegate.experience.contents import OTHER, Period
from tunegate.experience.gather import experience_of
from tunegate.experience.topics import find_topics


def test_questions_about_the_same_are_one_topic() -> None:
    topics = find_topics([*PRICE, *DELIVERY, "你好"])
    assert len(topics.names) == 2
    price, delivery = (topics.of([group[0]])[0] for group in (PRICE, DELIVERY))
    assert price != delivery
    assert topics.of(PRICE) == [price] * 4
    assert topics.of(["电水壶要多少钱呢", "讲个笑话"]) == [price, None]


def test_the_same_questions_in_another_order_are_the_same_topics() -> None:
    questions = [*PRICE, *DELIVERY]
    assert find_topics(questions).names == find_topics(questions[::-1]).names


def test_what_got_worse_is_told_with_intervals_and_the_time_before() -> None:
    now = [answered(n, PRICE[n % 4], "down" if n < 18 else "up", prompt="shop-zh.md@1") for n in range(20)]
    now += [answered(100 + n, DELIVERY[n % 4], "up") for n in range(20)]
    now += [answered(200, DELIVERY[0], "down"), answered(201, DELIVERY[1], "down"), answered(300, PRICE[0])]
    before = [answered(n, PRICE[n % 4], "down" if n < 2 else "up", week=-1) for n in range(20)]
    before += [answered(100 + n, DELIVERY[n % 4], "up", week=-1) for n in range(20)]
    found = experience_of(log(*before, *now), WEEK)

    price, delivery = found.of("topic")
    assert (price.name in PRICE, delivery.name in DELIVERY) == (True, True)
    assert price.share
    assert price.before
    assert (price.share.down, price.share.judged, price.answers, price.answers_before) == (18, 20, 21, 20)
    assert (price.share.low, price.share.high) == pytest.approx((0.699, 0.972), abs=1e-3)
    assert (price.is_worse, delivery.is_worse, price.is_better) == (True, False, False)
    (whole,) = found.of("all")
    assert whole.share
    assert (whole.share.down, whole.share.judged, whole.answers) == (20, 42, 43)
    prompts = {group.name: group.answers for group in found.of("prompt")}
    assert prompts == {"shop-zh.md@1": 20, OTHER: 23}


def test_one_group_of_many_does_not_stand_out_by_chance() -> None:
    """Four more of ten in one of 12 tools: p = 0.09 alone would not, and 0.02 times twelve does not either."""
    now = [answered(n, PRICE[0], "down" if n % 10 < 5 else "up", tools={f"tool{n // 10}": 1}) for n in range(120)]
    before = [
        answered(n, PRICE[0], "down" if n % 10 < 5 else "up", week=-1, tools={f"tool{n // 10}": 1}) for n in range(120)
    ]
    now[:10] = [answered(n, PRICE[0], "down", tools={"tool0": 1}) for n in range(10)]
    tools = {group.name: group for group in experience_of(log(*before, *now), WEEK).of("tool")}
    assert tools["tool0"].drift is not None
    assert 0.05 < tools["tool0"].drift < 0.5
    assert not tools["tool0"].is_worse


def test_sources_and_tools_are_counted_by_answer() -> None:
    uses = {"tools": {"calculator": 3}, "sources": ("kettles.md", "kettles.md", "returns.md")}
    found = experience_of(log(answered(1, PRICE[0], "down", **uses), answered(2, PRICE[1], "up")), WEEK)
    assert [(group.name, group.answers) for group in found.of("tool")] == [("calculator", 1)]
    assert [(group.name, group.answers) for group in found.of("source")] == [("kettles.md", 1), ("returns.md", 1)]


def test_conversations_that_say_most_come_first_and_once() -> None:
    found = experience_of(
        log(
            answered(1, PRICE[0], "down", conversation="a"),
            answered(2, PRICE[1], "down", conversation="b", comment="贵了", tags=("wrong",)),
            answered(3, PRICE[2], "down", conversation="b", correction="99 元。", tags=("wrong",)),
            answered(4, DELIVERY[0], "down", rating=1),
            answered(5, DELIVERY[1], "up"),
        ),
        WEEK,
    )
    assert [each.correction or each.comment or each.rating for each in found.worst] == ["99 元。", 1, None]
    assert found.reasons == {"wrong": 2}
    assert "chatcmpl" not in str(found), "who has an answer's id may judge it"


def test_proposals_are_of_all_topics_in_turn_and_no_question_twice() -> None:
    many = [answered(n, PRICE[n % 2], "down") for n in range(6)]
    few = [answered(10 + n, DELIVERY[n], "down") for n in range(2)]
    asked = [each.messages[0]["content"] for each in experience_of(log(*many, *few), WEEK).proposals]
    assert len(asked) == 4
    assert {question in PRICE for question in asked[:2]} == {True, False}
    assert len(experience_of(log(*many, *few), WEEK, proposals=1).proposals) == 1


def test_a_user_who_votes_all_day_counts_a_few_times() -> None:
    votes = [answered(n, PRICE[0], "down") for n in range(9)]
    from msgspec.structs import replace

    angry = [replace(each, vote=replace(each.vote, user="0a1b2c3d4e5f")) for each in votes if each.vote]
    (whole,) = experience_of(log(*angry), WEEK).of("all")
    assert whole.share
    assert (whole.share.judged, whole.answers) == (3, 9)


@pytest.mark.parametrize(
    ("found", "note"),
    [
        ([], "Nothing was answered"),
        ([answered(1, PRICE[0])], "Nobody judged"),
        ([answered(1, PRICE[0], "down", texts=False)], "No texts of disliked answers"),
        ([answered(1, PRICE[0], "down", logged=False), answered(2, PRICE[0], "up")], "1 judged answers are known by"),
    ],
)
def test_what_could_not_be_seen_is_said(found: list, note: str) -> None:
    looked = experience_of(log(*found), WEEK)
    assert any(note in each for each in looked.notes), looked.notes
    assert not looked.proposals


def test_the_period_before_is_as_long() -> None:
    assert WEEK.before == Period(since=date(2026, 2, 23), until=date(2026, 3, 1))


def test_questions_in_parts_are_read_and_pictures_left() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": PRICE[0]}]
    found = experience_of(log(answered(1, parts, "down"), answered(2, [parts[0]], "down")), WEEK)  # type: ignore[arg-type]
    assert len(found.proposals) == 1
