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
from tunegate.api.policy import CanaryStep
from tunegate.api.promotion import Promotion
from tunegate.api.versions import ModelVersion
from tunegate.promotion.decide import SHOWN, stable_version
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState, Snapshot
from tunegate_operator import cluster as kinds
from tunegate_operator.cluster import Kind
from tunegate_operator.conditions import Problem
from tunegate_operator.config import Config
from tunegate_operator.manifests import evaluation_name
from tunegate_operator.observe import (
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
from tunegate_operator.prometheus import read_tallies
from tunegate_operator.resources import (
    DIGEST,
    POLICY,
    Attempt,
    ClusterPolicy,
    EvaluationSummary,
    Object,
    object_name,
    read_attempt,
    read_policy,
    read_summaries,
    read_version,
    to_evaluation,
)
from tunegate_operator.source import Source

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
class Unready:
    """A policy that nothing can be decided about yet."""

    obj: Object
    problem: Problem


@dataclass(frozen=True)
class Seen:
    """One policy and everything around it.

    snapshot: what `decide` looks at. entry: the HTTPRoute or Service users come in by. summaries: by (digest, suite).
    unknown: promotions whose ModelVersion is not there. stale: the entry of the other kind, if one was left.
    """

    obj: Object
    policy: ClusterPolicy
    snapshot: Snapshot
    initial: ModelVersion
    problems: tuple[Problem, ...]
    attempts: Mapping[str, Object]
    unknown: tuple[Attempt, ...]
    records: Mapping[str, Object]
    jobs: Mapping[str, Object]
    servers: Mapping[str, Object]
    entry: Object | None
    stale: Object | None
    shares: bool
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
        self._parsed: dict[str, tuple[str, Attempt]] = {}
        self.taken: dict[tuple[str, str], str] = {}  # policies whose names somebody else's objects have

    def gather(self, namespace: str, name: str, now: datetime) -> Seen | Unready | None:
        """None when the policy is gone: what it owned goes with it."""
        obj = self.caches.get(kinds.POLICY, namespace, name)
        if obj is None:
            return None
        try:
            policy = read_policy(obj)
        except UsageError as error:
            return Unready(obj, Problem("Ready", "InvalidPolicy", str(error)))
        initial = self._initial(obj, policy)
        return Unready(obj, initial) if isinstance(initial, Problem) else self._seen(obj, policy, initial, now)

    def _initial(self, obj: Object, policy: ClusterPolicy) -> ModelVersion | Problem:
        """The version of spec.initialVersion. Once known it is kept in the status, so that the store may be away."""
        remembered = obj.get("status", {}).get("initial")
        if remembered and remembered.get("uri") == policy.initial_version:
            return msgspec.convert(remembered, ModelVersion)
        found = self.source.version(policy.initial_version, policy.model)
        return found or Problem("StoreReadable", "Waiting", f"{policy.initial_version} is being looked up", stops=False)

    def _seen(self, obj: Object, policy: ClusterPolicy, initial: ModelVersion, now: datetime) -> Seen:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        of_policy = {POLICY: name}
        promotions, unknown, attempts = self._attempts(namespace, name)
        start = _start(obj, initial, promotions)
        shares = policy.traffic.gateway is not None
        route, service = (self.caches.get(kind, namespace, name) for kind in (kinds.HTTP_ROUTE, kinds.SERVICE))
        entry, stale = (route, service) if shares else (service, route)
        servers = _by_name(self.caches.list(kinds.INFERENCE_SERVICE, namespace, of_policy))
        digests = digest_by_server(servers.values())
        state = route_state(entry, digests) if shares else switch_state(entry, digests)
        jobs = _by_name(self.caches.list(kinds.JOB, namespace, of_policy))
        listing = self.source.listing(policy.model)
        known = _distinct((start, initial, *(listing or ()), *(each.candidate for each in promotions)))
        records = {
            object_name(each): record
            for each in known
            if (record := self.caches.get(kinds.MODEL_VERSION, namespace, object_name(each)))
        }
        records |= _by_name(self.caches.list(kinds.MODEL_VERSION, namespace, of_policy))
        summaries = self._summaries(namespace, policy, known, records, jobs)
        changed = [sentence for each in (entry, *servers.values()) if each and (sentence := modified(each))]
        seen = Snapshot(
            policy=policy if shares else _switching(policy),
            initial=start,
            versions=listing,
            finished_runs=finished_runs(self._training_jobs(namespace), policy.model),
            promotions=promotions,
            evaluations=_states(policy, known, summaries),
            servers={
                each["metadata"]["annotations"][DIGEST]: server_state(
                    each,
                    now,
                    had_traffic=bool((state.weights or {}).get(each["metadata"]["annotations"][DIGEST])),
                    ready_timeout=policy.serving.ready_timeout_seconds,
                    unavailable=policy.serving.unavailable_seconds,
                )
                for each in servers.values()
            },
            weights=state.weights,
            modified=changed[0] if changed else "",
        )
        tallies = self._tallies(namespace, seen, now)
        is_new = entry is None or _age(entry, now) < _ROUTE_SECONDS
        problems = [
            *self._problems(obj, policy, seen, state, is_new),
            *([tallies] if isinstance(tallies, Problem) else []),
        ]
        return Seen(
            obj=obj,
            policy=policy,
            snapshot=replace(seen, tallies=None if isinstance(tallies, Problem) else tallies),
            initial=initial,
            problems=tuple(problems),
            attempts=attempts,
            unknown=unknown,
            records=records,
            jobs=jobs,
            servers=servers,
            entry=entry,
            stale=stale if stale and stale["metadata"].get("labels", {}).get(POLICY) == name else None,
            shares=shares,
            summaries=summaries,
        )

    def _attempts(
        self, namespace: str, policy: str
    ) -> tuple[tuple[Promotion, ...], tuple[Attempt, ...], Mapping[str, Object]]:
        """The policy's promotions, oldest first; those without a version; and all of them as objects."""
        objects = {
            each["metadata"]["name"]: each
            for each in self.caches.list(kinds.PROMOTION, namespace)
            if each["spec"]["policy"] == policy
        }
        attempts = [self._attempt(namespace, each) for each in objects.values()]
        promotions = sorted(
            (each.promotion for each in attempts if each.promotion), key=lambda each: (each.created, each.name)
        )
        return tuple(promotions), tuple(each for each in attempts if each.promotion is None), objects

    def _attempt(self, namespace: str, obj: Object) -> Attempt:
        """Parsed once for each change of the object: most promotions are over and stay as they are."""
        uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
        known = self._parsed.get(uid)
        if known and known[0] == version and known[1].promotion is not None:
            return known[1]
        record = self.caches.get(kinds.MODEL_VERSION, namespace, obj["spec"]["version"])
        attempt = read_attempt(obj, {obj["spec"]["version"]: read_version(record)} if record else {})
        self._parsed[uid] = (version, attempt)
        return attempt

    def forget(self, uid: str) -> None:
        self._parsed.pop(uid, None)

    def _training_jobs(self, namespace: str) -> list[Object]:
        return [job for kind in (kinds.PYTORCH_JOB, kinds.TRAIN_JOB) for job in self.caches.list(kind, namespace)]

    def _summaries(
        self,
        namespace: str,
        policy: ClusterPolicy,
        versions: Iterable[ModelVersion],
        records: Mapping[str, Object],
        jobs: Mapping[str, Object],
    ) -> dict[tuple[str, str], EvaluationSummary]:
        found = {}
        for version in versions:
            record = records.get(object_name(version))
            recorded = {each.suite: each for each in read_summaries(record)} if record else {}
            for suite in policy.suites:
                job = jobs.get(evaluation_name(EvaluationJob(version, suite)))
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
        shown = next((each for each in seen.promotions if each.status.phase in SHOWN), None)
        if shown is None or shown.status.canary_started is None:
            return {}
        if shown.status.phase == "RollingBack" or shown.abort or seen.modified:
            return {}
        if not self.config.prometheus_url:
            remedy = "give the operator --prometheus-url (operator.prometheusUrl in the chart)"
            return Problem("FeedbackReadable", "PrometheusNotConfigured", f"there are no feedback counts; {remedy}")
        digests = [shown.candidate.digest, (shown.status.stable or stable_version(seen)).digest]
        since = shown.status.canary_started
        found = read_tallies(self.config.prometheus_url, namespace, digests, since, now)
        if isinstance(found, Problem) and (now - since).total_seconds() > _FIRST_COUNTS_SECONDS:
            return replace(found, stops=True)
        return found

    def _problems(
        self, obj: Object, policy: ClusterPolicy, seen: Snapshot, route: RouteState, is_new: bool
    ) -> list[Problem]:
        problems = []
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        if key in self.taken:
            problems.append(Problem("Ready", "NameTaken", self.taken[key]))
        if seen.modified:
            problems.append(Problem("Ready", "TargetModified", seen.modified))
        if not self.caches.installed(kinds.INFERENCE_SERVICE):
            message = "the cluster has no InferenceService (serving.kserve.io/v1beta1); install KServe, Standard mode"
            problems.append(Problem("Serving", "KServeMissing", message))
        if policy.traffic.gateway is None:
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
    if "has not looked" in route.problem:
        return False
    return not is_new or is_true(obj, "Ready") or is_true(obj, "Stalled")


def _age(obj: Object, now: datetime) -> float:
    return (now - datetime.fromisoformat(obj["metadata"]["creationTimestamp"])).total_seconds()


def _start(obj: Object, initial: ModelVersion, promotions: Iterable[Promotion]) -> ModelVersion:
    """Where the chain of stable versions begins: what the status remembers, or else the initial version.

    A deleted Promotion must not send users back to an older version.
    """
    status = obj.get("status", {})
    remembered, first = status.get("stable"), status.get("initial")
    if remembered is None or any(each.status.phase == "Succeeded" for each in promotions):
        return initial
    if first and remembered.get("digest") == first.get("digest"):
        return initial
    return msgspec.convert(remembered, ModelVersion)


def _switching(policy: ClusterPolicy) -> ClusterPolicy:
    return msgspec.structs.replace(policy, steps=(CanaryStep(weight=100),))


def _states(
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
    return {each["metadata"]["name"]: each for each in objects}


def _distinct(versions: Iterable[ModelVersion]) -> tuple[ModelVersion, ...]:
    return tuple({version.digest: version for version in versions}.values())
