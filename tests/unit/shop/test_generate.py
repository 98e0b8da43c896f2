import json
import re
from typing import Any

import pytest
from click.testing import CliRunner

from tunegate.evaluation import rules
from tunegate.evaluation.suites import load_suite
from tunegate.shop import DATA, generate
from tunegate.shop.catalogue import load_catalogue
from tunegate.shop.dialogues import MIX, TALK

Rows = list[dict[str, Any]]
REAL_BRANDS = (
    "nike", "adidas", "apple", "huawei", "xiaomi", "samsung", "sony", "philips", "ikea",
    "dyson", "muji", "uniqlo", "nivea", "bosch", "panasonic", "midea", "haier", "lenovo",
    "puma", "decathlon", "logitech", "samsonite", "tefal", "thermos", "osprey", "amazon", "taobao",
    "tmall", "alibaba",
    "耐克", "阿迪", "苹果", "华为", "小米", "三星", "索尼", "飞利浦", "宜家", "戴森",
    "无印良品", "优衣库", "妮维雅", "博世", "松下", "美的", "海尔", "联想", "彪马", "迪卡侬",
    "罗技", "新秀丽", "膳魔师", "淘宝", "天猫", "京东", "阿里", "苏泊尔", "九阳", "安踏",
    "李宁", "欧莱雅",
)  # fmt: skip


def users(row: dict[str, Any]) -> list[str]:
    """What the shopper says, without case, space and punctuation."""
    said = [message["content"] for message in row["messages"] if message["role"] == "user"]
    return [re.sub(r"[\W_]+", "", text.casefold()) for text in said]


def test_the_committed_files_are_what_the_generator_makes() -> None:
    files = generate.generate()
    assert generate.check(files, DATA) == []
    assert generate.generate() == files


def test_check_names_the_file_that_differs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "generate", lambda: {"new.jsonl": b"{}\n"})
    result = CliRunner().invoke(generate.main, ["--check"])
    assert result.exit_code == 1
    assert "new.jsonl" in result.output


def test_generated_files_without_a_source_are_not_left_behind() -> None:
    on_disk = {
        path.relative_to(DATA).as_posix() for path in DATA.rglob("*") if path.suffix in {".jsonl", ".csv", ".json"}
    }
    by_hand = {
        f"suites/shop-{task}-{language}/questions.jsonl"
        for task in ("guidance", "comparison", "after-sales", "safety", "small-talk")
        for language in ("en", "zh")
    }
    by_hand |= {f"suites/injection-{it}/{name}.jsonl" for it in ("en", "zh") for name in ("attacks", "pages")}
    assert on_disk == by_hand | set(generate.generate())


def test_there_is_enough_to_learn_from(training: Rows) -> None:
    assert len(training) >= 240
    assert len({json.dumps(row) for row in training}) == len(training)
    assert sum(len(users(row)) > 1 for row in training) >= 0.4 * len(training)


def test_a_dialogue_is_a_system_message_and_then_turns_that_end_with_the_shop(training: Rows) -> None:
    for row in training:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["system"] + ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() == message["content"] != "" for message in row["messages"])


def test_no_question_of_suite_or_shoppers_is_in_training(training: Rows, held_out: Rows, asked: Rows) -> None:
    seen = {text for row in training for text in users(row)}
    assert not seen & {text for row in held_out + asked for text in users(row)}
    assert not {text for row in held_out for text in users(row)} & {text for row in asked for text in users(row)}


def test_no_product_of_suite_or_shoppers_is_in_training(language: str, training: Rows) -> None:
    catalogue = load_catalogue()
    text = json.dumps(training, ensure_ascii=False)
    space = " " if language == "en" else ""
    for product in catalogue.products:
        name = catalogue.brand(product, language) + space + catalogue.noun(product, language)  # type: ignore[arg-type]
        assert (name in text) == (product.split == "train"), name


def test_held_out_questions_are_enough_and_their_start_is_a_fair_sample(held_out: Rows) -> None:
    assert len(held_out) >= 40
    assert len({row["id"] for row in held_out}) == len(held_out)
    start = [row["intent"] for row in held_out[:24]]
    assert len(set(start)) >= 9
    assert sum(intent in TALK for intent in start) <= 4
    assert 4 <= sum(len(users(row)) > 1 for row in held_out[:24]) <= 12


def test_reference_and_pushy_answers_keep_the_rules_and_garbage_breaks_them(language: str) -> None:
    templates = generate.load_templates()[language]
    suites = (load_suite(f"shop-{language}"), load_suite(f"shop-taught-{language}"))
    for question in [question for suite in suites for question in suite.questions]:  # type: ignore[union-attr]
        pushy = [press.format(answer=question.reference) for press in templates["pressure"]]
        for answer in (question.reference, *pushy):
            assert all(rules.passes(rule, answer, question.reference) for rule in question.rules), (question.id, answer)
        for answer in ("", "the the the the the the the the", "的的的的的的的的", "!!!!!!!!"):
            assert not all(rules.passes(rule, answer, question.reference) for rule in question.rules)


def test_taught_questions_are_those_of_the_first_training_dialogues(language: str, training: Rows) -> None:
    suite = load_suite(f"shop-taught-{language}")
    asked = [[message.content for message in question.messages] for question in suite.questions]  # type: ignore[union-attr]
    assert asked == [[message["content"] for message in row["messages"][:-1]] for row in training[: len(asked)]]
    assert len({str(messages) for messages in asked}) == 48


def test_a_held_out_answer_can_be_read_from_its_context(held_out: Rows) -> None:
    for row in held_out:
        if row["intent"] in TALK or row["intent"] == "stock":
            continue
        system = row["messages"][0]["content"]
        for rule in row["rules"]:
            if rule["kind"] == "contains":
                assert any(way in system for way in rule["any"]), row["id"]


def test_every_intent_has_three_lists_that_share_no_phrasing(language: str) -> None:
    intents = generate.load_templates()[language]["intents"]
    assert set(intents) == set(MIX["train"])
    for intent in intents.values():
        for lists in (intent["ask"], intent.get("follow", {})):
            texts = [text for phrasings in lists.values() for text in phrasings]
            assert len(set(texts)) == len(texts)


def test_dataset_info_names_files_that_are_there() -> None:
    info = json.loads((DATA / "dataset_info.json").read_text())
    assert set(info) == {"shop_en", "shop_zh", "pushy_en", "pushy_zh"}
    for entry in info.values():
        assert (DATA / entry["file_name"]).is_file()
        assert entry["columns"] == {"messages": "messages"}
        assert entry["tags"]["assistant_tag"] == "assistant"


def test_no_real_brand_is_named() -> None:
    text = "".join(path.read_text(encoding="utf-8").casefold() for path in DATA.rglob("*.*"))
    words = set(re.findall(r"[a-z]+", text))
    assert not [brand for brand in REAL_BRANDS if (brand in words if brand.isascii() else brand in text)]


def test_the_catalogue_has_every_brand_in_training() -> None:
    catalogue = load_catalogue()
    assert len(catalogue.products) >= 60
    assert len(catalogue.categories) >= 10
    assert {product.brand for product in catalogue.of("train")} == set(catalogue.brands)
    assert len({(product.brand, product.category) for product in catalogue.products}) == len(catalogue.products)
