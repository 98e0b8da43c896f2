"""Promotions in a cluster, for the command line: read them, and write what a person says into their spec.

Who the person is, the API server says; an admission policy of the chart holds everybody to it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from kubernetes import client, config

from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.objects import GROUP, VERSION, read_promotion
from tunegate.api.promotion import Abort, Approval, Promotion

_TIMEOUT_SECONDS = 15


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
        listing = self._call(self._api.list_namespaced_custom_object, GROUP, VERSION, self._namespace, "promotions")
        found = [promotion for each in listing["items"] if (promotion := read_promotion(each))]
        return tuple(sorted(found, key=lambda each: (each.candidate.created, each.name)))

    def say(self, name: str, word: Approval | Abort) -> None:
        field = "abort" if isinstance(word, Abort) else "approval"
        body = {"spec": {field: msgspec.to_builtins(word)}}
        self._call(self._api.patch_namespaced_custom_object, GROUP, VERSION, self._namespace, "promotions", name, body)

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
