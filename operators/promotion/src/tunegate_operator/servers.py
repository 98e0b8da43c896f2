"""Which InferenceServices are written, and which go because no promotion needs them any more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tunegate.api.labels import UNUSED_SINCE
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import Plan
from tunegate_operator import manifests
from tunegate_operator.config import Config
from tunegate_operator.gather import Gathered
from tunegate_operator.read import applied, differs
from tunegate_operator.types import server_name

# How long a server that gets no more traffic stays, for answers under way and gateways that lag behind.
DRAIN_SECONDS = 30


def desired_servers(gathered: Gathered, plan: Plan, config: Config) -> Iterable[Object]:
    """Those that are missing or not as the policy says."""
    if gathered.snapshot.modified:
        return
    for version in plan.servers:
        wanted = manifests.remembered(
            manifests.inference_service(gathered.namespace, gathered.policy, gathered.name, version, config)
        )
        live = gathered.objects.inference_services.get(wanted["metadata"]["name"])
        if live and UNUSED_SINCE not in live["metadata"].get("annotations", {}) and not differs(wanted, live):
            continue
        yield manifests.over(manifests.owned(wanted, gathered.obj), live)


def retire(gathered: Gathered, plan: Plan, now: datetime) -> tuple[list[Object], list[Object]]:
    """Servers that are no longer needed: first marked, and deleted once their last answers are over."""
    needed = {server_name(gathered.name, version.digest) for version in plan.servers}
    marked, drained = [], []
    for name, live in gathered.objects.inference_services.items():
        if name in needed or gathered.snapshot.modified or gathered.snapshot.weights is None:
            continue
        since = live["metadata"].get("annotations", {}).get(UNUSED_SINCE)
        if since is None:
            marked.append(_marked(live, now))
        elif (now - datetime.fromisoformat(since)).total_seconds() >= DRAIN_SECONDS:
            drained.append(live)
    return marked, drained


def _marked(live: Object, now: datetime) -> Object:
    """The server as it is, with the time from which on it was not needed."""
    metadata = live["metadata"]
    kept = {
        key: metadata[key]
        for key in ("name", "namespace", "labels", "ownerReferences", "resourceVersion")
        if key in metadata
    }
    annotations = {**metadata.get("annotations", {}), UNUSED_SINCE: now.isoformat()}
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {**kept, "annotations": annotations},
        "spec": applied(live) or live["spec"],
    }
