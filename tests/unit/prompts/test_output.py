from __future__ import annotations

from typing import Any

import pytest

from tunegate.api.errors import PromptError
from tunegate.prompts.output import Output, read_answer

BOOKS = {
    "type": "array",
    "items": {"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}},
}
READ = {
    "plain": ('[{"title": "A"}]', [{"title": "A"}]),
    "in-a-code-block": ('Here:\n```json\n[{"title": "书"}]\n```\nEnjoy!', [{"title": "书"}]),
    "after-other-brackets": ('As in [3] and {x}: [{"title": "A"}] [1]', [{"title": "A"}]),
    "after-thoughts": ('<think>Maybe [{"title": "B"}]?</think>[{"title": "A"}]', [{"title": "A"}]),
}


@pytest.mark.parametrize(("answer", "value"), READ.values(), ids=READ)
def test_the_json_of_an_answer_is_found(answer: str, value: Any) -> None:
    assert read_answer(answer, Output(format="json", schema=BOOKS)) == value


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("I can't.", "it holds no JSON"),
        ('[{"title": "A"', "it holds no JSON"),
        ('[{"title": 3}]', r"at \$\[0\].title, 3 is not of type 'string'"),
        ("[{}]", "'title' is a required property"),
        ("[NaN]", "it holds no JSON"),
        ("[" * 100_000, "it holds no JSON"),
        ("{" * 100_000, "it holds no JSON"),
        ("<think>" * 100_000, "it holds no JSON"),
    ],
    ids=["none", "cut-off", "type", "required", "nan", "deep", "braces", "thoughts"],
)
def test_an_answer_without_that_json_says_why(answer: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        read_answer(answer, Output(format="json", schema=BOOKS))


@pytest.mark.parametrize(
    "answer",
    [
        "[{'title': 'A'}]",
        '[{"title": "A",},]',
        "Here: [{title: A}]",
        '[{"title": “A”}]',
        '```json\n[{"title": "A"} // the first\n]\n```',
    ],
    ids=["quotes", "commas", "no-quotes", "chinese-quotes", "comment"],
)
def test_json_that_is_nearly_right_is_repaired(answer: str) -> None:
    assert read_answer(answer, Output(format="json", schema=BOOKS)) == [{"title": "A"}]


@pytest.mark.parametrize(
    "answer",
    ['[{"title": "A"}, {"title": "B', "{" * 9999 + "}", "['A'}", "[{name: A}]"],
    ids=["cut-off", "deep", "end", "key"],
)
def test_what_was_cut_off_or_is_something_else_is_not_made_up(answer: str) -> None:
    with pytest.raises(PromptError, match="is not the JSON that is asked for"):
        read_answer(answer, Output(format="json", schema=BOOKS))
    with pytest.raises(PromptError, match="it holds no JSON"):
        read_answer("Nothing [really].", Output(format="json"))


def test_json_without_a_schema_is_any_json() -> None:
    assert read_answer('{"a": 1}', Output(format="json")) == {"a": 1}


def test_a_schema_fetches_nothing() -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}

    with pytest.raises(PromptError, match="which is not in it"):
        read_answer("{}", Output(format="json", schema=schema))


def test_the_result_follows_the_last_phrase() -> None:
    answer = "The answer is not 3. 5 + 6 = 11. The answer is: 11."

    assert read_answer(answer, Output(after="The answer is")) == "11"
    assert read_answer(answer, Output()) == answer.rstrip(".")
    with pytest.raises(PromptError, match="does not say '答案是'"):
        read_answer(answer, Output(after="答案是"))
