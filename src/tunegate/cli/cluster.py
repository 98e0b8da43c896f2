"""A cluster, for the command line: its promotions, what a person says of them, and the training jobs given to it.

Who the person is, the API server says; an admission policy of the chart holds everybody to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from kubernetes import client, config

from tunegate.api.errors import NotFoundError, TunegateError, UsageError
from tunegate.api.kubernetes import VERSION, read_promotion
from tunegate.api.labels import GROUP
from tunegate.api.promotion import Abort, Approval, Promotion

_TIMEOUT_SECONDS = 15


class ClusterRecords:
    """The promotions of one namespace."""

    def __init__(self, namespace: str) -> None:
        _connect("set KUBECONFIG or leave out -n")
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
        return _call(self._namespace, "the role tunegate-approver", verb, *arguments)


def apply_training_job(job: Mapping[str, Any]) -> None:
    """Server-side apply of a PyTorchJob. Raises UsageError or TunegateError when the API server won't have it."""
    _connect("set KUBECONFIG, or print the job with --dry-run")
    group, version = job["apiVersion"].split("/")
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    apply = partial(
        client.CustomObjectsApi().patch_namespaced_custom_object,
        field_manager="tunegate",
        force=True,
        _content_type="application/apply-patch+yaml",
    )
    try:
        rights = "rights to create and patch pytorchjobs"
        _call(namespace, rights, apply, group, version, namespace, "pytorchjobs", name, job)
    except NotFoundError as error:
        raise UsageError(
            f"The cluster knows no PyTorchJob, or no namespace {namespace} ({error}); install Kubeflow's training "
            "operator, and create the namespace."
        ) from None


def _connect(remedy: str) -> None:
    try:
        config.load_config()
    except config.ConfigException as error:
        raise UsageError(f"There is no cluster to speak to ({error}); {remedy}.") from None


def _call(namespace: str, rights: str, verb: Any, *arguments: Any) -> Any:
    try:
        return verb(*arguments, _request_timeout=_TIMEOUT_SECONDS)
    except client.ApiException as error:
        raise _explained(error, namespace, rights) from None
    except Exception as error:  # urllib3's, of which the client shows many
        raise TunegateError(f"The API server can't be reached: {error}; check your kubeconfig.") from None


def _explained(error: client.ApiException, namespace: str, rights: str) -> TunegateError:
    try:
        message = msgspec.json.decode(error.body or b"").get("message", error.reason)
    except msgspec.DecodeError:
        message = str(error.reason)
    if error.status == 404:
        return NotFoundError(
            f"{message}; check the name, the namespace {namespace} and that tunegate's CRDs are there."
        )
    if error.status == 403:
        return UsageError(f"{message}; ask for {rights} in {namespace}.")
    return UsageError(f"The API server refused: {message}")
