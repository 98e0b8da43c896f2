"""Multiple-choice questions that are computed: from numbers, from a word list, from the catalogue.

Each is a pure function of its number `i`, so every right answer is computed and none is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunegate.shop.catalogue import Catalogue, Language
from tunegate.shop.seeded_choice import pick, roll, shuffled

WEEKDAYS = "一二三四五六日"


@dataclass(frozen=True)
class Choice:
    """A question with its right option first; `why` explains it where the question is a solved example."""

    question: str
    options: tuple[str, ...]
    why: str = ""


def translation(words: Sequence[tuple[str, str]], i: int) -> Choice:
    """What a word means, from English and into it in turn."""
    english, chinese = words[i]
    others = shuffled([word for word in words if word[0] != english], "words", i)[:3]
    why = f"{english} 就是“{chinese}”"
    if i % 2:
        return Choice(f"“{chinese}”用英语怎么说？", (english, *(other for other, _ in others)), why)
    return Choice(f"“{english}”的意思是？", (chinese, *(other for _, other in others)), why)


def comparison(catalogue: Catalogue, i: int) -> Choice:
    """Four products with one fact each, and which is best at it; every third question in English."""
    language: Language = "en" if i % 3 == 2 else "zh"
    price = i % 2 == 0
    products = shuffled(catalogue.products, "reading", i)
    facts = {
        (product.usd if language == "en" else product.cny) if price else product.rating: product for product in products
    }
    chosen = list(facts.items())[:4]
    best = (min if price else max)(value for value, _ in chosen)
    space = " " if language == "en" else ""
    names = {
        value: catalogue.brand(product, language) + space + catalogue.noun(product, language)
        for value, product in chosen
    }
    unit = ("${}" if language == "en" else "{}元") if price else ("rated {}" if language == "en" else "评分{}")
    listed = [f"{name}{': ' if language == 'en' else '：'}{unit.format(value)}" for value, name in names.items()]
    options = (names[best], *(name for value, name in names.items() if value != best))
    if language == "en":
        asked = "Which is the cheapest?" if price else "Which has the best rating?"
        return Choice(f"{'; '.join(listed)}. {asked}", options, f"{unit.format(best)} is the best of the four")
    asked = "其中最便宜的是？" if price else "其中评分最高的是？"
    return Choice(f"{'；'.join(listed)}。{asked}", options, f"{unit.format(best)}是四款中最{'低' if price else '高'}的")


def _number(question: str, right: float, wrong: Sequence[float], unit: str, why: str) -> Choice:
    """A question with a number as its answer; wrong ones that equal it or each other are stepped away."""
    options = [right]
    for value in wrong:
        while value in options or value <= 0:
            value += max(1, round(right / 10))
        options.append(value)
    return Choice(question, tuple(unit.format(f"{value:g}") for value in options), why)


def total(i: int) -> Choice:
    price, count = 15 + 3 * i, pick((2, 3, 4, 5), "count", i)
    wrong = (price * (count - 1), price * (count + 1), price + count)
    return _number(
        f"一个水杯{price}元，买{count}个一共多少元？",
        price * count,
        wrong,
        "{}元",
        f"{price}乘以{count}等于{price * count}",
    )


def discount(i: int) -> Choice:
    price, tenths = 50 * (2 + int(roll("discount", i) * 12)), pick((6, 7, 8, 9), "tenths", i)
    now = price * tenths // 10
    wrong = (price - now, price - tenths, now + 20)
    return _number(
        f"一双跑鞋原价{price}元，打{tenths}折后是多少元？", now, wrong, "{}元", f"{price}乘以0.{tenths}等于{now}"
    )


def change(i: int) -> Choice:
    price, paid = 11 + int(roll("change", i) * 80), 100
    wrong = (paid - price + 10, paid - price - 1, price)
    return _number(
        f"买一条毯子花了{price}元，付了{paid}元，应找回多少元？",
        paid - price,
        wrong,
        "{}元",
        f"{paid}减{price}等于{paid - price}",
    )


def money_off(i: int) -> Choice:
    price = 210 + 10 * int(roll("off", i) * 38)
    saved = price // 200 * 30
    wrong = (price, price - saved - 30, price - saved + 15)
    return _number(
        f"店里每满200元减30元，买一把{price}元的办公椅，实付多少元？", price - saved, wrong, "{}元", f"一共减{saved}元"
    )


def total_in_dollars(i: int) -> Choice:
    price, count = 19 + int(roll("each", i) * 60), pick((2, 3, 4, 6), "pieces", i)
    wrong = (price * count + price, price * count - 2, price + count)
    return _number(
        f"Blankets cost ${price} each. How much are {count} blankets?",
        price * count, wrong, "${}", f"{count} times {price} is {price * count}",
    )  # fmt: skip


def liters(i: int) -> Choice:
    value = (5 + int(roll("litres", i) * 40)) / 10
    wrong = (value * 100, value * 10000, value * 10)
    return _number(f"{value:g}升等于多少毫升？", value * 1000, wrong, "{}毫升", "1升等于1000毫升")


def meters(i: int) -> Choice:
    length = (12 + int(roll("metres", i) * 30)) / 10
    wrong = (length * 10, length * 1000, length * 100 + 10)
    return _number(f"一条毯子长{length:g}米，也就是多少厘米？", length * 100, wrong, "{}厘米", "1米等于100厘米")


def kilos(i: int) -> Choice:
    kilos = 2 + int(roll("kilos", i) * 28)
    return _number(
        f"行李箱重{kilos}公斤，等于多少斤？", kilos * 2, (kilos, kilos * 10, kilos * 4), "{}斤", "1公斤等于2斤"
    )


def bottles(i: int) -> Choice:
    count = 2 * (2 + int(roll("bottles", i) * 14))
    wrong = (count, count * 5, count * 2)
    return _number(f"一箱有{count}瓶水，每瓶500毫升，一共多少升？", count / 2, wrong, "{}升", "两瓶正好1升")


def grams(i: int) -> Choice:
    kilos = (3 + int(roll("grams", i) * 40)) / 10
    wrong = (kilos * 100, kilos * 10, kilos * 10000)
    return _number(f"How many grams are {kilos:g} kg?", kilos * 1000, wrong, "{} g", "1 kg is 1000 g")


def weekday(i: int) -> Choice:
    start, days = i // len(COMPUTED["delivery_terms"]) % 7, 2 + int(roll("days", i) * 4)
    options = tuple(f"周{WEEKDAYS[(start + days + shift) % 7]}" for shift in (0, 1, -1, 2))
    return Choice(
        f"周{WEEKDAYS[start]}下单，{days}天后送达，是周几？", options, f"周{WEEKDAYS[start]}再过{days}天是{options[0]}"
    )


def postage_due(i: int) -> Choice:
    bar, postage = pick((59, 88, 99, 129), "bar", i), pick((6, 8, 10, 12), "postage", i)
    goods = bar + pick((-25, -14, 11, 30), "goods", i)
    paid = goods if goods >= bar else goods + postage
    wrong = (goods + postage if paid == goods else goods, goods - postage, goods + 2 * postage)
    why = "达到包邮金额，不收运费" if paid == goods else "不满包邮金额，要加运费"
    return _number(
        f"满{bar}元包邮，不满则收运费{postage}元。买了{goods}元的商品，一共付多少元？", paid, wrong, "{}元", why
    )


def return_deadline(i: int) -> Choice:
    day, window = 1 + i * 2 // 3, pick((7, 10, 14, 15), "window", i)
    last = day + window
    return _number(
        f"商品签收次日起{window}天内可以退货，{day}号签收，最晚几号可以退？", last, (last - 2, last + 2, day), "{}号",
        f"从次日算起的第{window}天是{last}号",
    )  # fmt: skip


COMPUTED: dict[str, tuple[Callable[[int], Choice], ...]] = {
    "consumer_arithmetic": (total, discount, change, money_off, total_in_dollars),
    "sizes_and_units": (liters, meters, kilos, bottles, grams),
    "delivery_terms": (weekday, postage_due, return_deadline),
}
