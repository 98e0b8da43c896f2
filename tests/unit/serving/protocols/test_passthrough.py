from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tunegate.serving.protocols.passthrough import Rewriter

NAMES = {"id": "chatcmpl-ours", "model": "shop"}


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def spaced(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def chunk(text: str | None, **fields: Any) -> dict[str, Any]:
    delta = {"content": text} if text is not None else {}
    choices = [{"index": 0, "delta": delta}]
    return {"id": "theirs", "object": "chat.completion.chunk", "model": "/m/夏\\x", "choices": choices, **fields}


def passed(*pieces: bytes) -> tuple[bytes, Rewriter]:
    rewriter = Rewriter(NAMES)
    body = b"".join(rewriter.feed(piece) for piece in pieces)
    return body + rewriter.end(), rewriter


def chunks(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


@pytest.mark.parametrize("spelling", [compact, spaced])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_ids_and_models_are_ours_however_they_come(spelling: Callable[[Any], bytes], end: bytes, size: int) -> None:
    text = 'he said "id":"theirs" and {"model": "/m/夏\\x"}'
    events = [{**chunk(None), "choices": []}, chunk(text), chunk("b", usage={"total_tokens": 3})]
    sent = b": hello" + end + b"".join(b"data: " + spelling(event) + end for event in events) + b"data: [DONE]" + end
    body, _ = passed(*(sent[at : at + size] for at in range(0, len(sent), size)))

    assert chunks(body) == [{**event, **NAMES} for event in events]
    assert body.count(b"[DONE]") == 1


def test_a_stream_that_is_ours_already_passes_byte_for_byte() -> None:
    sent = b"data: " + compact({**chunk("a"), **NAMES}) + b"\n\ndata: [DONE]\n\n"

    assert passed(sent)[0] == sent


def test_a_missing_done_is_added() -> None:
    body, rewriter = passed(b"data: " + compact(chunk("a")) + b"\n\n")

    assert body.endswith(b"\n\ndata: [DONE]\n\n")
    assert not rewriter.failed


def test_an_error_is_no_end() -> None:
    body, rewriter = passed(b"data: " + compact(chunk("a")) + b"\n\n", b'data: {"error": "full"}\n\n')

    assert rewriter.failed
    assert b"[DONE]" not in body


@pytest.mark.parametrize(
    ("delta", "answering"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": "a"}, True),
        ({"content": '"'}, True),
        ({"reasoning_content": "a"}, True),
        ({"tool_calls": [{}]}, True),
    ],
)
def test_the_first_text_is_noticed(delta: dict[str, Any], answering: bool) -> None:
    event = {**chunk(None), "choices": [{"index": 0, "delta": delta}]}

    assert passed(b"data: " + compact(event) + b"\n\n")[1].pieces == answering


def test_text_that_says_done_does_not_end_the_stream() -> None:
    body, _rewriter = passed(b"data: " + compact(chunk("data: [DONE]")) + b"\n\n")

    assert chunks(body)[0]["choices"][0]["delta"]["content"] == "data: [DONE]"
    assert body.endswith(b"\n\ndata: [DONE]\n\n")
