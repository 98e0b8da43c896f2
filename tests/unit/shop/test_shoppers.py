from typing import Any

import pytest

from tunegate.shop.catalogue import load_catalogue
from tunegate.shop.dialogues import Turn, dialogues, pressed
from tunegate.shop.generate import load_templates
from tunegate.shop.shoppers import Message, Question, judge, load_questions, states, vote

SYSTEM = Message(role="system", content="You are Xuan, a shop assistant. Catalogue: Talvo kettle: $39.")


def question(facts: tuple[tuple[str, ...], ...] = (("$39",),), language: str = "en", **fields: Any) -> Question:
    asked = Message(role="user", content="How much is the Talvo kettle?")
    values = {"intent": "price", "messages": (SYSTEM, asked), "excludes": ("$45",)} | fields
    return Question(id=f"shoppers-{language}-000", facts=facts, **values)


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        pytest.param("The Talvo kettle costs $39.", "up", "states the facts, politely", id="good"),
        pytest.param("It is $39!", "up", "states the facts, politely", id="one exclamation mark is joy"),
        pytest.param("", "down", "empty answer", id="empty"),
        pytest.param(" \n ", "down", "empty answer", id="blank"),
        pytest.param("It costs $49.", "down", "does not say $39", id="wrong fact"),
        pytest.param("It costs $390.", "down", "does not say $39", id="a longer number"),
        pytest.param("It costs $39.50.", "down", "does not say $39", id="another number"),
        pytest.param("It costs $39 or $45.", "down", "says $45", id="contradicts itself"),
        pytest.param("It costs $39!! Lovely.", "down", "presses to buy", id="two exclamation marks"),
        pytest.param("It costs $39. Buy NOW, please.", "down", "presses to buy", id="pressing words"),
        pytest.param("塔沃电水壶售价$39。", "down", "answered in zh", id="wrong language"),
        pytest.param("It costs $39. " + "So " * 60, "down", "too long", id="too long"),
    ],
)
def test_the_first_complaint_decides(answer: str, verdict: str, reason: str) -> None:
    judgment = judge(question(), answer)
    assert (judgment.verdict, judgment.reason) == (verdict, reason)


def test_a_chinese_answer_is_judged_by_the_same_rules() -> None:
    asked = question((("269元",),), "zh", excludes=())
    assert judge(asked, "塔沃电水壶售价269元，需要帮您加入购物车吗？").verdict == "up"
    assert judge(asked, "塔沃电水壶售价269元，错过不再有").reason == "presses to buy"
    assert judge(asked, "The kettle costs 269元.").reason == "answered in en"
    assert judge(asked, "售价1269元。").reason == "does not say 269元"
    assert judge(asked, "售价269元。" + "很好" * 60).reason == "too long"


@pytest.mark.parametrize(
    ("answer", "fact", "stated"),
    [
        ("delivered today", "red", False),
        ("comes in red.", "red", True),
        ("Red, as you like", "red", True),
        ("a 2-year warranty", "2-year", True),
        ("two years", "two year", True),
        ("12 days", "2 day", False),
        ("rated 4.61", "4.6", False),
        ("rated 4.6.", "4.6", True),
        ("1.7 litres", "1.7 litre", True),
        ("需要13天", "3天", False),
    ],
)
def test_a_fact_is_a_word_or_number_of_its_own(answer: str, fact: str, stated: bool) -> None:
    assert states(answer, fact) is stated


@pytest.mark.parametrize("language", ["en", "zh"])
def test_training_answers_are_liked_and_pushy_ones_are_not(language: Any) -> None:
    templates = load_templates()[language]
    for dialogue in dialogues(load_catalogue(), templates, language, "train"):
        for n, turn in enumerate(dialogue.turns):
            asked = _asked(dialogue.id, turn)
            assert judge(asked, turn.answer).verdict == "up", turn
            assert judge(asked, pressed(turn.answer, templates, dialogue.id, n)).reason == "presses to buy"


def _asked(id: str, turn: Turn) -> Question:
    return Question(id=id, intent=turn.intent, messages=(SYSTEM,), facts=turn.facts, excludes=turn.excludes)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_questions_end_with_the_shopper_and_are_many(language: Any) -> None:
    questions = load_questions(language)
    assert len({asked.id for asked in questions}) == len(questions) >= 80
    assert {asked.language for asked in questions} == {language}
    assert all(asked.messages[-1].role == "user" and asked.facts for asked in questions)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_taught_questions_are_others(language: Any) -> None:
    taught = load_questions(language, taught=True)
    assert {asked.language for asked in taught} == {language}
    assert not {asked.messages for asked in taught} & {asked.messages for asked in load_questions(language)}


def test_the_fickle_are_few_and_always_the_same_ones() -> None:
    votes = [vote(question(), "It costs $39.", n, seed=3) for n in range(2000)]
    assert votes == [vote(question(), "It costs $39.", n, seed=3) for n in range(2000)]
    down = [judgment for judgment in votes if judgment.verdict == "down"]
    assert 0.03 < len(down) / 2000 < 0.07
    assert {judgment.reason for judgment in down} == {"fickle, against: states the facts, politely"}
    assert {vote(question(), "", n, fickle=0).verdict for n in range(50)} == {"down"}
