"""Engines that several versions share: what is made, when it goes, and what its state means for a promotion."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.builders import make_cluster_policy, make_version
from tests.unit.operator.test_engines import jobs, variables
from tests.unit.operator.test_queue import keep, waits
from tests.unit.operator.test_servers import ask, change_policy
from tests.unit.operator.world import BASE, CONFIG, World, server_of
from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate.api.pinned import Pinned, base_of, parse_storage_uri
from tunegate.api.policy import ServingPods
from tunegate.api.versions import BaseModel, ModelVersion
from tunegate.kube.kinds import Object
from tunegate.models.cards import read_card
from tunegate.models.memory import Footprint
from tunegate.serving.config import EngineConfig
from tunegate_operator.config import Config, ReleasePods
from tunegate_operator.read import condition
from tunegate_operator.shared import shared_engine, too_large

GOOD = Tally(up=38, down=2)
GPU = {"limits": {"nvidia.com/gpu": "1", "memory": "40Gi"}}
ENGINE = f"{server_of(BASE)}-engine"


def adapter(run: str, created: float, base: BaseModel | None = None) -> ModelVersion:
    version = make_version(run, created=created)
    return msgspec.structs.replace(version, format="lora-adapter", base=base or base_of(BASE))


FIRST, SECOND = adapter("run-1", 1), adapter("run-2", 2)


def serving(**more: Any) -> dict[str, Any]:
    return {"engine": "VLLM", "shareBase": True, **more}


def make_world(*versions: ModelVersion, config: Config = CONFIG, **spec: Any) -> World:
    world = World(config, **{"serving": serving(), **spec})
    world.score(BASE, 0.9)
    for version in versions or (FIRST,):
        world.publish(version).vote(version, GOOD, GOOD)
    return world


def engines(world: World) -> set[str]:
    found = {kind: {name for each, name in world.objects if each == kind} for kind in ("Deployment", "Service")}
    assert found["Deployment"] == found["Service"]
    return found["Deployment"]


def test_the_engine_of_a_base_is_one_pod_that_brings_it_pinned_to_its_bytes() -> None:
    ca = {"name": "ca", "configMap": {"name": "company"}}
    pods = ReleasePods(volumes=(ca,), volume_mounts=({"name": "ca", "mountPath": "/etc/tunegate-ca"},))
    config = replace(CONFIG, engine_image="vllm:1", queue_name="gpus", serving_pods=pods, initializer_pods=pods)
    own = {"maxAdapters": 4, "maxRank": 16, "resources": GPU, "nodeSelector": {"pool": "gpu"}}
    policy = make_cluster_policy(serving=serving(sharedEngine=own, readyTimeoutSeconds=600))
    deployment, service = shared_engine("models", policy, "shop", base_of(BASE), config)
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    (container,), (brings,) = pod["containers"], pod["initContainers"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert (container["image"], container["resources"], pod["nodeSelector"]) == ("vllm:1", GPU, {"pool": "gpu"})
    assert " ".join(container["args"]) == (
        "engine --folder /mnt/models --host 0.0.0.0 --port 8080 --control-port 8081 --max-adapters 4 --max-rank 16"
    )
    assert parse_storage_uri(brings["args"][0]) == Pinned(BASE.name, BASE.digest)
    assert container["readinessProbe"]["httpGet"] == {"path": "/healthz", "port": 8081}
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] == 600
    names = sorted(volume["name"] for volume in pod["volumes"])
    assert names == ["ca", "cache", "shm", "tmp", "tunegate-version"]
    assert {"/mnt/models", "/etc/tunegate-ca"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
    assert deployment["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    labels = spec["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert labels["tunegate.io/base"] == short(BASE.digest)
    assert [port["port"] for port in service["spec"]["ports"]] == [8080, 8081]


def test_an_adapter_that_names_its_base_by_a_folder_of_the_store_has_it_brought_by_digest() -> None:
    base = BaseModel(uri=BASE.uri, digest=BASE.digest)
    deployment, _ = shared_engine("models", make_cluster_policy(serving=serving()), "shop", base, CONFIG)
    (brings,) = deployment["spec"]["template"]["spec"]["initContainers"]
    assert parse_storage_uri(brings["args"][0]) == Pinned(BASE.name, BASE.digest)


def test_versions_of_one_base_ask_one_engine_each_under_a_name_of_its_own() -> None:
    world = make_world().until("Paused")
    assert engines(world) == {ENGINE}
    for version in (BASE, FIRST):
        predictor = world.objects["InferenceService", server_of(version)]["spec"]["predictor"]
        url, control = f"http://{ENGINE}.shop.svc:8080", f"http://{ENGINE}.shop.svc:8081"
        assert variables(predictor) == {"TUNEGATE_ENGINE_URL": url, "TUNEGATE_ENGINE_CONTROL": control}
        assert EngineConfig(url=url, control=control), "the server takes them together"
        assert predictor["model"]["runtime"] == CONFIG.serving_runtime
        assert not parse_storage_uri(predictor["model"]["storageUri"]).weights
    for job in (obj for (kind, _), obj in world.objects.items() if kind == "Job"):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert variables({"model": container}) == {}, "an evaluation loads the adapter itself"
    assert jobs(world) == {short(BASE.digest), short(FIRST.digest)}
    assert world.objects["Deployment", ENGINE]["metadata"]["generation"] == 1


def test_an_engine_outlives_its_versions_until_none_is_left() -> None:
    other = make_version("other", created=3)
    world = make_world().until("Succeeded", limit=200).step(45)
    assert engines(world) == {ENGINE}, "what was promoted is on it, and the base is retired"
    assert ("InferenceService", server_of(BASE)) not in world.objects
    world.publish(other).vote(other, GOOD, GOOD, against=FIRST).step(2).until("Paused")
    assert engines(world) == {ENGINE, f"{server_of(other)}-engine"}, "whole weights are a base of their own"
    world.until("Succeeded", limit=200).step(10)
    assert ENGINE in engines(world), "answers under way are given"
    world.step(35)
    assert engines(world) == {f"{server_of(other)}-engine"}


def test_servers_come_when_their_engine_is_there_and_what_it_lacks_is_told() -> None:
    world = make_world()
    world.away.add(ENGINE)
    world.step(5)
    assert ("InferenceService", server_of(BASE)) not in world.objects
    found = condition(world.policy(), "Serving")
    assert found["reason"] == "StableNotReady"
    assert f"{ENGINE} is not ready: MinimumReplicasUnavailable: Deployment does not have" in found["message"]
    world.away.clear()
    world.step(5)
    assert condition(world.policy(), "Ready")["status"] == "True"


def test_an_engine_that_never_comes_up_stalls_its_policy_by_name() -> None:
    world = make_world(serving=serving(readyTimeoutSeconds=20))
    world.away.add(ENGINE)
    world.step(30)
    found = condition(world.policy(), "Stalled")
    assert found["status"] == "True"
    assert f"kubectl describe deployment {ENGINE}" in found["message"]


def test_an_engine_that_kueue_holds_back_is_no_failure() -> None:
    config = replace(CONFIG, queue_name="gpus", vllm_resources=GPU)
    world = make_world(config=config, serving=serving(readyTimeoutSeconds=20))
    world.away.add(ENGINE)
    keep(world, waits({"kind": "Pod", "name": f"{ENGINE}-5c9d-x2", "uid": "it"}))
    world.step(30)
    assert "waits in the queue gpus of Kueue" in condition(world.policy(), "Serving")["message"]
    assert condition(world.policy(), "Stalled")["status"] == "False"


def test_what_a_server_says_of_a_refusal_is_told_before_traffic() -> None:
    world = make_world(serving=serving(readyTimeoutSeconds=20), approval="Manual").until("AwaitingApproval")
    world.follow_servers = False
    world.say(world.promotion()["metadata"]["name"], approval={"verdict": "Approved", "actor": "ada"})
    world.step(2)
    said = {"reason": "ModelLoadFailed", "message": "The engine is full: it has 8 adapters."}
    for _ in range(30):
        world.ready(server_of(FIRST), "False")
        world.ready(server_of(BASE))
        status = world.objects["InferenceService", server_of(FIRST)]["status"]
        status["modelStatus"] |= {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": said}
        world.step()
        if world.promotion()["status"]["phase"] == "Failed":
            break
    decision = world.promotion()["status"]["decision"]
    assert (decision["outcome"], decision["reason"]) == ("Failed", "CanaryNotReady")
    assert "The engine is full: it has 8 adapters." in decision["message"]
    assert world.promotion()["status"]["weight"] == 0


def test_a_version_that_no_engine_can_share_is_refused_before_anything_is_made_of_it() -> None:
    prompts = msgspec.structs.replace(FIRST, format="prompt-adapter")
    world = make_world(prompts).until("Failed")
    decision = world.promotion()["status"]["decision"]
    assert decision["reason"] == "DoesNotFit"
    assert "this is a prompt-adapter; leave out shareBase" in decision["message"]
    assert engines(world) == {ENGINE}


def args(world: World) -> list[str]:
    found: Object = world.objects["Deployment", ENGINE]
    return list(found["spec"]["template"]["spec"]["containers"][0]["args"])


def test_a_changed_policy_reaches_an_engine_that_answers_when_a_person_asks() -> None:
    world = make_world().step(5)
    change_policy(world, serving=serving(sharedEngine={"maxAdapters": 20}))
    world.step(3)
    assert args(world)[-3:] == ["8", "--max-rank", "64"]
    ask(world, "now")
    world.step(3)
    assert args(world)[-3:] == ["20", "--max-rank", "64"]
    assert world.policy()["status"]["rolledOut"] == "now"


def test_a_persons_edit_of_an_engine_is_told_and_put_back_when_asked() -> None:
    world = make_world().step(5)
    deployment, service = (world.objects[kind, ENGINE] for kind in ("Deployment", "Service"))
    for live, change in ((deployment, {"replicas": 0}), (service, {"selector": {"app": "other"}})):
        before, field = copy.deepcopy(live["spec"]), next(iter(change))
        world.edit(live["kind"], ENGINE, lambda spec, change=change: spec.update(change))
        world.step(2)
        found = condition(world.policy(), "Stalled")
        assert found["reason"] == "TargetModified"
        assert f"changed spec.{field}" in found["message"]
        assert f" of {live['kind']} {ENGINE}" in found["message"]
        world.policy()["metadata"].setdefault("annotations", {})["tunegate.io/restore"] = field
        world.step(2)
        assert world.objects[live["kind"], ENGINE]["spec"] == before
        assert condition(world.policy(), "Stalled")["status"] == "False"


def test_servers_that_have_the_weights_move_in_front_of_an_engine_when_asked_and_when_it_is_there() -> None:
    world = make_world(serving={"engine": "VLLM"}).step(5)
    change_policy(world, serving=serving())
    world.away.add(ENGINE)
    ask(world, "now")
    world.step(3)
    model = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]["model"]
    assert (engines(world), model["runtime"]) == ({ENGINE}, CONFIG.vllm_runtime)
    world.away.clear()
    world.step(3)
    model = world.objects["InferenceService", server_of(BASE)]["spec"]["predictor"]["model"]
    assert model["runtime"] == CONFIG.serving_runtime
    assert world.policy()["status"]["rolledOut"] == "now"


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({}, "of that, room for 8 adapters of rank 64 is 8.0 GiB: lower maxAdapters or maxRank in serving.shared"),
        ({"maxAdapters": 4}, None),
        ({"maxRank": 32}, None),
        ({"resources": {"limits": {"nvidia.com/gpu": "2"}}}, None),
        ({"resources": {"limits": {"memory": "40Gi"}}}, None),
    ],
    ids=str,
)
def test_an_engine_has_room_for_its_adapters_beside_the_base(own: dict[str, Any], words: str | None) -> None:
    gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}, "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A10"}}
    world = make_world(serving=serving(sharedEngine={**gpu, **own}))
    world.step(3)
    wants_gpus = "nvidia.com/gpu" in str({**gpu, **own}["resources"])
    assert engines(world) == (set() if wants_gpus else {ENGINE}), "how large the base is, the store has not said yet"
    world.store.footprints = {BASE.digest: Footprint(14 * 2**30, 2**17, 32, adapter=2**24)}
    world.step(3)
    stalled = condition(world.policy(), "Stalled")
    assert (stalled["reason"] if stalled["status"] == "True" else None) == ("DoesNotFit" if words else None)
    assert (words or "") in stalled["message"]
    assert engines(world) == (set() if words else {ENGINE})


def test_a_base_that_fits_by_no_means_is_told_without_its_adapters() -> None:
    model, own = Footprint(28 * 2**30, 2**17, 32, rounded=27 * 2**30, adapter=2**20), ServingPods(engine="VLLM")
    shared = msgspec.structs.replace(own, share_base=True)
    assert too_large(model, read_card("A10"), 1, own).endswith("(tunegate quantize --method int8)")
    assert too_large(model, read_card("A10"), 1, shared).endswith("; it would fit on 2 of them")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"engine": "Transformers", "shareBase": True}, "serving.shareBase is for engine: VLLM"),
        ({"engine": "VLLM", "sharedEngine": {}}, "serving.sharedEngine is the engine of shareBase: true"),
    ],
)
def test_what_goes_with_nothing_is_refused(spec: dict[str, Any], words: str) -> None:
    world = World(serving=spec).step()
    found = condition(world.policy(), "Ready")
    assert found["reason"] == "InvalidPolicy"
    assert words in found["message"]
