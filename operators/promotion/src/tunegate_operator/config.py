"""What the operator was started with. Credentials are not part of it: they stay in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunegate.api.codec import prepare
from tunegate.api.policy import Placement
from tunegate_operator import __version__


class ReleasePods(Placement, frozen=True, kw_only=True):
    """What the release gives the pods of one kind: what a policy may say as well, and wins, and what only it says.

    volumes, volume_mounts: those of every pod besides its own, such as `ca`, the company's certificates.
    """

    image_pull_secrets: tuple[dict[str, str], ...] = ()
    pod_security_context: dict[str, Any] = {}
    container_security_context: dict[str, Any] = {}
    volumes: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[dict[str, Any], ...] = ()

    @property
    def has_ca(self) -> bool:
        return any(volume.get("name") == "ca" for volume in self.volumes)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every flag, as `python -m tunegate_operator --help` explains it.

    namespaces: none of them means all. gateway_namespaces: where else to look for Gateways.
    lease_namespace: None means that no lease is taken.
    signing_key: None: no decision records are written.
    queue_name: the queue of Kueue that everything with GPUs waits in; empty: none.
    tools_secret: empty: evaluated agents neither search nor read pages, as those that serve.
    serving_resources, vllm_resources: requests and limits of a server whose policy names none, by engine.
    engine_image: vLLM's, for engines that versions share.
    initializer_image, initializer_pods: what brings a version to the pods of an engine of its own.
    store_secret: empty: pods have a role instead. store_keys: what that Secret calls the variables, by their names.
    """

    store: str
    evaluation_image: str
    endpoint_url: str | None = None
    region: str | None = None
    namespaces: tuple[str, ...] = ()
    gateway_namespaces: tuple[str, ...] = ()
    store_secret: str = "tunegate-store"  # noqa: S105 (the name of a Secret)
    feedback_secret: str = "tunegate-feedback"  # noqa: S105
    store_keys: Mapping[str, str] = field(default_factory=dict)
    tools_secret: str = ""
    queue_name: str = ""
    serving_runtime: str = "tunegate-predictor"
    initializer_image: str = f"tunegate/storage-initializer:{__version__}"
    engine_image: str = f"tunegate/predictor-vllm:{__version__}"
    vllm_runtime: str = "tunegate-predictor-vllm"
    serving_resources: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict)
    vllm_resources: Mapping[str, Mapping[str, str | int]] = field(default_factory=dict)
    grace_seconds: int = 60
    prometheus_url: str | None = None
    prometheus_credentials: Path | None = None
    signing_key: Path | None = None
    lease_namespace: str | None = None
    metrics_host: str = "0.0.0.0"  # noqa: S104 (probes and Prometheus come from outside the pod)
    metrics_port: int = 8080
    scan_seconds: float = 30.0
    evaluation_pods: ReleasePods = field(default_factory=ReleasePods)
    serving_pods: ReleasePods = field(default_factory=ReleasePods)
    initializer_pods: ReleasePods = field(default_factory=ReleasePods)
    log_level: str = "INFO"


prepare(ReleasePods)
