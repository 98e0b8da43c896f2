"""From a record to a dialogue, in the layouts that LLaMA-Factory reads: alpaca, sharegpt, and OpenAI's messages.

A record that is none is refused with a typed reason and a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

import msgspec

from tunegate.models.templates import TURN_END, TURN_START
from tunegate.training.data.dialogues import Dialogue, Message, Role
from tunegate.training.data.layouts import Layout, recognize
from tunegate.training.data.readers import Reason, Record, RecordError


def dialogue_of(record: Any, layout: Layout) -> Dialogue:
    """The record as an optional system message, then user and assistant in turn. Raises RecordError."""
    if isinstance(record, RecordError):
        raise record
    if not isinstance(record, dict):
        raise RecordError(Reason.NOT_AN_OBJECT, "the record is not an object")
    messages: list[Message] = []
    for role, said, is_trained in _TURNS[layout.formatting](record, layout):
        turn = "an assistant turn" if role == "assistant" else f"a {role} turn"
        content = _text(said, turn)
        if not content.strip() and role != "system":
            raise RecordError(Reason.NO_TEXT, f"{turn} has no text")
        if TURN_START in content or TURN_END in content:
            raise RecordError(
                Reason.RESERVED_TEXT,
                f"{turn} holds {TURN_START} or {TURN_END}, which belong to the chat template",
            )
        messages.append(Message(role, content, trained=is_trained))
    speakers: list[str] = [message.role for message in messages]
    if speakers[:1] == ["system"]:
        speakers = speakers[1:]
    if not speakers or len(speakers) % 2 or speakers != ["user", "assistant"] * (len(speakers) // 2):
        raise RecordError(
            Reason.NOT_IN_TURN,
            "user and assistant don't take turns, from a user's question to an assistant's answer",
        )
    return Dialogue(tuple(messages))


def dialogues_of(records: Iterable[Record], layout: Layout) -> list[Dialogue | RecordError]:
    """The dialogue of each record, or why it is none."""
    dialogues: list[Dialogue | RecordError] = []
    for record in records:
        try:
            dialogues.append(dialogue_of(record.value, layout))
        except RecordError as error:
            dialogues.append(error)
    return dialogues


def unread_keys(record: Any, layout: Layout) -> Iterator[str]:
    """What a record says beside what is read of it: its keys, and those of its messages, that hold something."""
    if not isinstance(record, dict):
        return
    columns, tags = layout.columns, layout.tags
    read = set(msgspec.structs.astuple(columns))
    yield from (str(key) for key, value in record.items() if key not in read and value not in _NOTHING)
    lists = [_get(record, column) for column in (columns.messages, columns.response)]
    messages = [message for each in lists if isinstance(each, list) for message in each]
    read_of_message = {tags.role_tag, tags.content_tag, *_WEIGHTS}
    if layout.formatting == "pairs":
        read_of_message = {tags.user_tag, tags.assistant_tag, tags.system_tag, *_WEIGHTS}
    found = {
        str(key)
        for message in messages
        if isinstance(message, dict)
        for key, value in message.items()
        if key not in read_of_message and value not in _NOTHING
    }
    yield from (f"{columns.messages}[].{key}" for key in sorted(found))


def _text(said: Any, turn: str) -> str:
    """The text of a turn, which may come in parts. Raises RecordError that names what is there instead."""
    if isinstance(said, str) or said is None:
        return said or ""
    if not isinstance(said, list):
        raise RecordError(Reason.NO_TEXT, f"{turn} is {_kind(said)}, not a text")
    for part in said:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = f"of the type {kind!r}" if kind else _kind(part)
            raise RecordError(Reason.NO_TEXT, f"a part of {turn} is {what}, and only text is trained")
    return "".join(_text(part.get("text", part.get("value")), turn) for part in said)


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}
    return f"{kinds.get(type(value), 'no text')} ({str(value)[:40]})"


def _is_trained(message: Mapping[str, Any]) -> bool:
    """What a message says of itself by OpenAI's key, ms-swift's, LLaMA-Factory's or axolotl's."""
    for key in _WEIGHTS:
        if (weight := message.get(key)) is not None and weight not in (0, 1):
            raise RecordError(Reason.BAD_MESSAGE, f"a message has the {key} {weight!r}; only 0 and 1 can be trained")
    return all(message.get(key) in (None, 1) for key in _WEIGHTS)


_WEIGHTS = ("weight", "loss", "loss_weight", "train")  # true and false are 1 and 0
_NOTHING: tuple[Any, ...] = (None, "", [], {})


def _alpaca(record: Mapping[str, Any], layout: Layout) -> Iterator[tuple[Role, Any, bool]]:
    """The turns of an alpaca record; an `input` goes on a new line below the `instruction`."""
    columns = layout.columns
    for column in (columns.prompt, columns.response):
        if column not in record:
            raise _missing(record, layout, f"it has no {column!r}", column)
    if system := _get(record, columns.system):
        yield "system", system, True
    history = _listed(record, columns.history) or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError(Reason.BAD_HISTORY, "a turn of the history is not a pair of question and answer")
        yield "user", pair[0], True
        yield "assistant", pair[1], True
    parts = [part for part in (_get(record, columns.prompt), _get(record, columns.query)) if part]
    yield "user", "\n".join(_text(part, "a user turn") for part in parts), True
    yield "assistant", _get(record, columns.response), True


def _messages(record: Mapping[str, Any], layout: Layout) -> Iterator[tuple[Role, Any, bool]]:
    """The turns of a sharegpt or OpenAI record."""
    columns, tags = layout.columns, layout.tags
    asked = _list_of_messages(record, layout, columns.messages)
    messages = asked + (_list_of_messages(record, layout, columns.response) if columns.response else [])
    untrained = len(asked) if columns.response else 0  # of TRL's prompt and completion the completion alone is trained
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    if (system := _get(record, columns.system)) and first.get(tags.role_tag) != tags.system_tag:
        yield "system", system, True
    roles: dict[str, Role] = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
    if layout.any_role:
        roles = _ROLES | roles
    for place, message in enumerate(messages):
        if isinstance(message, dict) and (calls := message.get("tool_calls") or message.get("function_call")):
            raise RecordError(Reason.TOOL_TURN, f"a message calls tools ({str(calls)[:60]}), and tools are not trained")
        if not isinstance(message, dict) or {tags.role_tag, tags.content_tag} - message.keys():
            raise RecordError(Reason.BAD_MESSAGE, f"a message does not have {tags.role_tag!r} and {tags.content_tag!r}")
        role = message[tags.role_tag]
        if role in (tags.observation_tag, tags.function_tag):
            raise RecordError(Reason.TOOL_TURN, f"{role!r} is a tool's turn, and tools are not trained")
        if not isinstance(role, str) or role not in roles:
            raise RecordError(Reason.UNKNOWN_ROLE, f"{role!r} is none of the roles {', '.join(roles)}")
        yield (
            roles[role],
            message[tags.content_tag],
            _is_trained(message) and place >= untrained,
        )


def _pairs(record: Mapping[str, Any], layout: Layout) -> Iterator[tuple[Role, Any, bool]]:
    """The turns of a list of questions with their answers, the first of which may have a system text beside it."""
    columns, tags = layout.columns, layout.tags
    pairs = _list_of_messages(record, layout, columns.messages)
    first = pairs[0] if pairs and isinstance(pairs[0], dict) else {}
    if system := _get(first, tags.system_tag) or _get(record, columns.system):
        yield "system", system, True
    for pair in pairs:
        if not isinstance(pair, dict) or {tags.user_tag, tags.assistant_tag} - pair.keys():
            raise RecordError(Reason.BAD_MESSAGE, f"a turn does not have {tags.user_tag!r} and {tags.assistant_tag!r}")
        yield "user", pair[tags.user_tag], True
        yield "assistant", pair[tags.assistant_tag], _is_trained(pair)


def _list_of_messages(record: Mapping[str, Any], layout: Layout, column: str | None) -> list[Any]:
    messages = _listed(record, column)
    if not isinstance(messages, list):
        raise _missing(record, layout, f"it has no list of messages under {column!r}", column)
    return messages


def _listed(record: Mapping[str, Any], column: str | None) -> Any:
    """What a column holds; a list that stands there as its JSON, as in a table of text, is that list."""
    value = _get(record, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise RecordError(Reason.NOT_JSON, f"the list under {column!r} is not valid JSON: {error}") from None
    return value


def _get(record: Mapping[str, Any], column: str | None) -> Any:
    return record.get(column) if column else None


def _missing(record: Mapping[str, Any], layout: Layout, problem: str, column: str | None) -> RecordError:
    """`problem`, with what the record may be instead: of another layout, or with a key spelled otherwise."""
    other = recognize(record)
    if other is not None and other.formatting != layout.formatting:
        problem += f"; it looks like {other.formatting}, in a data set of {layout.formatting}"
    elif near := get_close_matches(column or "", [key for key in record if isinstance(key, str)], 1):
        problem += f"; it has {near[0]!r}"
    return RecordError(Reason.COLUMN_MISSING, problem)


_ROLES: dict[str, Role] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
_TURNS = {"alpaca": _alpaca, "sharegpt": _messages, "openai": _messages, "pairs": _pairs}
