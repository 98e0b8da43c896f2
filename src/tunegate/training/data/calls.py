"""Tools and calls of them in the forms that data sets have: OpenAI's objects, JSON in a text, glaive's own writing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tunegate.training.data.dialogues import Message, ToolCall
from tunegate.training.data.readers import Reason, RecordError

_TURN = re.compile(r"(?:^|\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):")
_QUOTED = re.compile(r"(\"arguments\":\s*)'(.*)'(\s*\}\s*)$", re.DOTALL)  # glaive's arguments: JSON in single quotes
_CALL, _END = "<functioncall>", "<|endoftext|>"


def calls_of(value: Any) -> tuple[ToolCall, ...]:
    """One call or several, as objects or as their JSON. Raises RecordError where that is not what stands there."""
    value = _decoded(value, "a tool call")
    return tuple(_call(each) for each in (value if isinstance(value, list) else [value]))


def tools_of(value: Any) -> tuple[dict[str, Any], ...]:
    """The tools of a dialogue, each as OpenAI describes a function. Raises RecordError where one has no name."""
    if value in (None, "", [], {}):
        return ()
    value = _decoded(value, "the list of tools")
    tools = []
    for tool in value if isinstance(value, list) else [value]:
        about = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(about, dict) or not isinstance(about.get("name"), str):
            raise RecordError(Reason.BAD_TOOL, f"a tool has no name ({str(tool)[:60]})")
        tools.append(tool if "function" in tool else {"type": "function", "function": tool})
    return tuple(tools)


def glaive_system(text: str) -> tuple[str, tuple[dict[str, Any], ...]]:
    """The words before the tools that follow them one after another, and the tools."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    start = text.find("{")
    if start < 0:
        return text, ()
    said, rest, found = text[:start].strip(), text[start:], []
    while rest:
        try:
            tool, end = json.JSONDecoder().raw_decode(rest)
        except ValueError as error:
            raise RecordError(Reason.BAD_TOOL, f"a tool in the system text is not valid JSON: {error}") from None
        found.append(tool)
        rest = rest[end:].strip(" \n\r\t,")
    return said, tools_of(found)


def glaive_turns(text: str) -> Iterator[Message]:
    """The turns of glaive's `USER: ... ASSISTANT: <functioncall> {...} FUNCTION RESPONSE: ...`."""
    head, *parts = _TURN.split(text)
    if head.strip() or not parts:
        raise RecordError(Reason.BAD_MESSAGE, f"the dialogue does not begin with USER: ({text[:40]!r})")
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        said = said.replace(_END, "").strip()
        if speaker == "USER":
            yield Message("user", said)
        elif speaker == "FUNCTION RESPONSE":
            yield Message("tool", said)
        else:
            content, called, call = said.partition(_CALL)
            calls = calls_of(_QUOTED.sub(_unquoted, call.strip())) if called else ()
            yield Message("assistant", content.strip(), tool_calls=calls)


def _unquoted(found: re.Match[str]) -> str:
    return found[1] + json.dumps(found[2].replace("\\'", "'")) + found[3]


def _call(value: Any) -> ToolCall:
    about = value.get("function", value) if isinstance(value, dict) else None
    name = about.get("name") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(name, str) or not name:
        raise RecordError(Reason.BAD_TOOL, f"a tool call has no name ({str(value)[:60]})")
    arguments = about.get("arguments", about.get("parameters"))
    arguments = _decoded(arguments or {}, f"what {name!r} is called with")
    if not isinstance(arguments, dict):
        raise RecordError(Reason.BAD_TOOL, f"what {name!r} is called with is no object ({str(arguments)[:40]})")
    return ToolCall(name, arguments, str(value.get("id") or ""))


def _decoded(value: Any, what: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise RecordError(Reason.BAD_TOOL, f"{what} is not valid JSON: {error} ({value[:60]!r})") from None
