"""By what the copy of the cluster finds objects, so that no look at a policy goes through those of all others."""

from __future__ import annotations

from collections.abc import Collection

from tunegate.api.labels import MODEL, POLICY
from tunegate.kube.kinds import Kind, Object
from tunegate_operator import kinds
from tunegate_operator.read import server_of
from tunegate_operator.routes import requests_of


def found_by(kind: Kind, obj: Object) -> Collection[str]:
    """A Promotion by its policy; a policy by its model, and by the requests that it asks for; a training job by its
    model; a Workload by its owner, and by the server whose pod that is; all else by the policy that it was made for."""
    spec, labels = obj.get("spec", {}), obj["metadata"].get("labels") or {}
    if kind == kinds.PROMOTION:
        found = [spec.get("policy")]
    elif kind == kinds.POLICY:
        found = [spec.get("model"), *requests_of(obj)]
    elif kind == kinds.WORKLOAD:
        found = [
            name for owner in obj["metadata"].get("ownerReferences", ()) for name in (owner["uid"], server_of(owner))
        ]
    else:
        found = [labels.get(MODEL if kind in kinds.TRAINING else POLICY)]
    return [value for value in found if value]
