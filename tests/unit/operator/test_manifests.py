"""What an operator of an earlier release made is what this one wants, so that updating it touches no server."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.builders import make_cluster_policy
from tunegate.api.pinned import Pinned, parse_storage_uri
from tunegate.api.versions import ModelVersion
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import manifests
from tunegate_operator.config import Config, ReleasePods

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


def test_in_front_of_a_url_stand_servers_without_weights_and_evaluations_ask_it_by_the_same_name() -> None:
    url = {"address": "https://llm.example/v1", "keySecret": {"name": "vendor", "key": "token"}}
    policy = make_cluster_policy(serving={"engine": "URL", "url": url, "replicas": 2})
    model = manifests.inference_service("models", policy, "shop", VERSION, CONFIG)["spec"]["predictor"]["model"]
    assert parse_storage_uri(model["storageUri"]) == Pinned(VERSION.name, VERSION.digest, weights=False)
    assert model["runtime"] == CONFIG.serving_runtime
    job = manifests.evaluation_job("models", policy, "shop", EvaluationJob(VERSION, "quality"), CONFIG)
    (evaluate,) = job["spec"]["template"]["spec"]["containers"]
    key = {"secretKeyRef": {"name": "vendor", "key": "token"}}
    for container in (model, evaluate):
        assert manifests.elsewhere(container) == [
            {"name": "TUNEGATE_ENGINE_URL", "value": "https://llm.example/v1"},
            {"name": "TUNEGATE_ENGINE_MODEL", "value": "{model}-{digest}"},
            {"name": "TUNEGATE_ENGINE_KEY", "valueFrom": key},
        ]


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


def test_what_a_server_says_last_is_what_kserve_hands_on() -> None:
    model = manifests.inference_service("models", POLICY, "shop", VERSION, CONFIG)["spec"]["predictor"]["model"]
    assert model["terminationMessagePolicy"] == "FallbackToLogsOnError"


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


RELEASE = ReleasePods(
    resources={"requests": {"cpu": "1"}},
    node_selector={"pool": "any"},
    affinity={"nodeAffinity": {}},
    priority_class_name="batch",
    service_account_name="models",
    pod_labels={"team": "shop", "tunegate.io/version": "forged"},
    pod_annotations={"note": "release"},
    extra_env=({"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "A", "value": "release"}),
    image_pull_secrets=({"name": "registry"},),
    pod_security_context={"runAsNonRoot": True},
    container_security_context={"privileged": False},
    volumes=({"name": "ca", "configMap": {"name": "company"}},),
    volume_mounts=({"name": "ca", "mountPath": "/etc/tunegate-ca"},),
)
OWN = {
    "nodeSelector": {"pool": "gpu"},
    "priorityClassName": "high",
    "podLabels": {"team": "search"},
    "podAnnotations": {"more": "policy"},
    "extraEnv": [{"name": "A", "value": "policy"}],
    "topologySpreadConstraints": [{"maxSkew": 1}],
}


def pods_with(own: dict[str, Any], release: ReleasePods) -> tuple[dict[str, Any], dict[str, Any]]:
    """An evaluation's pod template and a server's predictor."""
    config = replace(CONFIG, evaluation_pods=release, serving_pods=release)
    policy = make_cluster_policy(evaluation=own, serving=own)
    job = manifests.evaluation_job("models", policy, "shop", EvaluationJob(VERSION, "quality"), config)
    server = manifests.inference_service("models", policy, "shop", VERSION, config)
    return job["spec"]["template"], server["spec"]["predictor"]


def test_what_a_policy_says_of_pods_wins_over_the_release_and_what_is_ours_over_both() -> None:
    template, predictor = pods_with(OWN, RELEASE)
    for found in (template["spec"], predictor):
        assert (found["nodeSelector"], found["priorityClassName"]) == ({"pool": "gpu"}, "high")
        assert (found["affinity"], found["serviceAccountName"]) == ({"nodeAffinity": {}}, "models")
        assert found["topologySpreadConstraints"] == [{"maxSkew": 1}]
        assert found["imagePullSecrets"] == [{"name": "registry"}]
        assert found["securityContext"] == {"runAsNonRoot": True}
        assert {"name": "ca", "configMap": {"name": "company"}} in found["volumes"]
    (container,) = template["spec"]["containers"]
    assert (container["resources"], container["securityContext"]) == (RELEASE.resources, {"privileged": False})
    for found in (container, predictor["model"]):
        env = {each["name"]: each.get("value") for each in found["env"]}
        assert len(env) == len(found["env"])
        assert (env["A"], env["HTTPS_PROXY"]) == ("policy", "http://proxy:3128")
        assert {"name": "ca", "mountPath": "/etc/tunegate-ca"} in found["volumeMounts"]
    for metadata in (template["metadata"], predictor):
        assert metadata["labels"]["team"] == "search"
        assert metadata["labels"]["tunegate.io/version"] == VERSION.digest.removeprefix("sha256:")[:12]
        assert metadata["annotations"] == {"note": "release", "more": "policy"}


def test_a_release_that_says_nothing_leaves_pods_as_they_were() -> None:
    template, predictor = pods_with({}, ReleasePods())
    optional = ("affinity", "priorityClassName", "imagePullSecrets", "nodeSelector", "topologySpreadConstraints")
    for found in (template["spec"], predictor):
        assert not found.keys() & set(optional)
        assert found["securityContext"]["runAsUser"] == 10001
    assert "volumes" not in predictor
    assert "annotations" not in predictor
    assert template["spec"]["serviceAccountName"] == "default"


def test_a_server_with_the_companys_ca_asks_for_the_initializer_that_mounts_it() -> None:
    for release, scheme in ((RELEASE, "tunegate-ca://"), (ReleasePods(), "tunegate://")):
        _, predictor = pods_with({}, release)
        uri = predictor["model"]["storageUri"]
        assert uri.startswith(f"{scheme}sha256-")
        assert parse_storage_uri(uri).digest == VERSION.digest


def test_a_role_takes_the_place_of_keys_and_a_secret_may_call_them_something_else() -> None:
    job = EvaluationJob(VERSION, "quality")
    for config, named in ((replace(CONFIG, store_secret=""), []), (CONFIG, [CONFIG.store_secret])):
        (container,) = manifests.evaluation_job("models", POLICY, "shop", job, config)["spec"]["template"]["spec"][
            "containers"
        ]
        server = manifests.inference_service("models", POLICY, "shop", VERSION, config)
        for found in (container, server["spec"]["predictor"]["model"]):
            secrets = [each["secretRef"] for each in found.get("envFrom", ())]
            assert secrets == [{"name": name, "optional": True} for name in named]
    config = replace(CONFIG, store_keys={"AWS_ACCESS_KEY_ID": "id"})
    model = manifests.inference_service("models", POLICY, "shop", VERSION, config)["spec"]["predictor"]["model"]
    (found,) = (each for each in model["env"] if each["name"] == "AWS_ACCESS_KEY_ID")
    assert found["valueFrom"]["secretKeyRef"] == {"name": config.store_secret, "key": "id", "optional": True}
