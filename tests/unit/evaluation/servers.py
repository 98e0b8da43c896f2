"""Servers in OpenAI's protocol that answer, or fail, as a test says."""

from __future__ import annotations

import json
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any


class Server:
    """An HTTP server that answers as `reply` says to each body, and lists these models, to who has the key.

    certificate: the file with its own, beside its key.
    """

    def __init__(
        self,
        reply: Any,
        models: Any = (200, {"data": [{"id": "shop"}]}),
        key: str = "",
        certificate: Path | None = None,
    ) -> None:
        outer = self
        self.bodies: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(*models, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.bodies.append(body)
                self._send(*reply(body))

            def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
                if key and self.headers["authorization"] != f"Bearer {key}":
                    status, body = 401, {"error": {"message": "Wrong key."}}
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", "retry-after-ms": "1", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self.url = self.url.replace("http:", "https:")

    def __enter__(self) -> Server:
        Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def said(text: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "text": text}
    return 200, {"id": "1", "object": "x", "created": 1, "model": "shop", "choices": [choice]}, headers
