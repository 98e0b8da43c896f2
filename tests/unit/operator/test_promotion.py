"""The whole life of a promotion as objects, without an API server: what is written, in which order, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import at, make_version
from tests.unit.operator.world import BASE, CONFIG, World, server_of
from tunegate.api.feedback import Tally
from tunegate.api.promotion import TERMINAL, Recorded
from tunegate.api.versions import ModelVersion
from tunegate.statistics.paired import Difference
from tunegate_operator import kinds
from tunegate_operator.conditions import Problem
from tunegate_operator.measuring import MOST_PODS
from tunegate_operator.servers import DRAIN_SECONDS
from tunegate_operator.store_watch import RecordKey
from tunegate_operator.types import object_name

GOOD, BAD = Tally(up=38, down=2), Tally(up=4, down=36)
AWAY = Problem("StoreReadable", "StoreUnreachable", "the store is away")
NO_COUNTS = Problem("FeedbackReadable", "PrometheusUnreachable", "Prometheus is away")


@pytest.fixture
def candidate() -> ModelVersion:
    return make_version("run-1", created=1)


@pytest.fixture
def world(candidate: ModelVersion) -> World:
    """A stable that serves, and a good candidate in the store that users like."""
    return World().step(3).publish(candidate).vote(candidate, GOOD, GOOD)


def test_the_initial_version_serves_before_anything_is_promoted() -> None:
    world = World().step(3)
    assert world.weights() == {server_of(BASE): 100}
    assert world.policy()["status"]["phase"] == "Serving"
    assert world.policy()["status"]["url"] == "http://shop.example/"


def test_a_good_candidate_is_evaluated_shown_and_promoted(world: World, candidate: ModelVersion) -> None:
    world.until("Succeeded", limit=200)
    assert world.weights() == {server_of(candidate): 100}
    assert world.policy()["status"]["stable"]["digest"] == candidate.digest
    assert [step["phase"] for step in world.promotion()["status"]["history"]] == [
        "Verifying",
        "Evaluating",
        "Progressing",
        "Paused",
        "Progressing",
        "Paused",
        "Promoting",
        "Baking",
        "Succeeded",
    ]


@pytest.mark.parametrize("phase", ["Evaluating", "Paused", "Baking", "Succeeded"])
def test_a_look_that_finds_nothing_new_writes_nothing(world: World, phase: str) -> None:
    if phase == "Evaluating":
        world.store.results.clear()
    world.until(phase, limit=200).step(3, seconds=0)
    world.step(1, seconds=0)
    written = world.written
    assert not (*written.create, *written.statuses, *written.apply, *written.delete, *written.notes)


def test_each_transition_is_one_event(world: World) -> None:
    world.until("Succeeded", limit=200)
    reasons = [reason for reason, _ in world.notes if reason not in ("RouteNotAccepted",)]
    assert len(reasons) == len(world.promotion()["status"]["history"])


def test_every_storage_uri_ends_in_a_slash_and_names_the_digest(world: World, candidate: ModelVersion) -> None:
    world.until("Paused")
    uri = world.objects["InferenceService", server_of(candidate)]["spec"]["predictor"]["model"]["storageUri"]
    assert uri.endswith(f"/{candidate.name}/")
    assert candidate.digest.replace(":", "-") in uri


def test_the_condition_says_what_a_step_waits_for(world: World, candidate: ModelVersion) -> None:
    world.vote(candidate, Tally(up=10, down=10), Tally(up=140, down=40)).until("Paused").step(20)
    (found,) = (each for each in world.promotion()["status"]["conditions"] if each["type"] == "Reconciling")
    assert (found["status"], found["reason"]) == ("True", "Waiting")
    assert "verdicts, which lean to worse: evidence" in found["message"]
    assert world.promotion()["status"]["waiting"] == found["message"]


@pytest.mark.parametrize("tallies", [NO_COUNTS, {}], ids=["unreachable", "empty"])
def test_without_counts_nothing_grows_and_nobody_is_promoted(
    world: World, candidate: ModelVersion, tallies: Any
) -> None:
    world.tallies = tallies
    world.until("Paused").step(200)
    assert world.promotion()["status"]["phase"] == "Paused"
    assert world.weights() == {server_of(BASE): 90, server_of(candidate): 10}


def test_missing_counts_are_told_with_their_remedy(world: World) -> None:
    world.tallies = NO_COUNTS
    world.until("Paused").step(2)
    found = world.condition(world.policy(), "FeedbackReadable")
    assert (found["status"], found["reason"], found["message"]) == (
        "False",
        "PrometheusUnreachable",
        "Prometheus is away",
    )
    assert world.condition(world.promotion(), "Stalled")["reason"] == "PrometheusUnreachable"
    assert [reason for reason, _ in world.notes].count("PrometheusUnreachable") == 1


def test_a_problem_that_begins_to_stop_promotions_is_an_event_although_it_was_known(world: World) -> None:
    world.tallies = replace(NO_COUNTS, stops=False)
    world.until("Paused").step(2)
    assert "PrometheusUnreachable" not in [reason for reason, _ in world.notes]
    world.tallies = NO_COUNTS
    world.step(5)
    assert [reason for reason, _ in world.notes].count("PrometheusUnreachable") == 1


def test_the_clock_starts_at_the_observed_weight(world: World, candidate: ModelVersion) -> None:
    world.follow_route = False
    world.until("Progressing").step(100)
    assert world.weights()[server_of(candidate)] == 10, "it is desired"
    assert world.promotion()["status"]["weight"] == 0, "and not observed"
    assert "canaryStarted" not in world.promotion()["status"]
    world.accept()
    world.step()
    assert world.promotion()["status"]["canaryStarted"] == at(world.now).isoformat().replace("+00:00", "Z")


def test_a_route_that_is_not_accepted_stops_the_promotion_with_the_gateways_words(world: World) -> None:
    world.until("Evaluating")
    world.follow_route = False
    world.until("Progressing").step()
    world.accept(resolved="False", reason="BackendNotFound")
    world.step(3)
    found = world.condition(world.policy(), "TrafficSplit")
    assert (found["status"], found["reason"]) == ("False", "RouteNotAccepted")
    assert "BackendNotFound" in found["message"]
    assert world.promotion()["status"]["phase"] == "Progressing"


def test_old_servers_go_only_after_they_had_no_traffic_for_a_while(world: World, candidate: ModelVersion) -> None:
    world.until("Baking", limit=200)
    assert ("InferenceService", server_of(BASE)) in world.objects, "warm, for a rollback"
    world.until("Succeeded", limit=200).step()
    (old,) = (server for server in world.policy()["status"]["servers"] if server["name"] == server_of(BASE))
    assert "unusedSince" in old
    assert world.deployments[server_of(BASE)].replaced == 0, "it answers what it was asked, and is not started again"
    world.step(DRAIN_SECONDS - 2)
    assert ("InferenceService", server_of(BASE)) in world.objects
    world.step(5)
    assert ("InferenceService", server_of(BASE)) not in world.objects


def test_a_canary_has_as_many_replicas_as_the_stable_before_it_carries_everything(
    world: World, candidate: ModelVersion
) -> None:
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], "serving": {"replicas": 3}}})
    world.until("Paused")
    replicas = [
        world.objects["InferenceService", server_of(each)]["spec"]["predictor"]["minReplicas"]
        for each in (BASE, candidate)
    ]
    assert replicas == [3, 3]


def test_one_candidate_is_shown_at_a_time_and_the_newest_waiting_one_wins(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused")
    second, third = make_version("run-2", created=2), make_version("run-3", created=3)
    world.publish(second).step(2).publish(third).step(4)
    phases = {each["spec"]["version"]: each["status"]["phase"] for each in world.promotions()}
    assert phases[object_name(second)] == "Superseded"
    assert phases[object_name(third)] == "Pending"
    assert phases[object_name(candidate)] == "Paused"


def test_a_rolled_back_digest_is_held_and_never_tried_again(world: World, candidate: ModelVersion) -> None:
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], "holdSeconds": 500}})
    world.until("Paused").vote(candidate, BAD, GOOD).until("RolledBack")
    later = make_version("run-2", created=50)
    world.publish(later).step(50)
    assert world.promotion()["spec"]["version"] == object_name(later)
    assert world.promotion()["status"]["phase"] == "Pending"
    assert len(world.promotions()) == 2


@pytest.mark.parametrize("why", ["dislikes", "abort"])
def test_a_rollback_needs_neither_store_nor_prometheus_nor_evaluator(
    world: World, candidate: ModelVersion, why: str
) -> None:
    world.until("Paused")
    if why == "abort":
        world.say(world.promotion()["metadata"]["name"], abort={"actor": "ada", "message": "wrong prices"})
    else:
        world.vote(candidate, BAD, GOOD).until("RollingBack")
    world.store.versions, world.store.trouble, world.tallies = None, AWAY, NO_COUNTS
    world.objects = {key: obj for key, obj in world.objects.items() if key[0] != "Job"}
    world.until("RolledBack" if why == "dislikes" else "Aborted", limit=4)
    assert world.weights() == {server_of(BASE): 100}


@pytest.mark.parametrize("writes", range(6))
def test_an_operator_that_dies_after_any_write_goes_on_where_it_was(candidate: ModelVersion, writes: int) -> None:
    world = World().step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    finished = False
    for _ in range(400):
        seen = world.look()
        before = world.make
        world.make = lambda todo, limit=None, make=before: make(todo, limit=writes)  # type: ignore[method-assign,misc]
        world.step()
        world.make = before  # type: ignore[method-assign]
        world.step()
        assert seen is not None
        if world.promotions() and world.promotion()["status"]["phase"] in TERMINAL:
            finished = True
            break
    assert finished
    assert world.promotion()["status"]["phase"] == "Succeeded"
    history = [(step["phase"], step["reason"]) for step in world.promotion()["status"]["history"]]
    assert len(history) == 9, "no transition is recorded twice"


def test_a_persons_edit_of_the_route_stops_the_promotion_and_is_not_fought(
    world: World, candidate: ModelVersion
) -> None:
    world.until("Paused")

    def to_stable(spec: Any) -> None:
        for ref, weight in zip(spec["rules"][0]["backendRefs"], (100, 0), strict=True):
            ref["weight"] = weight

    world.edit("HTTPRoute", "shop", to_stable)
    world.step(5)
    status = world.promotion()["status"]
    assert (status["phase"], status["decision"]["reason"]) == ("Failed", "TargetModified")
    assert "kubectl-edit changed spec.rules[0].backendRefs[0].weight" in status["decision"]["message"]
    assert world.weights() == {server_of(BASE): 100, server_of(candidate): 0}
    assert world.policy()["status"]["phase"] == "Stalled"


def test_deleting_an_edited_route_hands_it_back(world: World, candidate: ModelVersion) -> None:
    test_a_persons_edit_of_the_route_stops_the_promotion_and_is_not_fought(world, candidate)
    del world.objects["HTTPRoute", "shop"]
    world.step(3)
    assert world.weights() == {server_of(BASE): 100}
    assert world.policy()["status"]["phase"] == "Serving"


def test_a_deleted_server_is_made_again(world: World, candidate: ModelVersion) -> None:
    world.until("Paused")
    del world.objects["InferenceService", server_of(candidate)]
    world.step(2)
    assert ("InferenceService", server_of(candidate)) in world.objects
    assert "decision" not in world.promotion()["status"]


def test_a_canary_that_never_becomes_ready_fails_and_never_gets_traffic(world: World, candidate: ModelVersion) -> None:
    world.follow_servers = False
    world.until("Progressing")
    world.step(1)
    world.step(1, seconds=1801)
    world.until("Failed")
    assert world.promotion()["status"]["decision"]["reason"] == "CanaryNotReady"
    assert "kubectl describe" in world.promotion()["status"]["decision"]["message"]
    assert world.weights() == {server_of(BASE): 100}


def test_a_promoted_candidate_that_stays_away_is_rolled_back(world: World, candidate: ModelVersion) -> None:
    world.until("Baking", limit=200)
    world.follow_servers = False
    world.ready(server_of(candidate), "False")
    world.step(1, seconds=30)
    assert world.promotion()["status"]["phase"] == "Baking"
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], "bakingSeconds": 10000}})
    world.step(1, seconds=130)
    world.until("RolledBack")
    assert world.promotion()["status"]["decision"]["reason"] == "CandidateDown"


def test_an_evaluation_finds_the_store_and_gets_its_keys_from_the_kubelet(candidate: ModelVersion) -> None:
    world = World(replace(CONFIG, region="cn-hangzhou")).publish(candidate, score=None).until("Evaluating").step(2)
    pod = world.objects["Job", f"evaluate-{candidate.digest[7:19]}-quality"]["spec"]["template"]["spec"]
    env = {each["name"]: each["value"] for each in pod["containers"][0]["env"]}
    assert env["TUNEGATE_STORE"] == "s3://models"
    assert env["AWS_ENDPOINT_URL"] == "http://s3:8333"
    assert env["AWS_DEFAULT_REGION"] == "cn-hangzhou"
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "tunegate-store", "optional": True}}]
    assert pod["automountServiceAccountToken"] is False


def test_a_job_that_fails_names_its_reason_and_what_its_pod_said(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=None).until("Evaluating").step(2)
    job = f"evaluate-{candidate.digest[7:19]}-quality"
    world.fail_job(job)
    world.until("Failed")
    message = world.promotion()["status"]["decision"]["message"]
    assert all(part in message for part in ("BackoffLimitExceeded", "the pod said why", f"delete Job {job}"))
    record = world.objects["ModelVersion", object_name(candidate)]
    assert world.condition(record, "Evaluated")["status"] == "False"


def test_the_job_of_a_recorded_evaluation_goes_after_an_hour_and_is_not_made_again(candidate: ModelVersion) -> None:
    world = World().step(3).publish(candidate, score=0.2).until("Rejected")
    job = ("Job", f"evaluate-{candidate.digest[7:19]}-quality")
    world.objects[job]["status"]["completionTime"] = at(world.now).isoformat()
    world.step(1, seconds=3590)
    assert job in world.objects
    world.step(1, seconds=20).step(3)
    assert job not in world.objects


def test_a_job_that_failed_stays_for_a_person_to_look_at(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=None).until("Evaluating").step(2)
    job = f"evaluate-{candidate.digest[7:19]}-quality"
    world.fail_job(job)
    world.objects["Job", job]["status"]["completionTime"] = at(world.now).isoformat()
    world.step(2).step(1, seconds=10000)
    assert ("Job", job) in world.objects


def test_deleting_a_failed_job_evaluates_again(candidate: ModelVersion) -> None:
    world = World().publish(candidate, score=None).until("Evaluating").step(2)
    job = f"evaluate-{candidate.digest[7:19]}-quality"
    world.fail_job(job)
    world.step(3)
    del world.objects["Job", job]
    world.score(candidate, 0.9)
    world.step(4)
    record = world.objects["ModelVersion", object_name(candidate)]
    assert world.condition(record, "Evaluated")["status"] == "True"


def test_a_version_that_fails_its_gate_is_rejected_with_its_numbers_and_never_shown(candidate: ModelVersion) -> None:
    world = World().step(3).publish(candidate, score=0.2).until("Rejected")
    assert "0.20" in world.condition(world.promotion(), "GatePassed")["message"]
    assert world.condition(world.promotion(), "Ready")["status"] == "True", "the machinery works"
    assert ("InferenceService", server_of(candidate)) not in world.objects


def test_a_gate_on_pairs_waits_for_the_stores_thread_and_passes_on_what_it_found(candidate: ModelVersion) -> None:
    gate = {"suite": "quality", "metric": "score", "maxRegression": 0.05, "basis": "Paired"}
    world = World(gates=[gate]).step(3).publish(candidate, score=0.9)
    world.score(BASE, 0.92)
    world.until("Evaluating").step(3)
    assert "waits until the store tells the answers" in world.condition(world.promotion(), "Reconciling")["message"]
    assert ("InferenceService", server_of(candidate)) not in world.objects

    changed = Difference(n=100, up=2, down=4, value=-0.02, low=-0.04, high=0.0)
    world.store.differences["quality", "score"] = changed
    world.until("Progressing")

    (result,) = world.promotion()["status"]["gates"]
    assert (result["basis"], result["passed"], result["low"]) == ("Paired", True, -0.04)
    assert "2 better, 4 worse of 100" in result["message"]


def test_manual_approval_waits_and_says_which_words_it_waits_for(candidate: ModelVersion) -> None:
    world = World(approval="Manual").step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    world.until("AwaitingApproval").step(20)
    name = world.promotion()["metadata"]["name"]
    assert f"tunegate promotions approve {name}" in world.condition(world.promotion(), "Approved")["message"]
    world.say(name, approval={"verdict": "Approved", "actor": "ada", "message": "looks right"})
    world.until("Progressing")
    approved = world.condition(world.promotion(), "Approved")
    assert (approved["status"], approved["message"]) == ("True", "ada: looks right")


def test_suspend_starts_nothing_and_says_so(candidate: ModelVersion) -> None:
    world = World(suspend=True).publish(candidate).step(5)
    assert not world.promotions()
    assert world.policy()["status"]["phase"] == "Suspended"


def test_without_a_gateway_the_traffic_switches_and_the_status_says_so(candidate: ModelVersion) -> None:
    world = World(traffic=None).step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    world.until("Baking")
    assert not [key for key in world.objects if key[0] == "HTTPRoute"]
    service = world.objects["Service", "shop"]
    assert service["spec"]["selector"] == {"serving.kserve.io/inferenceservice": server_of(candidate)}
    assert world.condition(world.policy(), "TrafficSplit")["reason"] == "NoGateway"
    assert "Paused" not in [step["phase"] for step in world.promotion()["status"]["history"]]
    world.vote(candidate, BAD, GOOD).until("RolledBack")
    service = world.objects["Service", "shop"]
    assert service["spec"]["selector"] == {"serving.kserve.io/inferenceservice": server_of(BASE)}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(kinds.INFERENCE_SERVICE, "KServeMissing"), (kinds.HTTP_ROUTE, "GatewayApiMissing")],
)
def test_what_is_not_installed_is_named(world: World, kind: kinds.Kind, reason: str) -> None:
    world.missing_kinds.add(kind)
    world.step(2)
    assert world.policy()["status"]["phase"] == "Stalled"
    assert world.condition(world.policy(), "Ready")["reason"] == reason


def test_a_store_that_is_away_is_told_and_what_serves_goes_on(world: World) -> None:
    world.until("Paused")
    world.store.versions, world.store.trouble = None, AWAY
    world.step(3)
    assert world.condition(world.policy(), "StoreReadable")["reason"] == "StoreUnreachable"
    assert world.promotion()["status"]["phase"] == "Paused"
    world.store.trouble = None
    assert ("ModelVersion", object_name(BASE)) in world.objects


def test_an_unknown_initial_version_is_told_before_anything_starts() -> None:
    world = World()
    world.store.versions, world.store.trouble = (), Problem("StoreReadable", "VersionMissing", "no version base")
    world.step(2)
    assert world.condition(world.policy(), "Ready")["reason"] == "VersionMissing"
    assert not [key for key in world.objects if key[0] == "InferenceService"]


def test_a_promotion_of_a_version_nobody_knows_says_so(world: World) -> None:
    spec = {"policy": "shop", "version": "nothing"}
    world.put({**_promotion("by-hand"), "spec": spec})
    world.step(2)
    found = world.condition(world.objects["Promotion", "by-hand"], "Ready")
    assert (found["status"], found["reason"]) == ("False", "VersionMissing")


def test_a_person_may_promote_an_older_version_again(world: World, candidate: ModelVersion) -> None:
    world.until("Succeeded", limit=200).vote(BASE, GOOD, GOOD, against=candidate)
    world.score(BASE, 0.9)
    world.step(100)
    world.put({**_promotion("back"), "spec": {"policy": "shop", "version": object_name(BASE)}})
    for _ in range(200):
        world.step()
    assert world.objects["Promotion", "back"]["status"]["phase"] == "Succeeded"
    assert world.weights() == {server_of(BASE): 100}


@pytest.mark.parametrize(("shards", "jobs"), [(1, MOST_PODS), (2, 2), (3, 2), (8, 1)])
def test_only_so_many_evaluations_run_at_once(shards: int, jobs: int) -> None:
    world = World(evaluation={"shards": shards})
    for step in range(10):
        world.publish(make_version(f"run-{step}", created=step + 1), score=None)
    world.step(5)
    assert len([key for key in world.objects if key[0] == "Job"]) == jobs


def test_ended_promotions_beyond_the_limit_go_but_the_stables_own_stays(candidate: ModelVersion) -> None:
    world = World(historyLimit=2).step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    world.until("Succeeded", limit=200)
    first = world.promotion()["metadata"]["name"]
    for number in range(4):
        world.publish(make_version(f"bad-{number}", created=10 + number), score=0.1).step(6)
    names = [each["metadata"]["name"] for each in world.promotions()]
    assert first in names
    assert len(names) == 3
    assert world.weights() == {server_of(candidate): 100}


class OnlyDecisions(dict[RecordKey, Recorded]):
    """The store takes no departures yet."""

    def get(self, key: RecordKey, default: Recorded | None = None) -> Recorded | None:  # type: ignore[override]
        return None if key.departs else Recorded(key="k", digest="sha256:0", signed_by="key-1")


def test_one_that_left_stays_until_that_is_recorded(candidate: ModelVersion, tmp_path: Path) -> None:
    world = World(replace(CONFIG, signing_key=tmp_path / "signing.key"), historyLimit=1)
    world.store.records = OnlyDecisions()
    world.step(3).publish(candidate).vote(candidate, GOOD, GOOD).until("Succeeded", limit=200)
    first = world.promotion()["metadata"]["name"]
    later = make_version("run-9", created=20)
    world.publish(later).vote(later, GOOD, GOOD, against=candidate).step(3).until("Succeeded", limit=200).step(3)
    assert world.weights() == {server_of(later): 100}
    assert first in [each["metadata"]["name"] for each in world.promotions()]


def test_deleting_every_promotion_does_not_send_users_back(world: World, candidate: ModelVersion) -> None:
    world.until("Succeeded", limit=200).step(2)
    world.objects = {key: obj for key, obj in world.objects.items() if key[0] != "Promotion"}
    world.step(5)
    assert world.weights() == {server_of(candidate): 100}
    assert world.policy()["status"]["stable"]["digest"] == candidate.digest


def test_records_of_versions_that_left_the_store_go_unless_a_promotion_speaks_of_them(
    world: World, candidate: ModelVersion
) -> None:
    other = make_version("run-0", created=0.5)
    world.publish(other, score=None)
    world.until("Paused")
    assert ("ModelVersion", object_name(other)) in world.objects
    world.store.versions = (BASE,)
    world.step(3)
    assert ("ModelVersion", object_name(candidate)) in world.objects
    assert world.objects["ModelVersion", object_name(candidate)]["status"]["phase"] == "Missing"


def test_replicas_of_a_policy_reach_the_servers_that_run(world: World) -> None:
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], "serving": {"replicas": 4}}})
    world.step(2)
    assert world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]["minReplicas"] == 4


def _promotion(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "tunegate.io/v1alpha1",
        "kind": "Promotion",
        "metadata": {"name": name, "namespace": "shop"},
    }


def test_evaluations_say_that_they_wait_for_the_store(world: World, candidate: ModelVersion) -> None:
    world.store.results.clear()
    world.until("Evaluating").step(2)
    world.store.versions, world.store.trouble = None, AWAY
    world.step(2)
    record = world.objects["ModelVersion", object_name(candidate)]
    found = world.condition(record, "Evaluated")
    assert (found["status"], found["reason"]) == ("Unknown", AWAY.reason)
    assert found["message"].startswith("evaluations wait for the store, which uses up none of their attempts: ")
    assert AWAY.message in found["message"]
