"""Asking a platform that runs, in whose place a small program answers."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunegate.api.errors import ServingError
from tunegate.local.client import ask
from tunegate.local.state import Home, write

SERVED = "served-now"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one model, in two pieces."""

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"object": "list", "data": [{"id": SERVED, "object": "model"}]}).encode())

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked["model"] != SERVED:
            self.reply(404, json.dumps({"error": {"message": f"{asked['model']} does not exist"}}).encode())
            return
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in ("It is ", "red.")]
        stream = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
        self.reply(200, stream + b"data: [DONE]\n\n", "text/event-stream")

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """The home folder of a platform that runs."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    home = Home(tmp_path)
    with home.hold():
        home.announce(f"http://127.0.0.1:{server.server_port}", "s3://b", "")
        yield home
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_running_platform_is_asked_for_the_model_it_serves(home: Home) -> None:
    write(home.policy_file, b"a policy that was edited: [")

    assert list(ask(home, "Which color is the kettle?")) == ["It is ", "red."]


def test_a_platform_that_is_gone_is_named(home: Home) -> None:
    home.announce("http://127.0.0.1:9", "s3://b", "")

    with pytest.raises(ServingError, match=r"Nothing answers at http://127\.0\.0\.1:9 .* tunegate local status"):
        list(ask(home, "Which color is the kettle?"))
