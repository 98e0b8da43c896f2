"""Every way out that a policy, a promotion or a version names is gone, and leads out of it.

Each story brings a reason about, is stopped there while its message and the guide are read, and then does what they
say. While it does, nothing that answered stops answering, and no pod that answered is replaced.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import yaml

from tests.builders import at, make_evaluation, make_version
from tests.chart.test_troubleshooting import GUIDE, reasons
from tests.unit.operator.test_feedback_counts import Handler, body, prometheus, series, told, zeros
from tests.unit.operator.test_queue import keep, runs, waits
from tests.unit.operator.training import STOP, is_suspended, training_job
from tests.unit.operator.world import BASE, CONFIG, NAMESPACE, POLICY_SPEC, World, server_of
from tunegate.api.errors import CredentialsError, NotFoundError, UnavailableError
from tunegate.api.feedback import Tally, Verdicts
from tunegate.api.labels import POLICY, RESTORE
from tunegate.api.promotion import Recorded
from tunegate.api.versions import ModelVersion
from tunegate.kube.errors import ClusterError, Status, error_of
from tunegate.kube.kinds import Kind, Object
from tunegate.kube.workqueue import Key
from tunegate.models.memory import Footprint
from tunegate_operator import kinds
from tunegate_operator.conditions import Problem
from tunegate_operator.config import Config
from tunegate_operator.metrics import Metrics
from tunegate_operator.read import condition, is_answering
from tunegate_operator.reconcile import Reconciler
from tunegate_operator.store_watch import RecordKey, problem_of
from tunegate_operator.types import EvaluationSummary, object_name, to_summary

GOOD, BAD = Tally(up=38, down=2), Tally(up=4, down=36)
CANDIDATE = make_version("run-1", created=1)
ENTRIES = {
    entry.partition("\n")[0]: " ".join(entry.split())
    for entry in GUIDE.read_text().partition("\n## When all is well\n")[0].split("\n### ")[1:]
}
AGAIN = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0])
# An answer, and no trouble: there is nothing to get out of.
ANSWERS = {"FeedbackWorse", "Worse", "NewerVersion", "AlreadyStable", "EngineVouches"}
DOWN = error_of(
    Status(
        message='Internal error occurred: failed calling webhook "inferenceservice.kserve-webhook-server.defaulter": '
        'failed to call webhook: Post "https://kserve-webhook-server-service.kserve.svc:443/mutate": no endpoints',
        reason="InternalError",
        code=500,
    )
)
QUOTA = error_of(Status(message="jobs.batch is forbidden: exceeded quota: team", reason="Forbidden", code=403))


class Cluster(World):
    """The operator's own loop over the stand-in, and a look at what users meet meanwhile.

    fits: whether KServe can start this InferenceService. refused: what the API server answers to writes, by kind.
    """

    def __init__(self, config: Config = CONFIG, **spec: Any) -> None:
        super().__init__(config, **spec)
        self.fits: Callable[[Object], bool] = lambda server: True
        self.refused: dict[str, ClusterError] = {}
        self.start(config)

    def start(self, config: Config) -> None:
        """Start the operator, in place of the one that runs."""
        self.config = self.gatherer.config = config
        made = Reconciler(config, cast(Any, _Api(self)), self, Metrics(), lambda: at(self.now), lambda key: None)
        made._gatherer = self.gatherer
        self._reconciler = made

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """As from a watch of what is ours."""
        obj = super().get(kind, namespace, name)
        is_foreign = obj is not None and POLICY not in obj["metadata"].get("labels", {})
        return None if is_foreign and kind in (kinds.HTTP_ROUTE, kinds.SERVICE, kinds.INFERENCE_SERVICE) else obj

    def step(self, times: int = 1, seconds: float = 1) -> Cluster:
        for _ in range(times):
            self.now += seconds
            self._reconciler.reconcile(Key(NAMESPACE, "shop"))
            self.follow()
        return self

    def follow(self) -> None:
        follow_servers, self.follow_servers = self.follow_servers, False
        super().follow()
        self.follow_servers = follow_servers
        for server in self.deployments if follow_servers else ():
            fits = self.fits(self.objects["InferenceService", server])
            self.ready(server, str(fits), reason="" if fits else "MinimumReplicasUnavailable")

    def delete(self, kind: str, name: str) -> None:
        """With what the object owned."""
        uid = self.objects[kind, name]["metadata"]["uid"]
        self.remove(kind, name)
        for other, obj in list(self.objects.items()):
            if any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences", ())):
                self.delete(*other)

    def try_again(self) -> None:
        """Make another Promotion of the candidate, as the guide writes it."""
        name = f"{AGAIN['metadata']['generateName']}{len(self.promotions())}"
        spec = {**AGAIN["spec"], "version": object_name(CANDIDATE)}
        self.put({**AGAIN, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})

    def newest(self) -> Object:
        """The promotion that was made last."""
        return self.promotions()[-1]

    def is_ended(self, phase: str) -> bool:
        """Whether the newest promotion is in this phase; with none named, whatever there is."""
        return not phase or (bool(self.promotions()) and self.newest()["status"]["phase"] == phase)

    def messages(self, reason: str) -> list[str]:
        """What the policy, the newest promotion and the versions say with this reason."""
        versions = [obj for (kind, _), obj in self.objects.items() if kind == "ModelVersion"]
        objects = [self.policy(), *self.promotions()[-1:], *versions]
        conditions = [found for obj in objects for found in obj.get("status", {}).get("conditions", ())]
        return [found["message"] for found in conditions if found["reason"] == reason and found["message"]]

    def answering(self) -> set[str]:
        found = [obj for (kind, _), obj in self.objects.items() if kind == "InferenceService"]
        return {obj["metadata"]["name"] for obj in found if is_answering(obj)}

    def is_serving(self) -> bool:
        """Whether every request gets to a server that answers, by the gateway or by the Service."""
        route, service = self.objects.get(("HTTPRoute", "shop")), self.objects.get(("Service", "shop"))
        if route and "status" in route:
            servers = {name for name, weight in self.weights().items() if weight}
        elif service:
            servers = {service["spec"]["selector"]["serving.kserve.io/inferenceservice"]}
        else:
            return False
        return bool(servers) and servers <= self.answering()


class _Api:
    """The API server, as far as the operator writes."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self._cluster.objects.get((kind.kind, name))

    def create(self, obj: Object) -> None:
        self._check(obj["kind"])
        self._cluster._create(obj)

    def apply(self, obj: Object, *, status: bool = False) -> None:
        self._check(obj["kind"])
        self._cluster._write_status(obj) if status else self._cluster.put(obj)

    def merge(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        self._check(kind.kind)
        metadata = {**changes.get("metadata", {}), "name": name}
        self._cluster._patch({"kind": kind.kind, **changes, "metadata": metadata})
        return {"metadata": {"generation": self._cluster.asked[name][1]}}

    def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        self._cluster.delete(kind.kind, name)

    def emit(self, regarding: Object, *, reason: str, note: str, action: str, type: str) -> None:
        self._cluster.notes.append((reason, note))

    def _check(self, kind: str) -> None:
        if kind in self._cluster.refused:
            raise self._cluster.refused[kind]


@dataclass(frozen=True)
class Story:
    """says: in the message. does: in the guide's entry. ends: the phase of the newest promotion, if one comes of it."""

    reason: str
    says: str
    does: str
    tell: Callable[[Cluster, Path], Iterator[None]]
    spec: dict[str, Any]
    ends: str


STORIES: list[Story] = []


def story(reason: str, says: str, does: str, ends: str = "", **spec: Any) -> Callable[[Any], Any]:
    """Up to the first `yield` the reason comes about; from there to the second, somebody does as it says."""

    def keep(tell: Callable[[Cluster, Path], Iterator[None]]) -> Callable[[Cluster, Path], Iterator[None]]:
        STORIES.append(Story(reason, says, does, tell, spec, ends))
        return tell

    return keep


def serve(world: Cluster) -> Cluster:
    """A stable that serves, and a good candidate in the store that users like."""
    world.step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD)
    return world


@pytest.mark.parametrize("told_of", STORIES, ids=lambda found: found.tell.__name__)
def test_what_the_sentence_says_gets_out(told_of: Story, tmp_path: Path) -> None:
    world = Cluster(**told_of.spec)
    steps = told_of.tell(world, tmp_path)
    next(steps)
    messages = world.messages(told_of.reason)
    assert [message for message in messages if told_of.says in message], messages
    assert told_of.does in ENTRIES[told_of.reason], ENTRIES[told_of.reason]
    replaced = {name: world.deployments[name].replaced for name in world.answering()}
    was_serving, step = world.is_serving(), world.step

    def watched(times: int = 1, seconds: float = 1) -> Cluster:
        nonlocal was_serving
        for _ in range(times):
            step(seconds=seconds)
            assert world.is_serving() or not was_serving, "requests are refused"
            was_serving = world.is_serving()
        return world

    world.step = watched  # type: ignore[method-assign]
    next(steps)
    for _ in range(300):
        if not world.messages(told_of.reason) and world.is_ended(told_of.ends):
            break
        world.step()
    assert world.messages(told_of.reason) == []
    assert world.is_ended(told_of.ends)
    for name, before in replaced.items():
        assert name not in world.deployments or world.deployments[name].replaced == before, "its pods were replaced"
    assert next(steps, None) is None


def test_every_reason_that_asks_something_of_a_person_has_its_story() -> None:
    given = set().union(*reasons().values())
    assert sorted((ENTRIES.keys() & given) - ANSWERS - {found.reason for found in STORIES}) == []
    assert [name for name in ANSWERS if "- Do: nothing" not in ENTRIES[name]] == []


@story("Queued", "waits in the queue gpus of Kueue: couldn't assign flavors", "Do: wait, or give the queue more quota")
def the_queue_has_no_room_for_a_training_job(world: Cluster, folder: Path) -> Iterator[None]:
    job = world.put(training_job(kinds.PYTORCH_JOB, "run-1"))
    owner = {"kind": "PyTorchJob", "name": "train-run-1", "uid": job["metadata"]["uid"]}
    keep(world, waits(owner))
    serve(world).step(3)
    yield
    keep(world, runs(owner, world.now))
    yield


@story("TrainingStopped", "to have it go on: kubectl patch pytorchjob", "Do: nothing", stopTraining=STOP)
def the_checkpoints_are_worse_than_the_stable(world: Cluster, folder: Path) -> Iterator[None]:
    world.score(BASE, 0.9)
    world.put(training_job(kinds.PYTORCH_JOB, "run-1"))
    world.publish(make_version("run-1", created=1), 0.1).step(8)
    yield
    (message,) = world.messages("TrainingStopped")
    patch = json.loads(message.rpartition("-p '")[2].rstrip("'"))
    world.edit("PyTorchJob", "train-run-1", lambda spec: spec.update(patch["spec"]))
    yield
    assert not is_suspended(world.objects["PyTorchJob", "train-run-1"])


# The store


@story("StoreUnreachable", "check that the store runs", "that the store runs", ends="Succeeded")
def the_store_is_away(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    versions = world.store.versions
    message = "s3://models can't be reached; check that the store runs and that --endpoint-url is right."
    world.store.versions, world.store.trouble = None, problem_of(UnavailableError(message))
    world.step(2)
    yield
    world.store.versions, world.store.trouble = versions, None
    yield


@story("CredentialsRefused", "check AWS_ACCESS_KEY_ID", "`kubectl rollout restart deployment", ends="Succeeded")
def the_keys_are_wrong(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    versions = world.store.versions
    message = "s3://models refuses the credentials (403); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    world.store.versions, world.store.trouble = None, problem_of(CredentialsError(message))
    world.step(2)
    yield
    world.store.versions, world.store.trouble = versions, None
    world.start(CONFIG)
    yield


def records(reason: str, message: str) -> Callable[[Cluster, Path], Iterator[None]]:
    """Nothing waits for a record, and it follows when it can be written."""

    def tell(world: Cluster, folder: Path) -> Iterator[None]:
        world.start(replace(CONFIG, signing_key=folder / "signing.key"))
        world.store.unrecorded = Problem("DecisionsRecorded", reason, message, stops=False)
        serve(world).until("Succeeded", 120)
        world.step(2)
        yield
        name, created = world.promotion()["metadata"]["name"], world.promotion()["metadata"]["creationTimestamp"]
        key = RecordKey(NAMESPACE, name, datetime.fromisoformat(created), departs=False)
        world.store.unrecorded = None
        world.store.records[key] = Recorded(key="k", digest="sha256:0", signed_by="key-1")
        world.step(2)
        assert world.promotion()["status"]["record"]["signedBy"] == "key-1"
        assert world.policy()["status"]["recordKeys"] == [{"id": "key-1", "publicKey": "PEM"}]
        yield

    tell.__name__ = reason
    return tell


for _reason, _says, _does in (
    ("SigningKeyUnusable", "make one with: openssl genpkey", "put a PEM file with an Ed25519 key into the Secret"),
    (
        "RecordNotWritten",
        "ask for that permission",
        "let the operator's keys put objects below `.tunegate/promotions/`",
    ),
    ("RecordRefused", "delete it from the store", "delete it from the store, and the record is written again"),
):
    story(_reason, _says, _does, ends="Succeeded")(records(_reason, f"it is so; {_says}"))


@story("VersionMissing", "no version", "correct `initialVersion` of the policy", initialVersion="s3://models/bsae/")
def the_first_version_is_misspelled(world: Cluster, folder: Path) -> Iterator[None]:
    world.store.trouble = problem_of(NotFoundError("no version bsae in s3://models; there is base."))
    world.step(3)
    yield
    world.change(initialVersion=BASE.uri)
    world.store.trouble = None
    world.step(3)
    assert world.policy()["status"]["phase"] == "Serving"
    yield


@story("VersionMissing", "is no longer in the store", "publish what was deleted again", ends="Succeeded")
def the_candidate_is_deleted(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Verifying")
    versions, world.store.versions = world.store.versions, (BASE,)
    world.step(2)
    yield
    world.store.versions = versions
    world.step()
    world.try_again()
    yield


@story("VersionMissing", "delete this Promotion, and make one", "`version` in a new Promotion", ends="Succeeded")
def a_promotion_names_no_version(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    world.say(world.newest()["metadata"]["name"], abort={"actor": "ada", "message": "by hand"})
    world.until("Aborted")
    metadata = {"name": "by-hand", "namespace": NAMESPACE}
    world.put({**AGAIN, "metadata": metadata, "spec": {"policy": "shop", "version": "shop-run-9"}})
    world.step(2)
    yield
    world.delete("Promotion", "by-hand")
    world.try_again()
    yield


@story("DigestMismatch", "publish under a new name", "publish them again under a new name", ends="Succeeded")
def other_bytes_lie_under_its_name(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Verifying")
    world.store.versions = (BASE, msgspec.structs.replace(CANDIDATE, digest=make_version("other").digest))
    world.step(2)
    assert world.newest()["status"]["decision"]["reason"] == "DigestMismatch"
    yield
    again = make_version("run-1-again", created=200)
    world.store.versions = (BASE,)
    world.publish(again).vote(again, GOOD, GOOD)
    for name in [name for kind, name in world.objects if kind == "Promotion"]:
        world.delete("Promotion", name)
    yield


# Evaluation and gates


def evaluate(world: Cluster) -> str:
    """A candidate that is being evaluated, and the name of its Job."""
    serve(world)
    world.store.results.pop((CANDIDATE.digest, "quality"))
    world.until("Evaluating").step(2)
    return f"evaluate-{CANDIDATE.digest[7:19]}-quality"


@story("EvaluationFailed", "delete Job evaluate-", "delete the Job: it is made again", ends="Succeeded")
def an_evaluation_runs_out_of_memory(world: Cluster, folder: Path) -> Iterator[None]:
    job = evaluate(world)
    world.fail_job(job)
    world.until("Failed")
    yield
    world.change(evaluation={"resources": {"limits": {"memory": "8Gi"}}})
    world.delete("Job", job)
    world.try_again()
    world.step(3)
    (container,) = world.objects["Job", job]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"memory": "8Gi"}}
    world.score(CANDIDATE, 0.9)
    yield


@story("EvaluationTimeout", "no result of quality on shop/run-1", "delete its Job", ends="Succeeded")
def an_evaluation_takes_too_long(world: Cluster, folder: Path) -> Iterator[None]:
    world.change(evaluationTimeoutSeconds=100)
    job = evaluate(world)
    world.step(seconds=101).until("Failed")
    yield
    world.change(evaluationTimeoutSeconds=1000, evaluation={"limit": 10})
    world.delete("Job", job)
    world.try_again()
    world.step(3)
    spec = world.objects["Job", job]["spec"]
    assert spec["activeDeadlineSeconds"] == 1000
    assert spec["template"]["spec"]["containers"][0]["args"][4:6] == ["--limit", "10"]
    world.step(seconds=150)
    world.score(CANDIDATE, 0.9)
    yield


@story("GateFailed", "is below the minimum", "change `spec.gates` and make a new Promotion", ends="Succeeded")
def a_bound_is_wrong(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).score(CANDIDATE, 0.4)
    world.until("Rejected")
    yield
    world.change(gates=[{"suite": "quality", "metric": "score", "min": 0.3}])
    world.try_again()
    yield


@story("GateUndecided", "correct the gate's metric", "correct the metric's name in `spec.gates`", ends="Succeeded")
def a_gate_names_no_metric(world: Cluster, folder: Path) -> Iterator[None]:
    world.change(gates=[{"suite": "quality", "metric": "acuracy", "min": 0.3}])
    serve(world).until("Failed")
    yield
    world.change(gates=[{"suite": "quality", "metric": "score", "min": 0.3}])
    world.try_again()
    yield


@story("GateUndecided", "delete its ModelVersion", "delete its ModelVersion", ends="Succeeded")
def a_suite_changed_between_two_evaluations(world: Cluster, folder: Path) -> Iterator[None]:
    """As with another trainer image, whose suite has other questions."""
    world.change(gates=[{"suite": "quality", "metric": "score", "maxRegression": 0.1}])
    world.score(BASE, 0.9)
    world.step(6)
    serve(world).store.results[CANDIDATE.digest, "quality"] = by_newer_suite(CANDIDATE)
    world.until("Failed")
    yield
    world.store.results[BASE.digest, "quality"] = by_newer_suite(BASE)
    world.delete("ModelVersion", object_name(BASE))
    world.step(3)
    world.try_again()
    yield


def by_newer_suite(version: ModelVersion) -> EvaluationSummary:
    return to_summary(msgspec.structs.replace(make_evaluation(version, score=0.9), suite_digest="sha256:newer"))


# Persons


@story(
    "AwaitingApproval", "-n shop", "`tunegate promotions approve NAME --namespace shop`", "Succeeded", approval="Manual"
)
def a_person_is_asked(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("AwaitingApproval")
    yield
    name = world.newest()["metadata"]["name"]
    assert f"tunegate promotions approve {name} -n shop" in world.messages("AwaitingApproval")[0]
    world.say(name, approval={"verdict": "Approved", "actor": "ada", "message": "looks right"})
    yield


@story("RejectedByPerson", "", "after a change of mind make a new Promotion", "Succeeded", approval="Manual")
def a_person_says_no(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("AwaitingApproval")
    world.say(world.newest()["metadata"]["name"], approval={"verdict": "Rejected", "actor": "ada", "message": "no"})
    world.until("Rejected")
    yield
    world.try_again()
    world.step(5)
    world.say(world.newest()["metadata"]["name"], approval={"verdict": "Approved", "actor": "ada", "message": "yes"})
    yield


@story("Aborted", "wrong prices", "To try the version again make a new Promotion", ends="Succeeded")
def a_person_stops_it(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    world.say(world.newest()["metadata"]["name"], abort={"actor": "ada", "message": "wrong prices"})
    world.until("Aborted")
    yield
    world.try_again()
    yield


@story("Suspended", "spec.suspend", "kubectl patch promotionpolicy shop", ends="Succeeded", suspend=True)
def a_policy_is_suspended(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).step(3)
    yield
    (patch,) = re.findall(r"--patch\s'(.+?)'", ENTRIES["Suspended"])
    world.change(**json.loads(patch)["spec"])
    yield


# Serving and traffic


@story("KServeMissing", "install KServe", "install KServe", ends="Succeeded")
def kserve_is_missing(world: Cluster, folder: Path) -> Iterator[None]:
    world.missing_kinds.add(kinds.INFERENCE_SERVICE)
    serve(world).step(2)
    yield
    world.missing_kinds.clear()
    yield


OF_ITS_OWN = {"engine": "LLMInferenceService", "llmInferenceService": {}}


@story(
    "LLMInferenceServiceMissing",
    "install KServe's charts kserve-llmisvc-crd",
    "install KServe's charts",
    ends="Succeeded",
    serving=OF_ITS_OWN,
)
def kserves_engines_are_missing(world: Cluster, folder: Path) -> Iterator[None]:
    world.missing_kinds.add(kinds.LLM_INFERENCE_SERVICE)
    serve(world).step(2)
    yield
    world.missing_kinds.clear()
    yield


@story("StableNotReady", "install KServe's presets (its chart kserve-runtime-configs", "kserve", serving=OF_ITS_OWN)
def the_presets_of_an_engine_are_missing(world: Cluster, folder: Path) -> Iterator[None]:
    world.presets.clear()
    world.step(2).step(seconds=1801).step()
    yield
    world.presets.add("kserve-config-llm-template")
    yield


@story("GatewayApiMissing", "install the Gateway API", "install the Gateway API", ends="Succeeded")
def the_gateway_api_is_missing(world: Cluster, folder: Path) -> Iterator[None]:
    world.missing_kinds.add(kinds.HTTP_ROUTE)
    serve(world).step(2)
    yield
    world.missing_kinds.clear()
    yield


@story("GatewayApiMissing", "leave out spec.traffic.gateway", "take `spec.traffic.gateway` away", ends="Succeeded")
def no_gateway_api_is_wanted(world: Cluster, folder: Path) -> Iterator[None]:
    world.missing_kinds.add(kinds.HTTP_ROUTE)
    world.refused["HTTPRoute"] = error_of(Status(message="the server could not find", reason="NotFound", code=404))
    serve(world).step(2)
    yield
    world.change(traffic={})
    yield


@story("NoGateway", "traffic.gateway", "name a gateway", traffic={})
def a_gateway_is_named_at_last(world: Cluster, folder: Path) -> Iterator[None]:
    """The Service that users come in by stays until the gateway has taken the route."""
    serve(world).until("Succeeded", limit=200)
    yield
    world.follow_route = False
    world.change(traffic=POLICY_SPEC["traffic"])
    world.step(10)
    assert ("Service", "shop") in world.objects
    world.follow_route = True
    world.step(3)
    assert ("Service", "shop") not in world.objects
    yield


@story("RouteNotAccepted", "NotAllowedByListeners", "allow routes from this namespace", ends="Succeeded")
def a_listener_allows_no_routes(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Evaluating")
    world.follow_route = False
    world.until("Progressing").step()
    world.accept(accepted="False", reason="NotAllowedByListeners")
    world.step(2)
    yield
    world.follow_route = True
    yield


@story("RouteNotAccepted", "whether the controller of Gateway public runs", "the pods of its controller", "Succeeded")
def a_gateways_controller_is_dead(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Evaluating")
    world.follow_route = False
    world.until("Progressing").step(4, seconds=60)
    yield
    world.follow_route = True
    yield


@story("RequestsTaken", "other traffic.hostnames or traffic.pathPrefix", "other `traffic.hostnames`", ends="Succeeded")
def another_policy_gets_its_requests(world: Cluster, folder: Path) -> Iterator[None]:
    other = {**world.policy(), "metadata": {"name": "first", "namespace": "search", "uid": "uid-first"}}
    other["metadata"]["creationTimestamp"] = at(-1000).isoformat()
    world.objects["PromotionPolicy", "first"] = other
    serve(world).step(2)
    assert world.condition(world.policy(), "Stalled")["status"] == "True"
    yield
    world.change(traffic={**POLICY_SPEC["traffic"], "hostnames": ["chat.shop.example"]})
    yield


def has_memory(amount: str) -> Callable[[Object], bool]:
    """What a server needs, but for that of the first version, which is smaller."""

    def fits(server: Object) -> bool:
        limits = server["spec"]["predictor"]["model"].get("resources", {}).get("limits", {})
        return bool(server["metadata"]["name"] == server_of(BASE) or limits.get("memory") == amount)

    return fits


@story("CanaryNotReady", "see: kubectl describe inferenceservice", "the memory or the nodes that it needs", "Succeeded")
def a_candidate_needs_more_memory(world: Cluster, folder: Path) -> Iterator[None]:
    world.fits = has_memory("8Gi")
    serve(world).until("Progressing").step(2).step(seconds=1801)
    world.until("Failed")
    yield
    world.change(serving={"resources": {"limits": {"memory": "8Gi"}}})
    world.try_again()
    enough, loaded = has_memory("8Gi"), world.now + 20
    world.fits = lambda server: enough(server) and (server["metadata"]["name"] == server_of(BASE) or world.now > loaded)
    yield


@story("CanaryNotReady", "not ready within 1800 s", "or more time", ends="Succeeded")
def a_candidate_needs_more_time(world: Cluster, folder: Path) -> Iterator[None]:
    world.fits = has_memory("none is enough")
    serve(world).until("Progressing").step(2).step(seconds=1801)
    world.until("Failed")
    yield
    world.change(serving={"readyTimeoutSeconds": 7200})
    world.try_again()
    world.step(5).step(seconds=3000)
    world.fits = lambda server: True
    yield


@story(
    "CandidateDown", "see: kubectl describe inferenceservice", "more memory in `spec.serving.resources`", "Succeeded"
)
def a_promoted_candidate_dies(world: Cluster, folder: Path) -> Iterator[None]:
    world.change(bakingSeconds=1000)
    serve(world).until("Baking", limit=200)
    world.fits = has_memory("8Gi")
    world.step(2).step(seconds=130)
    world.until("RolledBack")
    yield
    world.change(serving={"resources": {"limits": {"memory": "8Gi"}}}, bakingSeconds=10)
    world.try_again()
    yield


SMALL, LARGE = (Footprint(weights=size, token=2**17, heads=32) for size in (14 * 2**30, 28 * 2**30))
ON_A10 = {"engine": "VLLM", "card": "A10", "resources": {"limits": {"nvidia.com/gpu": 1}}}
ON_TWO = {**ON_A10, "resources": {"limits": {"nvidia.com/gpu": "2"}}}


@story("DoesNotFit", "it would fit on 2 of them", "as many GPUs as the message says", "Succeeded", serving=ON_A10)
def a_candidate_is_too_large_for_the_gpus(world: Cluster, folder: Path) -> Iterator[None]:
    world.store.footprints = {BASE.digest: SMALL, CANDIDATE.digest: LARGE}
    serve(world).until("Failed", 20)
    assert world.newest()["status"]["decision"]["reason"] == "DoesNotFit"
    assert [step["phase"] for step in world.newest()["status"]["history"]] == ["Verifying", "Failed"]
    assert server_of(CANDIDATE) not in world.deployments
    yield
    world.change(serving=ON_TWO)
    world.try_again()
    yield


@story("DoesNotFit", "it would fit on 2 of them", "as many GPUs as the message says", serving=ON_A10)
def the_first_version_is_too_large_for_the_gpus(world: Cluster, folder: Path) -> Iterator[None]:
    """No pod asks for a GPU meanwhile, also not before the store has said how large it is."""
    world.step(3)
    assert not world.deployments
    world.store.footprints = {BASE.digest: LARGE}
    world.step(3)
    assert not world.deployments
    assert condition(world.policy(), "Stalled")["reason"] == "DoesNotFit"
    yield
    world.change(serving=ON_TWO)
    yield


@story("StableNotReady", "see: kubectl describe inferenceservice", "[CanaryNotReady]")
def the_first_server_needs_more_memory(world: Cluster, folder: Path) -> Iterator[None]:
    world.fits = lambda server: bool(server["spec"]["predictor"]["model"]["resources"])
    world.step(2).step(seconds=1801).step()
    assert world.condition(world.policy(), "Stalled")["status"] == "True"
    yield
    world.change(serving={"resources": {"limits": {"memory": "8Gi"}}})
    yield


# What a person may change of each kind.
CHANGES: dict[str, Callable[[Object], Any]] = {
    "HTTPRoute": lambda spec: spec["rules"][0]["backendRefs"][0].update(weight=7),
    "Service": lambda spec: spec["ports"][0].update(targetPort=9090),
    "InferenceService": lambda spec: spec["predictor"].update(minReplicas=7, maxReplicas=7),
}


def edit(world: Cluster, kind: str, name: str) -> None:
    world.edit(kind, name, CHANGES[kind])
    world.step(2)


def restore(world: Cluster) -> None:
    """What `tunegate policy restore` writes; tests/operator has the command beside a real API server."""
    assert "tunegate policy restore shop -n shop" in world.messages("TargetModified")[0]
    world.policy()["metadata"].setdefault("annotations", {})[RESTORE] = at(world.now).isoformat()


RESTORED = "tunegate policy restore shop --namespace shop"


@story("TargetModified", "kubectl-edit changed spec.rules", RESTORED, ends="Succeeded")
def a_route_is_edited(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    edit(world, "HTTPRoute", "shop")
    yield
    restore(world)
    world.step(3)
    world.try_again()
    yield


@story("TargetModified", "minReplicas of InferenceService", RESTORED, ends="Succeeded")
def a_candidates_server_is_edited(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    edit(world, "InferenceService", server_of(CANDIDATE))
    yield
    restore(world)
    world.step(3)
    world.try_again()
    yield


@story("TargetModified", "targetPort of Service", RESTORED, ends="Succeeded", traffic={})
def a_switch_is_edited(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Baking")
    edit(world, "Service", "shop")
    yield
    restore(world)
    world.step(3)
    world.try_again()
    yield


@story("TargetModified", "Put the value back", "put the value back", ends="Succeeded")
def a_person_puts_the_value_back(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    name = server_of(BASE)
    edit(world, "InferenceService", name)
    yield
    world.edit("InferenceService", name, lambda spec: spec["predictor"].update(minReplicas=1, maxReplicas=1))
    world.step(2)
    world.try_again()
    yield


@story("NameTooLong", "leave the namespace out of KServe's domainTemplate", "set `domainTemplate:", ends="Succeeded")
def a_host_name_would_be_too_long(world: Cluster, folder: Path) -> Iterator[None]:
    world.policy()["metadata"]["namespace"] = "customer-care-of-the-whole-company-abroad"
    world.fits = lambda server: False
    world.step(3)
    yield
    world.fits = lambda server: True
    world.step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD)
    yield


@story("WebhookUnavailable", "see: kubectl get mutatingwebhookconfigurations", "bring the webhook back", "Succeeded")
def kserves_webhook_is_away(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Evaluating")
    world.refused["InferenceService"] = DOWN
    world.step(4)
    yield
    world.refused.clear()
    yield


@story("WriteRefused", "exceeded quota", "the object is tried again every 10 seconds", ends="Succeeded")
def a_quota_is_used_up(world: Cluster, folder: Path) -> Iterator[None]:
    evaluate(world)
    world.delete("Job", f"evaluate-{CANDIDATE.digest[7:19]}-quality")
    world.refused["Job"] = QUOTA
    world.step(3)
    yield
    world.refused.clear()
    world.score(CANDIDATE, 0.9)
    yield


@story("NameTaken", "rename or delete it", "delete or rename that object", ends="Succeeded")
def somebody_elses_route_has_the_name(world: Cluster, folder: Path) -> Iterator[None]:
    metadata = {"name": "shop", "namespace": NAMESPACE, "uid": "uid-foreign"}
    api_version = kinds.HTTP_ROUTE.api_version
    spec = {"parentRefs": [{"name": "public"}], "rules": [{"backendRefs": [{"name": "other", "weight": 1}]}]}
    foreign = {"apiVersion": api_version, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}
    world.objects["HTTPRoute", "shop"] = foreign
    world.follow_route = False
    serve(world).step(3)
    assert world.objects["HTTPRoute", "shop"] == foreign
    yield
    world.delete("HTTPRoute", "shop")
    world.follow_route = True
    yield


@pytest.mark.parametrize("kind", ["HTTPRoute", "InferenceService"])
def test_what_a_controller_writes_back_is_restored_once_and_told_with_its_name(kind: str) -> None:
    """Two writers that each have the last word would go on for ever."""
    world = serve(Cluster())
    world.until("Paused")
    name = "shop" if kind == "HTTPRoute" else server_of(BASE)
    edit(world, kind, name)
    store, written = world._store, 0

    def write_back(obj: Object, managers: list[Object]) -> Object:
        nonlocal written
        stored = store(obj, managers)
        if (obj["kind"], obj["metadata"]["name"]) == (kind, name):
            written += 1
            world._store = store  # type: ignore[method-assign]
            world.edit(kind, name, CHANGES[kind], "a-gitops-controller")
            world._store = write_back  # type: ignore[method-assign]
        return stored

    world._store = write_back  # type: ignore[method-assign]
    restore(world)
    world.step(20)
    assert written == 1
    assert "a-gitops-controller changed" in world.messages("TargetModified")[0]
    restore(world)
    world.step(20)
    assert written == 2, "each request is for once"


# Feedback


def count_by(world: Cluster, url: str, credentials: Path | None = None) -> None:
    """Have the operator ask this Prometheus from now on."""
    world.gatherer.__dict__.pop("_counts", None)
    world.start(replace(CONFIG, prometheus_url=url, prometheus_credentials=credentials))


def votes(world: Cluster, before: float = 0.0) -> Handler:
    """A Prometheus that has counted the world's verdicts; `before`: the first count that it still knows."""

    def answer(request: Any) -> None:
        found = []
        for digest, verdicts in cast("dict[str, Verdicts]", world.tallies).items():
            for verdict, number in (("up", verdicts[0].up), ("down", verdicts[0].down)):
                values = [(world.now - 1, before), (world.now, before + number)]
                found += series(digest, verdict, cast(Any, values))
        body(told(found))(request)

    return answer


@story("PrometheusNotConfigured", "operator.prometheusUrl in the chart", "set `operator.prometheusUrl`", "Succeeded")
def no_prometheus_is_named(world: Cluster, folder: Path) -> Iterator[None]:
    world.gatherer.__dict__.pop("_counts")
    serve(world).until("Paused").step(3)
    yield
    with prometheus(votes(world)) as url:
        count_by(world, url)
        yield


@story("PrometheusUnreachable", "check --prometheus-url", "check `operator.prometheusUrl`", ends="Succeeded")
def prometheus_is_not_there(world: Cluster, folder: Path) -> Iterator[None]:
    count_by(world, "http://localhost:1")
    serve(world).until("Paused").step(3)
    yield
    with prometheus(votes(world)) as url:
        count_by(world, url)
        yield


@story("PrometheusRefused", "give the operator a token", "a new token needs no restart", ends="Succeeded")
def prometheus_wants_a_token(world: Cluster, folder: Path) -> Iterator[None]:
    def answer(request: Any) -> None:
        is_known = request.headers.get("Authorization") == "Bearer right"
        (votes(world) if is_known else body(b"who are you", 401))(request)

    with prometheus(answer) as url:
        count_by(world, url, folder)
        serve(world).until("Paused").step(3)
        yield
        (folder / "token").write_text("right")
        yield


@story("LogUnreadable", "check that the store runs", "nothing grows and nobody is promoted", ends="Succeeded")
def the_log_of_votes_can_not_be_read(world: Cluster, folder: Path) -> Iterator[None]:
    with prometheus(votes(world)) as url:
        count_by(world, url)
        serve(world).until("Paused")
        world.store.trouble = problem_of(UnavailableError("s3://models can't be reached; check that the store runs."))
        world.step(3)
        yield
        world.store.trouble = None
        yield


@story("FeedbackHistoryLost", "keep its data on a volume", "counted from the log alone", ends="Succeeded")
def prometheus_has_lost_the_beginning(world: Cluster, folder: Path) -> Iterator[None]:
    with prometheus(votes(world, before=520)) as url:
        count_by(world, url)
        serve(world).until("Paused").step(3)
        yield
        yield


@story("NoFeedbackCounts", "check that it scrapes the predictors", "let it scrape the predictors", ends="Succeeded")
def nobody_scrapes_the_predictors(world: Cluster, folder: Path) -> Iterator[None]:
    handlers: list[Handler] = [body(told(zeros(BASE.digest)))]
    with prometheus(lambda request: handlers[-1](request)) as url:
        count_by(world, url)
        serve(world).until("Paused").step(3, seconds=60)
        yield
        handlers.append(votes(world))
        yield


@story("Inconclusive", "more", "ask more users for a verdict", ends="Succeeded")
def few_users_have_voted(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).vote(CANDIDATE, Tally(up=2), Tally(up=2)).until("Paused").step(10)
    yield
    world.vote(CANDIDATE, GOOD, GOOD)
    yield


# Policies and time


@story("InvalidPolicy", "approval", "correct it, and apply the policy again")
def a_policy_is_older_than_its_kind(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).step(2)
    world.change(approval="Maybe")
    world.step(2)
    yield
    world.change(approval="Automatic")
    yield


@story("DeadlineExceeded", "it waited as Paused", "lower `minVerdicts`, raise `deadlineSeconds`", ends="Succeeded")
def nobody_votes(world: Cluster, folder: Path) -> Iterator[None]:
    world.change(deadlineSeconds=100)
    serve(world).vote(CANDIDATE, Tally(up=1), Tally(up=1)).until("Paused").step(seconds=101)
    world.until("Failed")
    yield
    world.change(deadlineSeconds=10000)
    world.try_again()
    world.step(120)
    world.vote(CANDIDATE, GOOD, GOOD)
    yield


@story("SampleRatioMismatch", "where 10 % were asked for", "take what splits otherwise away", ends="Succeeded")
def sessions_stick_to_a_server(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    world.splits = ((330, 670),)
    world.until("Failed")
    yield
    world.splits = ()
    world.try_again()
    yield


@story("WrongWeights", "other weights answered", "then make a new", ends="Succeeded")
def an_engine_mixed_up_its_adapters(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused").vote(CANDIDATE, BAD, GOOD)
    world.store.wrong = {CANDIDATE.digest: "other weights answered"}
    world.until("Failed")
    yield
    world.store.wrong = {}
    world.vote(CANDIDATE, GOOD, GOOD).try_again()
    yield


@story("Waiting", "users are left in peace", "for `holdSeconds` after a rollback", ends="Succeeded", holdSeconds=500)
def a_rollback_was_a_moment_ago(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused").vote(CANDIDATE, BAD, GOOD).until("RolledBack")
    world.try_again()
    world.step(3)
    yield
    world.vote(CANDIDATE, GOOD, GOOD)
    world.step(10, seconds=60)
    yield


@story("Waiting", "one candidate at a time", "waits for another that users see", ends="Succeeded")
def users_see_another_candidate(world: Cluster, folder: Path) -> Iterator[None]:
    serve(world).until("Paused")
    later = make_version("run-2", created=50)
    world.publish(later).step(3)
    yield
    while world.newest()["status"]["phase"] == "Pending":
        world.step()
    world.vote(later, GOOD, GOOD, against=CANDIDATE)
    yield
