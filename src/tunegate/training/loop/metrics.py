"""What Prometheus sees of a run: gauges that the first process serves on `/metrics` while it trains.

What is not known yet is NaN, so every series is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from tunegate.api.errors import UsageError
from tunegate.training.run.progress import Progress

_UNKNOWN = float("nan")
# Field of a Progress, name, help.
_LOGGED = (
    ("loss", "loss", "Mean over the trained tokens since the last logging step."),
    ("eval_loss", "eval_loss", "Mean over the trained tokens that are held out."),
    ("lr", "learning_rate", "Learning rate of the last step."),
    ("current_steps", "step", "Steps done."),
    ("total_steps", "planned_steps", "Steps that the run takes."),
    ("tokens_per_second", "tokens_per_second", "Tokens read by all processes, without padding."),
    ("padding", "padding_ratio", "Share of the computed positions that were padding."),
    ("mfu", "mfu", "Share of the devices' arithmetic that the model's own work took."),
)


class Metrics:
    """The gauges of one run."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._logged = {field: self._gauge(name, text) for field, name, text in _LOGGED}
        self._saved = time.time()
        age = self._gauge("checkpoint_age_seconds", "Since the newest complete checkpoint, or since the run began.")
        age.set_function(lambda: time.time() - self._saved)
        self._published = self._gauge("last_published_timestamp_seconds", "When a checkpoint was last published.")

    def logged(self, progress: Progress) -> None:
        """What is None in `progress` keeps its last value."""
        for field, gauge in self._logged.items():
            if (value := getattr(progress, field)) is not None:
                gauge.set(value)

    def saved(self) -> None:
        self._saved = time.time()

    def published(self) -> None:
        self._published.set_to_current_time()

    def serve(self, port: int, host: str) -> WSGIServer:
        """Serve them in a thread until the process ends. Raises UsageError when the port can't be had."""
        try:
            server, _ = start_http_server(port, host, self.registry)
        except OSError as error:
            raise UsageError(
                f"Metrics can't be served on {host} port {port}: {error.strerror}; choose another --metrics_port."
            ) from None
        return server

    def _gauge(self, name: str, text: str) -> Gauge:
        gauge = Gauge(f"tunegate_training_{name}", text, registry=self.registry)
        gauge.set(_UNKNOWN)
        return gauge


def host_for(environment: Mapping[str, str]) -> str:
    """Every address in a pod, where Prometheus comes from outside; loopback elsewhere."""
    return "0.0.0.0" if "KUBERNETES_SERVICE_HOST" in environment else "127.0.0.1"  # noqa: S104
