"""Pods that pass Pod Security "restricted", with a root file system that nothing is written to.

One place for what every pod has alike, whoever makes it: its security, its scratch folders and its environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunegate.kube.kinds import Object

USER = 10001
POD_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class Volume:
    """A folder that containers may write to; `source` is what a pod's spec says of it, an empty folder by default."""

    name: str
    path: str
    source: Mapping[str, Any] = field(default_factory=lambda: {"emptyDir": {}})


COMPANY: Object = {"configMapRef": {"name": "tunegate-environment", "optional": True}}
"""Where a namespace keeps the variables that all pods in it have, such as a proxy's, for pods that people make."""
_CA = {"name": "tunegate-ca", "optional": True}
CA = Volume("ca", "/etc/tunegate-ca", {"projected": {"sources": [{"configMap": _CA}, {"secret": _CA}]}})
"""The certificates of a company's own CA, where there are such."""


def scratch(*names: str) -> tuple[Volume, ...]:
    """An empty folder /NAME for each of the names; it goes with its pod."""
    return tuple(Volume(name, f"/{name}") for name in names)


def variables(values: Mapping[str, str | None]) -> list[Object]:
    """Environment variables as a container has them; one without a value is left out."""
    return [{"name": name, "value": value} for name, value in values.items() if value]


def container(
    name: str, image: str, *, volumes: Iterable[Volume], env: list[Object], secret: str, **fields: Any
) -> Object:
    """A container with all of the volumes, `env` and what the Secret holds as its environment, and other fields.

    The Secret may be absent, or its name empty: where a service account has a role, there are no keys.
    """
    return {
        "name": name,
        "image": image,
        **fields,
        "env": env,
        "envFrom": [{"secretRef": {"name": secret, "optional": True}}] if secret else [],
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [{"name": volume.name, "mountPath": volume.path} for volume in volumes],
    }


def pod(containers: list[Object], volumes: Iterable[Volume], **fields: Any) -> Object:
    """The spec of a pod that is given no token of the API server."""
    return {
        "automountServiceAccountToken": False,
        "securityContext": POD_SECURITY,
        **fields,
        "containers": containers,
        "volumes": [{"name": volume.name, **volume.source} for volume in volumes],
    }
