"""What the operator tells Prometheus and the kubelet: its metrics, whether it lives, and whether it is ready.

No metric is labeled with the name of an object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tunegate.api.promotion import Ending


class Metrics:
    """Each as an attribute, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.queue_depth = Gauge(
            "tunegate_operator_queue_depth", "Policies that wait to be reconciled.", registry=registry
        )
        self.reconcile_seconds = Histogram(
            "tunegate_operator_reconcile_seconds",
            "How long reconciling a policy took.",
            ["result"],
            registry=registry,
        )
        self.decisions = Counter(
            "tunegate_operator_decisions", "Promotions that ended, by outcome.", ["outcome"], registry=registry
        )
        self.leader = Gauge("tunegate_operator_leader", "1 while this replica acts.", registry=registry)
        self.store_scan_seconds = Histogram(
            "tunegate_operator_store_scan_seconds", "How long one listing of the model store took.", registry=registry
        )
        self.errors = Counter("tunegate_operator_errors", "Errors, by reason.", ["reason"], registry=registry)
        for outcome in get_args(Ending):
            self.decisions.labels(outcome)
        for result in ("ok", "error"):
            self.reconcile_seconds.labels(result)  # there from the start, so that a rate can be taken

    def reconciled(self, seconds: float, error: Exception | None) -> None:
        """Count one reconcile, and the error it ended with."""
        self.reconcile_seconds.labels("error" if error else "ok").observe(seconds)
        if error:
            self.errors.labels(type(error).__name__).inc()


class Endpoint:
    """Serves /metrics, /healthz and /readyz until it is closed."""

    def __init__(
        self, metrics: Metrics, host: str, port: int, *, alive: Callable[[], bool], ready: Callable[[], bool]
    ) -> None:
        probes = {"/healthz": alive, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, generate_latest(metrics.registry), CONTENT_TYPE_LATEST)
                elif path in probes:
                    self._answer(*((200, b"ok\n") if probes[path]() else (503, b"not yet\n")))
                else:
                    self._answer(404, b"/metrics, /healthz or /readyz\n")

            def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass  # a probe every few seconds is no news

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
