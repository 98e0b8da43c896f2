"""A server that answers is not touched without need: no pod of it is replaced by anything the operator does."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from tests.builders import make_version
from tests.unit.operator.world import BASE, CONFIG, World, server_of
from tunegate.api.feedback import Tally
from tunegate.api.pinned import parse_storage_uri
from tunegate.kube.kinds import Object
from tunegate.models.memory import Footprint
from tunegate_operator.manifests import remembered
from tunegate_operator.read import condition

GOOD, BAD = Tally(up=38, down=2), Tally(up=4, down=36)
CANDIDATE = make_version("run-1", created=1)


def make_world(**spec: Any) -> World:
    return World(**spec).step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD)


def change_policy(world: World, **spec: Any) -> None:
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], **spec}})


def replaced(world: World) -> set[int]:
    return {deployment.replaced for deployment in world.deployments.values()}


def away(world: World) -> list[str]:
    return [server["name"] for server in world.policy()["status"]["servers"] if "awaySince" in server]


def test_retiring_a_server_starts_no_new_pod_of_it() -> None:
    world = make_world().until("Succeeded", limit=200).step(3)
    assert set(world.deployments) == {server_of(BASE), server_of(CANDIDATE)}
    assert replaced(world) == {0}


def test_a_changed_number_of_replicas_adds_pods_and_replaces_none() -> None:
    world = make_world().until("Paused")
    change_policy(world, serving={"replicas": 3})
    world.step(2)
    assert [deployment.replicas for deployment in world.deployments.values()] == [3, 3]
    assert replaced(world) == {0}


@pytest.mark.parametrize(
    "serving",
    [
        {"resources": {"limits": {"memory": "6Gi"}}},
        {"nodeSelector": {"pool": "gpu"}},
        {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
        {"engine": "VLLM"},
    ],
    ids=lambda serving: next(iter(serving)),
)
def test_what_else_changes_is_for_servers_to_come(serving: Object) -> None:
    world = make_world(serving={"resources": {"limits": {"memory": "3Gi"}}}).until("Paused")
    before = copy.deepcopy(world.objects["InferenceService", server_of(CANDIDATE)]["spec"])
    change_policy(world, serving=serving)
    world.step(5, seconds=0)
    assert world.objects["InferenceService", server_of(CANDIDATE)]["spec"] == before
    assert world.promotion()["status"]["phase"] == "Paused"


def test_a_server_that_does_not_answer_becomes_what_the_policy_says_now() -> None:
    world = World(serving={"resources": {"limits": {"memory": "1Gi", "nvidia.com/gpu": 8}}})
    world.follow_servers = False
    world.step(3)
    change_policy(world, serving={"resources": {"limits": {"memory": "6144Mi"}}, "engine": "VLLM"})
    world.step(3)
    model = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]["model"]
    assert model["resources"] == {"limits": {"memory": "6Gi"}}
    assert model["runtime"] == "tunegate-predictor-vllm"
    world.step()
    assert not world.written.patch, "asking once is enough"


def test_a_version_at_a_url_is_promoted_as_any_and_who_vouches_for_its_weights_is_told() -> None:
    url = {"address": "https://llm.example/v1"}
    world = make_world(serving={"engine": "URL", "url": url}).until("Succeeded", limit=200).step(3)
    assert world.promotion()["status"]["vouchedForBy"] == "whoever runs https://llm.example/v1"
    verified = condition(world.policy(), "WeightsVerified")
    assert (verified["status"], verified["reason"]) == ("False", "EngineVouches")
    assert verified["message"].startswith("whoever runs https://llm.example/v1 vouches for the weights")
    assert condition(world.policy(), "Ready")["status"] == "True"
    assert world.policy()["status"]["stable"]["digest"] == CANDIDATE.digest
    assert replaced(world) == {0}


def test_a_server_that_does_not_answer_moves_to_another_engine_and_one_that_answers_only_when_asked() -> None:
    world = World(serving={"engine": "URL", "url": {"address": "https://wrong.example"}})
    world.follow_servers = False
    world.step(3)
    url = {"address": "https://right.example", "model": "{run}-{checkpoint}"}
    change_policy(world, serving={"engine": "URL", "url": url})
    world.step(3)
    assert addresses(world) == ["https://right.example"]
    world.follow_servers = True
    world.step(3)
    change_policy(world, serving={})
    world.step(3)
    assert addresses(world) == ["https://right.example"]
    ask(world, "now")
    world.step(3)
    assert addresses(world) == []
    model = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]["model"]
    assert parse_storage_uri(model["storageUri"]).weights
    assert condition(world.policy(), "WeightsVerified")["status"] == "True"


@pytest.mark.parametrize(
    ("serving", "reason"),
    [
        ({"card": "A10", "resources": {}}, None),
        ({"card": "A10", "resources": {"limits": {"nvidia.com/gpu": "0"}}}, None),
        ({"nodeSelector": {"pool": "gpu"}}, None),
        ({"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A10"}}, "DoesNotFit"),
        ({"card": "80GiB"}, None),
        ({"card": "A10G2"}, "InvalidPolicy"),
    ],
    ids=lambda value: str(value),
)
def test_what_fits_is_reckoned_for_the_gpus_that_a_policy_names(serving: Object, reason: str | None) -> None:
    gpu = {"engine": "VLLM", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    world = World(serving={**gpu, **serving})
    world.store.footprints = {BASE.digest: Footprint(28 * 2**30, 2**17, 32)}
    world.step(3)
    stalled = condition(world.policy(), "Stalled")
    assert (stalled["reason"] if stalled["status"] == "True" else None) == reason


def test_a_version_that_does_not_say_how_large_it_is_is_tried() -> None:
    world = World(serving={"engine": "VLLM", "card": "A10", "resources": {"limits": {"nvidia.com/gpu": 1}}})
    world.store.footprints = {BASE.digest: "config.json does not say"}
    assert list(world.step(3).deployments) == [server_of(BASE)]


def test_a_server_that_answers_is_left_where_by_arithmetic_it_does_not_fit() -> None:
    world = World().step(3)
    world.store.footprints = {BASE.digest: Footprint(28 * 2**30, 2**17, 32)}
    change_policy(world, serving={"engine": "VLLM", "card": "A10", "resources": {"limits": {"nvidia.com/gpu": 1}}})
    world.step(3)
    assert condition(world.policy(), "Ready")["status"] == "True"
    assert replaced(world) == {0}


def addresses(world: World) -> list[str]:
    env = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]["model"]["env"]
    return [each["value"] for each in env if each["name"] == "TUNEGATE_ENGINE_URL"]


def ask(world: World, request: str) -> None:
    world.policy()["metadata"].setdefault("annotations", {})["tunegate.io/rollout"] = request


def test_a_rollout_that_a_person_asks_for_makes_servers_what_a_new_one_would_be_once() -> None:
    limits = {"limits": {"memory": "3Gi", "nvidia.com/gpu": 1}}
    world = make_world(serving={"resources": limits, "nodeSelector": {"pool": "old"}}).until("Paused")
    change_policy(world, serving={"resources": {"limits": {"memory": "6Gi"}}, "replicas": 2})
    world.config = world.gatherer.config = replace(CONFIG, serving_runtime="tunegate-predictor-9-9-9")
    world.step(2, seconds=0)
    assert replaced(world) == {0}
    ask(world, "now")
    world.step(3, seconds=0)
    assert replaced(world) == {1}
    for name in (server_of(BASE), server_of(CANDIDATE)):
        predictor = world.objects["InferenceService", name]["spec"]["predictor"]
        assert predictor["model"]["resources"] == {"limits": {"memory": "6Gi"}}
        assert predictor["model"]["runtime"] == "tunegate-predictor-9-9-9"
        assert "nodeSelector" not in predictor
        assert predictor["minReplicas"] == 2
        assert predictor["deploymentStrategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert world.policy()["status"]["rolledOut"] == "now"
    assert [reason for reason, _ in world.notes].count("RolledOut") == 1
    assert world.promotion()["status"]["phase"] == "Paused"
    change_policy(world, serving={"resources": {"limits": {"memory": "7Gi"}}})
    world.step(3, seconds=0)
    assert replaced(world) == {1}, "each request is for once"
    world.until("Succeeded", limit=200)


def test_a_rollout_waits_for_a_person_who_has_edited_a_server() -> None:
    world = make_world().until("Paused")
    world.edit("InferenceService", server_of(BASE), lambda spec: spec["predictor"].update(minReplicas=7))
    ask(world, "now")
    world.step(3, seconds=0)
    assert "rolledOut" not in world.policy()["status"]
    assert replaced(world) == {0}
    world.policy()["metadata"]["annotations"]["tunegate.io/restore"] = "now"
    world.step(4, seconds=0)
    assert world.policy()["status"]["rolledOut"] == "now"


def test_a_rollout_takes_servers_of_before_along_and_is_no_edit() -> None:
    world = make_world(serving={"nodeSelector": {"pool": "old"}}).until("Paused")
    for name in (server_of(BASE), server_of(CANDIDATE)):
        world.put(of_before(world.objects["InferenceService", name]))
    change_policy(world, serving={"resources": {"limits": {"memory": "6Gi"}}})
    ask(world, "now")
    world.until("Succeeded", limit=200)
    annotations = world.objects["InferenceService", server_of(CANDIDATE)]["metadata"]["annotations"]
    assert "tunegate.io/applied" not in annotations


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"nodeSelector": {"pool": "gpu"}}),
        ({"tolerations": [{"key": "spot"}]}, {"tolerations": [{"key": "spot"}, {"key": "gpu"}]}),
    ],
    ids=["where there was none", "one more"],
)
def test_a_server_that_does_not_answer_is_placed_as_the_policy_says_now(before: Object, after: Object) -> None:
    world = World(serving=before)
    world.follow_servers = False
    world.step(3)
    change_policy(world, serving=after)
    world.step(3)
    predictor = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]
    assert after.items() <= predictor.items()


def of_before(isvc: Object) -> Object:
    """As the operator at 2d11983 made it: it wrote what it remembers, and since when, into annotations."""
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "tunegate.io/digest": BASE.digest,
        "tunegate.io/unused-since": "2026-01-01T00:00:00+00:00",
    }
    return remembered({**isvc, "metadata": {**isvc["metadata"], "annotations": annotations}})


def test_a_newer_operator_leaves_the_servers_of_before_as_they_are() -> None:
    world = make_world().until("Paused")
    for name in (server_of(BASE), server_of(CANDIDATE)):
        world.put(of_before(world.objects["InferenceService", name]))
    for deployment in world.deployments.values():
        deployment.replaced = 0
    before = {name: world.objects["InferenceService", name]["metadata"] for name in world.deployments}
    world.config = world.gatherer.config = replace(
        CONFIG, serving_runtime="tunegate-predictor-9-9-9", endpoint_url="http://elsewhere:8333"
    )
    world.until("Baking", limit=200)
    for name, metadata in before.items():
        assert world.objects["InferenceService", name]["metadata"]["annotations"] == metadata["annotations"]
    assert replaced(world) == {0}
    world.until("Succeeded", limit=200).step(2)
    assert server_of(BASE) in world.deployments, "the mark of before is no reason to skip the time to drain"


def test_a_rollout_that_cannot_finish_is_not_away_while_old_pods_answer() -> None:
    world = make_world(bakingSeconds=100000).until("Baking", limit=200)
    world.follow_servers = False
    world.ready(server_of(CANDIDATE), "False", copies=1, reason="ProgressDeadlineExceeded")
    world.step(10, seconds=600)
    assert world.promotion()["status"]["phase"] == "Baking"
    assert away(world) == []
    world.ready(server_of(CANDIDATE), "False", copies=0)
    world.step(1, seconds=5).step(1, seconds=100)
    assert world.promotion()["status"]["phase"] == "Baking", "its time begins when the last pod is gone"
    assert away(world) == [server_of(CANDIDATE)]
    world.step(1, seconds=30)
    world.until("RolledBack")
    assert world.promotion()["status"]["decision"]["reason"] == "CandidateDown"


def test_a_server_that_is_scaled_up_while_it_answers_is_not_away() -> None:
    world = make_world(bakingSeconds=100000).until("Baking", limit=200)
    world.follow_servers = False
    change_policy(world, serving={"replicas": 2})
    world.step(1)
    world.ready(server_of(CANDIDATE), "False", copies=1, reason="MinimumReplicasUnavailable")
    world.step(5, seconds=200)
    assert world.promotion()["status"]["phase"] == "Baking"


def test_a_server_is_not_away_while_a_pod_answers_that_kserve_does_not_tell_of() -> None:
    """It writes no status while the initializer of another pod runs again after it failed."""
    world = make_world(bakingSeconds=100000).until("Baking", limit=200)
    world.follow_servers = False
    world.ready(server_of(CANDIDATE), "False", copies=0, reason="MinimumReplicasUnavailable")
    world.ready_pods = {server_of(CANDIDATE)}
    world.step(5, seconds=200)
    assert world.promotion()["status"]["phase"] == "Baking"
    assert away(world) == []
    world.ready_pods = set()
    world.step(2, seconds=200)
    assert world.promotion()["status"]["decision"]["reason"] == "CandidateDown"


def test_a_field_that_only_kserve_knows_makes_no_server_not_ready() -> None:
    """`kubectl patch` of scaleTarget: the object's generation grows, and its Deployment's does not."""
    world = make_world(bakingSeconds=100000).until("Baking", limit=200)
    world.edit("InferenceService", server_of(CANDIDATE), lambda spec: spec["predictor"].update(scaleTarget=50))
    world.follow()
    world.step(5, seconds=200)
    assert world.promotion()["status"]["phase"] == "Baking"


def test_a_deployment_that_kserve_made_again_is_ready_when_it_says_so() -> None:
    world = make_world(bakingSeconds=100000).until("Baking", limit=200)
    change_policy(world, serving={"replicas": 2})
    world.step(2)
    world.deployments[server_of(CANDIDATE)].generation = 1
    world.step(5, seconds=200)
    assert world.promotion()["status"]["phase"] == "Baking"


@pytest.mark.parametrize("copies", [0, 1])
def test_a_candidate_that_never_was_whole_gets_no_traffic(copies: int) -> None:
    world = make_world(serving={"replicas": 4})
    world.follow_servers = False
    world.until("Progressing").step(1)
    world.ready(server_of(CANDIDATE), "False", copies=copies)
    world.step(3, seconds=100)
    assert world.weights() == {server_of(BASE): 100}
    world.step(1, seconds=1801)
    world.until("Failed")
    assert world.promotion()["status"]["decision"]["reason"] == "CanaryNotReady"
