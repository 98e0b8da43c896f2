"""What an operator of an earlier release made is what this one wants, so that updating it touches no server."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.builders import make_cluster_policy
from tunegate.api.versions import ModelVersion
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import manifests
from tunegate_operator.config import Config

# Made by the operator at commit 2d11983 from the same policy, version and flags.
BEFORE = json.loads((Path(__file__).with_name("data") / "objects-2d11983.json").read_text())
CONFIG = Config(
    store="s3://models", evaluation_image="tunegate/trainer:0.1.0", endpoint_url="http://s3:8333", region="us-east-1"
)
POLICY = make_cluster_policy(
    traffic={"gateway": {"name": "public", "namespace": "gateways"}, "hostnames": ["shop.example"]},
    serving={"replicas": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}, "nodeSelector": {"pool": "gpu"}},
    evaluation={"limit": 20},
)
VERSION = ModelVersion(
    model="shop",
    name="shop/run-7/checkpoint-800",
    uri="s3://models/shop/run-7/checkpoint-800/",
    digest="sha256:" + "0123456789abcdef" * 4,
    format="huggingface",
    created=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_what_is_evaluated_is_pinned_to_its_bytes_as_what_is_served() -> None:
    job = manifests.evaluation_job("models", POLICY, "shop", EvaluationJob(VERSION, "quality"), CONFIG)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    server = manifests.inference_service("models", POLICY, "shop", VERSION, CONFIG)
    assert container["args"][:2] == ["evaluate", server["spec"]["predictor"]["model"]["storageUri"]]


def test_an_agent_is_evaluated_with_the_tools_that_it_is_served_with() -> None:
    for secret in ("", "tunegate-tools"):
        config = replace(CONFIG, tools_secret=secret)
        job = manifests.evaluation_job("models", POLICY, "shop", EvaluationJob(VERSION, "quality"), config)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        named = [each["secretRef"]["name"] for each in container["envFrom"]]
        assert named == [config.store_secret, *([secret] if secret else [])]


def test_switches_and_records_are_built_as_before() -> None:
    built = [
        manifests.remembered(manifests.switch("models", POLICY, "shop", VERSION.digest)),
        manifests.model_version("models", "shop", VERSION, None),
        manifests.promotion("models", "shop", "shop-run-7-0123456789ab", VERSION),
    ]
    before = {kind: obj for kind, obj in BEFORE.items() if kind in ("Service", "ModelVersion", "Promotion")}
    assert {obj["kind"]: obj for obj in built} == before


def test_nothing_of_ours_that_may_change_is_where_kserve_makes_pods_of_it() -> None:
    server = manifests.inference_service("models", POLICY, "shop", VERSION, CONFIG)
    assert server["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }


def job_of(**evaluation: object) -> dict[str, Any]:
    policy = make_cluster_policy(evaluation=evaluation, evaluationAttempts=3)
    return manifests.evaluation_job("models", policy, "shop", EvaluationJob(VERSION, "quality"), CONFIG)


def test_a_store_that_is_away_or_a_node_that_is_taken_uses_up_no_attempt_of_an_evaluation() -> None:
    job = job_of()
    away, taken = job["spec"]["podFailurePolicy"]["rules"]
    assert away == {
        "action": "Ignore",
        "onExitCodes": {"containerName": "evaluate", "operator": "In", "values": [75]},
    }
    assert (taken["action"], taken["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (job["spec"]["backoffLimit"], job["spec"]["template"]["spec"]["restartPolicy"]) == (2, "Never")


def test_the_shards_of_a_suite_are_the_indexes_of_its_job() -> None:
    pods = {"shards": 4, "resources": {"limits": {"nvidia.com/gpu": 1}}, "nodeSelector": {"pool": "gpu"}}
    job = job_of(**pods, limit=20)
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert [spec[name] for name in ("completionMode", "completions", "parallelism")] == ["Indexed", 4, 4]
    assert [spec[name] for name in ("backoffLimitPerIndex", "maxFailedIndexes")] == [2, 0]
    assert "backoffLimit" not in spec
    (container,) = pod["containers"]
    assert container["args"][-8:] == [
        *("--limit", "20", "--shard", "$(JOB_COMPLETION_INDEX)/4"),
        *("--patience", "600", "--summary", "/dev/termination-log"),
    ]
    assert (container["resources"], pod["nodeSelector"]) == (pods["resources"], pods["nodeSelector"])
