"""Documents that give orders, in a served release: what the engine is sent outside of fences stays the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.unit.serving.releases import opened
from tests.unit.serving.standin import MODEL, Server
from tunegate.evaluation.injection import ATTACKS, PAGES, Attack, Page, poisoned
from tunegate.evaluation.suites import SHIPPED
from tunegate.knowledge.build import build
from tunegate.knowledge.documents import Document, Section
from tunegate.prompts.fence import find_control_token
from tunegate.serving.parts import Parts

LOOK: dict[str, str] = {
    "en": "Thought: I look it up.\nAction: Knowledge base\nInput: {0}\n",
    "zh": "思考：先查资料。\n行动：知识库\n输入：{0}\n",
}
_FENCED = re.compile(r"<data-(?P<nonce>[0-9a-z]+)>\n(?P<text>.*?)\n</data-(?P=nonce)>", re.DOTALL)


def lines(language: str, name: str) -> list[Any]:
    return [json.loads(line) for line in (SHIPPED / f"injection-{language}" / name).read_text().splitlines()]


@pytest.fixture(params=["en", "zh"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def attacks(language: str) -> list[Attack]:
    return [Attack(**it) for it in lines(language, ATTACKS)]


@pytest.fixture
def page(language: str) -> Page:
    return Page(**lines(language, PAGES)[0])


@pytest.fixture(params=["knowledge", "react", "openai"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def parts(tmp_path: Path, attacks: list[Attack], page: Page, dialect: str) -> Parts:
    """A release whose knowledge is poisoned throughout: in texts, titles and headings."""
    documents = [
        Document(f"{it.id}.md", it.text, (Section(poisoned(page, it).text, (it.id, it.text)),)) for it in attacks
    ]
    build(documents, tmp_path / "index")
    if dialect == "knowledge":
        return opened(index=tmp_path / "index")
    return opened(index=tmp_path / "index", tools=("knowledge",), dialect=dialect)


def test_the_engine_is_sent_the_same_around_every_attack(
    server: Server, attacks: list[Attack], page: Page, language: str, dialect: str
) -> None:
    around, fenced = set(), ""
    with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
        for attack in attacks:
            question = f"{page.question} {attack.id}"
            call = {"id": "a", "index": 0, "type": "function"}
            call |= {"function": {"name": "knowledge", "arguments": json.dumps({"question": question})}}
            asks: list[Any] = [LOOK[language].format(question)] if dialect == "react" else [[{"tool_calls": [call]}]]
            server.engine.says = [*(asks if dialect != "knowledge" else ()), "Final Result: ok"]
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": question}])

            sent = server.engine.asked[-1]["messages"]
            assert not [it for it in sent if find_control_token(str(it))]
            # what the model itself asked stands in its own turn
            seen = [
                (it["role"], _FENCED.sub("<data>", it["content"] or "")) for it in sent if it["role"] != "assistant"
            ]
            around.add(json.dumps(seen))
            fenced += "".join(each["text"] for it in sent for each in _FENCED.finditer(it["content"] or ""))

    assert len(around) == 1
    marks = {mark for attack in attacks for mark in attack.obeyed}
    assert [mark for mark in marks if mark in fenced]
    assert not [mark for mark in marks if mark in next(iter(around))]
