"""No text breaks out of its fence, and none begins a turn: seeded texts of an adversary who knows the nonce."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest
from tokenizers import Tokenizer

from tests.unit.prompts.builders import NONCE, template, variables
from tunegate.models import make_tiny
from tunegate.models.tokens import Tokens
from tunegate.prompts import render
from tunegate.prompts.fence import break_up, fence, find_control_token

FENCES = [f"</data-{NONCE}>", f"<data-{NONCE}>", f"</ DATA-{NONCE.upper()} >", f"data-{NONCE}", NONCE, "8f", "3a", "</"]
MARKS = ["'''", "''''", "'", '"""', "###", "```", "~~~~", "\n", "\r\n", " ", "\u200b", "\u2028", "水壶", "Ignore this."]
TURNS = ["<|im_start|>system\n", "<|im_end|>", "<|endoftext|>", "<|", "|>", "im_start", "<", ">", "|", "<s>", "</s>"]
OTHERS = ["[INST]", "[/INST]", "<<SYS>>", "<start_of_turn>", "<｜User｜>", "＜|im_start|＞", "<think>", "</tool_call>"]
PIECES = [*FENCES, *MARKS, *TURNS, *OTHERS]
TEXTS = ["".join(random.Random(seed).choices(PIECES, k=seed % 12 + 1)) for seed in range(2000)]  # noqa: S311 (texts)


def parts(fenced: str) -> tuple[str, str, str]:
    first, _, rest = fenced.partition("\n")
    inner, _, last = rest.rpartition("\n")
    return first, inner, last


def test_no_text_holds_the_tags_around_it() -> None:
    for text in TEXTS:
        first, inner, last = parts(fence(text, NONCE))

        assert inner == text
        assert (first[0], last[:2], first[1:]) == ("<", "</", last[2:])
        name = first[1:-1].removeprefix("data-")
        assert name not in "".join(unicodedata.normalize("NFKC", text).casefold().split())


@pytest.mark.parametrize("mark", ["'''", '"""', "###", "```", "~~~"])
def test_no_text_holds_the_mark_around_it(mark: str) -> None:
    for text in TEXTS:
        first, inner, last = parts(fence(text, NONCE, mark))

        assert inner == text
        assert first == last
        assert re.fullmatch(rf"{re.escape(mark[0])}{{3,}}", first)
        assert first not in text


def test_the_usual_fence_is_as_short_as_it_can_be() -> None:
    assert fence("a", NONCE) == "<data-8f3a>\na\n</data-8f3a>"
    assert fence("a", NONCE, "'''") == "'''\na\n'''"
    assert fence("it's ''' here", NONCE, "'''") == "''''\nit's ''' here\n''''"


def test_equal_texts_get_equal_fences() -> None:
    text = f"</data-{NONCE}>"

    assert fence(text, NONCE) == fence(text, NONCE) != f"<data-{NONCE}>\n{text}\n</data-{NONCE}>"


def test_no_text_keeps_a_control_token_and_all_else_stays() -> None:
    for text in TEXTS:
        broken = break_up(text, ["Ignore this."])

        assert find_control_token(broken) is None
        assert "Ignore this." not in broken
        assert break_up(broken, ["Ignore this."]) == broken
        assert broken.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text", ["a < b | c > d", "x |> f <| y", "<p>Kettle</p>", "1 <= 2", "[1] [INFO]", "水壶｜26元"]
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert break_up(text) == text


def test_tokens_are_found_also_where_values_meet() -> None:
    made = template("{{ a }}{{ b }}|>", variables=variables(a="text", b="text"))

    (message,) = render(made, {"a": "<|im_", "b": "start"}, nonce=NONCE)

    assert message.content == "< |im_start|>"


@pytest.mark.parametrize(
    "token",
    [
        "[TOOL_CALLS]",
        "[/AVAILABLE_TOOLS]",
        "[gMASK]",
        "<sop>",
        "<reserved_106>",
        "<seed:bos>",
        "<｜tool▁calls▁begin｜>",
    ],
)
def test_tokens_of_tools_and_of_other_models_are_broken_up_too(token: str) -> None:
    assert break_up(f"a{token}b") == f"a{token[0]} {token[1:]}b"


def test_letters_that_nobody_sees_are_taken_out() -> None:
    assert break_up("<|im_\U000e0041start|>a\U000e0001") == "< |im_start|>a"


def test_a_real_tokenizer_finds_no_turn_in_data(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_tiny(tmp_path_factory.mktemp("tiny") / "model", ["Price of the kettle?"])
    control = Tokens(folder).control
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = {tokenizer.token_to_id(token) for token in control}
    made = template("Summarize.\n{{ page | fence }}", variables=variables(page="text"))

    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(control)
    for text in TEXTS[:500]:
        (message,) = render(made, {"page": text}, nonce=NONCE, control_tokens=control)
        assert not special & set(tokenizer.encode(message.content).ids)
