"""What Prometheus sees of a run: gauges that the first process serves on `/metrics` while it trains.

What is not known yet is NaN, so every series is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from tunegate.api.errors import UsageError
from tunegate.api.metrics import TRAINER
from tunegate.metrics import gauge
from tunegate.training.run.progress import Progress

# Where a Progress calls it otherwise than its metric.
_FIELDS = {"learning_rate": "lr", "step": "current_steps", "planned_steps": "total_steps", "padding_ratio": "padding"}
_PREFIX = "tunegate_training_"


class Metrics:
    """The gauges of one run."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        gauges = {metric.name.removeprefix(_PREFIX): gauge(metric, self.registry) for metric in TRAINER}
        for unknown in gauges.values():
            unknown.set(float("nan"))
        self._saved = time.time()
        gauges.pop("checkpoint_age_seconds").set_function(lambda: time.time() - self._saved)
        self._published = gauges.pop("last_published_timestamp_seconds")
        self._logged = {_FIELDS.get(name, name): found for name, found in gauges.items()}

    def logged(self, progress: Progress) -> None:
        """What is None in `progress` keeps its last value."""
        for field, shown in self._logged.items():
            if (value := getattr(progress, field)) is not None:
                shown.set(value)

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


def host_for(environment: Mapping[str, str]) -> str:
    """Every address in a pod, where Prometheus comes from outside; loopback elsewhere."""
    return "0.0.0.0" if "KUBERNETES_SERVICE_HOST" in environment else "127.0.0.1"  # noqa: S104
