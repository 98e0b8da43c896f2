"""Servers on loopback; one answers in OpenAI's protocol with what a function makes of the question."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Refusal(Exception):  # noqa: N818 (an answer, not a failure of the test)
    """What the function raises for a question that the server refuses."""


class Page(Exception):  # noqa: N818
    """And for one that gets a page of HTML."""


class Cut(str):
    """What the function answers where a model comes to its most tokens."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of an HTTP server on loopback whose requests this handles."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def serving(digest: str) -> type[BaseHTTPRequestHandler]:
    """Says, as a server's `/v2/models/NAME` does, which version it serves."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"name": "shop", "versions": [digest]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def answering(answer: Callable[[str], str], *, stops: bool = True) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The server's URL, and the bodies that it was sent, with their `authorization`.

    stops: whether it takes `stop`, which the embedded engine does not.
    """
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, {"object": "list", "data": [{"id": "shop", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"authorization": self.headers["Authorization"]})
            if "stop" in body and not stops:
                self.reply(
                    400, {"error": {"message": "No stop here.", "type": "invalid_request_error", "param": "stop"}}
                )
                return
            try:
                said = answer(body["messages"][-1]["content"])
            except Refusal as refusal:
                self.reply(400, {"error": {"message": str(refusal), "type": "invalid_request_error", "code": "x"}})
            except Page as page:
                self.reply(200, str(page), "text/html")
            else:
                finish = "length" if isinstance(said, Cut) else "stop"
                message = {"role": "assistant", "content": said}
                choice = {"index": 0, "finish_reason": finish, "message": message}
                about = {"id": "1", "object": "chat.completion", "created": 1, "model": "shop"}
                self.reply(200, {**about, "choices": [choice]})

        def reply(self, status: int, body: Any, kind: str = "application/json") -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        yield url, asked
