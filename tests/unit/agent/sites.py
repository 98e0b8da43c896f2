"""Web sites on loopback, whose pages are said beforehand, and a SearxNG that finds what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.answering import listening


@dataclass(frozen=True)
class Answer:
    body: str | bytes = ""
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


@dataclass
class Site:
    """asked: the paths with their queries; keys: the headers that each request had."""

    url: str = ""
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def site(pages: Mapping[str, Answer]) -> Iterator[Site]:
    """A site with these pages by their paths; one that hangs does so until the site is closed."""
    state, closed = Site(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            page = pages.get(self.path.partition("?")[0], Answer("<p>Not here.</p>", status=404))
            if page.hangs:
                closed.wait()
                return
            body = page.body.encode() if isinstance(page.body, str) else page.body
            self.send_response(page.status)
            for name, value in {"Content-Type": page.kind, **page.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        state.url = url
        try:
            yield state
        finally:
            closed.set()


def results(rows: Sequence[Mapping[str, Any]], **more: Any) -> Answer:
    """What SearxNG answers when it finds these."""
    return Answer(json.dumps({"query": "", "results": list(rows), "answers": [], **more}), "application/json")


TALLEST = {
    "title": "Shanghai Tower",
    "url": "https://example.com/tower",
    "content": "At 632 meters it is the tallest building in Shanghai.",
    "engine": "example",
    "score": 1.5,
    "publishedDate": "2026-03-01T00:00:00",
}
