"""What the shop sells, and how a product looks on one day in one language.

Reads catalogue.yaml.
"""

from __future__ import annotations

from typing import Any, Literal

from tunegate.api.codec import Resource, from_yaml
from tunegate.shop import DATA
from tunegate.shop.seeded_choice import pick, roll

Language = Literal["en", "zh"]
Split = Literal["train", "suite", "shoppers"]
FACTS = ("price", "rating", "size", "material", "colour", "warranty", "stock", "delivery")


class Category(Resource, frozen=True, kw_only=True):
    number: Literal["one", "many"]
    some: str
    zh: str
    measure: str
    unasked: tuple[str, ...] = ()


class Product(Resource, frozen=True, kw_only=True):
    """`usd` and `cny` are usual prices, `warranty` is in years (0: none), `days` the usual time of delivery."""

    brand: str
    category: str
    split: Split
    usd: int
    cny: int
    rating: float
    days: int
    size: str = ""
    material: str = ""
    colour: str = ""
    warranty: int = 0


class Catalogue(Resource, frozen=True, kw_only=True):
    brands: dict[str, str]
    categories: dict[str, Category]
    words: dict[str, str]
    products: tuple[Product, ...]

    def of(self, split: Split) -> list[Product]:
        return [product for product in self.products if product.split == split]

    def noun(self, product: Product, language: Language) -> str:
        return product.category if language == "en" else self.categories[product.category].zh

    def brand(self, product: Product, language: Language) -> str:
        return product.brand if language == "en" else self.brands[product.brand]

    def translated(self, text: str, language: Language) -> str:
        """A size, material or colour as that language writes it."""
        if language == "en":
            return text
        for english, chinese in self.words.items():
            text = text.removesuffix(english) + chinese if text.endswith(english) else text
        return text

    def facts(self, product: Product, language: Language, *day: object) -> dict[str, Any]:
        """The facts of `product` on the day that the key `day` stands for; a fact it lacks is absent.

        Price, stock and delivery change from day to day, so that an answer must be read from the context.
        """
        price = product.usd if language == "en" else product.cny
        facts = {
            "price": round(price * (0.85 + 0.3 * roll("price", product.brand, product.category, *day))),
            "rating": product.rating,
            "size": self.translated(product.size, language),
            "material": self.translated(product.material, language),
            "colour": self.translated(product.colour, language),
            "warranty": product.warranty,
            "stock": pick(("in", "out"), "stock", product.brand, product.category, *day),
            "delivery": max(2, product.days + pick((-1, 0, 1), "days", product.brand, product.category, *day)),
        }
        return {name: value for name, value in facts.items() if value}

    def asked(self, product: Product) -> list[str]:
        """The facts a shopper may ask of `product`."""
        has = self.facts(product, "en")
        return [fact for fact in FACTS if fact in has and fact not in self.categories[product.category].unasked]


def load_catalogue() -> Catalogue:
    path = DATA / "catalogue.yaml"
    return from_yaml(path.read_bytes(), Catalogue, path.name)
