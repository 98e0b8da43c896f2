"""What the operator was started with. Credentials are not part of it: they stay in the environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every flag, as `python -m tunegate_operator --help` explains it.

    namespaces: none of them means all.
    lease_namespace: None means that no lease is taken.
    """

    store: str
    evaluation_image: str
    endpoint_url: str | None = None
    region: str | None = None
    namespaces: tuple[str, ...] = ()
    store_secret: str = "tunegate-store"  # noqa: S105 (the name of a Secret)
    feedback_secret: str = "tunegate-feedback"  # noqa: S105
    serving_runtime: str = "tunegate-predictor"
    prometheus_url: str | None = None
    lease_namespace: str | None = None
    metrics_host: str = "0.0.0.0"  # noqa: S104 (probes and Prometheus come from outside the pod)
    metrics_port: int = 8080
    scan_seconds: float = 30.0
    service_account: str = "default"
    log_level: str = "INFO"
