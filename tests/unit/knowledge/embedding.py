"""A server with OpenAI's /v1/embeddings whose vectors are of words: texts that share them are alike."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.answering import listening
from tunegate.knowledge.words import words

DIMENSION = 64


class Hashing:
    """What it was asked to embed. salt: other weights; fails: it refuses, or does after so many requests; hangs: it
    does not answer until it is closed."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.keys: list[str | None] = []
        self.salt = ""
        self.fails = False
        self.fails_after: int | None = None
        self.page = ""
        self.hangs = False
        self.closed = threading.Event()
        self.url = ""

    def vector(self, text: str) -> list[float]:
        vector = [0.01] * DIMENSION
        for word in words(text):
            digest = hashlib.sha256((self.salt + word).encode()).digest()
            vector[digest[0] % DIMENSION] += 1.0 if digest[1] % 2 else -1.0
        return vector


@contextmanager
def embedding() -> Iterator[Hashing]:
    state = Hashing()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.texts += body["input"]
            if state.hangs:
                state.closed.wait()
                return
            if state.fails_after is not None:
                state.fails_after -= 1
            fails = state.fails or (state.fails_after is not None and state.fails_after < 0)
            state.keys.append(self.headers["Authorization"])
            rows = [{"index": n, "embedding": state.vector(text)} for n, text in enumerate(body["input"])]
            answer = {"object": "list", "model": body["model"], "data": rows[::-1]}
            content = state.page or json.dumps({"error": {"message": "No such model."}} if fails else answer)
            self.send_response(404 if fails else 200)
            self.send_header("Content-Type", "text/html" if state.page else "application/json")
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        state.url = url
        try:
            yield state
        finally:
            state.closed.set()
