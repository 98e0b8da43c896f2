"""Which key of a record holds what where it has a better and a worse answer: LLaMA-Factory's, TRL's, ms-swift's."""

from __future__ import annotations

from typing import Any

import msgspec

from tunegate.training.data.layouts import Columns, Formatting, Layout, Tags, layout_of

_QUESTIONS = ("instruction", "question")


def layout_of_ranked(formatting: Formatting, columns: Columns | None = None, tags: Tags | None = None) -> Layout:
    """The layout of an entry with `ranking`; `chosen` and `rejected` where it names no columns."""
    usual = layout_of(formatting, columns, tags)
    ranked = msgspec.structs.replace(usual.columns, response=None, chosen="chosen", rejected="rejected")
    return msgspec.structs.replace(usual, columns=columns or ranked)


def recognize_ranked(record: Any) -> Layout | None:
    """The layout of a record with two answers, by its keys; None where it has none."""
    if not isinstance(record, dict):
        return None
    if {"input", "preferred_output", "non_preferred_output"} <= record.keys():  # OpenAI's
        columns = Columns(messages="input", tools="tools", chosen="preferred_output", rejected="non_preferred_output")
        return layout_of("openai", columns)
    rejected = next((key for key in ("rejected", "rejected_response", "rejected_messages") if key in record), None)
    if rejected is None or (rejected == "rejected" and "chosen" not in record):
        return None
    chosen = "chosen" if rejected == "rejected" else None
    beside = {"system": "system", "tools": "tools", "chosen": chosen, "rejected": rejected}
    if isinstance(record.get("conversations"), list):
        return layout_of(
            "sharegpt",
            Columns(messages="conversations", **beside),
        )
    question = next((key for key in _QUESTIONS if isinstance(record.get(key), str)), None)
    if question and isinstance(record[rejected], str):
        usual = layout_of("alpaca").columns
        response = None if chosen else usual.response
        return layout_of(
            "alpaca",
            msgspec.structs.replace(usual, prompt=question, response=response, chosen=chosen, rejected=rejected),
        )
    messages = "messages" if chosen is None or isinstance(record[rejected], dict) else "prompt"
    return layout_of("openai", Columns(messages=messages, **beside))
