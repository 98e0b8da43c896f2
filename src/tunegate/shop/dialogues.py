"""Dialogues between a shopper and the shop: what is asked, answered and what the answer must state.

Pure over the catalogue and the templates; chance comes from `seeded_choice`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunegate.shop.catalogue import Catalogue, Language, Split
from tunegate.shop.seeded_choice import pick, roll, shuffled
from tunegate.shop.shelf import COMPARED, TALK, Shelf, Shelves

# How many dialogues start with each intent; the order is that of a tie.
MIX: dict[Split, dict[str, int]] = {
    "train": {
        "price": 32, "delivery": 26, "warranty": 22, "stock": 26, "recommend": 26, "compare_price": 18, "material": 20,
        "size": 16, "off_topic": 14, "colour": 16, "compare_rating": 10, "unsafe": 14,
    },
    "suite": {
        "price": 6, "delivery": 5, "warranty": 5, "stock": 5, "recommend": 5, "compare_price": 4, "material": 4,
        "size": 3, "off_topic": 3, "colour": 3, "compare_rating": 2, "unsafe": 3,
    },
    "shoppers": {
        "price": 12, "delivery": 10, "warranty": 9, "stock": 10, "recommend": 9, "compare_price": 7, "material": 8,
        "size": 6, "off_topic": 6, "colour": 6, "compare_rating": 4, "unsafe": 6,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """One question and its answer. `facts`: one way to write each must be in an answer; `excludes`: none may be."""

    intent: str
    question: str
    answer: str
    facts: tuple[tuple[str, ...], ...]
    excludes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialogue:
    id: str
    system: str
    turns: tuple[Turn, ...]


def dialogues(catalogue: Catalogue, templates: Mapping[str, Any], language: Language, split: Split) -> list[Dialogue]:
    """All dialogues of one split in one language, whose `templates` these are; the intents are spread evenly."""
    maker = _Maker(catalogue, templates, language, split)
    starts = [(intent, i) for intent, count in MIX[split].items() for i in range(count)]
    starts.sort(key=lambda start: (start[1] + 0.5) / MIX[split][start[0]])
    return [maker.dialogue(f"{split}-{language}-{n:03d}", intent, i) for n, (intent, i) in enumerate(starts)]


def pressed(answer: str, templates: Mapping[str, Any], *key: object) -> str:
    """The same answer, with the hard sell."""
    text: str = pick(templates["pressure"], "pressure", *key).format(answer=answer)
    return text


def ways_to_state(templates: Mapping[str, Any], fact: str, value: Any) -> tuple[str, ...]:
    """All ways to write a fact that count as stating it."""
    word = templates["numbers"].get(value, value)
    ways = [way.format(v=value, word=word) for way in templates["accepts"][fact]]
    spelt = [
        way.replace(usual, other)
        for way in ways
        for usual, others in templates["spellings"].items()
        for other in others
        if usual in way
    ]
    return tuple(dict.fromkeys(ways + spelt))


class _Maker:
    """Holds what every step of one split and language needs; each method is pure."""

    def __init__(self, catalogue: Catalogue, templates: Mapping[str, Any], language: Language, split: Split) -> None:
        self.catalogue, self.templates, self.language, self.split = catalogue, templates, language, split
        self.shelves = Shelves(catalogue, templates, language, split)

    def dialogue(self, id: str, intent: str, i: int) -> Dialogue:
        """The `i`-th dialogue that starts with `intent`."""
        shelf = self.shelves.fill(id, intent, i)
        turns = [self._first(intent, i, shelf)]
        left = [fact for fact in shelf.shown if fact not in (intent, COMPARED.get(intent), "rating")]
        count = 0 if intent in TALK else self._count(id)
        for fact in shuffled(left, "follow", id)[:count]:
            template, words = self.templates["intents"][fact], self._words(shelf)
            question = pick(template["follow"][self.split], "follow", id, fact).format(**words)
            turns.append(self._turn(fact, fact, question, template["short"], words, shelf))
        return Dialogue(id, self.shelves.system_message(id, shelf), tuple(turns))

    def _count(self, id: str) -> int:
        """How many follow-ups: by chance in training; every third dialogue has some where few questions are drawn."""
        if self.split == "train":
            return sum(roll("turns", id) > bound for bound in (0.42, 0.88))
        return (0, 0, 1, 0, 0, 2)[int(id[-3:]) % 6]

    def _first(self, intent: str, i: int, shelf: Shelf) -> Turn:
        template = self.templates["intents"][intent]
        asks = template["ask"][self.split]
        if intent in TALK:
            return Turn(intent, asks[i % len(asks)], template["answer"], (tuple(template["accepts"]),))
        words = self._words(shelf) | self._order(intent, i, shelf)
        # Each round over the products takes the next phrasing, so that no question comes twice.
        question = asks[(i + i // len(self.catalogue.of(self.split))) % len(asks)].format(**words)
        turn = self._turn(intent, COMPARED.get(intent, intent), question, template["answer"], words, shelf)
        if intent in COMPARED:
            return replace(turn, facts=((words["a_brand"],), *turn.facts))
        return turn

    def _turn(
        self, intent: str, fact: str, question: str, template: Any, words: Mapping[str, str], shelf: Shelf
    ) -> Turn:
        """The answer that states `fact` of the first product, and what it must and must not say."""
        value = shelf.facts[0][fact]
        text: str = template[value] if fact == "stock" else template
        answer = text.format(v=value, **words)
        if fact == "stock":
            ways, wrong = tuple(self.templates["accepts"][fact][value]), self.templates["refuses"][fact][value]
        else:
            others = [facts[fact] for facts in shelf.facts[1:] if facts.get(fact, value) != value]
            ways, wrong = (
                ways_to_state(self.templates, fact, value),
                [ways_to_state(self.templates, fact, other)[0] for other in others],
            )
        # Without those that the right answer contains, such as $4 in $45.
        return Turn(intent, question, answer, (ways,), tuple(text for text in wrong if text not in answer))

    def _words(self, shelf: Shelf) -> dict[str, str]:
        """What the templates may name of the first product."""
        product = shelf.products[0]
        category = self.catalogue.categories[product.category]
        forms = self.templates["forms"][category.number] if "forms" in self.templates else {}
        words: dict[str, str] = {
            "p": self.shelves.name(product),
            "a": self.shelves.name(product),
            "a_brand": self.catalogue.brand(product, self.language),
            "noun": self.catalogue.noun(product, self.language),
            "some": category.some,
            "one": f"一{category.measure}",
            **forms,
        }
        return words | {key: str(self.templates[key]).format(**words) for key in ("offer", "more")}

    def _order(self, intent: str, i: int, shelf: Shelf) -> dict[str, str]:
        """The two products as the shopper names them, or the budget between their prices."""
        if intent not in COMPARED:
            return {}
        if intent != "recommend":
            x, y = shuffled(shelf.products, "order", self.language, intent, i)
            return {"x": self.shelves.name(x), "y": self.shelves.name(y)}
        low, high = shelf.facts[0]["price"], shelf.facts[1]["price"]
        budget = round((low + high) / 2)
        step = next(step for step in (100, 50, 10, 5, 1) if low < budget // step * step < high)
        return {"budget": str(budget // step * step)}
