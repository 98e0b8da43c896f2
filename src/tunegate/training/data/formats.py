"""From a record to a dialogue, in the layouts that LLaMA-Factory reads: alpaca, sharegpt, and OpenAI's messages.

A record that is none is refused with a typed reason and a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, cast

import msgspec

from tunegate.models.templates import TURN_END, TURN_START
from tunegate.training.data.calls import calls_of, glaive_system, glaive_turns, tools_of
from tunegate.training.data.dialogues import Dialogue, Message, Role
from tunegate.training.data.layouts import Layout, recognize
from tunegate.training.data.readers import Reason, Record, RecordError
from tunegate.training.data.texts import turns_of_text


def dialogue_of(record: Any, layout: Layout) -> Dialogue:
    """The record as an optional system message, then user and assistant in turn. Raises RecordError."""
    if isinstance(record, RecordError):
        raise record
    if not isinstance(record, dict):
        raise RecordError(Reason.NOT_AN_OBJECT, "the record is not an object")
    tools = tools_of(_get(record, layout.columns.tools))
    if layout.formatting == "glaive":
        _, tools = _glaive_system(record, layout)
    messages: list[Message] = []
    for message in _TURNS[layout.formatting](record, layout):
        _check(message)
        # Calls that stand one after another were made at once.
        if message.tool_calls and not message.content and messages and messages[-1].role == "assistant":
            before = messages.pop()
            message = msgspec.structs.replace(before, tool_calls=before.tool_calls + message.tool_calls)
        messages.append(message)
    _check_turns(messages)
    return Dialogue(tuple(messages), tools)


def _check(message: Message) -> None:
    turn = "an assistant turn" if message.role == "assistant" else f"a {message.role} turn"
    if not message.content.strip() and message.role in ("user", "assistant") and not message.tool_calls:
        raise RecordError(Reason.NO_TEXT, f"{turn} has no text")
    if TURN_START in message.content or TURN_END in message.content:
        raise RecordError(
            Reason.RESERVED_TEXT,
            f"{turn} holds {TURN_START} or {TURN_END}, which belong to the chat template",
        )


def _check_turns(messages: Sequence[Message]) -> None:
    """Each question is followed by an answer or a call, and so is what tools say to one."""
    before = ""
    for place, message in enumerate(messages, start=1):
        speaker = "call" if message.tool_calls else message.role
        if speaker not in _AFTER[before]:
            expected = " or ".join(_TURN_OF[each] for each in _AFTER[before])
            turn = f"turn {place} is {_TURN_OF[speaker]}" + (f", after {_TURN_OF[before]}" if before else "")
            raise RecordError(
                Reason.NOT_IN_TURN, f"user and assistant don't take turns: {turn}, where {expected} belongs"
            )
        before = speaker
    if before not in ("assistant", "call"):
        ends = f"the last turn is {_TURN_OF[before]}" if before else "there is none"
        raise RecordError(
            Reason.NOT_IN_TURN, f"user and assistant don't take turns: {ends}, where {_TURN_OF['assistant']} belongs"
        )


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
    messages = [each for column in (columns.messages, columns.response) for each in _messages_in(record, column)]
    roles = _roles(layout)
    always = {tags.role_tag, tags.content_tag, *_WEIGHTS}
    if layout.formatting == "pairs":
        always = {tags.user_tag, tags.assistant_tag, tags.system_tag, *_WEIGHTS}
    found = {
        str(key)
        for message in messages
        for key, value in message.items()
        if key not in always
        and key not in _READ_OF_ROLES.get(roles.get(str(message.get(tags.role_tag)), ""), ())
        and value not in _NOTHING
    }
    yield from (f"{columns.messages}[].{key}" for key in sorted(found))
    if messages and roles.get(str(messages[0].get(tags.role_tag))) == "system" and _get(record, columns.system):
        yield str(columns.system)  # the first turn has another, which is taken


def _messages_in(record: Mapping[str, Any], column: str | None) -> list[Mapping[str, Any]]:
    with suppress(RecordError):
        found = _listed(record, column)
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return []


def _text(said: Any, turn: str) -> str:
    """The text of a turn, which may come in parts. Raises RecordError that names what is there instead."""
    if isinstance(said, str) or said is None:
        return said or ""
    if not isinstance(said, list):
        raise RecordError(Reason.NO_TEXT, f"{turn} is {_kind(said)}, not a text")
    if said and all(isinstance(part, str) for part in said):
        raise RecordError(Reason.NO_TEXT, f"{turn} is a list of {len(said)} texts, not one; give each a record")
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


_AFTER = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant", "call"),
    "assistant": ("user", "tool"),
    "call": ("user", "tool"),
    "tool": ("tool", "assistant", "call"),
}
_TURN_OF = {
    "system": "a system text",
    "user": "a user's",
    "assistant": "an assistant's",
    "call": "a call of tools",
    "tool": "a tool's",
}
_WEIGHTS = ("weight", "loss", "loss_weight", "train")  # true and false are 1 and 0
_NOTHING: tuple[Any, ...] = (None, "", [], {})


def _alpaca(record: Mapping[str, Any], layout: Layout) -> Iterator[Message]:
    """The turns of an alpaca record; an `input` goes on a new line below the `instruction`."""
    columns = layout.columns
    for column in (columns.prompt, columns.tool_calls or columns.response):
        if column not in record:
            raise missing(record, layout, f"it has no {column!r}", column)
    yield from _system_of(_get(record, columns.system))
    history = _listed(record, columns.history) or []
    for pair in history if isinstance(history, list) else [history]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RecordError(Reason.BAD_HISTORY, "a turn of the history is not a pair of question and answer")
        yield from _asked_and_answered(*pair)
    parts = [part for part in (_get(record, columns.prompt), _get(record, columns.query)) if part]
    yield Message("user", "\n".join(_text(part, "a user turn") for part in parts))
    calls = calls_of(record[columns.tool_calls]) if columns.tool_calls else ()
    answer = _text(_get(record, columns.response), "an assistant turn")
    yield Message("assistant", answer, _text(_get(record, columns.reasoning), "the reasoning"), calls)


def _messages(record: Mapping[str, Any], layout: Layout) -> Iterator[Message]:
    """The turns of a sharegpt or OpenAI record."""
    columns, tags = layout.columns, layout.tags
    asked = _list_of_messages(record, layout, columns.messages)
    messages = asked + (_answer_in(record, layout) if columns.response else [])
    untrained = len(asked) if columns.response else 0  # of TRL's prompt and completion the completion alone is trained
    first = messages[0] if messages and isinstance(messages[0], dict) else {}
    roles = _roles(layout)
    if roles.get(str(first.get(tags.role_tag))) != "system":
        yield from _system_of(_get(record, columns.system))
    for place, message in enumerate(messages):
        if isinstance(message, str):  # who speaks is not said: they take turns
            yield Message("assistant" if place % 2 else "user", message)
            continue
        if not isinstance(message, dict) or tags.role_tag not in message:
            keys = f"; it has {', '.join(map(repr, message))}" if isinstance(message, dict) and message else ""
            raise RecordError(
                Reason.BAD_MESSAGE, f"a message does not have {tags.role_tag!r} and {tags.content_tag!r}{keys}"
            )
        role = message[tags.role_tag]
        if not isinstance(role, str) or role not in roles:
            raise RecordError(Reason.UNKNOWN_ROLE, f"{role!r} is none of the roles {', '.join(roles)}")
        made = _message(message, roles[role], tags.content_tag)
        yield made if place >= untrained else msgspec.structs.replace(made, trained=False)


def _answer_in(record: Mapping[str, Any], layout: Layout) -> list[Any]:
    """The messages of an answer, which may be a text beside a list of what was said before."""
    column, tags = layout.columns.response, layout.tags
    if isinstance(answer := _get(record, column), str) and not answer.lstrip().startswith("["):
        return [{tags.role_tag: tags.assistant_tag, tags.content_tag: answer}]
    return _list_of_messages(record, layout, column)


def _roles(layout: Layout) -> dict[str, str]:
    """What roles are called, and which turns they are; a `call` is an assistant's that is nothing else."""
    tags = layout.tags
    named = {tags.user_tag: "user", tags.assistant_tag: "assistant", tags.system_tag: "system"}
    named |= {tags.observation_tag: "tool", tags.function_tag: "call"}
    return named | _ROLES if layout.any_role else named


def _message(message: Mapping[str, Any], role: str, content_tag: str) -> Message:
    said, calls = message.get(content_tag), message.get("tool_calls") or message.get("function_call")
    if content_tag not in message and not calls:
        raise RecordError(Reason.BAD_MESSAGE, f"a message has no {content_tag!r}")
    trained = _is_trained(message)
    if role == "call":
        return Message("assistant", tool_calls=calls_of(said), trained=trained)
    if role == "tool":
        result = said if isinstance(said, str) or _is_of_text(said) else json.dumps(said, ensure_ascii=False)
        name, call = message.get("name") or "", message.get("tool_call_id") or ""
        return Message("tool", _text(result, "a tool turn"), name=str(name), tool_call_id=str(call), trained=trained)
    content = _text(said, "an assistant turn" if role == "assistant" else f"a {role} turn")
    if role != "assistant":
        return Message(cast(Role, role), content, trained=trained)
    reasoning = next((message[key] for key in _REASONING if message.get(key)), "")
    return Message("assistant", content, _text(reasoning, "the reasoning"), calls_of(calls or []), trained=trained)


def _is_of_text(said: Any) -> bool:
    return isinstance(said, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in said)


def _pairs(record: Mapping[str, Any], layout: Layout) -> Iterator[Message]:
    """The turns of a list of questions with their answers, the first of which may have a system text beside it."""
    columns, tags = layout.columns, layout.tags
    pairs = _list_of_messages(record, layout, columns.messages)
    first = pairs[0] if pairs and isinstance(pairs[0], dict) else {}
    yield from _system_of(_get(first, tags.system_tag) or _get(record, columns.system))
    for pair in pairs:
        if not isinstance(pair, dict) or {tags.user_tag, tags.assistant_tag} - pair.keys():
            raise RecordError(Reason.BAD_MESSAGE, f"a turn does not have {tags.user_tag!r} and {tags.assistant_tag!r}")
        yield from _asked_and_answered(pair[tags.user_tag], pair[tags.assistant_tag], trained=_is_trained(pair))


def _glaive(record: Mapping[str, Any], layout: Layout) -> Iterator[Message]:
    columns = layout.columns
    if columns.messages is None or columns.messages not in record:
        raise missing(record, layout, f"it has no {columns.messages!r}", columns.messages)
    yield from _system_of(_glaive_system(record, layout)[0])
    yield from glaive_turns(_text(record[columns.messages], "the dialogue"))


def _one_text(record: Mapping[str, Any], layout: Layout) -> Iterator[Message]:
    column = layout.columns.messages
    if column is None or column not in record:
        raise missing(record, layout, f"it has no {column!r}", column)
    yield from turns_of_text(_text(record[column], "the dialogue"))


def _glaive_system(record: Mapping[str, Any], layout: Layout) -> tuple[str, tuple[dict[str, Any], ...]]:
    return glaive_system(_text(_get(record, layout.columns.system), "the system text"))


def _system_of(said: Any) -> Iterator[Message]:
    if said:
        yield Message("system", _text(said, "a system turn"))


def _asked_and_answered(asked: Any, answered: Any, *, trained: bool = True) -> Iterator[Message]:
    yield Message("user", _text(asked, "a user turn"))
    yield Message("assistant", _text(answered, "an assistant turn"), trained=trained)


def _list_of_messages(record: Mapping[str, Any], layout: Layout, column: str | None) -> list[Any]:
    messages = _listed(record, column)
    if not isinstance(messages, list):
        raise missing(record, layout, f"it has no list of messages under {column!r}", column)
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


def missing(record: Mapping[str, Any], layout: Layout, problem: str, column: str | None) -> RecordError:
    """`problem`, with what the record may be instead: of another layout, or with a key spelled otherwise."""
    other = recognize(record)
    if other is not None and other.formatting != layout.formatting:
        problem += f"; it looks like {other.formatting}, in a data set of {layout.formatting}"
    elif near := get_close_matches(column or "", [key for key in record if isinstance(key, str)], 1):
        problem += f"; it has {near[0]!r}"
    return RecordError(Reason.COLUMN_MISSING, problem)


_REASONING = ("reasoning_content", "reasoning", "thinking")
_READ_OF_ROLES = {"assistant": ("tool_calls", "function_call", *_REASONING), "tool": ("tool_call_id", "name")}
_ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
_TURNS: dict[str, Callable[[Mapping[str, Any], Layout], Iterator[Message]]] = {
    "alpaca": _alpaca,
    "sharegpt": _messages,
    "openai": _messages,
    "pairs": _pairs,
    "glaive": _glaive,
    "text": _one_text,
}
