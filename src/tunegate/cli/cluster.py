"""A cluster, for the command line: its promotions, what a person says of them, and the training jobs given to it.

Who the person is, the API server says; an admission policy of the chart holds everybody to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tunegate import __version__
from tunegate.api import environment
from tunegate.api.digest import short
from tunegate.api.errors import NotFoundError, ServingError, UsageError
from tunegate.api.kubernetes import VERSION, read_promotion
from tunegate.api.labels import GROUP
from tunegate.api.labels import POLICY as POLICY_LABEL
from tunegate.api.labels import VERSION as VERSION_LABEL
from tunegate.api.policy import ClusterPolicy, PromotionPolicy
from tunegate.api.promotion import Abort, Approval, Promotion
from tunegate.api.records import Place
from tunegate.cli.options import open_store
from tunegate.kube.client import Cluster, connect
from tunegate.kube.errors import ClusterError, ForbiddenError, MissingError, UnreachableError
from tunegate.kube.kinds import POD, SELF_SUBJECT_REVIEW, Kind

if TYPE_CHECKING:
    from tunegate.records.signing import PublicKey
    from tunegate.store import Store

PROMOTION = Kind(GROUP, VERSION, "promotions", "Promotion")
POLICY = Kind(GROUP, VERSION, "promotionpolicies", "PromotionPolicy")
PYTORCH_JOB = Kind("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")
# KServe's: the label on the pods of a server, the container that answers, and its port where it names none.
_SERVER, _CONTAINER, _DEFAULT_PORT = "serving.kserve.io/inferenceservice", "kserve-container", 8080


class ClusterRecords:
    """The promotions of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self.options = f"--namespace {namespace}"
        self._cluster = _cluster("set KUBECONFIG or leave out -n")

    def promotions(self) -> tuple[Promotion, ...]:
        """Oldest first; one that was not reconciled yet is left out: its candidate is not known."""
        with self._explained():
            objects = self._cluster.list(PROMOTION, self._namespace)
        found = [promotion for obj in objects if (promotion := read_promotion(obj))]
        return tuple(sorted(found, key=lambda promotion: (promotion.candidate.created, promotion.name)))

    def save_decision(self, name: str, decision: Approval | Abort) -> None:
        field = "abort" if isinstance(decision, Abort) else "approval"
        with self._explained():
            self._cluster.merge(PROMOTION, self._namespace, name, {"spec": {field: msgspec.to_builtins(decision)}})

    def actor(self) -> str:
        review = {"apiVersion": SELF_SUBJECT_REVIEW.api_version, "kind": SELF_SUBJECT_REVIEW.kind, "metadata": {}}
        with self._explained():
            answer = self._cluster.create(review)
        assert answer is not None, "a review is answered and not kept, so none exists already"
        return str(answer["status"]["userInfo"]["username"])

    @contextmanager
    def store(self, uri: str | None, endpoint_url: str | None) -> Iterator[Store]:
        if uri is None:
            raise UsageError(f"Name the model store of the cluster with --store, or in {environment.STORE}.")
        yield open_store(uri, endpoint_url)

    def policy(self, promotion: Promotion) -> tuple[PromotionPolicy, Place]:
        policy = self._policy_of(promotion)
        found = msgspec.convert(policy["spec"], ClusterPolicy)
        return found, Place(policy=policy["metadata"]["name"], namespace=self._namespace)

    def keys(self, promotion: Promotion, files: tuple[Path, ...]) -> list[PublicKey]:
        """Those that the operator has signed with, which the policy's status keeps."""
        from tunegate.records.signing import read_public_keys

        kept = self._policy_of(promotion).get("status", {}).get("recordKeys", ())
        return read_public_keys(tuple(each["publicKey"] for each in kept), files)

    def serving(self, promotion: Promotion, url: str | None) -> Mapping[str, str]:
        """Of each pod that serves, as far as we may ask them; else of the one that answers at the policy's address."""
        from tunegate.records.checking import served_by

        model, policy, why_alone = promotion.candidate.model, self._policy_of(promotion), ""
        if url is None:
            try:
                if found := dict(self._served_by_pods(policy, promotion)):
                    return found
            except ForbiddenError as error:
                needs = f"that takes the rights to list pods and to get pods/proxy in {self._namespace}"
                why_alone = f" (asked alone: its pods can't be asked, as {error}; {needs})"
        address = url or policy.get("status", {}).get("url", "")
        if not address:
            raise ServingError("The policy has no address yet; give the one of a port-forward with --url.")
        return {f"{where}{why_alone}": digest for where, digest in served_by(address, model).items()}

    def _served_by_pods(self, policy: dict[str, Any], promotion: Promotion) -> Iterator[tuple[str, str]]:
        """The digest that each pod says, by its name. Pods of another candidate that is just being shown are left out.

        Raises ForbiddenError, and ServingError naming a pod that can't be asked.
        """
        from tunegate.records.checking import digest_in, path_of

        pods = self._cluster.list(POD, self._namespace, f"{POLICY_LABEL}={policy['metadata']['name']},{_SERVER}")
        running = self._cluster.get(PROMOTION, self._namespace, policy.get("status", {}).get("promotion") or "-")
        shown = read_promotion(running) if running else None
        for pod in (pod for pod in pods if _is_ready(pod)):
            name, version = pod["metadata"]["name"], pod["metadata"]["labels"].get(VERSION_LABEL)
            if shown and shown.name != promotion.name and version == short(shown.candidate.digest):
                continue
            try:
                answer = self._cluster.ask_pod(self._namespace, name, _port(pod), path_of(promotion.candidate.model))
                yield f"pod {name}", digest_in(answer)
            except ForbiddenError:
                raise
            except (ClusterError, ValueError, KeyError, TypeError) as error:
                raise ServingError(
                    f"pod {name} can't be asked which version it serves ({error}); see: kubectl logs {name} "
                    f"--namespace {self._namespace}, or give an address that can be reached from here with --url"
                ) from None

    def _policy_of(self, promotion: Promotion) -> dict[str, Any]:
        with self._explained():
            name = self._cluster.get(PROMOTION, self._namespace, promotion.name)
            policy = name and self._cluster.get(POLICY, self._namespace, name["spec"]["policy"])
        if not policy:
            raise NotFoundError(f"The policy of {promotion.name} is not there any more; create it again from its file.")
        return policy

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with _explained("the role tunegate-approver", self._namespace):
                yield
        except MissingError as error:
            remedy = f"check the name, the namespace {self._namespace} and that tunegate's CRDs are there"
            raise NotFoundError(f"{error}; {remedy}.") from None


def named_versions() -> tuple[list[str], tuple[Promotion, ...]]:
    """The initial versions of all policies, and all promotions, of all namespaces. Raises UsageError, ClusterError."""
    cluster = _cluster("set KUBECONFIG, or leave out --cluster")
    try:
        with _explained("rights to list promotions and promotionpolicies", "all namespaces"):
            policies, promotions = cluster.list(POLICY), cluster.list(PROMOTION)
    except MissingError:
        return [], ()  # tunegate's kinds are not there, and so nobody of that cluster names a version
    initial = [policy["spec"]["initialVersion"] for policy in policies]
    return initial, tuple(promotion for obj in promotions if (promotion := read_promotion(obj)))


def apply_training_job(job: dict[str, Any]) -> None:
    """Server-side apply of a PyTorchJob. Raises UsageError or ClusterError when the API server won't have it."""
    cluster, namespace = _cluster("set KUBECONFIG, or print the job with --dry-run"), job["metadata"]["namespace"]
    try:
        with _explained("rights to create and patch pytorchjobs", namespace):
            cluster.apply(job)
    except MissingError as error:
        raise UsageError(
            f"The cluster knows no PyTorchJob, or no namespace {namespace} ({error}); install Kubeflow's training "
            "operator, and create the namespace."
        ) from None


def ask_policy(annotation: str, name: str, namespace: str) -> None:
    """Ask the operator for something once, by an annotation of a policy. Raises NotFoundError, UsageError."""
    cluster = _cluster("set KUBECONFIG")
    annotations = {annotation: cluster.now().isoformat()}
    try:
        with _explained("rights to patch promotionpolicies (the role tunegate-editor)", namespace):
            cluster.merge(POLICY, namespace, name, {"metadata": {"annotations": annotations}})
    except MissingError as error:
        raise NotFoundError(f"{error}; see: kubectl get promotionpolicies --namespace {namespace}.") from None


def _cluster(remedy: str) -> Cluster:
    client = connect(f"tunegate/{__version__}", remedy=remedy)
    return Cluster(client, manager="tunegate", kinds=(PROMOTION, PYTORCH_JOB))


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def _port(pod: dict[str, Any]) -> int:
    """Where its server answers: the first port of KServe's container."""
    ports = [port for each in pod["spec"]["containers"] if each["name"] == _CONTAINER for port in each.get("ports", ())]
    return int(ports[0]["containerPort"]) if ports else _DEFAULT_PORT


@contextmanager
def _explained(rights: str, namespace: str) -> Iterator[None]:
    """Add what to do about a refusal; what is not there means something else to each caller."""
    try:
        yield
    except MissingError:
        raise
    except ForbiddenError as error:
        raise UsageError(f"{error}; ask for {rights} in {namespace}.") from None
    except UnreachableError as error:
        raise UnreachableError(f"{error} Check your kubeconfig.") from None
    except ClusterError as error:
        raise UsageError(f"The API server refused: {error}.") from None
