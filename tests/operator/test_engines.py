"""Engines that versions have for themselves, on a real API server with KServe's own kind of them.

What its controller does is done by Hands: it takes presets, writes the object as a whole, names things as it likes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.operator.running import POLICY_NAME, Shop
from tests.operator.test_rights import ACCOUNT, rights_of
from tests.waiting import wait_for
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import kinds
from tunegate_operator.manifests import evaluation_name
from tunegate_operator.types import object_name

MAIN = {
    "name": "main",
    "resources": {"limits": {"memory": "1024Mi", "nvidia.com/gpu": 1}},
    "ports": [{"containerPort": 9090}],
    "env": [{"name": "VLLM_ADDITIONAL_ARGS", "value": "--max-model-len 8192"}],
}
SHM = {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "2048Mi"}}
ALONE: dict[str, Any] = {"parallelism": {"tensor": 2}, "template": {"containers": [MAIN], "volumes": [SHM]}}
GROUP: dict[str, Any] = {
    "parallelism": {"data": 4, "dataLocal": 2},
    "template": {"containers": [MAIN]},
    "worker": {"containers": [MAIN], "nodeSelector": {"pool": "gpu"}},
}


def serving(engine: dict[str, Any]) -> dict[str, Any]:
    return {"engine": "LLMInferenceService", "llmInferenceService": engine}


@pytest.fixture
def kubeconfig(shop: Shop, tmp_path: Path) -> Iterator[Path]:
    """The operator may do what the chart gives it."""
    rights = rights_of(shop, "Namespaced")
    shop.server.kubectl("apply", "-f", "-", stdin=rights)
    yield shop.server.kubeconfig_as(shop.namespace, ACCOUNT, tmp_path)
    shop.server.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=rights)


def engine_of(shop: Shop, version: Any) -> dict[str, Any]:
    return dict(shop.get(kinds.LLM_INFERENCE_SERVICE, shop.server_of(version)))


def test_a_version_is_promoted_on_an_engine_that_is_written_once_and_goes_when_it_retires(
    shop: Shop, kubeconfig: Path
) -> None:
    shop.start_policy(serving=serving(ALONE), steps=[{"weight": 50, "minVerdicts": 5}])
    operator = shop.start_operator("operator-0", kubeconfig)
    shop.until_serving()
    version = shop.publish("run-1")
    shop.until(version, "Paused")
    for each in (shop.base, version):
        shop.vote(each, up=60, metrics=False)
    shop.until(version, "Succeeded")
    engine, server = engine_of(shop, version), shop.get(kinds.INFERENCE_SERVICE, shop.server_of(version))
    main = next(each for each in engine["spec"]["template"]["containers"] if each["name"] == "main")
    assert main["resources"]["limits"] == {"memory": "1Gi", "nvidia.com/gpu": "1"}, "KServe writes amounts its own way"
    assert engine["metadata"]["generation"] == 1, "and is not written against"
    assert server["metadata"]["generation"] == 1
    env = {each["name"]: each.get("value") for each in server["spec"]["predictor"]["model"]["env"]}
    service = engine["status"]["workloads"]["service"]["name"]
    assert env["TUNEGATE_ENGINE_URL"] == f"https://{service}.{shop.namespace}.svc:8000"
    job = shop.get(kinds.JOB, evaluation_name(EvaluationJob(version, "quality")))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    asked = {each["name"]: each.get("value") for each in container["env"]}
    assert asked["TUNEGATE_ENGINE_URL"] == env["TUNEGATE_ENGINE_URL"]
    retired = shop.server_of(shop.base)

    def is_gone() -> bool:
        return all(
            shop.cluster.get(kind, shop.namespace, retired) is None
            for kind in (kinds.INFERENCE_SERVICE, kinds.LLM_INFERENCE_SERVICE)
        )

    wait_for(is_gone, seconds=120, what="the retired version's engine to be deleted")
    shop.hands.engine_pods = 0
    worse = shop.publish("run-2", score=0.2)
    shop.until(worse, "Evaluating")
    about = (kinds.LLM_INFERENCE_SERVICE, shop.namespace, shop.server_of(worse))
    wait_for(lambda: "waits for its engine" in shop.get(kinds.PROMOTION, object_name(worse))["status"]["waiting"])
    assert shop.cluster.get(*about) is not None
    shop.hands.engine_pods = 99
    shop.until(worse, "Rejected")
    wait_for(lambda: shop.cluster.get(*about) is None, what="the rejected version's engine to be deleted")
    assert shop.condition(kinds.POLICY, POLICY_NAME, "Stalled")["status"] == "False"
    assert "forbidden" not in operator.log.read_text().lower()


def test_presets_that_lack_and_workers_that_lack_are_told_of_until_they_are_there(shop: Shop) -> None:
    shop.hands.presets.clear()
    shop.hands.engine_pods = 1
    shop.start_policy(serving=serving(GROUP))
    shop.start_operator()

    def said(words: str) -> bool:
        return words in shop.condition(kinds.POLICY, POLICY_NAME, "Serving").get("message", "")

    wait_for(lambda: said("install KServe's presets"), what="the missing preset to be told of")
    shop.hands.presets.add("kserve-config-llm-worker-data-parallel")
    wait_for(lambda: said("GroupsProgressing"), what="the head without its worker to be told of")
    assert shop.cluster.get(kinds.INFERENCE_SERVICE, shop.namespace, shop.server_of(shop.base)) is None
    shop.hands.engine_pods = 2
    shop.until_serving()
    engine = engine_of(shop, shop.base)
    assert engine["spec"]["worker"]["nodeSelector"] == {"pool": "gpu"}
    assert engine["status"]["workloads"]["primary"]["kind"] == "LeaderWorkerSet"
    patch = json.dumps({"spec": {"serving": {"llmInferenceService": {"replicas": 2}}}})
    shop.hands.engine_pods = 4
    shop.server.kubectl("-n", shop.namespace, "patch", "promotionpolicy", POLICY_NAME, "--type=merge", "-p", patch)
    wait_for(lambda: engine_of(shop, shop.base)["spec"]["replicas"] == 2, what="the engine to be scaled")
    assert engine_of(shop, shop.base)["metadata"]["generation"] == 2
    edit = json.dumps({"spec": {"replicas": 1}})
    words = ["patch", "llminferenceservice", shop.server_of(shop.base), "--type=merge", "-p", edit]
    shop.server.kubectl("-n", shop.namespace, *words)
    found = shop.until_condition("Stalled", "TargetModified")
    assert found["message"].startswith("kubectl-patch changed spec.replicas of LLMInferenceService")
