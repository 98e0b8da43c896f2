"""Promotions in a cluster, for the command line: read them, and write what a person says into their spec.

Who the person is, the API server says; an admission policy of the chart holds everybody to it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from kubernetes import client, config

from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.promotion import Abort, Approval, Promotion, PromotionStatus
from tunegate.api.resource import Resource
from tunegate.api.versions import ModelVersion

_GROUP, _VERSION = "tunegate.io", "v1alpha1"
_OURS = ("candidate", "conditions", "observedGeneration")
_TIMEOUT_SECONDS = 15


class _Spec(Resource, frozen=True, kw_only=True):
    policy: str
    version: str
    approval: Approval | None = None
    abort: Abort | None = None


class ClusterRecords:
    """The promotions of one namespace."""

    def __init__(self, namespace: str) -> None:
        try:
            config.load_config()
        except config.ConfigException as error:
            raise UsageError(f"There is no cluster to speak to ({error}); set KUBECONFIG or leave out -n.") from None
        self._namespace = namespace
        self._api = client.CustomObjectsApi()

    def promotions(self) -> tuple[Promotion, ...]:
        """Oldest first; one that tunegate has not looked at yet is left out: its candidate is not known."""
        listing = self._call(self._api.list_namespaced_custom_object, _GROUP, _VERSION, self._namespace, "promotions")
        found = [_read(each) for each in listing["items"] if each.get("status", {}).get("candidate")]
        return tuple(sorted(found, key=lambda each: (each.candidate.created, each.name)))

    def say(self, name: str, word: Approval | Abort) -> None:
        field = "abort" if isinstance(word, Abort) else "approval"
        body = {"spec": {field: msgspec.to_builtins(word)}}
        self._call(
            self._api.patch_namespaced_custom_object, _GROUP, _VERSION, self._namespace, "promotions", name, body
        )

    def actor(self) -> str:
        review = self._call(client.AuthenticationV1Api().create_self_subject_review, client.V1SelfSubjectReview())
        return str(review.status.user_info.username)

    def _call(self, verb: Any, *arguments: Any) -> Any:
        try:
            return verb(*arguments, _request_timeout=_TIMEOUT_SECONDS)
        except client.ApiException as error:
            raise _explained(error, self._namespace) from None
        except Exception as error:  # urllib3's, of which the client shows many
            raise TunegateError(f"The API server can't be reached: {error}; check your kubeconfig.") from None


def _explained(error: client.ApiException, namespace: str) -> TunegateError:
    try:
        message = msgspec.json.decode(error.body or b"").get("message", error.reason)
    except msgspec.DecodeError:
        message = str(error.reason)
    if error.status == 404:
        return NotFoundError(
            f"{message}; check the name, the namespace {namespace} and that tunegate's CRDs are there."
        )
    if error.status == 403:
        return UsageError(f"{message}; ask for the role tunegate-approver in {namespace}.")
    return UsageError(f"The API server refused: {message}")


def _read(obj: Any) -> Promotion:
    spec = msgspec.convert(obj["spec"], _Spec)
    status = {key: value for key, value in obj["status"].items() if key not in _OURS}
    return Promotion(
        name=obj["metadata"]["name"],
        created=msgspec.convert(obj["metadata"]["creationTimestamp"], datetime),
        candidate=msgspec.convert(obj["status"]["candidate"], ModelVersion),
        approval=spec.approval,
        abort=spec.abort,
        status=msgspec.convert(status, PromotionStatus),
    )
