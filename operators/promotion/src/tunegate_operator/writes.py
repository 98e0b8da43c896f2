"""The writes of one reconcile, none of which holds the others: why an object was refused is kept, and told later."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tunegate.api.errors import TunegateError
from tunegate.api.labels import POLICY
from tunegate.kube.client import Cluster
from tunegate.kube.errors import ConflictError, UnreachableError, WebhookError
from tunegate.kube.kinds import Object
from tunegate_operator import kinds
from tunegate_operator.gather import Refusal
from tunegate_operator.read import controller

log = logging.getLogger(__name__)


@dataclass
class Writes:
    """For the policy of that name. Every method raises UnreachableError, which is true of all objects, and no other.

    asked: the last merge patch of each server, and the generation that it then had.
    is_stale: an object was written by another since it was read.
    """

    cluster: Cluster
    policy: str
    asked: dict[str, tuple[Object, int]]
    refused: list[Refusal] = field(default_factory=list)
    is_stale: bool = False

    def create(self, obj: Object) -> None:
        with self._keeping(obj):
            self.cluster.create(obj)

    def record(self, obj: Object) -> None:
        """Write a status."""
        with self._keeping(obj):
            self.cluster.apply(obj, status=True)

    def apply(self, obj: Object) -> None:
        """Apply an object of ours; a foreign one by the same name is left alone and told of."""
        metadata = obj["metadata"]
        with self._keeping(obj):
            if "resourceVersion" not in metadata:
                # What isn't ours isn't in the caches, and applying would take it over.
                there = self.cluster.get(kinds.kind_of(obj), metadata["namespace"], metadata["name"])
                if there and not (
                    there["metadata"].get("labels", {}).get(POLICY) == self.policy
                    and controller(there) in ("", controller(obj))
                ):
                    message = f"{obj['kind']} {metadata['name']} is there and not tunegate's; rename or delete it"
                    self.refused.append(Refusal(obj["kind"], "NameTaken", message))
                    return
            self.cluster.apply(obj)

    def patch(self, obj: Object) -> None:
        """Change these fields of a server, and remember that they were asked for."""
        metadata = obj["metadata"]
        with self._keeping(obj):
            place = kinds.kind_of(obj), metadata["namespace"], metadata["name"]
            annotations = {"metadata": {"annotations": metadata["annotations"]}} if "annotations" in metadata else {}
            patched = self.cluster.merge(*place, {"spec": obj["spec"], **annotations})
            self.asked[metadata["name"]] = (obj["spec"], patched["metadata"]["generation"])

    def stop(self, job: Object) -> bool:
        """Merge this into a training job, unless it was changed since it was read; says whether that was done."""
        metadata = job["metadata"]
        fields = {name: metadata[name] for name in ("annotations", "resourceVersion")}
        with self._keeping(job):
            place = kinds.kind_of(job), metadata["namespace"], metadata["name"]
            self.cluster.merge(*place, {"metadata": fields, "spec": job["spec"]})
            return True
        return False

    def delete(self, obj: Object) -> None:
        metadata = obj["metadata"]
        with self._keeping(obj), suppress(ConflictError):  # another object has its name by now
            self.cluster.delete(kinds.kind_of(obj), metadata["namespace"], metadata["name"], uid=metadata["uid"])

    @contextmanager
    def _keeping(self, obj: Object) -> Iterator[None]:
        """Keep why this object was not written."""
        what = f"{obj['kind']} {obj['metadata']['name']} was not written"
        try:
            yield
        except UnreachableError:
            raise
        except ConflictError as error:
            log.debug("%s: %s; reconciling again", what, error)
            self.is_stale = True
        except WebhookError as error:
            look = "see: kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations and what they call"
            self.refused.append(Refusal(obj["kind"], "WebhookUnavailable", f"{what}: {error}; {look}"))
        except TunegateError as error:
            self.refused.append(Refusal(obj["kind"], "WriteRefused", f"{what}: {error}; it is tried again"))
