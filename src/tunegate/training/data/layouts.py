"""Which key of a record holds what: the layouts that data sets are written in, and how a record shows its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from tunegate.training.data.texts import has_marks

Formatting = Literal["alpaca", "sharegpt", "openai", "pairs", "glaive", "text"]


class Columns(msgspec.Struct, frozen=True):
    """Which key of a record holds what. Where an entry names columns, those it leaves out are not read.

    tools: what may be called, as a list or its JSON; tool_calls: calls that are the answer to `prompt`; reasoning: what
    was thought before the answer to it.
    """

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    system: str | None = None
    messages: str | None = None
    tools: str | None = None
    tool_calls: str | None = None
    reasoning: str | None = None
    chosen: str | None = None
    rejected: str | None = None


class Tags(msgspec.Struct, frozen=True):
    """How a message says who speaks and what is said; in pairs, the keys of question, answer and system text."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"
    observation_tag: str = "observation"
    function_tag: str = "function_call"


class Layout(msgspec.Struct, frozen=True):
    """formatting: alpaca has a question and an answer, sharegpt and openai messages, pairs a list of questions with
    their answers, glaive and text a text of all turns.

    any_role: roles may be called as anybody calls them, as no tags were given.
    """

    formatting: Formatting
    columns: Columns
    tags: Tags
    any_role: bool = True

    @property
    def is_ranked(self) -> bool:
        """Whether a record has two answers to one prompt, a better and a worse."""
        return self.columns.rejected is not None


_COLUMNS = {
    "alpaca": Columns("instruction", "input", "output", "history", "system", tools="tools"),
    "sharegpt": Columns(messages="conversations", system="system", tools="tools"),
    "openai": Columns(messages="messages", tools="tools"),
    "pairs": Columns(messages="conversation", system="system", tools="tools"),
    "glaive": Columns(messages="chat", system="system"),
    "text": Columns(messages="text"),
}
_TAGS = {
    "openai": Tags("role", "content", "user", "assistant", "system", "tool", "function"),
    "pairs": Tags("", "", "human", "assistant", "system", "", ""),
}
_MESSAGES = ("messages", "conversations", "conversation", "dialogue", "dialog", "data")
_ROLE_TAGS = ("from", "role", "speaker")
_CONTENT_TAGS = ("value", "content", "text")
_QUESTIONS = ("instruction", "prompt", "query", "question", "problem", "input", "inputs")
_ANSWERS = ("output", "completion", "response", "answer", "solution", "target", "targets")
# What the same is called elsewhere: told in advice, and not taken without being asked.
_CHINESE_QUESTIONS, _CHINESE_ANSWERS = ("指令", "问题", "提问", "输入"), ("输出", "回答", "答案", "回复")
# Alpaca's, TRL's, ms-swift's and Firefly's, which win over what else looks like a question and an answer.
_KNOWN = {("instruction", "output"), ("prompt", "completion"), ("query", "response"), ("input", "target")}
_PAIRS = (
    *(("human", "assistant"), ("user", "assistant"), ("question", "answer")),
    *(("query", "response"), ("prompt", "response"), ("input", "output")),
)


def layout_of(formatting: Formatting, columns: Columns | None = None, tags: Tags | None = None) -> Layout:
    usual = _TAGS.get(formatting, Tags())
    return Layout(formatting, columns or _COLUMNS[formatting], tags or usual, any_role=tags is None)


def recognize(record: Any) -> Layout | None:
    """The layout of a record by its keys; None where they are those of no layout, or of several."""
    found = layouts_of(record)
    return found[0] if len(found) == 1 else None


def layouts_of(record: Any) -> list[Layout]:
    """Every layout that a record may be of."""
    if not isinstance(record, dict):
        return []
    if isinstance(record.get("chat"), str) and "USER:" in record["chat"]:
        return [layout_of("glaive")]
    if {"input", "reasoning_content", "content"} <= record.keys():  # what was asked of DeepSeek's API
        return [layout_of("alpaca", Columns(prompt="input", response="content", reasoning="reasoning_content"))]
    if {"query", "answers", "tools"} <= record.keys():  # xlam's, whose answers are calls
        return [layout_of("alpaca", Columns(prompt="query", tool_calls="answers", tools="tools"))]
    of_messages = [_of_messages(record, column) for column in _MESSAGES]
    found = [layout for layout in of_messages if layout] + _of_question_and_answer(record)
    is_text = isinstance(record.get("text"), str) and has_marks(record["text"])
    return found or ([layout_of("text")] if is_text else [])


def entry_of(layout: Layout, record: Any) -> str:
    """What an entry of dataset_info.json says of a layout: the columns that a record has, and unusual tags."""
    usual = layout_of(layout.formatting)
    columns = {name: key for name, key in _given(layout.columns, Columns()).items() if key in (*record, "KEY")}
    said = {"formatting": layout.formatting, "columns": columns}
    if layout.tags != usual.tags:
        said["tags"] = _given(layout.tags, usual.tags)
    return json.dumps(said, ensure_ascii=False)


def advice(record: Any) -> str:
    """What to write into dataset_info.json where a record shows no layout, or several."""
    if found := layouts_of(record):
        entries = [entry_of(layout, record) for layout in found]
        return f"say which of its layouts is meant, in its entry of dataset_info.json: {' or '.join(entries)}"
    keys = list(record) if isinstance(record, dict) else []
    for key in keys:
        first = _first(record, key)
        roles = [each for each in first if each in _ROLE_TAGS] if isinstance(first, dict) else []
        texts = [each for each in first if each in _CONTENT_TAGS] if isinstance(first, dict) else []
        if roles and texts:
            tags = Tags(role_tag=roles[0], content_tag=texts[0])
            layout = layout_of("sharegpt", Columns(messages=str(key)), tags)
            return f"describe it in dataset_info.json: {entry_of(layout, record)}"
    by_name = {str(key).strip().lower(): str(key) for key in reversed(keys)}
    question = next((by_name[key] for key in (*_QUESTIONS, *_CHINESE_QUESTIONS) if key in by_name), "KEY")
    answer = next((by_name[key] for key in (*_ANSWERS, *_CHINESE_ANSWERS) if key in by_name), "KEY")
    layout = layout_of("alpaca", Columns(prompt=question, response=answer))
    return (
        f"describe it in dataset_info.json, with the keys that are meant: {entry_of(layout, record)}; where "
        'that can\'t say it, write the records as {"messages": [{"role": "user", "content": "..."}, '
        '{"role": "assistant", "content": "..."}]}'
    )


def _of_messages(record: Mapping[str, Any], column: str) -> Layout | None:
    """The layout of a list of messages, or of questions with their answers, by the first of them."""
    first = _first(record, column)
    if isinstance(first, str):  # who speaks is not said: they take turns
        return layout_of("sharegpt", Columns(messages=column, system=_system(record)))
    if not isinstance(first, dict):
        return None
    roles = [key for key in _ROLE_TAGS if key in first]
    texts = [key for key in _CONTENT_TAGS if key in first]
    system, tools = _system(record), "functions" if "functions" in record and "tools" not in record else "tools"
    if len(roles) == 1 and (texts or "tool_calls" in first):
        tag = Tags(role_tag=roles[0], content_tag=texts[0] if texts else "content")
        if (tag.role_tag, tag.content_tag) == ("role", "content"):
            return layout_of("openai", Columns(messages=column, system=system, tools=tools))
        made = layout_of("sharegpt", Columns(messages=column, system=system, tools=tools))
        return msgspec.structs.replace(made, tags=tag)
    for question, answer in _PAIRS:
        if {question, answer} <= first.keys():
            made = layout_of("pairs", Columns(messages=column, system=system, tools=tools))
            return msgspec.structs.replace(
                made, tags=msgspec.structs.replace(made.tags, user_tag=question, assistant_tag=answer)
            )
    return None


def _of_question_and_answer(record: Mapping[str, Any]) -> list[Layout]:
    questions = [key for key in _QUESTIONS if key in record]
    found = [
        (question, answer)
        for question in questions
        for answer in _ANSWERS
        if answer in record and (question not in ("input", "inputs") or questions == [question])
    ]
    return [_of_columns(record, *pair) for pair in [pair for pair in found if pair in _KNOWN] or found]


def _of_columns(record: Mapping[str, Any], question: str, answer: str) -> Layout:
    system = _system(record)
    if isinstance(_first(record, question), dict):  # TRL's conversational form
        return layout_of("openai", Columns(messages=question, response=answer, system=system, tools="tools"))
    beside = "context" if "context" in record and "input" not in record else "input"
    query = beside if question != "input" else None
    return layout_of("alpaca", Columns(question, query, answer, "history", system, tools="tools"))


def _system(record: Mapping[str, Any]) -> str:
    return "system_prompt" if "system_prompt" in record and "system" not in record else "system"


def _first(record: Mapping[str, Any], column: str) -> Any:
    value = record.get(column)
    return value[0] if isinstance(value, list) and value else None


def _given(values: msgspec.Struct, usual: msgspec.Struct) -> dict[str, Any]:
    """Those fields that say something else than the usual ones."""
    said, known = msgspec.structs.asdict(values), msgspec.structs.asdict(usual)
    return {key: value for key, value in said.items() if value != known[key]}


def merged(records: Iterable[Any]) -> Any:
    """One record with the keys of all, each with the first value that holds something; else the first record."""
    found: dict[str, Any] = {}
    first: Any = None
    for record in records:
        first = record if first is None else first
        for key, value in record.items() if isinstance(record, dict) else ():
            if not found.get(key):
                found[key] = value
    return found or first
