from __future__ import annotations

import pytest

from tests.unit.prompts.builders import template, variables
from tunegate.api.errors import PromptError
from tunegate.prompts import parse_template
from tunegate.prompts.template import Section

GUIDE = """---
description: Sell a product.
variables:
  product: {type: text, description: What is sold.}
---
--- system
You are a shopping guide.

--- user

Sell me this:
{{ product | fence }}
"""


def test_a_file_has_front_matter_and_messages_with_their_lines() -> None:
    found = parse_template(GUIDE, "guide.prompt")

    assert found.head.variables["product"].type == "text"
    assert found.sections == (
        Section("system", "You are a shopping guide.", 7),
        Section("user", "Sell me this:\n{{ product | fence }}", 11),
    )


def test_a_text_alone_is_the_users_message() -> None:
    assert parse_template("Write a poem.\n", "poem").sections == (Section("user", "Write a poem.", 1),)


def test_a_rule_of_markdown_begins_no_message() -> None:
    (section,) = parse_template("Compare:\n\n---\n\n| a | b |\n--- | ---\n", "table").sections

    assert section.role == "user"


def test_equal_content_has_an_equal_digest_however_its_yaml_is_written() -> None:
    spelled_otherwise = GUIDE.replace(
        "{type: text, description: What is sold.}", "\n    description: 'What is sold.'\n    type: text # of the shop"
    )

    digest = parse_template(GUIDE, "guide.prompt").digest
    assert parse_template(spelled_otherwise.replace("\n", "\r\n"), "elsewhere/other.prompt").digest == digest
    assert digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Sell me", "Sell us"),
        ("--- system", "--- assistant"),
        ("What is sold", "What was sold"),
        ("description: Sell a product.", "description: Sell a product.\nlimits: {max_tokens: 9}"),
    ],
    ids=["text", "role", "variable", "limit"],
)
def test_other_content_has_another_digest(old: str, new: str) -> None:
    assert parse_template(GUIDE.replace(old, new), "guide").digest != parse_template(GUIDE, "guide").digest


REFUSED = {
    "open-front-matter": ("---\ndescription: x\nSell.", "shop.prompt:1: the front matter does not end"),
    "no-yaml": ("---\ndescription: x\nvariables: {a\n---\nSell.", "shop.prompt:3: the front matter is no YAML"),
    "no-yaml-character": ("---\ndescription: \x07\n---\nSell.", "shop.prompt:1: the front matter is no YAML"),
    "a-list": ("---\n- a\n---\nSell.", "Expected `object`, got `array`"),
    "unknown-field": ("---\ndescription: x\nrolle: y\n---\nSell.", "shop.prompt:3: .*unknown field `rolle`"),
    "unknown-field-within": (
        "---\nvariables:\n  a:\n    type: text\n    description: x\n    kind: y\n---\nSell {{ a }}.",
        "shop.prompt:6: .*unknown field `kind`",
    ),
    "unknown-type": (
        "---\nlimits: {}\nvariables:\n  a: {type: str, description: x}\n---\nSell.",
        "shop.prompt:4: .*Invalid enum value 'str'",
    ),
    "no-description": ("---\nvariables:\n  a: {type: text}\n---\nSell.", "missing required field `description`"),
    "field-of-an-example": (
        "---\nexamples:\n  pairs:\n  - {user: a, assistant: b}\n  - {user: a, bot: b}\n---\nSell.",
        "shop.prompt:5: .*unknown field `bot`",
    ),
    "limit-of-nothing": ("---\nlimits:\n  max_tokens: 0\n---\nSell.", "shop.prompt:3: .*Expected `int` >= 1"),
    "default-of-another-type": (
        "---\nvariables:\n  a: {type: integer, description: x, default: many}\n---\nSell.",
        "the default is 'many', not of type integer",
    ),
    "choices-of-numbers": (
        "---\nvariables:\n  a: {type: integer, description: x, choices: [a]}\n---\nSell.",
        "choices belong to variables of type text",
    ),
    "taken-name": ("---\nvariables:\n  task: {type: text, description: x}\n---\nSell.", "can't be the name"),
    "no-json-schema": (
        "---\noutput: {format: json, schema: {type: many}}\n---\nSell.",
        "the schema is no JSON Schema: 'many'",
    ),
    "schema-of-text": ("---\noutput: {schema: {}}\n---\nSell.", "a schema needs format: json"),
    "no-text": ("---\ndescription: x\n---\n", "message of the user can't be so; write its text"),
    "unknown-role": ("--- robot\nSell.", "shop.prompt:1: 'robot' is no role; the roles are system"),
    "text-without-role": ("\nYou sell.\n--- user\nSell.", "shop.prompt:2: this text has no role"),
    "ends-with-system": ("--- user\nSell.\n--- system\nYou sell.", "shop.prompt:4: the last message is not the user's"),
    "late-system": ("--- user\nA\n--- system\nB\n--- user\nC", "shop.prompt:4: the system message does not come first"),
    "no-examples": ("--- examples\n--- user\nC", "there are no examples"),
    "examples-with-text": ("--- examples\nQ: A\n--- user\nC", "shop.prompt:2: .*take the text out"),
    "control-token": ("--- user\nSell\n<|im_end|>", "shop.prompt:3: <|im_end|> is a control token"),
    "open-tag": ("--- user\nSell\n\n{{ product", "shop.prompt:4: .*correct the tag"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_no_template_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message.replace("|", r"\|")):
        parse_template(text, "shop.prompt")


def test_examples_are_chosen_by_a_text() -> None:
    examples = {"pairs": [{"user": "a", "assistant": "b"}], "by": "amount"}

    with pytest.raises(PromptError, match="'amount', which is no variable of type text"):
        template("Sell {{ amount }}.", variables=variables(amount="integer"), examples=examples)
