"""Which key of a record holds what: the layouts that data sets are written in, and how a record shows its own."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Formatting = Literal["alpaca", "sharegpt", "openai"]


class Columns(msgspec.Struct, frozen=True):
    """Which key of a record holds what. Where an entry names columns, those it leaves out are not read."""

    prompt: str | None = None
    query: str | None = None
    response: str | None = None
    history: str | None = None
    system: str | None = None
    messages: str | None = None


class Tags(msgspec.Struct, frozen=True):
    """How a message says who speaks and what is said."""

    role_tag: str = "from"
    content_tag: str = "value"
    user_tag: str = "human"
    assistant_tag: str = "gpt"
    system_tag: str = "system"
    observation_tag: str = "observation"
    function_tag: str = "function_call"


class Layout(msgspec.Struct, frozen=True):
    formatting: Formatting
    columns: Columns
    tags: Tags


_COLUMNS = {
    "alpaca": Columns(prompt="instruction", query="input", response="output", history="history", system="system"),
    "sharegpt": Columns(messages="conversations", system="system"),
    "openai": Columns(messages="messages"),
}
_OPENAI_TAGS = Tags("role", "content", "user", "assistant", "system", "tool", "function")


def layout_of(formatting: Formatting, columns: Columns | None = None, tags: Tags | None = None) -> Layout:
    usual = _OPENAI_TAGS if formatting == "openai" else Tags()
    return Layout(formatting, columns or _COLUMNS[formatting], tags or usual)


def recognize(record: Any) -> Layout | None:
    """The layout of a record by its keys; None where they are those of no layout, or of several."""
    if not isinstance(record, dict):
        return None
    found: list[Layout] = []
    if {"instruction", "output"} <= record.keys():
        found.append(layout_of("alpaca"))
    for column in ("conversations", "messages"):
        first = next(iter(record[column]), None) if isinstance(record.get(column), list) else None
        if isinstance(first, dict) and {"from", "value"} <= first.keys():
            found.append(layout_of("sharegpt", Columns(messages=column, system="system")))
        elif isinstance(first, dict) and {"role", "content"} <= first.keys():
            found.append(layout_of("openai", Columns(messages=column)))
    return found[0] if len(found) == 1 else None
