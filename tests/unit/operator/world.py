"""The smallest thing that can hold what the operator writes, for its pure half: gather, decide and changes.

It keeps objects as an API server would where that matters here (uid, resourceVersion, generation, managed fields, no
status on the main path), with KServe's webhook before it and its Deployments behind it, and lets a test say what the
gateway, the Jobs and the store do. What only a real API server can
show is tested on one, in tests/operator.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from tests import kserve
from tests.builders import at, make_evaluation, make_version
from tunegate.api.feedback import Tally, Verdicts
from tunegate.api.promotion import Recorded
from tunegate.api.versions import ModelVersion, Producer
from tunegate.kube.kinds import Kind, Object
from tunegate.models.memory import Footprint
from tunegate.promotion.counting import Counted
from tunegate.promotion.decide import decide
from tunegate.promotion.snapshot import Pair, Plan
from tunegate.statistics.paired import Difference
from tunegate_operator import kinds
from tunegate_operator.conditions import Problem
from tunegate_operator.config import Config
from tunegate_operator.desired import Changes, changes, unready_changes
from tunegate_operator.feedback_counts import Counts
from tunegate_operator.gather import Gathered, Gatherer, Last, PolicyProblem
from tunegate_operator.index import found_by
from tunegate_operator.kinds import kind_of
from tunegate_operator.store_watch import RecordKey, RecordRequest
from tunegate_operator.types import MANAGER, EvaluationSummary, read_version, server_name, to_summary

NAMESPACE = "shop"
BASE = make_version("base", step=0)
CONFIG = Config(store="s3://models", evaluation_image="tunegate/trainer:1", endpoint_url="http://s3:8333")
POLICY_SPEC: Object = {
    "model": "shop",
    "initialVersion": BASE.uri,
    "suites": ["quality"],
    "gates": [{"suite": "quality", "metric": "score", "min": 0.5}],
    "steps": [{"weight": 10, "pauseSeconds": 5, "minVerdicts": 3}, {"weight": 50, "minVerdicts": 10}],
    "feedback": {"alpha": 0.05, "margin": 0.2, "minVerdicts": 5},
    "bakingSeconds": 60,
    "deadlineSeconds": 10000,
    "traffic": {"gateway": {"name": "public", "namespace": "gateways"}, "hostnames": ["shop.example"]},
}


class Store:
    """What the store's thread would have gathered."""

    def __init__(self) -> None:
        self.versions: tuple[ModelVersion, ...] | None = (BASE,)
        self.trouble: Problem | None = None
        self.results: dict[tuple[str, str], EvaluationSummary] = {}
        self.differences: dict[tuple[str, str], Difference | str] = {}
        self.records: dict[RecordKey, Recorded] = {}
        self.footprints: dict[str, Footprint | str] = {}
        self.unrecorded: Problem | None = None
        self.wrong: dict[str, str] = {}
        self.log: Callable[[], Mapping[str, Verdicts] | Problem] = dict

    def votes(self, asked: Counted, model: str, fresh: float) -> Mapping[str, Verdicts] | Problem | None:
        return self.trouble or self.log()

    def struck(self, asked: Counted, model: str) -> str:
        return self.wrong.get(asked.candidate, "")

    def listing(self, model: str) -> tuple[ModelVersion, ...] | None:
        return self.versions

    def problem(self, model: str) -> Problem | None:
        return self.trouble

    def footprint(self, version: ModelVersion) -> Footprint | str | None:
        return self.footprints.get(version.digest)

    def producer(self, digest: str) -> Producer | None:
        return None

    def version(self, uri: str, model: str) -> ModelVersion | Problem | None:
        return next((each for each in self.versions or () if each.uri == uri), self.trouble)

    def result(self, key: tuple[str, str, str], model: str) -> EvaluationSummary | None:
        return self.results.get(key[:2])

    def difference(self, pair: Pair, model: str) -> Difference | str | None:
        return self.differences.get((pair.suite, pair.metric))

    def progress(self, digest: str, suite: str) -> str:
        return ""

    def record(self, request: RecordRequest, model: str) -> Recorded | None:
        return self.records.get(request.key)

    def record_problem(self, model: str) -> Problem | None:
        return self.unrecorded

    def public_key(self) -> tuple[str, str] | None:
        return ("key-1", "PEM") if self.records else None


class World:
    def __init__(self, config: Config = CONFIG, **spec: Any) -> None:
        self.config = config
        self.now = 0.0
        self.objects: dict[tuple[str, str], Object] = {}
        self.store = Store()
        self.missing_kinds: set[Kind] = set()
        self.missing_fields: set[str] = set()
        self.tallies: Mapping[str, Verdicts] | Problem = {}
        self.splits: tuple[tuple[int, int], ...] = ()
        self.follow_servers = self.follow_route = True
        # How many pods of each engine are up, the presets that there are, and whether KServe gives certificates.
        self.engine_pods, self.presets, self.tls = 9, set(kserve.PRESETS), True
        # Engines whose pods are not up, whatever is said of all.
        self.away: set[str] = set()
        self.notes: list[tuple[str, str]] = []
        self.written = Changes()
        self.plan = Plan()
        # Webhooks that change what is written, after KServe's own.
        self.webhooks: list[Callable[[Object], None]] = []
        self.deployments: dict[str, kserve.Deployment] = {}
        self.asked: dict[str, tuple[Object, int]] = {}
        # Servers of which a pod answers that KServe does not tell of.
        self.ready_pods: set[str] = set()
        self._ids = itertools.count(1)
        self.gatherer = Gatherer(
            config,
            self,
            self.store,  # type: ignore[arg-type]
            lambda namespace, job: "the pod said why",
            lambda namespace, server: server in self.ready_pods,
        )
        self.store.log = lambda: self.tallies
        self.gatherer._counts = self._counts  # type: ignore[method-assign]
        policy = {**POLICY_SPEC, **spec}
        self.put(_object(kinds.POLICY, "shop", {k: v for k, v in policy.items() if v is not None}))

    # what Gatherer reads
    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self.objects.get((kind.kind, name))

    def installed(self, kind: Kind) -> bool:
        return kind not in self.missing_kinds

    def has_field(self, kind: Kind, *path: str) -> bool:
        return ".".join(path) not in self.missing_fields

    def list(self, kind: Kind, namespace: str | None = None) -> Iterable[Object]:
        return [obj for (each, _), obj in self.objects.items() if each == kind.kind]

    def find(self, kind: Kind, value: str, namespace: str | None = None) -> Iterable[Object]:
        return [obj for obj in self.list(kind, namespace) if value in found_by(kind, obj)]

    def _counts(self, namespace: str, seen: Any, now: datetime) -> Counts | Problem:
        return self.tallies if isinstance(self.tallies, Problem) else Counts(self.tallies, splits=self.splits)

    # what a test does
    def put(self, obj: Object) -> Object:
        """Server-side apply by the operator, as far as it matters here."""
        before = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        entries = [*(before or {"metadata": {}})["metadata"].get("managedFields", ())]
        ours = {
            "manager": MANAGER,
            "operation": "Apply",
            "time": at(self.now).isoformat(),
            "fieldsV1": {"f:spec": kserve.owned_fields(obj["spec"])},
        }
        if before:
            for path in kserve.moved_fields(before["spec"], obj["spec"]):
                for entry in entries:
                    kserve.take_fields(entry["fieldsV1"], ("f:spec", *path))
        entries = [entry for entry in entries if (entry["manager"], entry["operation"]) != (MANAGER, "Apply")]
        return self._store(obj, [*entries, ours])

    def edit(self, kind: str, name: str, change: Callable[[Object], None], manager: str = "kubectl-edit") -> Object:
        """An update of the spec by another manager, or by ourselves."""
        before = self.objects[kind, name]
        after = copy.deepcopy(before)
        change(after["spec"])
        entries = after["metadata"].pop("managedFields", [])
        theirs: Object = {"manager": manager, "operation": "Update", "fieldsV1": {}, "time": at(self.now).isoformat()}
        for path in kserve.moved_fields(before["spec"], after["spec"]):
            for entry in entries:
                kserve.take_fields(entry["fieldsV1"], ("f:spec", *path))
            kserve.give_fields(theirs["fieldsV1"], ("f:spec", *path))
        return self._store(after, [*entries, theirs])

    def _store(self, obj: Object, managers: list[Object]) -> Object:
        """Through the webhooks, and to what KServe makes of it."""
        key = (obj["kind"], obj["metadata"]["name"])
        before = self.objects.get(key)
        obj = copy.deepcopy(kserve.defaulted(obj) if obj["kind"].endswith("InferenceService") else obj)
        for webhook in self.webhooks:
            webhook(obj)
        changed = before is None or before["spec"] != obj["spec"]
        metadata = {**(before or {"metadata": {"uid": f"uid-{next(self._ids)}"}})["metadata"], **obj["metadata"]}
        metadata["generation"] = metadata.get("generation", 0) + changed
        metadata.setdefault("creationTimestamp", at(self.now).isoformat())
        metadata["resourceVersion"] = str(next(self._ids))
        metadata["managedFields"] = managers
        kept = {"status": before["status"]} if before and "status" in before else {}
        self.objects[key] = copy.deepcopy({**obj, "metadata": metadata, **kept})
        if obj["kind"] == "InferenceService":
            made = kserve.Deployment.of(self.objects[key])
            self.deployments.setdefault(obj["metadata"]["name"], made).follow(self.objects[key])
        return self.objects[key]

    def change(self, **spec: Any) -> World:
        """A person changes the policy."""
        policy = self.policy()
        self.put({**policy, "spec": {**policy["spec"], **spec}})
        return self

    def say(self, name: str, **words: Any) -> None:
        obj = self.objects["Promotion", name]
        self.put({**obj, "spec": {**obj["spec"], **words}})

    def publish(self, version: ModelVersion, score: float | None = 0.9) -> World:
        self.store.versions = (*(self.store.versions or ()), version)
        if score is not None:
            self.score(version, score)
        return self

    def score(self, version: ModelVersion, score: float) -> None:
        self.store.results[version.digest, "quality"] = to_summary(make_evaluation(version, score=score))

    def vote(self, candidate: ModelVersion, tally: Tally, stable: Tally, against: ModelVersion = BASE) -> World:
        self.tallies = {candidate.digest: {0: tally}, against.digest: {0: stable}}
        return self

    def look(self) -> Gathered | PolicyProblem | None:
        return self.gatherer.gather(NAMESPACE, "shop", at(self.now), Last(asked=self.asked))

    def step(self, times: int = 1, seconds: float = 1) -> World:
        for _ in range(times):
            self.now += seconds
            gathered = self.look()
            if gathered is None:
                self.written = Changes()
                continue
            if isinstance(gathered, PolicyProblem):
                self.written = unready_changes(gathered, at(self.now))
            else:
                self.plan = decide(gathered.snapshot, at(self.now))
                self.written = changes(gathered, self.plan, at(self.now), self.config, {})
            self.make(self.written)
            self.follow()
        return self

    def make(self, todo: Changes, limit: int | None = None) -> None:
        """Write the changes; with `limit`, die after so many writes."""
        writes = [
            *((self._create, each) for each in todo.create),
            *((self._write_status, each) for each in todo.statuses),
            *((self.put, each) for each in (*todo.route, *todo.apply)),
            *((self._patch, each) for each in (*todo.patch, *(job for job, _ in todo.stop))),
            *((self._delete, each) for each in todo.delete),
        ]
        for write, obj in writes[:limit]:
            write(obj)
        if limit is None:
            stopped = (note for _, notes in todo.stop for note in notes)
            self.notes += [(note.reason, note.message) for note in (*todo.notes, *stopped)]

    def follow(self) -> None:
        """KServe and the gateway do at once what they are told; Jobs end at once."""
        for obj in list(self.objects.values()):
            if obj["kind"] == "InferenceService" and self.follow_servers:
                self.ready(obj["metadata"]["name"])
            if obj["kind"] == "LLMInferenceService":
                self.follow_engine(obj)
            if obj["kind"] == "Deployment":
                obj["status"] = self.deployment_status(obj)
            if obj["kind"] == "HTTPRoute" and self.follow_route:
                self.accept()
            if obj["kind"] == "Job" and "status" not in obj:
                digest = next(v.digest for v in self.known() if v.digest[7:19] in obj["metadata"]["name"])
                if (digest, "quality") in self.store.results:
                    obj["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    def follow_engine(self, obj: Object) -> None:
        up = 0 if obj["metadata"]["name"] in self.away else self.engine_pods
        obj["status"] = kserve.engine_status(obj, self.presets, up, at(self.now).isoformat())
        if "workloads" in obj["status"]:
            service = kserve.engine_service(obj, self.tls)
            self.objects["Service", service["metadata"]["name"]] = service

    def deployment_status(self, obj: Object) -> Object:
        """Of the engine that versions share, as Kubernetes' controller says it."""
        is_up = obj["metadata"]["name"] not in self.away
        old = next(iter(obj.get("status", {}).get("conditions", ())), {})
        status = "True" if is_up else "False"
        since = old["lastTransitionTime"] if old.get("status") == status else at(self.now).isoformat()
        message = "" if is_up else "Deployment does not have minimum availability."
        reason = "MinimumReplicasAvailable" if is_up else "MinimumReplicasUnavailable"
        said = {"type": "Available", "status": status, "reason": reason, "message": message}
        return {"availableReplicas": int(is_up), "conditions": [{**said, "lastTransitionTime": since}]}

    def ready(self, server: str, status: str = "True", copies: int | None = None, reason: str = "") -> None:
        """As KServe says it; `copies` is how many pods answer."""
        obj, deployment = self.objects["InferenceService", server], self.deployments[server]
        since = at(self.now).isoformat()
        old = next(iter(obj.get("status", {}).get("conditions", ())), {})
        if old.get("status") == status:
            since = old["lastTransitionTime"]
        answering = copies if copies is not None else deployment.replicas if status == "True" else 0
        obj["status"] = {
            "conditions": [{"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": since}],
            "observedGeneration": deployment.generation,
            "modelStatus": {"copies": {"totalCopies": answering}},
        }

    def accept(self, accepted: str = "True", resolved: str = "True", reason: str = "") -> None:
        route = self.objects["HTTPRoute", "shop"]
        generation = route["metadata"]["generation"]
        conditions = [
            {"type": kind, "status": status, "observedGeneration": generation, "reason": reason, "message": reason}
            for kind, status in (("Accepted", accepted), ("ResolvedRefs", resolved))
        ]
        named = route["spec"]["parentRefs"]
        # Entries of gateways that are named no more stay, as Envoy Gateway and Traefik leave them.
        left = [entry for entry in route.get("status", {}).get("parents", ()) if entry["parentRef"] not in named]
        route["status"] = {"parents": [*left, *({"parentRef": ref, "conditions": conditions} for ref in named)]}

    def fail_job(self, name: str, reason: str = "BackoffLimitExceeded") -> None:
        self.objects["Job", name]["status"] = {
            "conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": "it failed"}]
        }

    def until(self, phase: str, limit: int = 60) -> World:
        for _ in range(limit):
            if self.promotions() and self.promotion()["status"].get("phase") == phase:
                return self
            self.step()
        raise AssertionError(f"never {phase}: {[each.get('status') for each in self.promotions()]}")

    # what a test looks at
    def known(self) -> list[ModelVersion]:
        """Every version that has a record."""
        return [read_version(obj) for (kind, _), obj in self.objects.items() if kind == "ModelVersion"]

    def promotions(self) -> list[Object]:
        found = [obj for (kind, _), obj in self.objects.items() if kind == "Promotion"]
        return [obj for obj in found if "status" in obj]

    def promotion(self) -> Object:
        """The one with the newest candidate."""
        return max(self.promotions(), key=lambda each: each["status"].get("candidate", {}).get("created", ""))

    def policy(self) -> Object:
        return self.objects["PromotionPolicy", "shop"]

    def weights(self) -> dict[str, int]:
        refs = self.objects["HTTPRoute", "shop"]["spec"]["rules"][0]["backendRefs"]
        return {ref["name"].removesuffix("-predictor"): ref["weight"] for ref in refs}

    def condition(self, obj: Object, kind: str) -> Object:
        return next(each for each in obj["status"]["conditions"] if each["type"] == kind)

    def _create(self, obj: Object) -> None:
        if (obj["kind"], obj["metadata"]["name"]) not in self.objects:
            self.put(obj)

    def _write_status(self, obj: Object) -> None:
        live = self.objects[obj["kind"], obj["metadata"]["name"]]
        assert live["metadata"]["resourceVersion"] == obj["metadata"]["resourceVersion"]
        live["status"] = copy.deepcopy(obj["status"])
        live["metadata"]["resourceVersion"] = str(next(self._ids))

    def _patch(self, obj: Object) -> None:
        name = obj["metadata"]["name"]
        _merge(self.objects[obj["kind"], name]["metadata"], {"annotations": obj["metadata"].get("annotations", {})})
        live = self.edit(obj["kind"], name, lambda spec: _merge(spec, obj["spec"]), MANAGER)
        self.asked[name] = (obj["spec"], live["metadata"]["generation"])

    def _delete(self, obj: Object) -> None:
        self.remove(kind_of(obj).kind, obj["metadata"]["name"])

    def remove(self, kind: str, name: str) -> None:
        self.objects.pop((kind, name), None)
        if kind == "InferenceService":
            self.deployments.pop(name, None)


def _merge(into: Object, patch: Object) -> None:
    """A JSON merge patch."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


def server_of(version: ModelVersion) -> str:
    return server_name("shop", version.digest)


def _object(kind: Kind, name: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": NAMESPACE, "uid": f"uid-{name}"}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}


__all__ = ["BASE", "CONFIG", "NAMESPACE", "World", "server_of"]
