"""A server that takes tool calls as vLLM with a parser does, refusals included; what its model says is scripted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.answering import listening


def called(*calls: tuple[str, str], text: str | None = None) -> dict[str, Any]:
    """What a model says that calls functions: names, and arguments as it wrote them."""
    made = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": made}


def said(text: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "tool_calls": []}


def problem(body: dict[str, Any], parser: bool) -> str:
    """What vLLM refuses of a request."""
    if not parser and body.get("tool_choice") == "auto":
        return '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    pending: set[str] = set()
    for message in body["messages"]:
        if message["role"] == "tool":
            if message["tool_call_id"] not in pending:
                return f"Unexpected tool_call_id {message['tool_call_id']}"
            pending.remove(message["tool_call_id"])
            continue
        if pending:
            return f"No answer to {sorted(pending)}"
        for call in message.get("tool_calls", ()):
            try:
                if not isinstance(json.loads(call["function"]["arguments"]), dict):
                    return "Arguments are no object"
            except ValueError as error:
                return str(error)
            pending.add(call["id"])
    return ""


@contextmanager
def vllm(answers: Sequence[dict[str, Any]], *, parser: bool = True) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, and the bodies that it was sent. answers: in order, each of 10 tokens. parser: whether it has one."""
    left, asked = list(answers), list[dict[str, Any]]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, {"object": "list", "data": [{"id": "shop", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if wrong := problem(body, parser):
                self.reply(400, {"error": {"message": wrong, "type": "BadRequestError", "param": None, "code": 400}})
                return
            asked.append(body)
            message = left.pop(0)
            if body.get("tool_choice") == "none":
                message = {**message, "tool_calls": []}
            reason = "tool_calls" if message["tool_calls"] else "stop"
            choice = {"index": 0, "finish_reason": reason, "message": message}
            usage = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
            about = {"id": "1", "object": "chat.completion", "created": 1, "model": "shop", "usage": usage}
            self.reply(200, {**about, "choices": [choice]})

        def reply(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        yield url, asked
