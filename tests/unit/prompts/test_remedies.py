"""What is refused of templates, values and answers is taken once the message's words were followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.refusals import refused, without_story
from tests.unit.prompts.builders import NONCE, rendered, template, variables
from tunegate.api.errors import PromptError
from tunegate.prompts import load_template, parse_template, render
from tunegate.prompts.assistant import load_assistant
from tunegate.prompts.lint import lint
from tunegate.prompts.output import Output, read_answer

PAIRS = "---\nexamples: {pairs: [{user: a, assistant: b}]}\n---\n"


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("the front matter does not end; write a line --- after it", "---\ntask: A\nSell.", "---\ntask: A\n---\nSell."),
        ("; write a line such as --- user above", "Hello.\n--- user\nSell.", "--- user\nHello.\n--- user\nSell."),
        ("is no role; the roles are ", "--- robot\nSell.", "--- user\nSell."),
        ("; correct that line.", "---\ntask: [A\n---\nSell.", "---\ntask: A\n---\nSell."),
        ("; correct it.", "---\ntask: 2026-13-45\n---\nSell.", "---\ntask: '2026-13-45'\n---\nSell."),
        ("; correct the field that it names", "---\ntaks: A\n---\nSell.", "---\ntask: A\n---\nSell."),
        (
            "end with --- user",
            "--- user\nHi.\n--- assistant\nYes?",
            "--- user\nHi.\n--- assistant\nYes?\n--- user\nBuy.",
        ),
        (
            "does not come first; move it to the top",
            "--- user\nHi.\n--- system\nBe kind.\n--- user\nSell.",
            "--- system\nBe kind.\n--- user\nHi.\n--- user\nSell.",
        ),
        (
            "give their pairs in the front matter",
            "--- examples\n--- user\nSell.",
            f"{PAIRS}--- examples\n--- user\nSell.",
        ),
        (" can't be so; ", "--- system\n--- user\nSell.", "--- system\nBe kind.\n--- user\nSell."),
        (" can't be so; ", f"{PAIRS}--- examples\na, b\n--- user\nSell.", f"{PAIRS}--- examples\n--- user\nSell."),
        ("begin messages with --- ROLE", "<|im_start|>user\nSell.", "--- user\nSell."),
    ],
)
def test_a_template_that_was_corrected_is_read(words: str, wrong: str, right: str) -> None:
    with refused(words):
        parse_template(wrong, "shop.prompt")
    assert render(parse_template(right, "shop.prompt"), {}, nonce=NONCE)[-1].role == "user"


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("it loops too long; let it loop over less", "{% for i in range(99999) %}{{ o }}{% endfor %}", "{{ o.name }}"),
        ("correct the tag there", "{% if o %}Sell.", "{% if o %}Sell.{% endif %}"),
        ("include a file of the template's folder", "{% include 'footer' %}", "{% include 'rules' %}"),
        ("or correct its name", "Sell {{ o.nam }}", "Sell {{ o.name }}"),
        ("is no mark of a fence; write three of one of", "{{ o | fence('**') }}", "{{ o | fence('***') }}"),
    ],
)
def test_a_text_that_was_corrected_is_filled_in(words: str, wrong: str, right: str) -> None:
    def fill(text: str) -> str:
        head = "---\nvariables:\n  o: {type: object, description: A product.}\n---\n"
        made = parse_template(head + text, "shop.prompt", {"rules": "Be kind."})
        return render(made, {"o": {"name": "Kettle"}}, nonce=NONCE)[0].content

    with pytest.raises(PromptError, match=words):
        fill(wrong)
    assert fill(right)


def test_a_template_and_what_it_includes_are_files_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    shop, rules, outside = folder / "shop.prompt", folder / "rules.prompt", tmp_path / "rules.prompt"
    with refused("There is no template ") as caught:
        load_template("sell")
    load_template(str(caught.value).split()[-1].rstrip("."))
    outside.write_text("Be kind.")
    shop.write_text("Sell.\n{% include '../rules.prompt' %}")
    with refused(" lies outside of the template's folder; copy it into "):
        load_template(shop)
    rules.write_bytes(outside.read_bytes())
    shop.write_text("Sell.\n{% include 'rule.prompt' %}")
    with refused(" does not exist in the template's folder; correct the name"):
        load_template(shop)
    shop.write_text("Sell.\n{% include 'rules.prompt' %}")
    assert render(load_template(shop), {}, nonce=NONCE)[0].content == "Sell.\nBe kind."


def test_a_file_that_can_be_read_and_is_plain_text_is_used(tmp_path: Path) -> None:
    shop, rules = tmp_path / "shop.prompt", tmp_path / "rules.prompt"
    shop.write_text("Sell.\n{% include 'rules.prompt' %}")
    rules.write_text("Be kind.<|im_end|>")
    with refused(", a control token of chat templates; take it out"):
        load_template(shop)
    rules.write_bytes("请友好。".encode("gb18030"))
    with refused("the file is not UTF-8; save it with that encoding"):
        load_template(shop)
    rules.write_text("请友好。", encoding="utf-8")
    assert render(load_template(shop), {}, nonce=NONCE)[0].content == "Sell.\n请友好。"
    shop.unlink()
    shop.symlink_to("/proc/self/mem")  # readable for nobody, also as root
    with refused("; check its permissions"):
        load_template(shop)
    shop.unlink()
    shop.write_text("Sell.")
    load_template(shop)


def test_values_are_those_that_the_front_matter_names() -> None:
    kinds = variables(product="text", pieces="integer")
    with refused(". Its front matter says what it takes"):
        rendered("Sell {{ pieces }} {{ product }}.", {"produkt": "lamps", "pieces": "2"}, variables=kinds)
    assert rendered("Sell {{ pieces }} {{ product }}.", {"product": "lamps", "pieces": 2}, variables=kinds)


def test_tokens_are_counted_by_the_tokenizer_that_is_given() -> None:
    made = template("--- examples\n--- user\nSell.", examples={"pairs": [{"user": "a", "assistant": "b"}], "tokens": 5})
    with refused("; give a tokenizer to count them"):
        render(made, {}, nonce=NONCE)
    assert len(render(made, {}, nonce=NONCE, count=len)) == 3


@pytest.mark.parametrize(
    ("words", "front", "wrong", "right"),
    [
        ("; show in an example how it ends", {"after": "The answer is"}, "5 + 6 = 11", "5 + 6 = 11. The answer is 11"),
        ("; show such an answer in an example, and ask again", {"format": "json"}, "A lamp.", '{"title": "lamp"}'),
    ],
)
def test_an_answer_as_an_example_shows_it_is_read(words: str, front: dict[str, Any], wrong: str, right: str) -> None:
    """The example is in what a model is asked; that it then answers so is the model's part."""
    with refused(words):
        read_answer(wrong, template("Sell.", output=front).head.output)
    shown = template(
        "--- examples\n--- user\nSell.", output=front, examples={"pairs": [{"user": "Sell.", "assistant": right}]}
    )
    assert render(shown, {}, nonce=NONCE)[1].content == right
    read_answer(right, shown.head.output)


def test_a_schema_holds_what_it_refers_to() -> None:
    with refused("which is not in it; put it under $defs"):
        read_answer("{}", Output(format="json", schema={"$ref": "#/$defs/book"}))
    whole = {"$ref": "#/$defs/book", "$defs": {"book": {"type": "object"}}}
    assert read_answer("{}", Output(format="json", schema=whole)) == {}


PAGE, PAIR = variables(page="text"), {"pairs": [{"user": "a", "assistant": "b"}]}
SUM = {"user": "I have 2 and buy 3. How many?", "assistant": "The answer is 5"}
STEPS = {**SUM, "assistant": "2 + 3 = 5. The answer is 5"}
Prompt = tuple[str, dict[str, Any]]  # a text and its front matter


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("; give numbers, such as 3 to 5 sentences", ("Describe it in a few words.", {}),
         ("Describe it in 3 to 5 sentences.", {})),
        ("; say of how many lines or words", ("Draft an email to the customer.", {}),
         ("Draft an email of 80 words to the customer.", {})),
        ("; take it as a variable, in a fence", ('Kettle: {"price": 26}', {}),
         ("Kettle: {{ page | fence }}", {"variables": PAGE})),
        ("; take it as a variable, in a fence", ("kettle,26,1.7\nmat,18,1.2\nlamp,33,0.9", {}),
         ("{{ page | fence }}", {"variables": PAGE})),
        ("put the content between two lines such as '''", ("Summarize the text below. It was dark.", {}),
         ("Summarize the text below.\n'''\nIt was dark.\n'''", {})),
        ("; write {{ page | fence }}", ("About {{ page }}", {"variables": PAGE}),
         ("About {{ page | fence }}", {"variables": PAGE})),
        ("; ask for JSON, with its keys", ("Say it.", {"output": {"format": "json"}}),
         ("Say it, as JSON with the key text.", {"output": {"format": "json"}})),
        ("; name one, such as JSON with keys", ("List 5 laptops, with their price and weight.", {}),
         ("List 5 laptops, with their price and weight, as JSON with the keys name, price, weight.", {})),
        ("; begin with --- system and a role", ("Recommend me a laptop.", {}),
         ("--- system\nYou are a shopping guide.\n--- user\nRecommend me a laptop.", {})),
        ("; write the steps", ("--- examples\n--- user\nNow?", {"examples": {"pairs": [SUM]}}),
         ("--- examples\n--- user\nNow?", {"examples": {"pairs": [STEPS]}})),
        ("and no text uses it; take it out", ("Now?", {"variables": PAGE}), ("Now?", {})),
        ("and no text says {{ task }}", ("Now?", {"task": "Answer."}), ("{{ task }} Now?", {"task": "Answer."})),
        ("; write a line --- examples", ("Now?", {"examples": PAIR}),
         ("--- examples\n--- user\nNow?", {"examples": PAIR})),
        ("is used, and not declared under variables", ("{{ page | fence }}", {}),
         ("{{ page | fence }}", {"variables": PAGE})),
        ("; take it as a variable, in a fence", ("Write to ming@example.com", {}),
         ("Write to {{ page | fence }}", {"variables": PAGE})),
        ("; give it as pairs under examples", ("Customer: Where is it?\nAgent: On its way.", {}),
         ("--- examples\n--- user\nNow?", {"examples": PAIR})),
    ],
)  # fmt: skip
def test_what_lint_finds_is_gone_once_its_reason_was_followed(words: str, wrong: Prompt, right: Prompt) -> None:
    assert words in " ".join(finding.reason for finding in lint(template(wrong[0], **wrong[1])))
    assert lint(template(right[0], **right[1])) == []


def test_a_folder_of_prompts_has_what_a_server_takes_and_gives(tmp_path: Path) -> None:
    head = "---\nvariables:\n  shop: {type: text, description: Whose.%s}\n---\nAnswer.\n"
    (tmp_path / "hello.prompt").write_text(head % "")
    with refused(" has none of the templates that a server takes; name one "):
        load_assistant(tmp_path)
    answer = (tmp_path / "hello.prompt").rename(tmp_path / "answer.prompt")
    with refused("; give it a default, or take one of: ") as caught:
        load_assistant(tmp_path)
    assert str(caught.value).startswith(f"{answer}:3: no server gives shop; ")
    answer.write_text(head % ", default: Kiyo")
    with refused(" leaves out what the user asks; declare the variable …, and show it."):
        load_assistant(tmp_path)
    answer.write_text(
        head.replace("\n---\nAnswer", "\n  question: {type: text, description: What.}\n---\nAnswer") % ", default: Kiyo"
    )
    assert load_assistant(tmp_path).template("answer", "en")


def test_every_message_has_its_story() -> None:
    assert without_story("prompts", Path(__file__)) == []
