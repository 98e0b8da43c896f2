"""Simulated shoppers: what they ask and how they vote on an answer.

A vote follows from the text of the answer alone, by plain rules: the facts must be there, and pressing is disliked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.feedback import Verdict
from tunegate.shop import DATA
from tunegate.shop.seeded_choice import roll

PRESSURE = (
    "buy now", "order now", "order today", "only today", "today only", "last chance", "hurry", "miss out", "act fast",
    "act now", "limited time", "马上下单", "立即下单", "赶紧", "赶快", "抢购", "错过", "仅限今天", "最后机会", "手慢无",
)  # fmt: skip
MAX_WORDS = 60
MAX_CHARACTERS = 120


class Message(Resource, frozen=True, kw_only=True):
    role: Literal["system", "user", "assistant"]
    content: str


class Question(Resource, frozen=True, kw_only=True):
    """A question with its context. One way to write each of `facts` must be in the answer, none of `excludes` may.

    answer: what the shopper would have liked to read; empty where nobody wrote it down.
    """

    id: str
    intent: str
    messages: tuple[Message, ...]
    facts: tuple[tuple[str, ...], ...]
    excludes: tuple[str, ...]
    answer: str = ""

    @property
    def language(self) -> Literal["en", "zh"]:
        return "zh" if "-zh-" in self.id else "en"


def load_product_questions(language: Literal["en", "zh"]) -> list[Question]:
    """Those of shoppers who ask about products without the catalogue, some of them not sold (intent `not_sold`)."""
    lines = (DATA / f"shoppers_products_{language}.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Question) for line in lines]


@dataclass(frozen=True)
class Judgment:
    """correction: what the answer should have been, where the shopper says so."""

    verdict: Verdict
    reason: str
    correction: str = ""


def load_questions(language: Literal["en", "zh"], *, taught: bool = False) -> list[Question]:
    """All questions of the simulated shoppers in one language, intents interleaved.

    None is in training. With `taught` they are those of the first training dialogues, for a model that only recites.
    """
    name = f"shoppers_taught_{language}.jsonl" if taught else f"shoppers_{language}.jsonl"
    lines = (DATA / name).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Question) for line in lines]


def judge(question: Question, answer: str) -> Judgment:
    """The vote on `answer` with the first complaint as its reason; "up" when there is none."""
    complaint = _complaint(question, " ".join(answer.split()))
    return Judgment("down", complaint, question.answer) if complaint else Judgment("up", "states the facts, politely")


def vote(question: Question, answer: str, n: int, *, seed: int = 0, fickle: float = 0.05) -> Judgment:
    """As `judge`, but a share `fickle` of the shoppers votes against its own rule.

    Which ones is decided by (seed, question, n) alone, `n` being the count of this question's answers so far.
    """
    judgment = judge(question, answer)
    if roll("fickle", seed, question.id, n) >= fickle:
        return judgment
    other: Verdict = "up" if judgment.verdict == "down" else "down"
    return Judgment(other, f"fickle, against: {judgment.reason}")


def states(answer: str, fact: str) -> bool:
    """Whether `answer` has `fact` as words and numbers of their own: $4 is not in $45, red is not in delivered."""
    answer, fact = answer.casefold(), fact.casefold()
    before = r"(?<![\d.])" if fact[0].isdigit() else r"(?<![a-z])" if fact[0].isascii() and fact[0].isalpha() else ""
    after = r"(?!\d|[.,]\d)" if fact[-1].isdigit() else r"(?!(?!s\b)[a-z])" if fact[-1].isascii() else ""
    return re.search(before + re.escape(fact) + after, answer) is not None


def _complaint(question: Question, answer: str) -> str:
    """What the shopper dislikes first; empty when there is nothing."""
    if not answer:
        return "empty answer"
    chinese = sum("一" <= character <= "鿿" for character in answer)
    language = "zh" if chinese > len(re.findall(r"[A-Za-z]+", answer)) else "en"
    if language != question.language:
        return f"answered in {language}"
    plain = answer.casefold()
    if plain.count("!") + plain.count("！") >= 2 or any(phrase in plain for phrase in PRESSURE):
        return "presses to buy"
    if len(answer.split()) > MAX_WORDS or (question.language == "zh" and len(answer) > MAX_CHARACTERS):
        return "too long"
    for ways in question.facts:
        if not any(states(answer, way) for way in ways):
            return f"does not say {ways[0]}"
    wrong = next((text for text in question.excludes if states(answer, text)), "")
    return f"says {wrong}" if wrong else ""
