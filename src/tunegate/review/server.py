"""The page for reviewers, over HTTP: its files, and what it asks of the desk."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tunegate.api.errors import EvaluationError, ServingError, StoreError
from tunegate.review.desk import Desk, Join, RefusalError, Said
from tunegate.serving.playground import FOLDER as SHARED
from tunegate.serving.playground import KINDS, POLICY

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
_TAKEN = (
    "icon.svg",
    "language.js",
    "markdown.js",
    "storage.js",
    "style.css",
    "vendor/htm-preact.js",
    "vendor/marked.js",
    "vendor/purify.js",
)
FILES = {
    "/": PAGE / "index.html",
    **{f"/page/{path.name}": path for path in PAGE.iterdir() if path.name != "index.html"},
    **{f"/playground/{name}": SHARED / name for name in _TAKEN},
}
_LARGEST_BODY = 100_000  # bytes
_IDLE_SECONDS = 60


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(desk: Desk, host: str, port: int, token: str | None) -> ThreadingHTTPServer:
    """A server that listens; its `serve_forever` answers. token: what every request must bring, where there is one.

    Raises ServingError where the port can't be had.
    """
    handler = type("Handler", (_Handler,), {"desk": desk, "token": token, "is_local": is_loopback(host)})
    try:
        return _Server((host, port), handler)
    except OSError as error:
        raise ServingError(f"Port {port} of {host} can't be had ({error.strerror}); choose another --port.") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    wbufsize = -1  # head and body in one packet: a second one would wait for the first to be acknowledged
    disable_nagle_algorithm = True
    desk: Desk
    token: str | None
    is_local: bool

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in FILES:
            self._file(FILES[path])
        elif path == "/api/review":
            self._answer(lambda: self.desk.about(self._reviewer()))
        elif path == "/api/next":
            self._answer(lambda: self.desk.next(self._reviewer()))
        elif path.startswith("/api/items/"):
            self._answer(lambda: self.desk.earlier(path.removeprefix("/api/items/"), self._reviewer()))
        else:
            self._answer(lambda: self._refuse(404, "There is nothing at this address."))

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        if path == "/api/join":
            self._answer(lambda: self.desk.join(self._body(Join)))
        elif path == "/api/marks":
            self._answer(lambda: self.desk.keep(self._body(Said), self._reviewer()))
        else:
            self.close_connection = True  # its body is not read
            self._answer(lambda: self._refuse(404, "There is nothing at this address."))

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("request", extra={"request": format % args})

    def _answer(self, act: Callable[[], Any]) -> None:
        try:
            # They may ask with the token, or from this machine by one of its own names.
            if self.token is not None:
                given = self.headers.get("authorization", "").removeprefix("Bearer ")
                if not secrets.compare_digest(given.encode(), self.token.encode()):
                    self._refuse(403, "Open the whole address that `tunegate review serve` printed, with its token.")
            elif self.is_local and not is_loopback(urlsplit(f"//{self.headers.get('host', '')}").hostname or ""):
                # else a page from elsewhere could have its name lead here, and ask as if it were ours
                self._refuse(403, "This page is for this machine alone; open it as http://127.0.0.1.")
            status, body = 200, act()
        except RefusalError as refusal:
            status, body = refusal.status, {"error": str(refusal)}
        except (EvaluationError, StoreError) as error:  # nothing was kept; the page sends it again
            status, body = 507, {"error": str(error)}
        if status != 200 and self.command == "POST":
            self.close_connection = True  # its body may not have been read
        self._send(status, msgspec.json.encode(body), "application/json", {"cache-control": "no-store"})

    def _reviewer(self) -> str:
        return self.desk.reviewer(self.headers.get("tunegate-reviewer", ""))

    def _body(self, kind: type[Any]) -> Any:
        if self.headers.get_content_type() != "application/json":  # which no form of another site can send
            self._refuse(415, "Send JSON.")
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > _LARGEST_BODY:
            self._refuse(413, f"A request has at most {_LARGEST_BODY} bytes.")
        try:
            return msgspec.json.decode(self.rfile.read(int(length)), type=kind)
        except msgspec.DecodeError as error:
            raise RefusalError(422, f"This can't be read: {error}.") from None

    def _refuse(self, status: int, message: str) -> None:
        raise RefusalError(status, message)

    def _file(self, path: Path) -> None:
        body = path.read_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"cache-control": "no-cache", "content-security-policy": POLICY, "etag": tag}
        if tag in self.headers.get("if-none-match", ""):
            self._send(304, b"", KINDS[path.suffix], headers)
        else:
            self._send(200, body, KINDS[path.suffix], headers)

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        about = {"content-type": f"{kind}; charset=utf-8", "content-length": str(len(body))}
        safe = {"referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}
        for name, value in (about | safe | headers).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)
