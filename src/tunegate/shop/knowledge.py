"""The shop's knowledge base: all products as tables, and questions that tell how well an index of it is searched.

The help pages beside them, help_en.md and help_zh.md, are edited by hand, as are the questions about them in
knowledge.yaml.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunegate.shop.catalogue import Catalogue, Language, Product
from tunegate.shop.seeded_choice import pick, shuffled

# How many questions of each kind there are in each language.
_NAMED, _DESCRIBED, _BY_ITEM, _NOT_SOLD = 40, 24, 24, 24
_COLUMNS = {
    "en": ("item", "name", "price", "rating", "size", "material", "colour", "warranty", "delivery"),
    "zh": ("货号", "名称", "价格", "评分", "容量", "材质", "颜色", "质保", "配送"),
}
_UNITS: dict[Language, dict[str, str]] = {
    "en": {"price": "${}", "rating": "{} of 5", "warranty": "{}-year warranty", "delivery": "{} days"},
    "zh": {"price": "{}元", "rating": "{}分", "warranty": "{}年", "delivery": "{}天送达"},
}


def knowledge_files(catalogue: Catalogue, templates: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, bytes]:
    """Tables and questions by their paths. written: what is edited by hand, by language."""
    languages: tuple[Language, ...] = ("en", "zh")
    questions = [
        question
        for language in languages
        for question in _questions(catalogue, templates[language], written[language], language)
    ]
    lines = "".join(json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
    tables = {f"knowledge/products_{language}.csv": _table(catalogue, language) for language in languages}
    return {**tables, "knowledge_questions.jsonl": lines.encode()}


def item_number(catalogue: Catalogue, product: Product) -> str:
    """Such as KE-107: where a product stands in the catalogue, below its brand."""
    return f"{product.brand[:2].upper()}-{101 + catalogue.products.index(product)}"


def _table(catalogue: Catalogue, language: Language) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS[language])
    rows.writerows(row_of(catalogue, product, language) for product in catalogue.products)
    return text.getvalue().encode()


def row_of(catalogue: Catalogue, product: Product, language: Language) -> list[str]:
    """What the table says of a product."""
    facts = {
        "price": product.usd if language == "en" else product.cny,
        "rating": product.rating,
        "warranty": product.warranty,
        "delivery": product.days,
    }
    shown = {fact: _UNITS[language][fact].format(value) if value else "" for fact, value in facts.items()}
    described = (catalogue.translated(text, language) for text in (product.size, product.material, product.colour))
    return [
        item_number(catalogue, product),
        name_of(catalogue, product, language),
        shown["price"],
        shown["rating"],
        *described,
        shown["warranty"],
        shown["delivery"],
    ]


def name_of(catalogue: Catalogue, product: Product, language: Language) -> str:
    """Such as Kestrin kettle."""
    space = " " if language == "en" else ""
    return f"{catalogue.brand(product, language)}{space}{catalogue.noun(product, language)}"


def _questions(
    catalogue: Catalogue, templates: Mapping[str, Any], written: Mapping[str, Any], language: Language
) -> Iterator[dict[str, Any]]:
    # A fact of a product, asked for by its name, in the words of the held-out suite and of the shoppers.
    named = [
        {
            "question": _ask(catalogue, templates, product, language, number),
            "contains": [item_number(catalogue, product)],
        }
        for number, product in enumerate(shuffled(catalogue.products, "named", language)[:_NAMED])
    ]
    by_item = []
    for number, product in enumerate(shuffled(catalogue.products, "item", language)[:_BY_ITEM]):
        item = item_number(catalogue, product)
        spelled = (item, item.replace("-", ""), item.lower())[number % 3]
        way = written["item"][number % len(written["item"])]
        by_item.append({"question": way.format(item=spelled), "contains": [item]})
    for group, found in (
        ("help", written["help"]),
        ("named", named),
        ("described", _described(catalogue, written["described"], language)),
        ("item", by_item),
        ("none", [*_not_sold(catalogue, templates, written["item"], language), *written["none"]]),
    ):
        for number, row in enumerate(found):
            asked = {"question": row} if isinstance(row, str) else row
            yield {"id": f"{group}-{language}-{number:02d}", **asked, "group": f"{group}-{language}"}


def _ask(catalogue: Catalogue, templates: Mapping[str, Any], product: Product, language: Language, number: int) -> str:
    facts = [fact for fact in catalogue.asked(product) if fact in templates["intents"] and fact != "stock"]
    ways = templates["intents"][facts[number % len(facts)]]["ask"]
    category = catalogue.categories[product.category]
    forms = templates["forms"][category.number] if "forms" in templates else {}
    way: str = pick([*ways["suite"], *ways["shoppers"]], "way", language, number)
    return way.format(p=name_of(catalogue, product, language), one=f"一{category.measure}", **forms)


def _described(catalogue: Catalogue, ways: list[str], language: Language) -> Iterator[dict[str, Any]]:
    """A product by what it is like; each that is so is right."""
    with_all = [product for product in catalogue.products if product.material and product.colour]
    for number, product in enumerate(shuffled(with_all, "described", language)[:_DESCRIBED]):
        noun = catalogue.noun(product, language)
        looks = [catalogue.translated(text, language) for text in (product.material, product.colour)]
        yield {
            "question": ways[number % len(ways)].format(noun=noun, material=looks[0], colour=looks[1]),
            "contains": [noun, *looks],
        }


def _not_sold(catalogue: Catalogue, templates: Mapping[str, Any], ways: list[str], language: Language) -> Iterator[str]:
    """Products that the shop does not have: a known brand with another thing, and item numbers of nothing."""
    missing = missing_products(catalogue)
    for number, product in enumerate(shuffled(missing, "missing", language)[: _NOT_SOLD // 2]):
        yield _ask(catalogue, templates, product, language, number)
    for number, brand in enumerate(shuffled(sorted(catalogue.brands), "numbers", language)[: _NOT_SOLD // 2]):
        yield ways[number % len(ways)].format(item=f"{brand[:2].upper()}-{501 + 7 * number}")


def missing_products(catalogue: Catalogue) -> list[Product]:
    """What the shop does not have: its brands with things that it has of other brands."""
    sold = {(product.brand, product.category) for product in catalogue.products}
    return [
        Product(brand=brand, category=category, split="suite", usd=1, cny=1, rating=1.0, days=1, warranty=1)
        for brand in catalogue.brands
        for category in {product.category: product for product in catalogue.products}
        if (brand, category) not in sold
    ]
