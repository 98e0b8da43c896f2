"""Read everything about one policy into one frozen value.

Reads come from the watches' caches, from what the store's own thread last saw, and from Prometheus only while users
see a candidate: nothing that is away can keep a rollback waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import msgspec

from tunegate.api.errors import UsageError
from tunegate.api.feedback import Tally
from tunegate.api.labels import POLICY
from tunegate.api.policy import CanaryStep, ClusterPolicy, ServingPods
from tunegate.api.promotion import Promotion
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Kind, Object
from tunegate.promotion.counting import counted, stable_version
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState, ServerState, Snapshot
from tunegate_operator import kinds
from tunegate_operator.conditions import Problem
from tunegate_operator.config import Config
from tunegate_operator.feedback_counts import read_tallies
from tunegate_operator.manifests import evaluation_name
from tunegate_operator.read import (
    RouteState,
    digest_by_server,
    finished_runs,
    is_true,
    job_state,
    modified,
    route_state,
    server_state,
    switch_state,
)
from tunegate_operator.store_watch import Source
from tunegate_operator.types import (
    EvaluationSummary,
    object_name,
    read_policy,
    read_promotion,
    read_summaries,
    read_version,
    server_name,
    to_evaluation,
)

# A first scrape takes its time; only then is a missing count something that a person must look at.
_FIRST_COUNTS_SECONDS = 120
# And a gateway's controller for a route it has not seen before.
_ROUTE_SECONDS = 60


class Caches(Protocol):
    """What is read of the watches."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None: ...
    def list(
        self, kind: Kind, namespace: str | None = None, label: Mapping[str, str] | None = None
    ) -> Iterable[Object]: ...
    def installed(self, kind: Kind) -> bool: ...


@dataclass(frozen=True)
class PolicyProblem:
    """A policy that nothing can be decided about yet."""

    obj: Object
    problem: Problem


@dataclass(frozen=True)
class PolicyObjects:
    """The objects of the cluster that belong to one policy, by name.

    route: the HTTPRoute or Service users come in by. stale_route: one of the other kind, if it was left.
    """

    promotions: Mapping[str, Object]
    model_versions: Mapping[str, Object]
    jobs: Mapping[str, Object]
    inference_services: Mapping[str, Object]
    route: Object | None
    stale_route: Object | None


@dataclass(frozen=True)
class Gathered:
    """One policy and everything around it.

    snapshot: what `decide` gets; promotions whose ModelVersion is not there are in `objects` only.
    summaries: by (digest, suite).
    """

    obj: Object
    policy: ClusterPolicy
    snapshot: Snapshot
    initial: ModelVersion
    problems: tuple[Problem, ...]
    objects: PolicyObjects
    summaries: Mapping[tuple[str, str], EvaluationSummary]

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])


@dataclass
class Gatherer:
    """`pod_message` reads why a Job's pod failed."""

    config: Config
    caches: Caches
    source: Source
    pod_message: Callable[[str, str], str]

    def __post_init__(self) -> None:
        self._parsed: dict[str, tuple[str, Promotion | None]] = {}

    def gather(self, namespace: str, name: str, now: datetime, conflict: str = "") -> Gathered | PolicyProblem | None:
        """None when the policy is gone: what it owned goes with it.

        conflict: which object of somebody else has a name that the policy needs, as a sentence.
        """
        obj = self.caches.get(kinds.POLICY, namespace, name)
        if obj is None:
            return None
        try:
            policy = read_policy(obj)
        except UsageError as error:
            return PolicyProblem(obj, Problem("Ready", "InvalidPolicy", str(error)))
        initial = self._initial(obj, policy)
        if isinstance(initial, Problem):
            return PolicyProblem(obj, initial)
        return self._gather(obj, policy, initial, now, conflict)

    def _initial(self, obj: Object, policy: ClusterPolicy) -> ModelVersion | Problem:
        """The version of spec.initialVersion. Once known it is kept in the status, so that the store may be away."""
        remembered = obj.get("status", {}).get("initial")
        if remembered and remembered.get("uri") == policy.initial_version:
            return msgspec.convert(remembered, ModelVersion)
        found = self.source.version(policy.initial_version, policy.model)
        return found or Problem("StoreReadable", "Waiting", f"{policy.initial_version} is being looked up", stops=False)

    def _gather(
        self, obj: Object, policy: ClusterPolicy, initial: ModelVersion, now: datetime, conflict: str
    ) -> Gathered:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        found = self.caches.list(kinds.PROMOTION, namespace)
        objects = _by_name(promotion for promotion in found if promotion["spec"]["policy"] == name)
        parsed = filter(None, (self._promotion(namespace, promotion) for promotion in objects.values()))
        promotions = tuple(sorted(parsed, key=lambda promotion: (promotion.created, promotion.name)))
        start, listing = _start(obj, initial, promotions), self.source.listing(policy.model)
        candidates = (promotion.candidate for promotion in promotions)
        versions = tuple(
            {version.digest: version for version in (start, initial, *(listing or ()), *candidates)}.values()
        )
        around = self._objects(namespace, name, policy, versions, objects)
        summaries = self._summaries(namespace, policy, versions, around)
        digests = _digests(name, around.inference_services, versions)
        is_shared = policy.traffic.is_shared
        route = route_state(around.route, digests) if is_shared else switch_state(around.route, digests)
        training_jobs = (job for kind in kinds.TRAINING for job in self.caches.list(kind, namespace))
        edits = (modified(live) for live in (around.route, *around.inference_services.values()) if live)
        snapshot = Snapshot(
            policy=policy if is_shared else msgspec.structs.replace(policy, steps=(CanaryStep(weight=100),)),
            initial=start,
            versions=listing,
            finished_runs=finished_runs(training_jobs, policy.model),
            promotions=promotions,
            evaluations=_evaluations(policy, versions, summaries),
            servers=_server_states(policy.serving, around.inference_services, digests, route.weights or {}, now),
            weights=route.weights,
            modified=next(filter(None, edits), ""),
        )
        tallies = self._tallies(namespace, snapshot, now)
        problems = self._problems(obj, policy, snapshot, route, _is_new(around.route, now), conflict)
        if isinstance(tallies, Problem):
            problems.append(tallies)
        return Gathered(
            obj=obj,
            policy=policy,
            snapshot=replace(snapshot, tallies=None if isinstance(tallies, Problem) else tallies),
            initial=initial,
            problems=tuple(problems),
            objects=around,
            summaries=summaries,
        )

    def _promotion(self, namespace: str, obj: Object) -> Promotion | None:
        """Parsed once for each change of the object: most promotions are over and stay as they are."""
        uid, resource_version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
        known_at, promotion = self._parsed.get(uid, ("", None))
        if known_at == resource_version and promotion is not None:
            return promotion
        model_version = self.caches.get(kinds.MODEL_VERSION, namespace, obj["spec"]["version"])
        promotion = read_promotion(obj, read_version(model_version) if model_version else None)
        self._parsed[uid] = (resource_version, promotion)
        return promotion

    def forget(self, uid: str) -> None:
        self._parsed.pop(uid, None)

    def _objects(
        self,
        namespace: str,
        name: str,
        policy: ClusterPolicy,
        versions: Iterable[ModelVersion],
        promotions: Mapping[str, Object],
    ) -> PolicyObjects:
        """With the ModelVersions of these versions, whichever policy made them, and all that this policy made."""
        of_policy = {POLICY: name}
        route, service = (self.caches.get(kind, namespace, name) for kind in (kinds.HTTP_ROUTE, kinds.SERVICE))
        used, other = (route, service) if policy.traffic.is_shared else (service, route)
        found = (self.caches.get(kinds.MODEL_VERSION, namespace, object_name(version)) for version in versions)
        own = self.caches.list(kinds.MODEL_VERSION, namespace, of_policy)
        return PolicyObjects(
            promotions=promotions,
            model_versions=_by_name((*filter(None, found), *own)),
            jobs=_by_name(self.caches.list(kinds.JOB, namespace, of_policy)),
            inference_services=_by_name(self.caches.list(kinds.INFERENCE_SERVICE, namespace, of_policy)),
            route=used,
            stale_route=other if other and other["metadata"].get("labels", {}).get(POLICY) == name else None,
        )

    def _summaries(
        self,
        namespace: str,
        policy: ClusterPolicy,
        versions: Iterable[ModelVersion],
        objects: PolicyObjects,
    ) -> dict[tuple[str, str], EvaluationSummary]:
        found = {}
        for version in versions:
            model_version = objects.model_versions.get(object_name(version))
            summaries = read_summaries(model_version) if model_version else ()
            recorded = {summary.suite: summary for summary in summaries}
            for suite in policy.suites:
                job = objects.jobs.get(evaluation_name(EvaluationJob(version, suite)))
                summary = self._summary(namespace, policy, version, suite, recorded.get(suite), job)
                if summary:
                    found[version.digest, suite] = summary
        return found

    def _summary(
        self,
        namespace: str,
        policy: ClusterPolicy,
        version: ModelVersion,
        suite: str,
        recorded: EvaluationSummary | None,
        job: Object | None,
    ) -> EvaluationSummary | None:
        """What is known of one suite on one version. Deleting a Job that failed makes it unknown: it is tried again."""
        if recorded and not recorded.failures:
            return recorded
        if job is None or not (state := job_state(job)).done:
            return None
        attempts = policy.evaluation_attempts
        if state.failed:
            if recorded:
                return recorded
            said = self.pod_message(namespace, job["metadata"]["name"])
            look = f"delete Job {job['metadata']['name']} to try again"
            message = f"{state.message} {said}".strip() + f"; {look}"
            return EvaluationSummary(suite=suite, failures=attempts, message=message[:4096])
        result = self.source.result((version.digest, suite, job["metadata"]["uid"]), policy.model)
        if result and result.failures:
            return msgspec.structs.replace(result, failures=attempts)
        return result

    def _tallies(self, namespace: str, seen: Snapshot, now: datetime) -> Mapping[str, Tally] | Problem:
        if (asked := counted(seen)) is None:
            return {}
        digests, since = asked
        if not self.config.prometheus_url:
            remedy = "give the operator --prometheus-url (operator.prometheusUrl in the chart)"
            return Problem("FeedbackReadable", "PrometheusNotConfigured", f"there are no feedback counts; {remedy}")
        found = read_tallies(self.config.prometheus_url, namespace, digests, since, now)
        if isinstance(found, Problem) and (now - since).total_seconds() > _FIRST_COUNTS_SECONDS:
            return replace(found, stops=True)
        return found

    def _problems(
        self, obj: Object, policy: ClusterPolicy, seen: Snapshot, route: RouteState, is_new: bool, conflict: str
    ) -> list[Problem]:
        problems = []
        if conflict:
            problems.append(Problem("Ready", "NameTaken", conflict))
        if seen.modified:
            problems.append(Problem("Ready", "TargetModified", seen.modified))
        if not self.caches.installed(kinds.INFERENCE_SERVICE):
            message = "the cluster has no InferenceService (serving.kserve.io/v1beta1); install KServe, Standard mode"
            problems.append(Problem("Serving", "KServeMissing", message))
        if not policy.traffic.is_shared:
            message = "without traffic.gateway the traffic can't be shared: it switches from 0 to 100 %"
            problems.append(Problem("TrafficSplit", "NoGateway", message, stops=False))
        elif not self.caches.installed(kinds.HTTP_ROUTE):
            message = "the cluster has no HTTPRoute (gateway.networking.k8s.io/v1); install the Gateway API"
            problems.append(Problem("TrafficSplit", "GatewayApiMissing", message))
        elif route.problem:
            stops = _needs_a_person(obj, route, is_new)
            problems.append(Problem("TrafficSplit", "RouteNotAccepted", route.problem, stops=stops))
        if problem := self.source.problem(policy.model):
            problems.append(problem)
        stable = seen.servers.get(stable_version(seen).digest)
        if stable is not None and not stable.ready and self.caches.installed(kinds.INFERENCE_SERVICE):
            problems.append(Problem("Serving", "StableNotReady", stable.message, stops=stable.failed))
        return problems


def _needs_a_person(obj: Object, route: RouteState, is_new: bool) -> bool:
    """A new route that is about to be accepted is no reason to call anybody; one that called somebody goes on to."""
    return not route.is_lagging and (not is_new or is_true(obj, "Ready") or is_true(obj, "Stalled"))


def _is_new(route: Object | None, now: datetime) -> bool:
    if route is None:
        return True
    return (now - datetime.fromisoformat(route["metadata"]["creationTimestamp"])).total_seconds() < _ROUTE_SECONDS


def _digests(policy: str, servers: Mapping[str, Object], versions: Iterable[ModelVersion]) -> dict[str, str]:
    """The digests of versions by the name of their server.

    A server's name says it too: its annotations are anybody's to remove, and then it must not look as if it were gone.
    """
    named = {server_name(policy, version.digest): version.digest for version in versions}
    said = digest_by_server(servers.values())
    return {name: digest for name in servers if (digest := named.get(name) or said.get(name))}


def _server_states(
    serving: ServingPods,
    servers: Mapping[str, Object],
    digests: Mapping[str, str],
    weights: Mapping[str, int],
    now: datetime,
) -> dict[str, ServerState]:
    return {
        digest: server_state(
            servers[name],
            now,
            had_traffic=bool(weights.get(digest)),
            ready_timeout=serving.ready_timeout_seconds,
            unavailable=serving.unavailable_seconds,
        )
        for name, digest in digests.items()
    }


def _start(obj: Object, initial: ModelVersion, promotions: Iterable[Promotion]) -> ModelVersion:
    """Where the chain of stable versions begins: what the status remembers, or else the initial version.

    A deleted Promotion must not send users back to an older version.
    """
    status = obj.get("status", {})
    remembered, first = status.get("stable"), status.get("initial")
    if remembered is None or any(promotion.status.phase == "Succeeded" for promotion in promotions):
        return initial
    if first and remembered.get("digest") == first.get("digest"):
        return initial
    return msgspec.convert(remembered, ModelVersion)


def _evaluations(
    policy: ClusterPolicy,
    versions: Iterable[ModelVersion],
    summaries: Mapping[tuple[str, str], EvaluationSummary],
) -> dict[tuple[str, str], EvaluationState]:
    states = {}
    for version in versions:
        for suite in policy.suites:
            if summary := summaries.get((version.digest, suite)):
                result = None if summary.failures else to_evaluation(version, summary)
                states[version.digest, suite] = EvaluationState(result, summary.failures, summary.message)
    return states


def _by_name(objects: Iterable[Object]) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in objects}
