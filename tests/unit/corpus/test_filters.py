"""What is kept out of a corpus, and why; in Chinese, too."""

from __future__ import annotations

import random

import pytest
from rapidfuzz import process
from rapidfuzz.distance import Indel

from tunegate.corpus import filters
from tunegate.corpus.filters import Pool, fault_of_question, fault_of_text, listed, normal, score_in
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


def test_a_list_whose_numbers_have_a_word_is_one() -> None:
    assert listed("Here is the list:\n\nQuestion 1: How much is it?\n问题2：几天送到？\nQuestion: none") == [
        "How much is it?",
        "几天送到？",
    ]


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


def one_by_one(texts: list[str], similarity: float) -> list[bool]:
    """The rule itself: each text beside each that was kept before it."""
    kept: list[str] = []
    taken = []
    for text in map(normal, texts):
        taken.append(not process.extractOne(text, kept, scorer=Indel.normalized_similarity, score_cutoff=similarity))
        kept += [text] * taken[-1]
    return taken


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
@pytest.mark.parametrize(
    ("characters", "most"),
    [
        ("电水壶多少钱快递几天到", 9),
        ("aeinorst 电水壶", 30),
        ("abcde", 90),  # longer than what is compared several at once
        ("aᅡ\u4e61\u4f61\U0001f961", 8),  # folded, these are all the same
    ],
)
def test_what_is_new_is_what_the_rule_says(
    similarity: float, characters: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "_BLOCK", 32)
    monkeypatch.setattr(filters, "_CHOICES", 48)
    draw = random.Random(most)  # noqa: S311 - no secret
    texts = ["".join(draw.choices(characters, k=draw.randrange(most))) for _ in range(150)]
    texts += ["".join(draw.sample(text, len(text))) if draw.random() < 0.3 else text[1:] for text in texts]
    pool, expected = Pool(similarity), one_by_one(texts, similarity)
    assert pool.add_all(texts[:90]) + [pool.add(text) for text in texts[90:95]] + pool.add_all(texts[95:]) == expected
    assert len(pool) == sum(expected)
    assert 2 < sum(expected) < len(texts)
