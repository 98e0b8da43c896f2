"""What is kept out of a corpus, and why; in Chinese, too."""

from __future__ import annotations

import random

import pytest

from tunegate.corpus.filters import Pool, fault_of_question, fault_of_text, listed, score_in
from tunegate.corpus.plan import Filters

RULES = Filters(min_characters=4, max_characters=40, blocked=("竞品",))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("电水壶多少钱？", None),
        ("抱歉，我们没有这款，有别的颜色吗？", None),
        ("多少？！", "short"),
        ("电" * 2 + "水壶多少钱" * 9, "long"),
        ("What does it cost?", "language"),
        ("这个和竞品比怎么样？", "blocked"),
        ("电水壶\ufffd\ufffd多少钱？", "garbled"),
        ("作为一个AI语言模型，我没有价格", "refusal"),
        ("很抱歉，我无法回答这个问题。", "refusal"),
        ("好的好的好的好的好的好的", "repetition"),
    ],
)
def test_a_question_is_taken_or_has_one_word_for_why_not(text: str, reason: str | None) -> None:
    assert fault_of_question(text, "zh", RULES) == reason


@pytest.mark.parametrize(
    "text", ["I'm sorry, it is out of stock until Friday.", "抱歉，这款没有货，无法在周五前送到。"]
)
def test_a_shop_that_has_to_say_no_gives_an_answer(text: str) -> None:
    assert fault_of_text(text, Filters()) is None


def test_a_list_is_read_whatever_stands_around_it() -> None:
    reply = "好的，以下是问题：\n1. 电水壶多少钱？\n2、“多久送到？”\n３） no\n(3) x\n- 能退吗？\n\n希望有帮助。"
    assert listed(reply) == ["电水壶多少钱？", "多久送到？", "no", "能退吗？"]


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("分数：4", 4),
        ("Score: 5", 5),
        ("分数: ４", 4),
        ("很好", None),
        ("分数：4\n分数：2", None),
        ("Score: 4.5", None),
        ("score 12", None),
    ],
)
def test_a_score_is_read_or_not_guessed(reply: str, score: int | None) -> None:
    assert score_in(reply) == score


def test_near_duplicates_are_found_in_chinese() -> None:
    pool = Pool(0.7)
    assert pool.add("这个电水壶多少钱？")
    assert not pool.add("这个电水壶多少钱呢")
    assert not pool.add("这个 电水壶，多少钱?")
    assert pool.add("退货要怎么办理？")
    assert len(pool) == 2


def test_all_at_once_is_as_one_by_one() -> None:
    draw = random.Random(1)  # noqa: S311 - no secret
    texts = ["".join(draw.choices("电水壶多少钱快递几天到", k=draw.randrange(3, 9))) for _ in range(300)]
    one, other = Pool(0.7), Pool(0.7)
    expected = [one.add(text) for text in texts]
    assert other.add_all(texts[:100]) + other.add_all(texts[100:]) == expected
    assert 20 < sum(expected) < 280
