"""Questions about products that come without the catalogue: who answers must know it, or says so.

Some of the products are not sold. A suite for gates and the questions of simulated shoppers, from the catalogue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunegate.shop.catalogue import Catalogue, Language, Product, Split
from tunegate.shop.dialogues import ways_to_state
from tunegate.shop.knowledge import missing_products, name_of, row_of
from tunegate.shop.seeded_choice import shuffled

FACTS = ("price", "warranty", "size", "delivery")
NOT_SOLD = "not_sold"
"""The intent of questions about what the shop does not have."""
_EVERY = 4  # so many questions to one about a product that is not sold
_COUNT: dict[Split, int] = {"suite": 24, "shoppers": 40}


@dataclass(frozen=True)
class ProductQuestion:
    """facts: one way to write each must be in the answer. numbers: all that the catalogue has of the product."""

    id: str
    intent: str
    question: str
    facts: tuple[tuple[str, ...], ...]
    numbers: tuple[float, ...]


def product_questions(
    catalogue: Catalogue, templates: Mapping[str, Any], language: Language, split: Split
) -> Iterator[ProductQuestion]:
    """The questions of one split, every fourth about a product that is not sold."""
    sold = shuffled(catalogue.of(split), "products", language)
    missing = shuffled(missing_products(catalogue), "not sold", language, split)
    for number in range(_COUNT[split]):
        id = f"products-{split}-{language}-{number:03d}"
        is_sold = number % _EVERY < _EVERY - 1
        product = sold[number % len(sold)] if is_sold else missing[number]
        facts = [fact for fact in FACTS if fact in catalogue.asked(product)]
        fact = facts[number % len(facts)]
        question = _ask(catalogue, templates, product, language, templates["intents"][fact]["ask"][split], number)
        if is_sold:
            known = row_of(catalogue, product, language)
            numbers = tuple(dict.fromkeys(float(text) for text in re.findall(r"\d+(?:\.\d+)?", " ".join(known))))
            yield ProductQuestion(id, fact, question, (_ways(catalogue, templates, product, language, fact),), numbers)
        else:
            yield ProductQuestion(id, NOT_SOLD, question, (tuple(templates["not_sold"]),), ())


def _ask(
    catalogue: Catalogue,
    templates: Mapping[str, Any],
    product: Product,
    language: Language,
    ways: list[str],
    number: int,
) -> str:
    category = catalogue.categories[product.category]
    forms = templates["forms"][category.number] if "forms" in templates else {}
    name = name_of(catalogue, product, language)
    return ways[number % len(ways)].format(p=name, one=f"一{category.measure}", **forms)


def _ways(
    catalogue: Catalogue, templates: Mapping[str, Any], product: Product, language: Language, fact: str
) -> tuple[str, ...]:
    values = {
        "price": product.usd if language == "en" else product.cny,
        "warranty": product.warranty,
        "size": catalogue.translated(product.size, language),
        "delivery": product.days,
    }
    return ways_to_state(templates, fact, values[fact])
