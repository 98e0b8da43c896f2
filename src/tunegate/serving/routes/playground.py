"""The playground: a page to talk to the model, at `/` and `/playground`, made of the files in `serving/playground`.

All it asks is relative to its own address, so it works behind a path prefix. Probes that ask for `/` get what they got
before there was a page.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tunegate.serving.playground import FOLDER, KINDS, POLICY


@dataclass(frozen=True)
class File:
    """One file of the page, as an ASGI application."""

    body: bytes
    kind: str

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tag = f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'
        headers = {
            "cache-control": "no-cache",  # may be kept, and is asked for again: servers of two releases share one URL
            "content-security-policy": POLICY,
            "etag": tag,
            "referrer-policy": "no-referrer",
            "vary": "accept",
            "x-content-type-options": "nosniff",
        }
        if tag in Headers(scope=scope).get("if-none-match", ""):
            await Response(None, 304, headers)(scope, receive, send)
        else:
            await Response(self.body, 200, headers, self.kind)(scope, receive, send)


@dataclass(frozen=True)
class PageOrProbe:
    """The page for those who ask for HTML, as browsers do; `probe` for everybody else."""

    page: ASGIApp
    probe: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wants_page = "text/html" in Headers(scope=scope).get("accept", "")
        await (self.page if wants_page else self.probe)(scope, receive, send)


def playground(probe: ASGIApp) -> list[Route]:
    """The page's routes; `probe` answers at `/` where no HTML is asked for."""
    files = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in KINDS}
    page = _read(files.pop("index.html"))
    endpoints: dict[str, ASGIApp] = {
        "/": PageOrProbe(page, probe),
        "/playground": page,
        "/playground/": RedirectResponse("../playground"),
        **{f"/playground/{name}": _read(path) for name, path in files.items()},
    }
    return [Route(path, endpoint, methods=["GET"]) for path, endpoint in endpoints.items()]


def _read(path: Path) -> File:
    return File(path.read_bytes(), KINDS[path.suffix])
