"""One search, then one answer: by the article's prompt with its five variables, or by the knowledge base's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tests.unit.agent.sites import TALLEST, Answer, results, site
from tunegate.agent import Answered, Reply, Taken, Tool, once
from tunegate.agent.search import Engine
from tunegate.agent.toolbox import build
from tunegate.api.errors import PromptError
from tunegate.knowledge.build import build as build_index
from tunegate.knowledge.documents import Document, Section
from tunegate.knowledge.index import Index
from tunegate.prompts import Message, load_template

TODAY = date(2026, 11, 28)


def run(
    tool: Tool, question: str, answer: str, **options: Any
) -> tuple[list[Taken | Answered], list[Sequence[Message]]]:
    asked = []

    async def model(messages: Sequence[Message]) -> Reply:
        asked.append(messages)
        return Reply(answer, 7)

    async def collect() -> list[Taken | Answered]:
        events = once.ask(question, tool, model, today=TODAY, nonce="8f3a", **options)
        return [event async for event in events]

    return asyncio.run(collect()), asked


def test_the_articles_prompt_is_what_is_asked() -> None:
    with site({"/search": results([TALLEST])}) as searxng:
        (tool,) = build(["search"], search=Engine(searxng.url))
        events, ((message,),) = run(tool, "How tall is it?", "632 meters [1][2].")

    assert events[-1] == Answered("632 meters [1].", "answer", 1, 7)
    assert message.content == (
        "Web search results:<data-8f3a>\n[1] Shanghai Tower (2026-03-01, https://example.com/tower)\n"
        "At 632 meters it is the tallest building in Shanghai.\n</data-8f3a>\nCurrent date:2026-11-28\n"
        "Instruction: Summarize the user query using the given web search results\n"
        "User Query: <data-8f3a>\nHow tall is it?\n</data-8f3a>\nResponse language: English"
    )


def test_it_answers_in_the_language_of_the_question() -> None:
    with site({"/search": results([TALLEST])}) as searxng:
        (tool,) = build(["search"], search=Engine(searxng.url))
        _, ((english,),) = run(tool, "上海最高的楼多高？", "ok")
        _, ((chinese,),) = run(tool, "How tall?", "ok", language="zh")

    assert english.content.endswith("Response language: Chinese")
    assert chinese.content.endswith("回答语言：英文")
    assert "指令：使用给定的网页搜索结果，总结回答用户的提问" in chinese.content


def test_an_engine_that_fails_is_what_was_found() -> None:
    with site({"/search": Answer(status=403)}) as searxng:
        (tool,) = build(["search"], search=Engine(searxng.url))
        (taken, answered), ((message,),) = run(tool, "How tall?", "I can't search now.")

    assert isinstance(taken, Taken)
    assert "add json to search.formats" in taken.observation
    assert taken.observation in message.content
    assert isinstance(answered, Answered)


@pytest.fixture
def knowledge(tmp_path: Path) -> Tool:
    sections = (Section("Send it back within 14 days.", ("Returns",)), Section("退货请在签收后14天内。", ("退货",)))
    build_index([Document("help.md", "Help", sections)], tmp_path / "index")
    return build(["knowledge"], index=Index(tmp_path / "index"))[0]


@pytest.mark.parametrize(
    ("question", "language", "reply"), [("Can I send it back?", "en", "English"), ("怎么退货？", "zh", "中文")]
)
def test_a_knowledge_base_is_quoted_by_number(knowledge: Tool, question: str, language: str, reply: str) -> None:
    before = [Message("system", "You are Xuan.")]
    (taken, answered), (messages,) = run(knowledge, question, "14 [1]. 15 [9].", language=language, before=before)

    assert isinstance(taken, Taken)
    assert taken.sources[0].number == 1
    assert answered == Answered("14 [1]. 15.", "answer", 1, 7)
    assert messages[0] == before[0]
    task = load_template(f"knowledge-{language}").head.task
    text = messages[1].content
    assert text.startswith(f"{task}\n")
    assert text.count(task) == 2
    assert f"<data-8f3a>\n{taken.observation}\n</data-8f3a>" in text
    assert text.endswith(reply)


def test_where_it_does_not_say_no_model_is_asked(knowledge: Tool) -> None:
    (taken, answered), asked = run(knowledge, "Who is the mayor?", "Me.")

    assert isinstance(taken, Taken)
    assert answered == Answered("The knowledge base does not say.", "not found", 1, 0)
    assert not asked


def test_another_template_may_ask(knowledge: Tool) -> None:
    with pytest.raises(PromptError, match="sources is not one of its variables"):
        run(knowledge, "Can I send it back?", "ok", template=load_template("search-en"))
