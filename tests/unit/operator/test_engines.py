"""Engines that versions have for themselves: what is made, when, and what KServe's word on it means for a promotion."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.builders import make_cluster_policy, make_version
from tests.unit.operator.test_manifests import CONFIG as RELEASE
from tests.unit.operator.test_manifests import VERSION
from tests.unit.operator.test_queue import keep, waits
from tests.unit.operator.test_servers import ask, change_policy
from tests.unit.operator.world import BASE, CONFIG, World, server_of
from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate.api.pinned import Pinned, parse_storage_uri
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import kinds
from tunegate_operator.config import Config, ReleasePods
from tunegate_operator.engines import child_name, llm_inference_service
from tunegate_operator.manifests import evaluation_name
from tunegate_operator.measuring import MOST_PODS
from tunegate_operator.read import condition
from tunegate_operator.types import object_name

GOOD = Tally(up=38, down=2)
CANDIDATE = make_version("run-1", created=1)
GPU = {"resources": {"limits": {"nvidia.com/gpu": "4", "memory": "2048Mi"}}}
ALONE: dict[str, Any] = {"parallelism": {"tensor": 4}, "template": {"containers": [{"name": "main", **GPU}]}}
GROUP: dict[str, Any] = {
    "parallelism": {"data": 16, "dataLocal": 8, "expert": True},
    "template": {"containers": [{"name": "main", **GPU}]},
    "worker": {"containers": [{"name": "main", **GPU}], "nodeSelector": {"pool": "gpu"}},
}


def serving(engine: dict[str, Any] = ALONE, **more: Any) -> dict[str, Any]:
    return {"engine": "LLMInferenceService", "llmInferenceService": {**engine, **more}}


def make_world(version: ModelVersion = CANDIDATE, **spec: Any) -> World:
    world = World(**{"serving": serving(), **spec}).publish(version).vote(CANDIDATE, GOOD, GOOD)
    world.score(BASE, 0.9)
    return world


def made(engine: dict[str, Any], config: Config = RELEASE) -> Object:
    policy = make_cluster_policy(serving=serving(engine))
    return llm_inference_service("models", policy, "shop", VERSION, config)


def test_each_pod_of_an_engine_gets_the_version_pinned_to_its_bytes_before_it_begins() -> None:
    ca = {"name": "ca", "configMap": {"name": "company"}}
    pods = ReleasePods(volumes=(ca,), volume_mounts=({"name": "ca", "mountPath": "/etc/tunegate-ca"},))
    spec = made(GROUP, replace(RELEASE, initializer_image="registry/initializer:1", initializer_pods=pods))["spec"]
    assert spec["storageInitializer"] == {"enabled": False}
    assert spec["model"]["name"] == "shop-0123456789ab"
    assert "router" not in spec
    assert spec["parallelism"] == GROUP["parallelism"]
    assert spec["worker"]["nodeSelector"] == {"pool": "gpu"}
    for pod in (spec["template"], spec["worker"]):
        (brings,), (main,) = pod["initContainers"], pod["containers"]
        assert brings["image"] == "registry/initializer:1"
        assert parse_storage_uri(brings["args"][0]) == Pinned(VERSION.name, VERSION.digest)
        mounts = {mount["mountPath"]: mount["name"] for mount in brings["volumeMounts"]}
        assert mounts == {"/mnt/models": "tunegate-version", "/etc/tunegate-ca": "ca"}
        assert main["volumeMounts"] == [{"name": "tunegate-version", "mountPath": "/mnt/models", "readOnly": True}]
        assert main["resources"] == GPU["resources"]
        assert pod["volumes"] == [{"name": "tunegate-version", "emptyDir": {}}, ca]


def test_what_the_policy_leaves_out_is_the_presets() -> None:
    spec = made({"baseRefs": [{"name": "big"}]})["spec"]
    assert [container["name"] for container in spec["template"]["containers"]] == ["main"]
    assert spec["baseRefs"] == [{"name": "big"}]
    assert not {"parallelism", "worker"} & set(spec)


def test_a_name_that_is_too_long_is_shortened_as_kserve_does() -> None:
    assert child_name("shop-0123456789ab", "-kserve-self-signed-certs") == "shop-0123456789ab-kserve-self-signed-certs"
    long = "a" * 50
    name = child_name(long, "-kserve-self-signed-certs")
    assert name == f"aaaaaa{hashlib.md5(long.encode()).hexdigest()}-kserve-self-signed-certs"  # noqa: S324
    assert len(name) == 63


def test_the_engine_comes_first_and_then_the_servers_in_front_of_it() -> None:
    world = make_world()
    world.engine_pods = 0
    world.step(5)
    engine = world.objects["LLMInferenceService", server_of(BASE)]
    assert [owner["kind"] for owner in engine["metadata"]["ownerReferences"]] == ["PromotionPolicy"]
    assert ("InferenceService", server_of(BASE)) not in world.objects
    found = condition(world.policy(), "Serving")
    assert (found["status"], found["reason"]) == ("False", "StableNotReady")
    assert "MinimumReplicasUnavailable" in found["message"]
    world.engine_pods = 9
    world.step(5)
    assert condition(world.policy(), "Ready")["status"] == "True"
    predictor = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]
    assert variables(predictor) == {
        "TUNEGATE_ENGINE_URL": f"https://{server_of(BASE)}-kserve-workload-svc.shop.svc:8000",
        "TUNEGATE_ENGINE_MODEL": "{model}-{digest}",
        "TUNEGATE_ENGINE_CERTIFICATE": "/etc/tunegate-engine/tls.crt",
    }
    (volume,) = predictor["volumes"]
    assert volume["secret"]["secretName"] == f"{server_of(BASE)}-kserve-self-signed-certs"
    assert [item["key"] for item in volume["secret"]["items"]] == ["tls.crt"], "its key is nothing to us"
    assert not parse_storage_uri(predictor["model"]["storageUri"]).weights


def variables(predictor: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in predictor["model"]["env"] if "ENGINE" in each["name"]}


def test_without_certificates_an_engine_is_asked_in_plain_http() -> None:
    world = make_world()
    world.tls = False
    world.step(5)
    predictor = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]
    assert set(variables(predictor)) == {"TUNEGATE_ENGINE_URL", "TUNEGATE_ENGINE_MODEL"}
    assert variables(predictor)["TUNEGATE_ENGINE_URL"].startswith("http://")
    assert "volumes" not in predictor


def engines(world: World) -> set[str]:
    return {name for kind, name in world.objects if kind == "LLMInferenceService"}


def test_a_version_is_promoted_on_an_engine_of_its_own_and_the_retired_one_is_deleted() -> None:
    world = make_world().until("Paused")
    assert engines(world) == {server_of(BASE), server_of(CANDIDATE)}
    world.until("Succeeded", limit=200).step(5)
    assert engines(world) == {server_of(CANDIDATE), server_of(BASE)}, "answers under way are given"
    world.step(40)
    assert engines(world) == {server_of(CANDIDATE)}
    assert condition(world.policy(), "WeightsVerified")["status"] == "True"
    assert not world.promotion()["status"].get("vouchedForBy")
    written = [world.objects[kind, server_of(CANDIDATE)] for kind in ("LLMInferenceService", "InferenceService")]
    assert [obj["metadata"]["generation"] for obj in written] == [1, 1], "each is written once"


@pytest.mark.parametrize(
    "owner", [("Pod", "-kserve-5c9d-x2"), ("LeaderWorkerSet", "-kserve-mn")], ids=["one-pod", "head-and-workers"]
)
def test_an_engine_that_kueue_holds_back_is_no_failure(owner: tuple[str, str]) -> None:
    world = World(replace(CONFIG, queue_name="gpus"), serving={**serving(), "readyTimeoutSeconds": 20})
    world.engine_pods = 0
    keep(world, waits({"kind": owner[0], "name": f"{server_of(BASE)}{owner[1]}", "uid": "it"}))
    world.step(30)
    engine = world.objects["LLMInferenceService", server_of(BASE)]
    assert engine["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    found = condition(world.policy(), "Serving")
    assert "waits in the queue gpus of Kueue" in found["message"]
    assert condition(world.policy(), "Stalled")["status"] == "False"


def test_an_engine_that_does_not_come_up_again_fails_its_candidate_and_goes() -> None:
    world = make_world(serving={**serving(), "readyTimeoutSeconds": 20}, approval="Manual").until("AwaitingApproval")
    assert engines(world) == {server_of(BASE)}, "a person takes too long"
    world.away.add(server_of(CANDIDATE))
    world.say(world.promotion()["metadata"]["name"], approval={"verdict": "Approved", "actor": "li"})
    world.until("Failed")
    decision = world.promotion()["status"]["decision"]
    assert decision["reason"] == "CanaryNotReady"
    assert f"kubectl describe llminferenceservice {server_of(CANDIDATE)}" in decision["message"]
    world.step(3)
    assert server_of(CANDIDATE) not in engines(world)


def evaluating(world: World, *away: ModelVersion) -> World:
    """Serving, with a candidate that is being evaluated; engines of these versions don't come up."""
    world.away = {server_of(version) for version in away}
    return world.until("Evaluating")


def jobs(world: World) -> set[str]:
    return {
        obj["metadata"]["labels"]["tunegate.io/version"] for (kind, _), obj in world.objects.items() if kind == "Job"
    }


def test_an_evaluation_asks_the_engine_of_its_version_once_that_is_there() -> None:
    world = evaluating(make_world(), CANDIDATE).step(3)
    assert engines(world) == {server_of(BASE), server_of(CANDIDATE)}
    assert jobs(world) == {short(BASE.digest)}
    waiting = world.promotion()["status"]["waiting"]
    assert waiting.startswith(f"{CANDIDATE.name} waits for its engine: {server_of(CANDIDATE)} is not ready")
    world.away.clear()
    world.step(2)
    pod = world.objects["Job", evaluation_name(EvaluationJob(CANDIDATE, "quality"))]["spec"]["template"]["spec"]
    (container,), volumes = pod["containers"], {volume["name"]: volume for volume in pod["volumes"]}
    assert variables({"model": container}) == {
        "TUNEGATE_ENGINE_URL": f"https://{server_of(CANDIDATE)}-kserve-workload-svc.shop.svc:8000",
        "TUNEGATE_ENGINE_MODEL": "{model}-{digest}",
        "TUNEGATE_ENGINE_CERTIFICATE": "/etc/tunegate-engine/tls.crt",
    }
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert volumes[mounts["/etc/tunegate-engine"]]["secret"]["secretName"].startswith(server_of(CANDIDATE))
    world.until("Paused")
    engine = world.objects["LLMInferenceService", server_of(CANDIDATE)]
    assert engine["metadata"]["generation"] == 1
    assert engine["metadata"]["uid"] == world.objects["LLMInferenceService", server_of(CANDIDATE)]["metadata"]["uid"]


def test_the_time_of_an_evaluation_begins_with_its_job_and_not_with_its_engine() -> None:
    world = evaluating(make_world(evaluationTimeoutSeconds=30), CANDIDATE).step(20, seconds=10)
    assert world.promotion()["status"]["phase"] == "Evaluating"
    world.store.results.clear()
    world.away.clear()
    world.step(3, seconds=8)
    assert world.promotion()["status"]["phase"] == "Evaluating"
    world.step(3, seconds=8)
    assert world.promotion()["status"]["decision"]["reason"] == "EvaluationTimeout"


def test_an_engine_that_never_comes_up_fails_the_evaluation_until_a_person_tries_again() -> None:
    world = evaluating(make_world(serving={**serving(), "readyTimeoutSeconds": 20}), CANDIDATE).until("Failed")
    decision = world.promotion()["status"]["decision"]
    assert decision["reason"] == "EvaluationFailed"
    assert f"kubectl describe llminferenceservice {server_of(CANDIDATE)}" in decision["message"]
    assert decision["message"].endswith(f"delete ModelVersion {object_name(CANDIDATE)} to try again")
    world.step(60)
    assert engines(world) == {server_of(BASE)}, "its GPUs are given back, and not asked for again"
    assert jobs(world) == {short(BASE.digest)}
    world.away.clear()
    world.remove("ModelVersion", object_name(CANDIDATE))
    world.step(5)
    assert jobs(world) == {short(BASE.digest), short(CANDIDATE.digest)}
    found = condition(world.objects["ModelVersion", object_name(CANDIDATE)], "Evaluated")
    assert found["status"] == "True"


def test_there_are_no_more_engines_at_once_than_evaluations_could_run() -> None:
    world = make_world().until("Paused")
    served = {server_of(BASE), server_of(CANDIDATE)}
    olds = [make_version(f"old-{number}", created=-number) for number in range(2, 9)]
    world.away = {server_of(version) for version in olds}
    for version in olds:
        world.publish(version)
    world.step(5)
    coming = engines(world) - served
    assert len(coming) == MOST_PODS
    world.step(3)
    assert engines(world) - served == coming, "none is ended for another"
    world.away.clear()
    world.step(10)
    assert jobs(world) == {short(version.digest) for version in (BASE, CANDIDATE, *olds)}
    assert engines(world) == served, "those that nobody asks any more go"


def test_an_engine_stays_while_it_is_asked_whatever_else_is_away() -> None:
    old = make_version("old", created=-1)
    world = make_world().until("Paused").publish(old, score=None).step(3)
    assert server_of(old) in engines(world)
    world.store.versions = None
    world.step(3)
    assert server_of(old) in engines(world), "which versions there are is not known"
    world.store.versions = (BASE, CANDIDATE, old)
    world.step(3)
    assert server_of(old) in engines(world), "its evaluation runs"
    world.fail_job(evaluation_name(EvaluationJob(old, "quality")))
    world.step(3)
    assert server_of(old) not in engines(world)


def test_what_people_have_to_judge_keeps_no_engine_waiting() -> None:
    world = make_world(suites=["quality", "tone.people"]).until("Evaluating").step(5)
    assert "waits for people" in world.promotion()["status"]["waiting"]
    assert engines(world) == {server_of(BASE)}


def test_a_head_without_its_workers_is_no_engine() -> None:
    world = make_world(serving=serving(GROUP))
    world.engine_pods = 1
    world.step(5)
    assert "GroupsProgressing: Replicas are progressing" in condition(world.policy(), "Serving")["message"]
    assert ("InferenceService", server_of(BASE)) not in world.objects
    world.engine_pods = 2
    world.step(5)
    assert condition(world.policy(), "Serving")["status"] == "True"


def test_a_preset_that_lacks_is_told_of_with_what_to_do() -> None:
    world = make_world()
    world.presets.clear()
    world.step(5)
    found = condition(world.policy(), "Serving")
    assert '"kserve-config-llm-template" not found in namespaces [shop kserve]' in found["message"]
    assert "install KServe's presets (its chart kserve-runtime-configs" in found["message"]


def test_a_preset_that_is_removed_takes_no_engine_that_answers_away() -> None:
    world = make_world().until("Paused")
    world.presets.clear()
    world.step(3)
    assert condition(world.policy(), "Ready")["status"] == "True"
    assert world.promotion()["status"]["phase"] == "Paused"


def test_an_engine_that_answers_is_only_scaled_until_a_person_asks_for_more() -> None:
    world = make_world().step(5)
    changed = {**ALONE, "parallelism": {"tensor": 2}}
    change_policy(world, serving=serving(changed, replicas=3))
    world.step(3)
    spec = world.objects["LLMInferenceService", server_of(BASE)]["spec"]
    assert (spec["replicas"], spec["parallelism"]) == (3, {"tensor": 4})
    ask(world, "now")
    world.step(3)
    spec = world.objects["LLMInferenceService", server_of(BASE)]["spec"]
    assert spec["parallelism"] == {"tensor": 2}
    assert world.policy()["status"]["rolledOut"] == "now"
    generation = world.objects["LLMInferenceService", server_of(BASE)]["metadata"]["generation"]
    world.step(3)
    assert world.objects["LLMInferenceService", server_of(BASE)]["metadata"]["generation"] == generation


def test_servers_that_have_the_weights_move_in_front_of_an_engine_when_asked_and_when_it_is_there() -> None:
    world = make_world(serving={"engine": "VLLM"}).step(5)
    change_policy(world, serving=serving())
    world.step(3)
    assert not engines(world)
    world.engine_pods = 0
    ask(world, "now")
    world.step(3)
    predictor = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]
    assert engines(world) == {server_of(BASE), server_of(CANDIDATE)}
    assert parse_storage_uri(predictor["model"]["storageUri"]).weights
    assert "rolledOut" not in world.policy()["status"]
    assert condition(world.policy(), "Ready")["status"] == "True", "it answers meanwhile"
    world.engine_pods = 9
    world.step(3)
    predictor = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]
    assert variables(predictor)["TUNEGATE_ENGINE_URL"].startswith(f"https://{server_of(BASE)}-")
    assert predictor["model"]["runtime"] == CONFIG.serving_runtime
    assert world.policy()["status"]["rolledOut"] == "now"


def test_a_candidate_whose_engine_goes_away_fails_and_its_engine_is_made_again() -> None:
    world = make_world(serving={**serving(), "unavailableSeconds": 10}).until("Paused")
    world.remove("LLMInferenceService", server_of(CANDIDATE))
    world.engine_pods = 0
    world.step()
    assert server_of(CANDIDATE) in engines(world)
    stable = world.objects["LLMInferenceService", server_of(BASE)]["status"]["workloads"]["primary"]
    for _ in range(15):
        stable["readyReplicas"] = 1
        world.step()
        stable = world.objects["LLMInferenceService", server_of(BASE)]["status"]["workloads"]["primary"]
    decision = world.promotion()["status"]["decision"]
    assert (decision["outcome"], decision["reason"]) == ("Failed", "CanaryNotReady")
    assert f"llminferenceservice {server_of(CANDIDATE)}" in decision["message"]


def test_a_persons_edit_of_an_engine_is_told_and_put_back_when_asked() -> None:
    world = make_world().step(5)
    world.edit("LLMInferenceService", server_of(BASE), lambda spec: spec.update(replicas=7))
    world.step(2)
    found = condition(world.policy(), "Stalled")
    assert found["reason"] == "TargetModified"
    assert f"spec.replicas of LLMInferenceService {server_of(BASE)}" in found["message"]
    world.policy()["metadata"].setdefault("annotations", {})["tunegate.io/restore"] = "now"
    world.step(2)
    assert world.objects["LLMInferenceService", server_of(BASE)]["spec"]["replicas"] == 1
    assert condition(world.policy(), "Stalled")["status"] == "False"


def test_an_adapter_is_refused_before_anything_is_made_of_it() -> None:
    adapter = msgspec.structs.replace(CANDIDATE, format="lora-adapter")
    world = make_world(adapter).until("Failed")
    decision = world.promotion()["status"]["decision"]
    assert decision["reason"] == "DoesNotFit"
    assert "is an adapter (lora-adapter)" in decision["message"]
    assert engines(world) == {server_of(BASE)}


def test_a_cluster_without_the_kind_is_told_of() -> None:
    world = make_world()
    world.missing_kinds.add(kinds.LLM_INFERENCE_SERVICE)
    world.step(2)
    found = condition(world.policy(), "Serving")
    assert (found["reason"], condition(world.policy(), "Stalled")["status"]) == ("LLMInferenceServiceMissing", "True")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"worker": {}}, "one of several needs it"),
        ({"parallelism": {"pipeline": 2}}, "one of several needs it"),
        ({"parallelism": {"data": 2, "dataLocal": 2}, "worker": {}}, "one of several needs it"),
        ({"parallelism": {"data": 2}}, "data and dataLocal need each other"),
        ({"parallelism": {"pipeline": 2, "data": 2, "dataLocal": 1}, "worker": {}}, "leave one of them out"),
        ({"template": {"volumes": [{"name": "tunegate-version"}]}}, "tunegate's own; rename it"),
        ({"template": {"containers": [{"image": "vllm"}]}}, "containers has to be a list in which each has a name"),
        ({"template": {"containers": {"name": "main"}}}, "containers has to be a list in which each has a name"),
        (
            {"template": {"containers": [{"name": "main", "resources": {"limits": 8}}]}},
            "resources has to be as in a pod",
        ),
        (
            {"template": {"containers": [{"name": "main", "volumeMounts": ["/tmp"]}]}},  # noqa: S108
            "volumeMounts has to be a list in which each has a mountPath",
        ),
        (
            {"template": {"containers": [{"name": "main", "volumeMounts": [{"mountPath": "/mnt/models/"}]}]}},
            "mounts /mnt/models, where tunegate puts the version",
        ),
    ],
)
def test_what_no_engine_can_be_made_of_is_refused(changes: dict[str, Any], words: str) -> None:
    world = World(serving=serving(changes)).step()
    found = condition(world.policy(), "Ready")
    assert found["reason"] == "InvalidPolicy"
    assert words in found["message"]
