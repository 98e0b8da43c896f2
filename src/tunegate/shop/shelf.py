"""Which products a dialogue is about, with their facts of that day, and how the system message shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunegate.shop.catalogue import Catalogue, Language, Product, Split
from tunegate.shop.seeded_choice import pick, roll, shuffled

TALK = ("off_topic", "unsafe")
COMPARED = {"compare_price": "price", "compare_rating": "rating", "recommend": "price"}


@dataclass(frozen=True)
class Shelf:
    """The products of one dialogue, the one it is about first, with their facts of that day.

    shown: the facts that the system message shows.
    """

    products: tuple[Product, ...]
    facts: tuple[Mapping[str, Any], ...]
    shown: tuple[str, ...]


@dataclass(frozen=True)
class Shelves:
    """Fills and describes the shelves of one split in one language, whose `templates` these are."""

    catalogue: Catalogue
    templates: Mapping[str, Any]
    language: Language
    split: Split

    def fill(self, id: str, intent: str, i: int) -> Shelf:
        """The shelf of dialogue `id`, the `i`-th that starts with `intent`."""
        if intent in COMPARED:
            products: tuple[Product, ...] = self._pair(id, intent, i)
        else:  # a product that has what is asked, and sometimes another beside it
            stocked = self.catalogue.of(self.split)
            fitting = [product for product in stocked if intent in TALK or intent in self._asked(product)]
            product = shuffled(fitting, "single", self.language, intent)[i % len(fitting)]
            rest = [beside for beside in fitting if beside != product]
            products = (product, pick(rest, "other", id)) if roll("beside", id) < 0.3 else (product,)
        fact = COMPARED.get(intent, intent)
        others = [name for name in self._asked(products[0]) if name not in (fact, "stock")]
        facts = tuple(self.catalogue.facts(product, self.language, id) for product in products)
        # Only what is in stock is offered for the basket, so only then is the stock shown without being asked for.
        stock = ["stock"] if roll("stock", id) < 0.2 and facts[0]["stock"] == "in" and intent not in TALK else []
        extra = shuffled(others, "shown", id)[: 1 if len(products) > 1 else 2]
        return Shelf(products, facts, (fact, *extra, *stock))

    def name(self, product: Product) -> str:
        """The product as a text names it."""
        brand, noun = self.catalogue.brand(product, self.language), self.catalogue.noun(product, self.language)
        name: str = self.templates["product"].format(brand=brand, noun=noun)
        return name

    def system_message(self, id: str, shelf: Shelf) -> str:
        """The system message of dialogue `id`: the products in any order, their facts in the order of the templates."""
        colon = ": " if self.language == "en" else "："
        lines = []
        for product, facts in shuffled(tuple(zip(shelf.products, shelf.facts, strict=True)), "snippet", id):
            texts = [
                template[facts[fact]] if fact == "stock" else template.format(v=facts[fact])
                for fact, template in self.templates["facts"].items()
                if fact in shelf.shown and fact in facts
            ]
            lines.append(self.name(product) + colon + self.templates["between_facts"].join(texts))
        snippet = self.templates["between_products"].join(lines)
        text: str = self.templates["system"].format(snippet=snippet + self.templates["end"])
        return text

    def _asked(self, product: Product) -> list[str]:
        return [fact for fact in self.catalogue.asked(product) if fact in self.templates["intents"]]

    def _pair(self, id: str, intent: str, i: int) -> tuple[Product, Product]:
        """Two products of one category that differ clearly; the better one first."""

        def is_better(a: Product, b: Product) -> bool:
            if intent == "compare_rating":
                return a.rating >= b.rating + 0.2
            prices = [self.catalogue.facts(product, self.language, id)["price"] for product in (a, b)]
            return bool(prices[0] * 1.25 <= prices[1])

        stocked = self.catalogue.of(self.split)
        pairs = [(a, b) for a in stocked for b in stocked if a.category == b.category and is_better(a, b)]
        # The categories take turns, so that a small split does not ask of one category only.
        categories = shuffled(sorted({a.category for a, _ in pairs}), "category", self.language, intent)
        category = categories[i % len(categories)]
        return pick([pair for pair in pairs if pair[0].category == category], "pair", id)
