"""Golden transcripts: requests to asks, events to bytes, and an engine's bytes to events."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from tunegate.serving.events import ApiError, Ask, Event, Finished, Text, ToolCalls, Used
from tunegate.serving.protocols.engine import EngineStream
from tunegate.serving.protocols.openai import Writer, read

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
EVENTS: list[Event] = [Text("Hm", reasoning=True), Text("夏"), ToolCalls([CALL]), Finished("stop", USAGE)]
HEAD = 'data: {"id":"c-1","object":"chat.completion.chunk","created":1,"model":"shop","choices":'
CHUNK = HEAD + '[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]'
CALLED = '{"id":"call_1","type":"function","function":{"name":"search","arguments":"{}"}}'


def stream(include_usage: bool) -> str:
    writer = Writer("c-1", "shop", 1, include_usage)
    return (writer.start() + b"".join(map(writer.write, EVENTS))).decode()


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream(include_usage: bool) -> None:
    end = ',"usage":null}\n\n' if include_usage else "}\n\n"
    deltas = [
        ('{"role":"assistant","content":""}', "null"),
        ('{"reasoning_content":"Hm"}', "null"),
        ('{"content":"夏"}', "null"),
        ('{"tool_calls":[{"index":0,' + CALLED[1:] + "]}", "null"),
        ("{}", '"stop"'),
    ]
    used = HEAD + '[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}\n\n'

    expected = "".join(CHUNK % delta + end for delta in deltas) + (used if include_usage else "") + "data: [DONE]\n\n"
    assert stream(include_usage) == expected


def test_a_whole_answer() -> None:
    assert Writer("c-1", "shop", 1).whole(EVENTS).decode() == (
        '{"id":"c-1","object":"chat.completion","created":1,"model":"shop","choices":[{"index":0,"message":'
        '{"role":"assistant","content":"夏","reasoning_content":"Hm","tool_calls":[' + CALLED + "]},"
        '"logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
    )


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("include_usage", [False, True])
def test_what_is_written_is_read_back(size: int, end: str, include_usage: bool) -> None:
    sent, reader = stream(include_usage).replace("\n\n", end).encode(), EngineStream()
    events = [event for at in range(0, len(sent), size) for event in reader.feed(sent[at : at + size])]

    used = [Used(USAGE)] if include_usage else []
    assert [*events, *reader.end()] == [*EVENTS[:-1], *used, Finished("stop", USAGE if include_usage else None)]


@pytest.mark.parametrize("said", ['data: {"error": "he said "no""}\n\n', 'data: {"choices": []}\n\n', ""])
def test_an_error_or_an_early_end_is_no_answer(said: str) -> None:
    reader = EngineStream()
    with pytest.raises(ApiError) as caught:
        list(itertools.chain(reader.feed(said.encode()), reader.end()))
    assert (caught.value.status, caught.value.reason) == (502, "engine")


def test_a_request_is_read() -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = b'{"model":"shop","messages":[{"role":"user","content":"hi"}],"stream":true,"user":"u","n":null,"top_k":5,'
    fields = {"stream": True, "user": "u", "top_k": 5, "stream_options": {"include_usage": True}}

    assert read(body + b'"stream_options":{"include_usage":true}}') == Ask(
        "shop", messages, stream=True, include_usage=True, user="u", fields=fields
    )


def test_the_protocol_is_light() -> None:
    program = (
        "import sys, tunegate.serving.protocols.openai; sys.exit(bool({'kserve', 'starlette'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
