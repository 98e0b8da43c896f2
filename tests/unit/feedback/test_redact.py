"""Values as Faker makes them for China, planted in texts without spaces: none is left, prices and order numbers are."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

import pytest
from faker import Faker

from tunegate.feedback.redact import redact

AROUND = (
    "您好，我的{}谢谢",
    "请联系{}，急",
    "{}",
    "麻烦改成{}可以吗？",
    "Please use {} instead.",
    "（{}）",
)
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
faker = Faker("zh_CN")


def phone(pick: random.Random) -> str:
    plain = faker.phone_number()
    spaced = f"{plain[:3]}{{0}}{plain[3:7]}{{0}}{plain[7:]}"
    return pick.choice([plain, spaced.format("-"), spaced.format(" "), f"+86{plain}", f"+86 {spaced.format(' ')}"])


def identity(pick: random.Random) -> str:
    plain = faker.ssn()
    return pick.choice([plain, plain.lower(), f"{plain[:6]} {plain[6:14]} {plain[14:]}"])


def card(pick: random.Random) -> str:
    plain = faker.credit_card_number()
    grouped = " ".join(plain[at : at + 4] for at in range(0, len(plain), 4))
    return pick.choice([plain, grouped, grouped.replace(" ", "-")])


KINDS: dict[str, tuple[Callable[[random.Random], str], int]] = {
    "<phone>": (phone, 1000),
    "<email>": (lambda pick: faker.email(), 800),
    "<id-number>": (identity, 800),
    "<card>": (card, 800),
    "<address>": (lambda pick: faker.address(), 600),
}


@pytest.mark.parametrize("mark", KINDS)
def test_no_planted_value_is_left(mark: str) -> None:
    make, count = KINDS[mark]
    Faker.seed(7)
    pick, left = random.Random(7), []  # noqa: S311
    for number in range(count):
        value = make(pick)
        planted = value.translate(FULL_WIDTH) if number % 5 == 4 else value
        text = AROUND[number % len(AROUND)].format(planted)
        found = redact(text)
        if planted in found or mark not in found or re.search(r"[0-9０-９]{5}", found):
            left.append((text, found))
    assert left == []


def test_prices_order_numbers_and_quantities_are_kept() -> None:
    pick = random.Random(7)  # noqa: S311
    kept = []
    for _ in range(500):
        order = "".join(pick.choice("0123456789") for _ in range(pick.choice([12, 15, 16, 18, 19])))
        price = f"{pick.randint(1, 99999)}.{pick.randint(0, 99):02}"
        kept += [
            f"订单号{order}到哪里了？",
            f"我的订单号：{order}，请查一下",
            f"order {order} has not arrived",
            f"#{order}",
            f"原价{price}元，现价￥{price}，一共{pick.randint(1, 20)}件",
            f"It costs ${price}, {pick.randint(1, 12)} for ${pick.randint(10, 9999)}.",
            f"2026-{pick.randint(1, 12):02}-{pick.randint(1, 28):02} 12:30:{pick.randint(10, 59)}",
            f"型号SM-G{pick.randint(1000, 9999)}，容量{pick.randint(1, 999)}ml，{pick.randint(1, 99)}%棉",
        ]
    assert [text for text in kept if redact(text) != text] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("邮箱li.lei@example.com谢谢", "邮箱<email>谢谢"),
        ("电话０１０-６２７８１２３４", "电话<phone>"),
        ("call (415) 555-2671 or +44 20 7946 0958", "call <phone> or <phone>"),
        ("SSN 536-22-1234.", "SSN <id-number>."),
        ("电话138.1234.5678谢谢", "电话<phone>谢谢"),
        ("Ship to 350 5th Ave, Suite 2.", "Ship to <address>."),
        ("to 1200 W 42nd Street", "to <address>"),
        ("寄到浙江省杭州市西湖区文三路138号2单元501室，谢谢", "寄到<address>，谢谢"),
        ("送到杭州市西湖区文三路138号", "送到<address>"),
        ("我叫李雷，想退货", "我叫<name>，想退货"),
        ("地址：学苑公寓南门快递柜，谢谢", "地址：<address>，谢谢"),
        ("Ship it to 12 Main Street, Apt 4, please", "Ship it to <address>, please"),
        ("收件人：李雷，改为欧阳娜娜", "收件人：<name>，改为欧阳娜娜"),
        ("My name is John Smith.", "My name is <name>."),
        ("写了身份证11010519491231002X和110105194912310021", "写了身份证<id-number>和110105194912310021"),
    ],
)
def test_each_kind_is_found_in_both_languages(text: str, found: str) -> None:
    assert redact(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "你好！这款茶（２５０克）怎么泡？",
        "我叫了三次客服",
        "在3号楼集合",
        "ﬁne ㈱ ½",
        "The name of the tea is Longjing.",
        "条码6901234567892的那款，坐标139.12345678",
        "I bought 2 4th edition books",
    ],
)
def test_other_texts_stay_as_they_were_written(text: str) -> None:
    assert redact(text) == text


def test_what_json_in_a_text_says_by_codes_is_found() -> None:
    """As Python's json writes what a tool said."""
    order = {"地址": "广东省深圳市南山区科技路12号", "mail": 'li"lei@example.com', "tea": "龙井"}
    found = redact(json.dumps(order))
    assert json.loads(found) == {"地址": "<address>", "mail": 'li"<email>', "tea": "龙井"}
    assert redact(json.dumps([json.dumps("收件人：李雷")])).count("<name>") == 1
    assert redact(r"C:\users\ulrike") == r"C:\users\ulrike"
