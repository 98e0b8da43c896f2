"""Dialogues between a shopper and the shop: what is asked, answered and what the answer must state.

Pure over the catalogue and the templates; chance comes from `dice`. Knows nothing of files, suites or judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunegate.shop.catalogue import Catalogue, Language, Product, Split
from tunegate.shop.seeded_choice import pick, roll, shuffled

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
TALK = ("off_topic", "unsafe")
COMPARED = {"compare_price": "price", "compare_rating": "rating", "recommend": "price"}


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


@dataclass(frozen=True)
class Shelf:
    """The products of one dialogue, the one it is about first, with their facts of that day."""

    products: tuple[Product, ...]
    facts: tuple[Mapping[str, Any], ...]
    shown: tuple[str, ...]


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


class _Maker:
    """Holds what every step of one split and language needs; each method is pure."""

    def __init__(self, catalogue: Catalogue, templates: Mapping[str, Any], language: Language, split: Split) -> None:
        self.catalogue, self.templates, self.language, self.split = catalogue, templates, language, split

    def dialogue(self, id: str, intent: str, i: int) -> Dialogue:
        """The `i`-th dialogue that starts with `intent`."""
        shelf = self._shelf(id, intent, i)
        first = self._first(intent, i, shelf)
        return Dialogue(id, self._system(id, shelf), (first, *self._follow_ups(id, intent, shelf)))

    def _follow_ups(self, id: str, intent: str, shelf: Shelf) -> list[Turn]:
        asked = [fact for fact in shelf.shown if fact not in (intent, COMPARED.get(intent)) and fact != "rating"]
        count = 0 if intent in TALK else self._count(id)
        return [self._follow_up(id, fact, shelf) for fact in shuffled(asked, "follow", id)[:count]]

    def _count(self, id: str) -> int:
        """How many follow-ups: by chance in training; every third dialogue has some where few questions are drawn."""
        if self.split == "train":
            return sum(roll("turns", id) > bound for bound in (0.42, 0.88))
        return (0, 0, 1, 0, 0, 2)[int(id[-3:]) % 6]

    def _shelf(self, id: str, intent: str, i: int) -> Shelf:
        products = self._pair(id, intent, i) if intent in COMPARED else self._single(id, intent, i)
        fact = COMPARED.get(intent, intent)
        others = [name for name in self._asked(products[0]) if name not in (fact, "stock")]
        facts = tuple(self._facts(product, id) for product in products)
        # Only what is in stock is offered for the basket, so only then is the stock shown without being asked for.
        stock = ["stock"] if roll("stock", id) < 0.2 and facts[0]["stock"] == "in" and intent not in TALK else []
        extra = shuffled(others, "shown", id)[: 1 if len(products) > 1 else 2]
        return Shelf(products, facts, (fact, *extra, *stock))

    def _facts(self, product: Product, id: str) -> dict[str, Any]:
        return self.catalogue.facts(product, self.language, id)

    def _asked(self, product: Product) -> list[str]:
        return [fact for fact in self.catalogue.asked(product) if fact in self.templates["intents"]]

    def _single(self, id: str, intent: str, i: int) -> tuple[Product, ...]:
        """A product that has what is asked, and sometimes another beside it."""
        stocked = self.catalogue.of(self.split)
        fitting = [product for product in stocked if intent in TALK or intent in self._asked(product)]
        product = shuffled(fitting, "single", self.language, intent)[i % len(fitting)]
        others = [other for other in fitting if other != product]
        return (product, pick(others, "other", id)) if roll("beside", id) < 0.3 else (product,)

    def _pair(self, id: str, intent: str, i: int) -> tuple[Product, Product]:
        """Two products of one category that differ clearly; the better one first."""
        stocked = self.catalogue.of(self.split)
        pairs = [
            (a, b) for a in stocked for b in stocked if a.category == b.category and self._better(intent, id, a, b)
        ]
        # The categories take turns, so that a small split does not ask of one category only.
        categories = shuffled(sorted({a.category for a, _ in pairs}), "category", self.language, intent)
        category = categories[i % len(categories)]
        return pick([pair for pair in pairs if pair[0].category == category], "pair", id)

    def _better(self, intent: str, id: str, a: Product, b: Product) -> bool:
        if intent == "compare_rating":
            return a.rating >= b.rating + 0.2
        return bool(self._facts(a, id)["price"] * 1.25 <= self._facts(b, id)["price"])

    def _first(self, intent: str, i: int, shelf: Shelf) -> Turn:
        template = self.templates["intents"][intent]
        asks = template["ask"][self.split]
        words = self._words(shelf) | self._order(intent, i, shelf)
        if intent in TALK:
            return Turn(intent, asks[i % len(asks)], template["answer"], (tuple(template["accepts"]),))
        # Each round over the products takes the next phrasing, so that no question comes twice.
        ask = asks[(i + i // len(self.catalogue.of(self.split))) % len(asks)]
        fact = COMPARED.get(intent, intent)
        facts, excludes = self._stated(fact, shelf)
        if intent in COMPARED:
            facts = ((words["a_brand"],), *facts)
        answer = self._answer(template["answer"], fact, words, shelf)
        return Turn(intent, ask.format(**words), answer, facts, self._harmless(excludes, answer))

    def _follow_up(self, id: str, fact: str, shelf: Shelf) -> Turn:
        template = self.templates["intents"][fact]
        words = self._words(shelf)
        question = pick(template["follow"][self.split], "follow", id, fact).format(**words)
        facts, excludes = self._stated(fact, shelf)
        answer = self._answer(template["short"], fact, words, shelf)
        return Turn(fact, question, answer, facts, self._harmless(excludes, answer))

    def _answer(self, template: Any, fact: str, words: Mapping[str, str], shelf: Shelf) -> str:
        value = shelf.facts[0][fact]
        text: str = template[value] if fact == "stock" else template
        return text.format(v=value, **words)

    def _stated(self, fact: str, shelf: Shelf) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        """The ways to state the fact of the first product, and those of the others, which would be wrong."""
        value = shelf.facts[0][fact]
        if fact == "stock":
            return (tuple(self.templates["accepts"][fact][value]),), tuple(self.templates["refuses"][fact][value])
        others = [facts[fact] for facts in shelf.facts[1:] if facts.get(fact, value) != value]
        return (self._ways(fact, value),), tuple(self._ways(fact, other)[0] for other in others)

    def _ways(self, fact: str, value: Any) -> tuple[str, ...]:
        word = self.templates["numbers"].get(value, value)
        ways = [way.format(v=value, word=word) for way in self.templates["accepts"][fact]]
        spelt = [
            way.replace(usual, other)
            for way in ways
            for usual, others in self.templates["spellings"].items()
            for other in others
            if usual in way
        ]
        return tuple(dict.fromkeys(ways + spelt))

    @staticmethod
    def _harmless(excludes: Sequence[str], answer: str) -> tuple[str, ...]:
        """Without those that the right answer contains, such as $4 in $45."""
        return tuple(text for text in excludes if text not in answer)

    def _words(self, shelf: Shelf) -> dict[str, str]:
        """What the templates may name of the first product."""
        product = shelf.products[0]
        category = self.catalogue.categories[product.category]
        forms = self.templates["forms"][category.number] if "forms" in self.templates else {}
        words: dict[str, str] = {
            "p": self._name(product),
            "a": self._name(product),
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
            return {"x": self._name(x), "y": self._name(y)}
        low, high = shelf.facts[0]["price"], shelf.facts[1]["price"]
        budget = round((low + high) / 2)
        step = next(step for step in (100, 50, 10, 5, 1) if low < budget // step * step < high)
        return {"budget": str(budget // step * step)}

    def _name(self, product: Product) -> str:
        brand, noun = self.catalogue.brand(product, self.language), self.catalogue.noun(product, self.language)
        name: str = self.templates["product"].format(brand=brand, noun=noun)
        return name

    def _system(self, id: str, shelf: Shelf) -> str:
        order = shuffled(range(len(shelf.products)), "snippet", id)
        snippet = self.templates["between_products"].join(self._line(shelf, i) for i in order)
        text: str = self.templates["system"].format(snippet=snippet + self.templates["end"])
        return text

    def _line(self, shelf: Shelf, i: int) -> str:
        """One product with the facts that are shown, in the order of the catalogue."""
        facts = shelf.facts[i]
        shown = [fact for fact in self.templates["facts"] if fact in shelf.shown and fact in facts]
        lines = [self._fact(fact, facts[fact]) for fact in shown]
        colon = ": " if self.language == "en" else "："
        return self._name(shelf.products[i]) + colon + str(self.templates["between_facts"]).join(lines)

    def _fact(self, fact: str, value: Any) -> str:
        template = self.templates["facts"][fact]
        text: str = template[value] if fact == "stock" else template.format(v=value)
        return text
