"""Custom resources as a cluster's API speaks of them, in dicts, and the values they stand for.

For whoever reads them there: the operator and the command line. Nothing here talks to a cluster.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from tunegate.api.codec import Resource, prepare
from tunegate.api.promotion import Abort, Approval, Promotion, PromotionStatus
from tunegate.api.versions import ModelVersion

VERSION = "v1alpha1"
# What a Promotion's status holds in the cluster besides a PromotionStatus.
_MORE = ("candidate", "conditions", "observedGeneration")


class PromotionSpec(Resource, frozen=True, kw_only=True):
    """The spec of a Promotion: the names of its PromotionPolicy and ModelVersion, and what people say of it."""

    policy: str
    version: str
    approval: Approval | None = None
    abort: Abort | None = None


def read_promotion(obj: dict[str, Any], candidate: ModelVersion | None = None) -> Promotion | None:
    """The promotion that an object says; its status remembers the candidate, else `candidate` is it.

    None when neither is there. Raises msgspec.ValidationError that names the field.
    """
    spec = msgspec.convert(obj["spec"], PromotionSpec)
    status = obj.get("status", {})
    if remembered := status.get("candidate"):
        candidate = msgspec.convert(remembered, ModelVersion)
    if candidate is None:
        return None
    return Promotion(
        name=obj["metadata"]["name"],
        created=msgspec.convert(obj["metadata"]["creationTimestamp"], datetime),
        candidate=candidate,
        approval=spec.approval,
        abort=spec.abort,
        status=msgspec.convert({key: value for key, value in status.items() if key not in _MORE}, PromotionStatus),
    )


prepare(PromotionSpec)
