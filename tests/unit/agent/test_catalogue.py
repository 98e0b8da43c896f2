"""Looking products up: by id, then by words, in the sample shop's tables and in others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tunegate.agent import Source
from tunegate.agent.catalogue import Catalogue, in_folder, load, tool
from tunegate.api.errors import KnowledgeError, ToolError, UsageError
from tunegate.shop import DATA


@pytest.fixture(scope="module")
def shop() -> Catalogue:
    return load(DATA / "knowledge" / "products_en.csv")


@pytest.fixture(scope="module")
def shop_zh() -> Catalogue:
    return load(DATA / "knowledge" / "products_zh.csv")


@pytest.mark.parametrize("query", ["SO-103", "so103", "How much is the SO-103 kettle?", "ＳＯ－103"])
def test_an_id_comes_first_however_it_is_written(shop: Catalogue, query: str) -> None:
    first, *others = shop.look_up(query)

    assert "item: SO-103" in first.text
    assert (first.title, first.uri, first.line, first.score) == ("Sobrin kettle", "products_en.csv", 4, 1.0)
    assert not others


@pytest.mark.parametrize(
    ("query", "name"), [("Rindal kettle price", "Rindal kettle"), ("a kettle of Talvo, please", "Talvo kettle")]
)
def test_then_words_find_it(shop: Catalogue, query: str, name: str) -> None:
    assert shop.look_up(query)[0].title == name


def test_chinese_needs_no_spaces(shop_zh: Catalogue) -> None:
    assert shop_zh.look_up("请问岚朵电水壶多少钱？")[0].title == "岚朵电水壶"


def test_of_several_ids_each_is_shown(shop: Catalogue) -> None:
    assert {row.title for row in shop.look_up("compare SO-103 with RI-102")} == {"Sobrin kettle", "Rindal kettle"}


def ask(catalogue: Catalogue, query: str, language: str = "en") -> str | tuple[Source, ...]:
    found = asyncio.run(tool(catalogue, language).call(query))  # type: ignore[arg-type, var-annotated]
    assert isinstance(found, str | tuple)
    return found


def test_a_product_that_there_is_not_is_said_to_be_none(shop: Catalogue, shop_zh: Catalogue) -> None:
    assert ask(shop, "KYL-100") == "Nothing in the catalogue has KYL100."
    assert ask(shop, "the KYL-100 kettle") == "Nothing in the catalogue has KYL100."
    assert ask(shop_zh, "KYL-100", "zh") == "目录中没有KYL100。"
    assert ask(shop, "helicopters") == "Nothing in the catalogue fits."
    with pytest.raises(ToolError, match="write a product's number or name"):
        ask(shop, " ")


def test_of_two_products_the_one_that_is_missing_is_told_beside_the_other(shop: Catalogue) -> None:
    found = ask(shop, "SO-103 or KYL-100?")

    assert isinstance(found, tuple)
    assert [row.title for row in found] == ["Sobrin kettle", "Nothing in the catalogue has KYL100."]


@pytest.mark.parametrize("query", ["a Talvo kettle of 1.7l", "Talvo kettle, 3-year warranty", "Talvo kettle 2026"])
def test_sizes_and_terms_are_no_ids(shop: Catalogue, query: str) -> None:
    found = ask(shop, query)

    assert isinstance(found, tuple)
    assert found[0].title == "Talvo kettle"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("catalogue.json", '{"kettles": [{"sku": "K-9", "name": "Nine", "price": {"usd": 5}}]}'),
        ("catalogue.jsonl", '{"sku": "K-9", "name": "Nine", "price.usd": 5}\n'),
        ("catalogue.tsv", "sku\tname\tprice.usd\nK-9\tNine\t5\n"),
        ("catalogue.csv", "\ufeffsku;name;price.usd\nK-9;Nine;5\n"),
    ],
)
def test_any_table_is_one(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    assert in_folder(tmp_path) == tmp_path / name
    assert load(tmp_path / name).look_up("k9")[0].text == "sku: K-9\nname: Nine\nprice.usd: 5"


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, content in {
        "empty.csv": b"sku,name\n",
        "latin.csv": b"caf\xe9,1\n",
        "broken.json": b"{",
        "a.txt": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)

    assert in_folder(tmp_path) is None
    for name, message in {"empty.csv": "has no rows", "latin.csv": "save it as UTF-8", "a.txt": "is no table"}.items():
        with pytest.raises(UsageError, match=message):
            load(tmp_path / name)
    with pytest.raises(UsageError, match="name one"):
        load(tmp_path / "missing.csv")
    with pytest.raises(KnowledgeError, match="no JSON"):
        load(tmp_path / "broken.json")
