"""What lint finds and what it leaves alone, in both languages; the article's cases among them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.prompts.builders import template, variables
from tunegate.prompts import builtin_names, load_template, parse_template
from tunegate.prompts.lint import RULES, lint

# The reason for which the article calls each case bad.
BAD = {
    "bad-description": "vague-length",
    "bad-poem": "vague-length",
    "bad-summary": "no-fence",
    "bad-books": "no-format",
    "bad-guide": "no-role",
    "bad-cot": "no-steps",
}
GOOD = [name for name in builtin_names() if not name.startswith("bad-")]


def rules(text: str, **front: Any) -> list[str]:
    return sorted({finding.rule for finding in lint(template(text, **front))})


@pytest.mark.parametrize("name", GOOD)
def test_a_good_case_passes(name: str) -> None:
    assert lint(load_template(name)) == []


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("name", "rule"), BAD.items())
def test_a_bad_case_is_found_for_its_own_reason(name: str, rule: str, language: str) -> None:
    assert {finding.rule for finding in lint(load_template(f"{name}-{language}"))} == {rule}


def test_every_bad_case_has_a_good_one() -> None:
    bad = [name for name in builtin_names() if name.startswith("bad-")]

    assert bad == sorted(f"{name}-{language}" for name in BAD for language in ("en", "zh"))
    assert {name.removeprefix("bad-") for name in bad} <= set(GOOD)


FOUND = {
    "vague-length": [
        "Describe it in a few\nwords.",
        "Keep the answer reasonably short.",
        "Make it as brief as possible.",
        "Draft an email to the customer.",
        "请用几句话介绍。",
        "回答尽量简短。",
        "请写得详细一些。",
        "撰写一篇产品介绍的文章。",
    ],
    "no-fence": [
        "Summarize the text below in one sentence. It was a dark night.",
        "Translate the following customer review: I like it.",
        "请总结以下客户的评论：很好用。",
    ],
    "no-format": [
        "List 5 laptops, with their price and weight.",
        "推荐三款水壶，包括价格和容量。",
    ],
    "no-role": [
        "Recommend me a laptop.",
        "Introduce the newest phones to us.",
        "请给我推荐一款手机。",
        "教我怎么选水壶。",
    ],
    "looks-like-data": [
        "Answer.\nMail: ming@example.com",
        "手机：13812345678",
        "Order 202611280001234 is late.",
        "Customer: Where is it?\nAgent: On its way.",
        "顾客：在哪里？\n客服：在路上。",
        'Kettle: {"price": 26}',
        "kettle,26,1.7\nmat,18,1.2\nlamp,33,0.9",
        "| a | b |\n| - | - |\n| 1 | 2 |",
    ],
}
QUIET = {
    "a-length": "Describe it in 20 words. Write a story of\nfour lines. 用3到5句话介绍。写一篇200字的文章。",
    "a-number-in-words": "十几个字。Write a two-line poem.",
    "a-fence": "Summarize the following text:\n'''\nA few words: call 13812345678.\n'''",
    "tags": "Summarize the text below.\n<text>\nCustomer: a\nAgent: b\n</text>",
    "a-format": "List 5 laptops, with their price and weight, as a table. 列出三款水壶，包括价格，每行一款。",
    "one-thing": "Generate three titles. 推荐三款水壶。",
    "a-role": "You are a guide. Sell me a kettle. 你是导购，给我推荐一款。",
    "no-service": "Tell me what 2 + 2 is. 请告诉我结果。",
    "prose": "Answer kindly, briefly, and well. Be honest, be clear.\nNote: prices are in dollars.\nUser: see above.",
}


@pytest.mark.parametrize(
    ("rule", "text"),
    [pytest.param(rule, text, id=f"{rule}-{i}") for rule in FOUND for i, text in enumerate(FOUND[rule])],
)
def test_a_rule_finds(rule: str, text: str) -> None:
    assert rules(text) == [rule]


@pytest.mark.parametrize("text", QUIET.values(), ids=QUIET)
def test_no_rule_finds_anything_in_good_text(text: str) -> None:
    assert rules(text) == []


LONG = {
    "words": "write a poem about nothing " * 4000,
    "tags": "<a>" * 30_000,
    "marks": "'''\n'''x\n" * 10_000,
    "characters": "以下的" * 30_000,
    "lines": "a,b,c\n" * 10_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_text_of_any_length_is_looked_through_once(text: str) -> None:
    assert len(rules(text)) <= 1  # in seconds: the limit is that of every test


def test_a_system_message_is_a_role() -> None:
    assert rules("--- system\nAnswer kindly.\n--- user\nSell me a kettle.") == []


OPEN = {
    "bare": "About {{ page }}",
    "filtered": "About {{ page | upper }}",
    "in-a-loop": "{% for result in results %}{{ result.title }}{% endfor %}",
    "under-another-name": "{% set text = page %}About {{ text }}",
    "in-the-system-message": "--- system\n{{ page }}\n--- user\nSummarize it.",
    "among-instructions": "Do what is asked: {{ page }}",
}
CLOSED = {
    "fenced": "About {{ page | fence }}",
    "fenced-by-a-mark": "About {{ page | trim | fence('###') }}",
    "fenced-in-a-loop": "{% for result in results %}{{ result.title | fence }}{% endfor %}",
    "fenced-as-a-block": "{% filter fence %}{% for result in results %}{{ result.title }}{% endfor %}{% endfilter %}",
    "fenced-when-it-is-named": "{% set text = page | fence %}About {{ text }}",
    "counted": "There are {{ results | length }} results.",
    "asked-about": "{% if page %}There is a page.{% endif %}",
    "the-whole-message": "--- system\nYou summarize.\n--- user\n{{ page }}",
    "after-a-label": "Q: {{ page }}",
    "of-known-values": "In {{ language }} of {{ day }}, {{ shop }}",
}
KINDS = variables(
    page="text",
    results="list",
    day="date",
    language={"type": "text", "choices": ["en"]},
    shop={"type": "text", "trusted": True},
)


def fences(text: str) -> list[str]:
    used = {name: about for name, about in KINDS.items() if name in text}
    return rules(text, variables=used)


@pytest.mark.parametrize("text", OPEN.values(), ids=OPEN)
def test_a_value_without_a_fence_is_found(text: str) -> None:
    assert fences(text) == ["no-fence"]


@pytest.mark.parametrize("text", CLOSED.values(), ids=CLOSED)
def test_a_value_in_a_fence_is_fine(text: str) -> None:
    assert fences(text) == []


def test_each_finding_has_its_line_and_a_reason() -> None:
    text = """---
task: Answer in a few words.
variables:
  page: {type: text, description: A page.}
  unused: {type: text, description: Nothing.}
examples:
  pairs: [{user: a, assistant: b}]
---
--- system
You help.

--- user
{{ task }}
About {{ page }}
and {{ forgotten }}
"""

    found = lint(parse_template(text, "shop.prompt"))

    assert [(finding.rule, finding.line) for finding in found] == [
        ("unused-variable", 5),
        ("unused-variable", 6),
        ("vague-length", 13),
        ("no-fence", 14),
        ("missing-variable", 15),
    ]
    assert found[0].reason == "unused is declared, and no text uses it; take it out"
    assert found[3].reason == "page may hold instructions of whoever wrote it; write {{ page | fence }}"


def test_a_task_and_a_format_that_no_text_speaks_of_are_found() -> None:
    front = {"task": "Answer.", "output": {"format": "json"}}

    assert [(finding.rule, finding.line) for finding in lint(template("Say it.", **front))] == [
        ("unused-variable", 2),
        ("no-format", 3),
    ]
    assert rules("{{ task }} As {{ schema }}", **front) == []


def test_examples_with_steps_or_without_arithmetic_are_fine() -> None:
    pairs = [
        {"user": "I have 2 and buy 3. How many?", "assistant": "2 + 3 = 5. The answer is 5"},
        {"user": "What does the KT-1 of 1.7 l cost?", "assistant": "$26"},
    ]

    assert rules("--- examples\n--- user\nNow what?", examples={"pairs": pairs}) == []


def test_every_rule_is_seen_to_find_something() -> None:
    assert {*FOUND, *BAD.values(), "unused-variable", "missing-variable"} == set(RULES)
