"""What pods get besides their own: the release's word, and the policy's over it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tunegate.api.labels import QUEUE
from tunegate.api.policy import Placement, ServingPods
from tunegate.kube import pods
from tunegate.kube.kinds import Object
from tunegate.models.cards import Card, known_card, read_card
from tunegate_operator.config import ReleasePods

# The field of a pod's spec by that of a Placement.
_FIELDS = {
    "nodeSelector": "node_selector",
    "tolerations": "tolerations",
    "affinity": "affinity",
    "topologySpreadConstraints": "topology_spread_constraints",
    "priorityClassName": "priority_class_name",
    "runtimeClassName": "runtime_class_name",
    "serviceAccountName": "service_account_name",
}
OPTIONAL = (*_FIELDS, "imagePullSecrets", "volumes", "annotations")
"""What a predictor may have or not: what is neither the release's nor the policy's any more is taken away."""


def stated(own: Placement) -> Object:
    """The fields of a pod's spec that one side names."""
    found = {name: getattr(own, field) for name, field in _FIELDS.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items() if value}


def fields(release: ReleasePods, own: Placement) -> Object:
    """The fields of a pod's spec; one that the policy names is the policy's as a whole."""
    secrets = {"imagePullSecrets": list(release.image_pull_secrets)} if release.image_pull_secrets else {}
    security = {"securityContext": release.pod_security_context} if release.pod_security_context else {}
    return {**secrets, **security, **stated(release), **stated(own)}


def metadata(release: ReleasePods, own: Placement, ours: Mapping[str, str]) -> Object:
    """Labels, of which ours win: routes and records are found by them; and annotations, where there are any."""
    annotations = {**release.pod_annotations, **own.pod_annotations}
    labels = {**release.pod_labels, **own.pod_labels, **ours}
    return {"labels": labels, **({"annotations": annotations} if annotations else {})}


def env(release: ReleasePods, own: Placement, ours: Iterable[Object]) -> list[Object]:
    """Variables, each once: ours, which the release's replace, and the policy's both."""
    found = {each["name"]: each for each in (*ours, *release.extra_env, *own.extra_env)}
    return list(found.values())


def complete(container: dict[str, Any], release: ReleasePods) -> None:
    """Give a container of ours what the release has for all of them."""
    container["volumeMounts"] = [*container["volumeMounts"], *release.volume_mounts]
    container["securityContext"] = release.container_security_context or pods.CONTAINER_SECURITY


def card_of(serving: ServingPods) -> Card | None:
    """The GPU of the pods with vLLM, where the policy names it, or the label by which NVIDIA's discovery marks nodes.

    Raises UsageError for one that there are no figures for.
    """
    if serving.card:
        return read_card(serving.card)
    pod = serving.engine_pod if serving.share_base else serving
    return known_card(pod.node_selector.get("nvidia.com/gpu.product", ""))


def queue_label(queue: str, resources: Object) -> dict[str, str]:
    """The label that has Kueue decide when pods with these resources start: those that ask for a GPU or its like."""
    amounts = {**resources.get("requests", {}), **resources.get("limits", {})}
    return {QUEUE: queue} if queue and any("/" in name and str(amounts[name]) != "0" for name in amounts) else {}
