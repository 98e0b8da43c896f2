"""`tunegate prompts`: what people and scripts see of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.answering import Page, Refusal, answering
from tunegate.api.versions import Producer, Release
from tunegate.cli import main
from tunegate.models import make_tiny
from tunegate.prompts import load_template
from tunegate.store import Store

SEARCH = """---
description: Answer from search results.
variables:
  results: {type: list, description: What was found.}
  query: {type: text, description: What is asked.}
limits: {prompt_tokens: 300}
---
--- system
You answer from what was found.
--- user
{{ results | fence }}
Question: {{ query | fence }}
"""
VALUES = "results: [{title: 水壶, price: 26}]\nquery: What does it cost?\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model", ["Price of the kettle?", "答案：水壶"])


@pytest.fixture
def search(tmp_path: Path) -> Path:
    (tmp_path / "values.yaml").write_text(VALUES)
    path = tmp_path / "search.prompt"
    path.write_text(SEARCH)
    return path


def prompts(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["prompts", *(str(word) for word in words)])
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_render_prints_the_exact_messages(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts("render", search, "--vars", search.parent / "values.yaml", "--var", "query=多少钱？") == 0

    assert capsys.readouterr().out == (
        "[system]\nYou answer from what was found.\n\n"
        '[user]\n<data-0000>\n[\n {\n  "title": "水壶",\n  "price": 26\n }\n]\n</data-0000>\n'
        "Question: <data-0000>\n多少钱？\n</data-0000>\n"
    )


def test_render_counts_tokens_by_a_folders_tokenizer(
    search: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    words = ("--vars", search.parent / "values.yaml", "--nonce", "8f3a")
    assert prompts("render", search, *words, "--tokenizer", tiny, "--format", "json") == 0

    result = json.loads(capsys.readouterr().out)
    exact = AutoTokenizer.from_pretrained(tiny).apply_chat_template(
        result["messages"], add_generation_prompt=True, return_dict=False
    )
    assert result["tokens"] == len(exact)
    assert "<data-8f3a>" in result["messages"][1]["content"]
    assert result["digest"].startswith("sha256:")


def test_render_counts_tokens_of_a_version(
    search: Path, tiny: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    version = store.publish(
        tiny, "shop/base/checkpoint-0", release=Release(format="huggingface"), producer=Producer(kind="test")
    )

    words = ("--vars", search.parent / "values.yaml", "--format", "json", "--tokenizer")
    assert prompts("render", search, *words, version.name) == 0
    of_version = json.loads(capsys.readouterr().out)
    assert prompts("render", search, *words, tiny) == 0
    assert of_version == json.loads(capsys.readouterr().out)


def test_render_shows_what_changed_in_text_and_tokens(
    search: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = search.with_name("new.prompt")
    new.write_text(
        SEARCH.replace("from what was found.", "from what was found, in one sentence.") + "{{ query | fence }}"
    )
    words = ("--vars", search.parent / "values.yaml", "--tokenizer", tiny)

    assert prompts("render", new, *words, "--against", search) == 0
    shown = capsys.readouterr().out
    assert prompts("render", new, *words, "--against", search, "--format", "json") == 0
    result = json.loads(capsys.readouterr().out)
    assert prompts("render", search, *words, "--against", search) == 0
    same = capsys.readouterr().out

    assert "-You answer from what was found.\n+You answer from what was found, in one sentence.\n" in shown
    difference = result["tokens"] - result["against"]["tokens"]
    assert difference == result["tokensDifference"] > 0
    assert shown.endswith(f"{result['against']['tokens']} -> {result['tokens']} tokens (+{difference})\n")
    assert same.startswith("The messages are the same.\n")
    assert same.endswith("tokens (+0)\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 1, "results (list) is missing; query (text) is missing"),
        (["--var", "results=[a", "--var", "query=a"], 1, "results is '[a', not of type list"),
        (["--var", "query"], 2, "--var query names no value; write it as NAME=VALUE"),
        (["--nonce", "A"], 2, "write 4 to 32 lower-case letters and digits"),
        (["--vars", "LIST"], 2, "holds no values by name"),
        (["--vars", "BROKEN"], 2, "is no YAML"),
        (["--tokenizer", "nowhere"], 2, "There is no folder nowhere; correct it, or give --store for a version"),
        (
            ["--vars", "VALUES", "--tokenizer", "TINY", "--var", f"query={'what ' * 200}"],
            1,
            "its limit prompt_tokens is",
        ),
    ],
    ids=["missing", "type", "no-value", "nonce", "list", "broken", "tokenizer", "limit"],
)
def test_what_can_not_be_rendered_says_why(
    words: list[str],
    code: int,
    said: str,
    search: Path,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    (search.parent / "list.yaml").write_text("- a\n")
    (search.parent / "broken.yaml").write_text("{a\n")
    named = {"TINY": tiny, **{name.upper(): search.parent / f"{name}.yaml" for name in ("list", "broken", "values")}}

    assert prompts("render", search, *(named.get(word, word) for word in words)) == code
    assert said in " ".join(capsys.readouterr().err.split())


def test_lint_names_rule_line_and_reason(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search.write_text(SEARCH.replace("{{ results | fence }}", "{{ results }}"))
    (search.parent / "gb.prompt").write_bytes("水壶".encode("gb18030"))

    assert prompts("lint", search, "search-en", search.parent / "gb.prompt") == 1
    shown = capsys.readouterr()
    assert prompts("lint", search, "--format", "json") == 1
    found = json.loads(capsys.readouterr().out)

    assert f"{search}:11: no-fence: results may hold instructions" in shown.out
    assert "gb.prompt:1: unreadable: " in shown.out
    assert shown.err == "3 templates, 2 findings\n"
    assert [(finding["rule"], finding["line"]) for finding in found] == [("no-fence", 11)]


def test_lint_is_content_with_good_templates_and_ignored_rules(
    search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prompts("lint", search, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert prompts("lint", "bad-guide-en", "--ignore", "no-role") == 0
    assert prompts("lint", "bad-guide-en", "--ignore", "role") == 2
    assert "There is no rule role; the rules are: vague-length" in capsys.readouterr().err


def test_built_in_templates_are_listed_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts("list") == 0
    assert "search-zh" in capsys.readouterr().out
    assert prompts("show", "search-zh") == 0
    (tmp_path / "mine.prompt").write_text(capsys.readouterr().out)

    assert load_template(tmp_path / "mine.prompt").digest == load_template("search-zh").digest
    assert prompts("show", "mine") == 2
    assert "No template mine comes with tunegate" in capsys.readouterr().err


CASES = """template: search.prompt
cases:
- id: cost
  variables: {results: [{price: 26}], query: What does it cost?}
  rules: [{kind: contains, any: [$26]}]
- id: color
  variables: {results: [], query: Which color?}
  rules: [{kind: contains, any: [blue]}]
"""


def about_the_kettle(question: str) -> str:
    if "refuse" in question:
        raise Refusal("The prompt is too long.")
    if "page" in question:
        raise Page("Welcome!")
    return "It costs $26."


@pytest.fixture
def model() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL of a server that knows what the kettle costs, and what it was asked."""
    with answering(about_the_kettle) as server:
        yield server


@pytest.mark.usefixtures("dead_proxy")
def test_try_asks_a_server_and_says_what_fails(
    search: Path,
    model: tuple[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, asked = model
    monkeypatch.setenv("TUNEGATE_API_KEY", "tg-secret")
    (search.parent / "cases.yaml").write_text(CASES)
    (search.parent / "good.yaml").write_text(CASES.partition("- id: color")[0])

    assert prompts("try", search.parent / "cases.yaml", "--url", url, "--junit", search.parent / "junit.xml") == 1
    shown = capsys.readouterr()
    assert prompts("try", search.parent / "good.yaml", "--url", f"{url}/v1", "--format", "json") == 0
    (result,) = json.loads(capsys.readouterr().out)

    assert shown.out.splitlines()[0].startswith("ok   cost (")
    assert shown.out.splitlines()[1].startswith("FAIL color (")
    assert '     contains {"any":["blue"]}\n     the answer: It costs $26.\n' in shown.out
    assert shown.err == "1 of 2 cases passed\n"
    assert '<failure message="contains' in (search.parent / "junit.xml").read_text()
    assert result["outcomes"][0]["passed"]
    assert result["digest"] == load_template(search).digest
    assert asked[0]["model"] == "shop"
    assert asked[0]["authorization"] == "Bearer tg-secret"
    assert "tg-secret" not in shown.out + shown.err
    nonces = {re.search(r"<data-(\w+)>", question["messages"][-1]["content"])[1] for question in asked}  # type: ignore[index]
    assert len(nonces) == 2  # one for each command


def test_try_goes_on_after_a_question_that_is_refused(
    search: Path, model: tuple[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    (search.parent / "cases.yaml").write_text(CASES.replace("What does it cost?", "refuse"))

    assert prompts("try", search.parent / "cases.yaml", "--url", model[0], "--model", "shop") == 1
    assert "     The prompt is too long.\nFAIL color" in capsys.readouterr().out


def test_try_asks_nothing_when_a_case_is_longer_than_the_limit(
    search: Path, tiny: Path, model: tuple[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    (search.parent / "cases.yaml").write_text(CASES.replace("Which color?", "what " * 200))

    assert prompts("try", search.parent / "cases.yaml", "--url", model[0], "--tokenizer", tiny) == 1
    assert "its limit prompt_tokens is 300" in capsys.readouterr().err
    assert model[1] == []


def test_try_ends_at_what_is_no_model(
    search: Path, model: tuple[str, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    (search.parent / "cases.yaml").write_text(CASES.replace("What does it cost?", "page"))

    assert prompts("try", search.parent / "cases.yaml", "--url", model[0]) == 1
    assert "/v1 does not answer as OpenAI's API does; check --url." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--url", "http://127.0.0.1:9"], 1, "Nothing answers at http://127.0.0.1:9/v1"),
        (["--url", "127.0.0.1:9"], 2, "write it as http://HOST:PORT"),
        (["--junit", "nowhere/junit.xml"], 2, "The folder nowhere does not exist"),
        (["--url", "PAGE"], 1, "lists no models as OpenAI's API does; check --url"),
    ],
    ids=["nobody", "no-url", "no-folder", "no-list"],
)
def test_try_says_why_it_can_not_ask(
    words: list[str],
    code: int,
    said: str,
    search: Path,
    web_proxy: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (search.parent / "cases.yaml").write_text(CASES)

    assert prompts("try", search.parent / "cases.yaml", *(word.replace("PAGE", web_proxy[0]) for word in words)) == code
    assert said.replace("PAGE", web_proxy[0]) in capsys.readouterr().err
