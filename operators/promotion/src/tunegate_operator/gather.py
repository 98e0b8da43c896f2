"""Read everything about one policy into one frozen value.

Reads come from the watches' caches, from what the store's own thread last saw, and from Prometheus only while users
see a candidate: nothing that is away can keep a rollback waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Protocol

import msgspec

from tunegate.api.errors import UsageError
from tunegate.api.labels import BASE, POLICY, RESTORE, ROLLOUT
from tunegate.api.policy import CanaryStep, ClusterPolicy
from tunegate.api.promotion import TERMINAL, Promotion, Recorded
from tunegate.api.records import Place
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Kind, Object
from tunegate.models.memory import Footprint
from tunegate.promotion.counting import counted, shown, stable_version
from tunegate.promotion.desired import desired_servers
from tunegate.promotion.pairs import wanted_pairs
from tunegate.promotion.snapshot import Pair, ServerState, Snapshot
from tunegate.records.writing import unrecorded
from tunegate.statistics.paired import Difference
from tunegate_operator import kinds, manifests
from tunegate_operator.conditions import Problem
from tunegate_operator.config import Config
from tunegate_operator.edits import modified
from tunegate_operator.engines import (
    engine_address,
    engine_states,
    evaluation_engines,
    is_away,
    is_engine_answering,
    not_whole,
    service_of,
)
from tunegate_operator.evaluations import evaluation_states, find_summaries
from tunegate_operator.feedback_counts import Counts, problems_of, read_counts, with_counts
from tunegate_operator.feedback_log import by_the_log
from tunegate_operator.placement import card_of
from tunegate_operator.problems import (
    is_stuck,
    name_too_long,
    queued_training,
    stopped_training,
    unverified_weights,
)
from tunegate_operator.read import (
    Queued,
    controller,
    created,
    digest_by_server,
    finished_runs,
    is_answering,
    queued,
    server_state,
    stopped_jobs,
    training_runs,
)
from tunegate_operator.routes import RouteState, address, overlap, route_state, switch_state
from tunegate_operator.shared import not_shareable, queue_key, seen_by_versions, shared_addresses, too_large
from tunegate_operator.store_watch import RecordRequest, Source
from tunegate_operator.types import (
    EvaluationSummary,
    ServerRecord,
    object_name,
    read_policy,
    read_promotion,
    read_servers,
    read_version,
    server_name,
)


class Caches(Protocol):
    """What is read of the watches."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None: ...
    def list(self, kind: Kind, namespace: str | None = None) -> Iterable[Object]: ...
    def find(self, kind: Kind, value: str, namespace: str | None = None) -> Iterable[Object]: ...
    def installed(self, kind: Kind) -> bool: ...
    def has_field(self, kind: Kind, *path: str) -> bool: ...


@dataclass(frozen=True)
class PolicyProblem:
    """A policy that nothing can be decided about yet."""

    obj: Object
    problem: Problem


@dataclass(frozen=True)
class PolicyObjects:
    """The objects of the cluster that belong to one policy, by name.

    training_jobs: those of its namespace that train its model. engines: the LLMInferenceServices. shared: the
    Deployments and Services of engines that versions share, by kind and name.
    route: the HTTPRoute or Service users come in by. stale_route: one of the other kind, if it was left.
    """

    promotions: Mapping[str, Object]
    model_versions: Mapping[str, Object]
    jobs: Mapping[str, Object]
    inference_services: Mapping[str, Object]
    engines: Mapping[str, Object]
    shared: Mapping[tuple[str, str], Object]
    route: Object | None
    stale_route: Object | None
    training_jobs: tuple[Object, ...]


@dataclass(frozen=True)
class Refusal:
    """An object that the API server did not take, as a condition says it."""

    kind: str
    reason: str
    message: str

    @property
    def about(self) -> str:
        """The condition of the policy that it makes False."""
        kinds = {
            "InferenceService": "Serving",
            "LLMInferenceService": "Serving",
            "Deployment": "Serving",
            "HTTPRoute": "TrafficSplit",
            "Service": "TrafficSplit",
        }
        return "Ready" if self.reason == "NameTaken" else kinds.get(self.kind, "Ready")


@dataclass(frozen=True)
class Last:
    """What came of the writes of the reconcile before.

    asked: the last merge patch of each server, and the generation that it then had.
    restored: the last request to put back what was edited by hand that was written.
    """

    asked: Mapping[str, tuple[Object, int]] = field(default_factory=dict)
    refused: tuple[Refusal, ...] = ()
    restored: str = ""


@dataclass(frozen=True)
class Edit:
    """An object of the policy that somebody changed by hand.

    sentence: who, and what; empty where nobody did, and while it is being put back.
    request: a person asks that it be put back; empty where nobody does. restored: the request that was last done.
    """

    sentence: str
    request: str
    restored: str

    @property
    def is_restoring(self) -> bool:
        return bool(self.request)


@dataclass(frozen=True)
class Gathered:
    """One policy and everything around it.

    snapshot: what `decide` gets; promotions whose ModelVersion is not there are in `objects` only.
    summaries: by (digest, suite). servers: what is remembered of each InferenceService that is there, by name.
    addresses: where the engines are that answer, by the names of the servers in front of them. behind: these engines,
    by the same, whether they answer or not. engine_waits: what is said of those that evaluations wait for, by the
    digests of their versions.
    url: where the model answers; empty where that is not known. takes_timeouts: whether an HTTPRoute can have them.
    records: where those of promotions that are over stand, that don't say so yet, by name. record_keys: the ids and the
    PEM of the keys that signed any. is_recording: whether records are written.
    """

    obj: Object
    policy: ClusterPolicy
    snapshot: Snapshot
    initial: ModelVersion
    problems: tuple[Problem, ...]
    objects: PolicyObjects
    summaries: Mapping[tuple[str, str], EvaluationSummary]
    servers: Mapping[str, ServerRecord]
    addresses: Mapping[str, manifests.EngineAddress]
    behind: Mapping[str, Object]
    engine_waits: Mapping[str, str]
    edit: Edit
    last: Last
    url: str
    takes_timeouts: bool
    records: Mapping[str, Recorded] = field(default_factory=dict)
    record_keys: Mapping[str, str] = field(default_factory=dict)
    is_recording: bool = False

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.obj["metadata"]["name"])

    def engine_of(self, version: ModelVersion) -> manifests.EngineAddress | None:
        """Where the engine that is made for the version answers, if there is to be one."""
        if not self.policy.serving.has_made_engine:
            return None
        return self.addresses.get(server_name(self.name, version.digest))

    @property
    def rollout(self) -> str:
        """A person's request to make running servers as the policy says; empty once it is done."""
        request = str(self.obj["metadata"].get("annotations", {}).get(ROLLOUT, ""))
        return request if request != self.rolled_out else ""

    @property
    def rolled_out(self) -> str:
        """The last such request that is done."""
        return str(self.obj.get("status", {}).get("rolledOut", ""))


@dataclass
class Gatherer:
    """`pod_message` reads why a Job's pod failed; `has_ready_pod` whether a pod of a server answers.

    Both get a namespace and a name.
    """

    config: Config
    caches: Caches
    source: Source
    pod_message: Callable[[str, str], str]
    has_ready_pod: Callable[[str, str], bool]

    def __post_init__(self) -> None:
        self._parsed: dict[str, tuple[str, Promotion | None]] = {}

    def gather(self, namespace: str, name: str, now: datetime, last: Last) -> Gathered | PolicyProblem | None:
        """None when the policy is gone: what it owned goes with it."""
        obj = self.caches.get(kinds.POLICY, namespace, name)
        if obj is None:
            return None
        try:
            policy = read_policy(obj)
            card_of(policy.serving)
        except UsageError as error:
            return PolicyProblem(obj, Problem("Ready", "InvalidPolicy", str(error)))
        # Once known it is kept in the status, so that the store may be away.
        remembered = obj.get("status", {}).get("initial")
        if remembered and remembered.get("uri") == policy.initial_version:
            return self._gather(obj, policy, msgspec.convert(remembered, ModelVersion), now, last)
        initial = self.source.version(policy.initial_version, policy.model)
        if isinstance(initial, ModelVersion):
            return self._gather(obj, policy, initial, now, last)
        waiting = Problem("StoreReadable", "Waiting", f"{policy.initial_version} is being looked up", stops=False)
        return PolicyProblem(obj, initial or waiting)

    def _gather(self, obj: Object, policy: ClusterPolicy, initial: ModelVersion, now: datetime, last: Last) -> Gathered:
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        promotions, objects = self._promotions(namespace, name)
        start, listing = _start(obj, initial, promotions), self.source.listing(policy.model)
        every = (start, initial, *(listing or ()), *(promotion.candidate for promotion in promotions))
        versions = tuple({version.digest: version for version in every}.values())
        around = self._objects(obj, policy, versions, objects)
        servers = around.inference_services
        behind, addresses = self._engines(obj, policy, versions, around)
        records = self._records(obj, servers, behind, now)
        digests = digest_by_server(name, servers, versions)
        is_shared = policy.traffic.is_shared
        route = (route_state if is_shared else switch_state)(around.route, digests)
        edit = self._edit(obj, policy, versions, around, last.restored)
        used = _seen_by_users(route, promotions)
        states = self._server_states(obj, policy, versions, servers, behind, records, used, now)
        seen = Snapshot(
            policy=policy if is_shared else msgspec.structs.replace(policy, steps=(CanaryStep(weight=100),)),
            initial=start,
            versions=listing,
            promotions=promotions,
            servers=states,
            weights=route.weights,
            modified=edit.sentence,
            namespace=namespace,
        )
        snapshot, summaries, engine_waits = self._with_jobs(obj, policy, versions, around, addresses, seen)
        counts = self._counts(namespace, snapshot, now)
        return Gathered(
            obj=obj,
            policy=policy,
            snapshot=replace(with_counts(snapshot, counts), struck=self._struck(snapshot)),
            initial=initial,
            problems=(
                *self._problems(obj, policy, snapshot, route, around.route, now, last),
                *problems_of(counts),
                *stopped_training(around.training_jobs, policy.model),
                *queued_training(around.training_jobs, policy.model, self._queue),
                *unverified_weights(policy),
            ),
            objects=around,
            summaries=summaries,
            servers=records,
            addresses=addresses,
            behind=behind,
            engine_waits=engine_waits,
            edit=edit,
            last=last,
            url=self._url(namespace, name, policy, around.route),
            takes_timeouts=is_shared and self.caches.has_field(kinds.HTTP_ROUTE, "spec", "rules", "timeouts"),
            records=dict(self._written(promotions, policy, Place(policy=name, namespace=namespace), _record_keys(obj))),
            record_keys={**_record_keys(obj), **dict([signed] if (signed := self.source.public_key()) else [])},
            is_recording=self.config.signing_key is not None,
        )

    def _with_jobs(
        self,
        obj: Object,
        policy: ClusterPolicy,
        versions: tuple[ModelVersion, ...],
        around: PolicyObjects,
        ready: Collection[str],
        seen: Snapshot,
    ) -> tuple[Snapshot, Mapping[tuple[str, str], EvaluationSummary], Mapping[str, str]]:
        """`seen` with what evaluations and training came to; the summaries of those; and what is said of the engines
        that evaluations wait for, by digest. ready: the names of servers whose engine answers."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        servers, engines, training = around.inference_services, around.engines, around.training_jobs
        served = {version.digest for version in desired_servers(seen)}
        waits, failures = evaluation_engines(policy, name, versions, servers, engines, ready, seen.servers, served)
        summaries = find_summaries(
            policy,
            versions,
            around.model_versions,
            around.jobs,
            self.source,
            partial(self.pod_message, namespace),
            _awaited(seen.promotions),
            failures,
        )
        jobs_queued = {job: self._evaluation_queue(live, policy) for job, live in around.jobs.items()}
        seen = replace(
            seen,
            finished_runs=finished_runs(training, policy.model) | self._made_at_once(seen.versions or ()),
            stopped_runs=frozenset(stopped_jobs(training, policy.model)),
            training_runs=frozenset(training_runs(training, policy.model)),
            evaluations=evaluation_states(policy, versions, summaries, self.source.progress, jobs_queued, waits),
        )
        with_rest = replace(seen, differences=self._differences(seen), misfits=self._misfits(seen, policy))
        return with_rest, summaries, waits

    def _server_states(
        self,
        obj: Object,
        policy: ClusterPolicy,
        versions: Iterable[ModelVersion],
        servers: Mapping[str, Object],
        engines: Mapping[str, Object],
        records: Mapping[str, ServerRecord],
        had_traffic: set[str],
        now: datetime,
    ) -> dict[str, ServerState]:
        """Of servers and of the engines that they stand in front of."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]

        def state_of(live: Object, digest: str) -> ServerState:
            record = records.get(server_name(name, digest))
            queue = queued(self.caches.find(kinds.WORKLOAD, queue_key(live), namespace))
            was_used, away = (digest in had_traffic, record.away_since) if record else (False, None)
            return server_state(live, now, policy.serving, was_used, away, queue)

        states = {
            digest: state_of(servers[server], digest)
            for server, digest in digest_by_server(name, servers, versions).items()
        }
        every = digest_by_server(name, {**engines, **servers}, versions)
        return states | dict(engine_states(servers, engines, every, state_of))

    def _engines(
        self, obj: Object, policy: ClusterPolicy, versions: Iterable[ModelVersion], around: PolicyObjects
    ) -> tuple[dict[str, Object], dict[str, manifests.EngineAddress]]:
        """The engines behind servers, and where those answer that the policy wants; both by the servers' names."""
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        deployments = {each: live for (kind, each), live in around.shared.items() if kind == kinds.DEPLOYMENT.kind}
        shared, addresses = seen_by_versions(name, deployments, versions), self._addresses(namespace, around.engines)
        if policy.serving.share_base:
            return {**shared, **around.engines}, dict([*addresses, *shared_addresses(name, shared, versions)])
        before = {server: engine for server, engine in shared.items() if server in around.inference_services}
        return {**before, **around.engines}, dict(addresses)

    def _addresses(
        self, namespace: str, engines: Mapping[str, Object]
    ) -> Iterable[tuple[str, manifests.EngineAddress]]:
        """Where the engines are that answer."""
        for name, engine in engines.items():
            if not is_engine_answering(engine):
                continue
            service = self.caches.get(kinds.SERVICE, namespace, service_of(engine))
            if found := engine_address(engine, service):
                yield name, found

    def _queue(self, job: Object) -> Queued:
        """What Kueue says of a job."""
        return queued(self.caches.find(kinds.WORKLOAD, job["metadata"]["uid"], job["metadata"]["namespace"]))

    def _evaluation_queue(self, job: Object, policy: ClusterPolicy) -> Queued:
        """The same of an evaluation. Where it waits for an engine, its time begins when its Job is made."""
        found = self._queue(job)
        has_engine = policy.serving.llm_inference_service is not None
        return replace(found, admitted=found.admitted or created(job)) if has_engine else found

    def _differences(self, snapshot: Snapshot) -> dict[Pair, Difference | str]:
        """What the store's thread made of the wanted pairs so far; the others are asked for."""
        model = snapshot.policy.model
        asked = ((pair, self.source.difference(pair, model)) for pair in wanted_pairs(snapshot))
        return {pair: found for pair, found in asked if found}

    def _misfits(self, snapshot: Snapshot, policy: ClusterPolicy) -> dict[str, str | None]:
        """Of the stable and of candidates under way: why the policy's GPUs or its engine can't have them."""
        candidates = [it.candidate for it in snapshot.promotions if it.status.phase not in TERMINAL]
        needed = (stable_version(snapshot), *candidates)
        found: dict[str, str | None] = {}
        if policy.serving.has_made_engine:
            unfit = not_shareable if policy.serving.share_base else not_whole
            found = {version.digest: unfit(version) for version in needed}
        card, gpus = card_of(policy.serving), manifests.gpus(policy.serving, self.config)
        if card is None or not gpus:
            return found
        for version in (version for version in needed if not found.get(version.digest)):
            known = self.source.footprint(version)  # of an adapter, its base's
            if isinstance(known, Footprint):
                found[version.digest] = too_large(known, card, gpus, policy.serving)
            else:
                found[version.digest] = known and ""
        return found

    def _made_at_once(self, versions: Iterable[ModelVersion]) -> frozenset[str]:
        """The runs of versions that were made of others: no training job has to end for them."""
        producers = ((version.run, self.source.producer(version.digest)) for version in versions)
        return frozenset(run for run, producer in producers if producer and producer.derived)

    def _written(
        self, promotions: Iterable[Promotion], policy: ClusterPolicy, place: Place, keys: Mapping[str, str]
    ) -> Iterable[tuple[str, Recorded]]:
        """The records of promotions that are over, as far as they are written; the others are asked for."""
        if self.config.signing_key is None:
            return
        for asked in unrecorded(promotions, policy, place):
            if found := self.source.record(RecordRequest(asked, tuple(keys.values())), policy.model):
                yield asked.promotion.name, found

    def _url(self, namespace: str, name: str, policy: ClusterPolicy, route: Object | None) -> str:
        if (gateway := policy.traffic.gateway) is None:
            return f"http://{name}.{namespace}.svc"
        found = self.caches.get(kinds.GATEWAY, gateway.namespace or namespace, gateway.name)
        return address(policy, route, found)

    def _edit(
        self,
        obj: Object,
        policy: ClusterPolicy,
        versions: Iterable[ModelVersion],
        objects: PolicyObjects,
        written: str,
    ) -> Edit:
        """A request that was written is done, also where another manager has the last word: we don't fight."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        wanted = {
            server_name(name, version.digest): manifests.inference_service(
                namespace, policy, name, version, self.config
            )["spec"]
            for version in versions
            if server_name(name, version.digest) in objects.inference_services
        }
        sentences = [modified(objects.route)] if objects.route else []
        sentences += [modified(live, wanted.get(server)) for server, live in objects.inference_services.items()]
        sentences += [modified(live) for live in (*objects.engines.values(), *objects.shared.values())]
        edited = next(filter(None, sentences), "")
        request = obj["metadata"].get("annotations", {}).get(RESTORE, "")
        done = str(obj.get("status", {}).get("restored", ""))
        if edited and request not in (done, written):
            return Edit("", request, done)
        return Edit(edited, "", request or done)

    def _promotions(self, namespace: str, policy: str) -> tuple[tuple[Promotion, ...], dict[str, Object]]:
        """All of a policy, oldest first, and their objects by name."""
        objects = _by_name(self.caches.find(kinds.PROMOTION, policy, namespace))
        parsed = filter(None, (self._promotion(namespace, promotion) for promotion in objects.values()))
        return tuple(sorted(parsed, key=lambda promotion: (promotion.created, promotion.name))), objects

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
        self, obj: Object, policy: ClusterPolicy, versions: Iterable[ModelVersion], promotions: Mapping[str, Object]
    ) -> PolicyObjects:
        """With the ModelVersions of these versions, whichever policy made them, and all that this policy made."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        named = (self.caches.get(kind, namespace, name) for kind in (kinds.HTTP_ROUTE, kinds.SERVICE))
        # What has another controller is its own, whatever its labels say.
        ours = ("", obj["metadata"]["uid"])
        route, service = (found if found and controller(found) in ours else None for found in named)
        used, other = (route, service) if policy.traffic.is_shared else (service, route)
        found = (self.caches.get(kinds.MODEL_VERSION, namespace, object_name(version)) for version in versions)
        own = self.caches.find(kinds.MODEL_VERSION, name, namespace)
        return PolicyObjects(
            promotions=promotions,
            model_versions=_by_name((*filter(None, found), *own)),
            jobs=_by_name(self.caches.find(kinds.JOB, name, namespace)),
            inference_services=_by_name(self.caches.find(kinds.INFERENCE_SERVICE, name, namespace)),
            engines=_by_name(self.caches.find(kinds.LLM_INFERENCE_SERVICE, name, namespace)),
            shared={
                (kind.kind, live["metadata"]["name"]): {**live, "apiVersion": kind.api_version, "kind": kind.kind}
                for kind in (kinds.DEPLOYMENT, kinds.SERVICE)
                for live in self.caches.find(kind, name, namespace)
                if BASE in live["metadata"].get("labels", {})
            },
            route=used,
            stale_route=other if other and other["metadata"].get("labels", {}).get(POLICY) == name else None,
            training_jobs=tuple(
                job for kind in kinds.TRAINING for job in self.caches.find(kind, policy.model, namespace)
            ),
        )

    def _records(
        self, obj: Object, servers: Mapping[str, Object], engines: Mapping[str, Object], now: datetime
    ) -> dict[str, ServerRecord]:
        """What is remembered of the servers that are there, with those that have stopped answering, and come back.

        One whose engine does not answer gives no answers either.
        KServe stops telling while the initializer of a pod runs again after a failure, whatever others do.
        """
        namespace, known, records = obj["metadata"]["namespace"], read_servers(obj), {}
        for name, live in servers.items():
            record = known.get(name, ServerRecord(name=name))
            is_there = is_answering(live) or self.has_ready_pod(namespace, name)
            answers = is_there and not is_away(live, engines.get(name))
            records[name] = msgspec.structs.replace(record, away_since=None if answers else record.away_since or now)
        return records

    def _counts(self, namespace: str, seen: Snapshot, now: datetime) -> Counts | Problem:
        if (asked := counted(seen)) is None:
            return Counts({})
        url, credentials = self.config.prometheus_url, self.config.prometheus_credentials
        remedy = "give the operator --prometheus-url (operator.prometheusUrl in the chart)"
        quick: Counts | Problem = Problem(
            "FeedbackReadable", "PrometheusNotConfigured", f"no Prometheus is named; {remedy}"
        )
        if url:
            quick = read_counts(url, namespace, asked, now, credentials)
        return by_the_log(seen, quick, lambda fresh: self.source.votes(asked, seen.policy.model, fresh), now)

    def _struck(self, seen: Snapshot) -> dict[str, str]:
        asked = counted(seen)
        reason = self.source.struck(asked, seen.policy.model) if asked else ""
        return {asked.candidate: reason} if asked and reason else {}

    def _problems(
        self,
        obj: Object,
        policy: ClusterPolicy,
        seen: Snapshot,
        state: RouteState,
        route: Object | None,
        now: datetime,
        last: Last,
    ) -> Iterable[Problem]:
        needed = (kinds.INFERENCE_SERVICE, kinds.LLM_INFERENCE_SERVICE, kinds.HTTP_ROUTE)
        missing = {kind.kind for kind in needed if not self.caches.installed(kind)}
        for refusal in (refusal for refusal in last.refused if refusal.kind not in missing):
            yield Problem(refusal.about, refusal.reason, refusal.message)
        if seen.modified:
            yield Problem("Ready", "TargetModified", seen.modified)
        if kinds.INFERENCE_SERVICE.kind in missing:
            message = "the cluster has no InferenceService (serving.kserve.io/v1beta1); install KServe, Standard mode"
            yield Problem("Serving", "KServeMissing", message)
        if policy.serving.llm_inference_service and kinds.LLM_INFERENCE_SERVICE.kind in missing:
            message = (
                "the cluster has no LLMInferenceService (serving.kserve.io/v1alpha2); install KServe's charts "
                "kserve-llmisvc-crd, kserve-llmisvc-resources and kserve-runtime-configs, or take another "
                "serving.engine"
            )
            yield Problem("Serving", "LLMInferenceServiceMissing", message)
        yield from self._traffic_problems(obj, policy, state, route, now)
        if problem := self.source.problem(policy.model):
            yield problem
        if problem := self.source.record_problem(policy.model):
            yield problem
        stable = seen.servers.get(stable_version(seen).digest)
        if stable is None or not stable.ready:
            yield from name_too_long(obj)
        if (stable is None or not stable.ready) and (misfit := seen.misfits.get(stable_version(seen).digest)):
            yield Problem("Serving", "DoesNotFit", f"{stable_version(seen).name} {misfit}")
        elif stable is not None and not stable.ready and kinds.INFERENCE_SERVICE.kind not in missing:
            yield Problem("Serving", "StableNotReady", stable.message, stops=stable.failed)

    def _traffic_problems(
        self, obj: Object, policy: ClusterPolicy, state: RouteState, route: Object | None, now: datetime
    ) -> Iterable[Problem]:
        if not policy.traffic.is_shared:
            message = "without traffic.gateway the traffic can't be shared: it switches from 0 to 100 %"
            yield Problem("TrafficSplit", "NoGateway", message, stops=False)
        elif not self.caches.installed(kinds.HTTP_ROUTE):
            message = "the cluster has no HTTPRoute (gateway.networking.k8s.io/v1); install the Gateway API"
            remedy = "or leave out spec.traffic.gateway, and traffic switches from 0 to 100 %"
            yield Problem("TrafficSplit", "GatewayApiMissing", f"{message}, {remedy}")
        elif state.problem and route:
            yield Problem("TrafficSplit", "RouteNotAccepted", state.problem, is_stuck(obj, state, route, now))
        if policy.traffic.is_shared:

            def route_of(other: Object) -> Object | None:
                return self.caches.get(kinds.HTTP_ROUTE, other["metadata"]["namespace"], other["metadata"]["name"])

            message, loses = overlap(obj, partial(self.caches.find, kinds.POLICY), route_of)
            if message:
                yield Problem("TrafficSplit", "RequestsTaken", message, stops=loses)


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


def _awaited(promotions: Iterable[Promotion]) -> set[str]:
    """The digests whose evaluation a promotion waits for."""
    running = [promotion for promotion in promotions if promotion.status.phase not in TERMINAL]
    return {version.digest for it in running for version in (it.candidate, it.status.stable) if version}


def _record_keys(obj: Object) -> dict[str, str]:
    """The public keys that the policy's records were signed with, by their ids."""
    return {each["id"]: each["publicKey"] for each in obj.get("status", {}).get("recordKeys", ())}


def _seen_by_users(route: RouteState, promotions: Iterable[Promotion]) -> set[str]:
    """What the route says, whether or not its gateway can say that it does so: a server that is down may be why."""
    canary = shown(promotions)
    visible = {canary.candidate.digest} if canary and canary.status.weight > 0 else set()
    return visible | {digest for digest, weight in route.asked.items() if weight}


def _by_name(objects: Iterable[Object]) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in objects}
