"""What the operator tells Prometheus and the kubelet: its metrics, whether it lives, and whether it is ready.

No metric is labeled with the name of an object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import get_args

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tunegate.api import metrics as known
from tunegate.api.promotion import Ending
from tunegate.metrics import counter, gauge, histogram


class Metrics:
    """Each as an attribute, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.queue_depth = gauge(known.QUEUE_DEPTH, registry)
        self.reconcile_seconds = histogram(known.RECONCILE_SECONDS, registry)
        self.decisions = counter(known.DECISIONS, registry)
        self.leader = gauge(known.LEADER, registry)
        self.store_scan_seconds = histogram(known.STORE_SCAN_SECONDS, registry)
        self.errors = counter(known.OPERATOR_ERRORS, registry)
        self._evaluated = gauge(known.EVALUATED, registry)
        self._measured: dict[tuple[str, str], set[tuple[str, str, str]]] = {}
        for outcome in get_args(Ending):
            self.decisions.labels(outcome)
        for result in ("ok", "error"):
            self.reconcile_seconds.labels(result)  # there from the start, so that a rate can be taken

    def reconciled(self, seconds: float, error: Exception | None) -> None:
        """Count one reconcile, and the error it ended with."""
        self.reconcile_seconds.labels("error" if error else "ok").observe(seconds)
        if error:
            self.errors.labels(type(error).__name__).inc()

    def evaluated(self, policy: tuple[str, str], model: str, version: str, when: Mapping[str, datetime]) -> None:
        """When the version that serves by a policy was measured, by suite; what was said of one before is gone."""
        labels = {(model, version, suite) for suite in when}
        before, self._measured[policy] = self._measured.get(policy, set()), labels
        if gone := before - labels:
            for still in self._measured.values():
                gone = gone - still
            for each in gone:
                self._evaluated.remove(*each)
        for suite, moment in when.items():
            self._evaluated.labels(model, version, suite).set(moment.timestamp())


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
