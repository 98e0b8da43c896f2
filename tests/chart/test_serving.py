"""What KServe is given: the runtimes, and the container that brings a version in front of a server."""

from __future__ import annotations

import json

import pytest

from tests.builders import make_cluster_policy, make_version
from tests.chart.rendering import Object, kinds, pick, render
from tests.kserve import INITIALIZER_RESOURCES, merged
from tunegate.api import environment
from tunegate.cli import serve
from tunegate_operator.config import Config
from tunegate_operator.manifests import inference_service

VERSION = make_version("run-1")

VLLM = {"serving": {"vllm": {"enabled": True}}}
RUNTIME, VLLM_RUNTIME = "tunegate-predictor-0-1-0", "tunegate-predictor-vllm-0-1-0"


def test_the_predictor_serves_the_folder_that_kserve_fills() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", RUNTIME)["spec"]["containers"]
    assert container["name"] == "kserve-container"
    assert container["args"] == [
        "serve",
        "--folder=/mnt/models",
        "--host=0.0.0.0",
        "--port=8080",
        "--engine=transformers",
    ]
    assert [port["containerPort"] for port in container["ports"]] == [8080]


@pytest.mark.parametrize("grace", [60, 600])
def test_a_predictor_ends_within_the_grace_of_its_pod(grace: int) -> None:
    objects = render({"serving": {"graceSeconds": grace, "vllm": {"enabled": True}}})
    assert (
        f"--grace-seconds={grace}" in pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"]
    )
    for runtime in (each for each in objects if each["kind"] == "ClusterServingRuntime"):
        (container,) = runtime["spec"]["containers"]
        (server,) = [each["value"] for each in container["env"] if each["name"] == environment.GRACE]
        # A kubelet counts preStop as part of the pod's grace.
        assert container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(server) == grace


@pytest.mark.parametrize("seconds", [60, 1800, 1801, 7200])
def test_a_predictor_may_take_as_long_to_start_as_its_policy_says(seconds: int) -> None:
    """A kubelet starts a container again whose startup probe has failed so often: it would load for ever."""
    policy = make_cluster_policy(serving={"readyTimeoutSeconds": seconds})
    config = Config(store="s3://models", evaluation_image="trainer", serving_runtime=RUNTIME)
    model = inference_service("models", policy, "shop", VERSION, config)["spec"]["predictor"]["model"]
    (runtime,) = pick(render(), "ClusterServingRuntime", RUNTIME)["spec"]["containers"]
    probe = {**runtime["startupProbe"], **model.get("startupProbe", {})}
    assert probe["httpGet"]["path"] == "/v2/health/ready"
    assert probe["periodSeconds"] * probe["failureThreshold"] >= seconds


def test_a_predictor_gets_half_an_hour_to_become_ready() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", RUNTIME)["spec"]["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 1800  # serving.readyTimeoutSeconds of a policy


def test_kserve_never_chooses_our_runtime_by_itself() -> None:
    for name in (RUNTIME, VLLM_RUNTIME):
        runtime = pick(render(VLLM), "ClusterServingRuntime", name)["spec"]
        assert runtime["supportedModelFormats"] == [{"name": "tunegate", "version": "1", "autoSelect": False}]


def test_the_vllm_runtime_is_the_same_server_with_another_engine() -> None:
    objects = render(VLLM)
    (usual,), (vllm,) = (
        pick(objects, "ClusterServingRuntime", name)["spec"]["containers"] for name in (RUNTIME, VLLM_RUNTIME)
    )
    assert vllm["args"][:-1] == usual["args"][:-1]
    assert (usual["args"][-1], vllm["args"][-1]) == ("--engine=transformers", "--engine=vllm")
    assert vllm["image"] == "tunegate/predictor-vllm:0.1.0"
    assert "/dev/shm" in [mount["mountPath"] for mount in vllm["volumeMounts"]]  # noqa: S108


def test_the_server_knows_every_argument_that_it_is_given() -> None:
    known = {option for parameter in serve.command.params for option in parameter.opts}
    for runtime in (each for each in render(VLLM) if each["kind"] == "ClusterServingRuntime"):
        verb, *arguments = runtime["spec"]["containers"][0]["args"]
        assert verb == "serve"
        assert {argument.partition("=")[0] for argument in arguments} <= known


def test_the_initializer_claims_our_uris_and_reads_the_secret_beside_the_server() -> None:
    values = {"store": {"uri": "s3://models", "endpointUrl": "http://minio:9000", "secretName": "keys"}}
    spec = pick(render(values), "ClusterStorageContainer", "tunegate")["spec"]
    assert spec["supportedUriFormats"] == [{"prefix": "tunegate://"}]
    assert spec["workloadType"] == "initContainer"
    # KServe reads this without looking whether it is there.
    assert spec["supportsMultiModelDownload"] is False
    container = spec["container"]
    assert container["name"] == "storage-initializer"
    assert container["envFrom"] == [{"secretRef": {"name": "keys", "optional": True}}]
    env = {variable["name"]: variable.get("value") or variable["valueFrom"] for variable in container["env"]}
    assert env["TUNEGATE_STORE"] == "s3://models"
    assert env["AWS_ENDPOINT_URL"] == "http://minio:9000"
    # KServe adds those of a service account's Secret to `env`, which wins over `envFrom`; by name ours win over both.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert env[name] == {"secretKeyRef": {"name": "keys", "key": name, "optional": True}}
    # A mount of a volume that another runtime's pod lacks would make that pod invalid.
    assert "volumeMounts" not in container


def test_within_namespaces_each_gets_its_own_runtime() -> None:
    objects = render({"rbac": {"scope": "Namespaced"}, "namespaces": ["a", "b"], **VLLM})
    assert "ClusterServingRuntime" not in kinds(objects)
    found = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in _runtimes(objects)]
    names = (RUNTIME, VLLM_RUNTIME)
    assert sorted(found) == [(namespace, name) for namespace in ("a", "b") for name in names]


def _runtimes(objects: list[Object]) -> list[Object]:
    return [each for each in objects if each["kind"] == "ServingRuntime"]


def test_serving_can_be_left_to_somebody_else() -> None:
    assert not {"ClusterServingRuntime", "ClusterStorageContainer"} & kinds(render({"serving": {"enabled": False}}))


def test_predictors_are_reached_on_one_port() -> None:
    objects = render({"networkPolicy": {"enabled": True}, "namespaces": ["a", "b"]})
    for namespace in ("a", "b"):
        spec = pick(objects, "NetworkPolicy", "tunegate-predictors", namespace)["spec"]
        assert spec["policyTypes"] == ["Ingress"]
        assert spec["ingress"] == [{"ports": [{"port": 8080}]}]


def test_engines_are_reached_by_predictors_evaluations_and_their_own_pods_alone() -> None:
    spec = pick(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy", "tunegate-engines")["spec"]
    askers, engines = spec["ingress"]
    assert askers["ports"] == [{"port": 8000}]
    assert "ports" not in engines
    (asked, measured), (among,) = askers["from"], engines["from"]
    keys = [each["key"] for each in measured["podSelector"]["matchExpressions"]]
    assert keys == ["tunegate.io/suite", "tunegate.io/version"]
    of_predictors = pick(render({"networkPolicy": {"enabled": True}}), "NetworkPolicy", "tunegate-predictors")["spec"]
    assert asked["podSelector"] == of_predictors["podSelector"]
    assert among["podSelector"] == spec["podSelector"]


def test_engines_that_versions_share_are_reached_by_predictors_alone() -> None:
    objects = render({"networkPolicy": {"enabled": True}})
    spec = pick(objects, "NetworkPolicy", "tunegate-shared-engines")["spec"]
    assert spec["podSelector"]["matchExpressions"] == [{"key": "tunegate.io/base", "operator": "Exists"}]
    (askers,) = spec["ingress"]
    of_predictors = pick(objects, "NetworkPolicy", "tunegate-predictors")["spec"]
    assert [each["podSelector"] for each in askers["from"]] == [of_predictors["podSelector"]]
    assert askers["ports"] == [{"port": 8080}, {"port": 8081}]


@pytest.mark.parametrize(
    ("image", "is_new"),
    [({"tag": "0.1.1"}, True), ({"digest": "sha256:" + "0" * 64}, True), ({}, False)],
    ids=["tag", "digest", "the chart's own"],
)
def test_a_new_image_is_a_new_runtime_that_the_operator_knows_by_name(image: Object, is_new: bool) -> None:
    objects = render({"serving": {"image": image}})
    name = next(obj for obj in objects if obj["kind"] == "ClusterServingRuntime")["metadata"]["name"]
    assert name.startswith(RUNTIME)
    assert is_new == (name != RUNTIME)
    (container,) = pick(objects, "Deployment", "tunegate-operator")["spec"]["template"]["spec"]["containers"]
    assert f"--serving-runtime={name}" in container["args"]
    assert pick(objects, "ClusterServingRuntime", name)["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep"
    }


@pytest.mark.parametrize("engine", ["Transformers", "VLLM"])
@pytest.mark.parametrize(
    "resources",
    [
        {"requests": {"memory": "8Gi"}},
        {"limits": {"memory": "1Gi"}},
        {"requests": {"cpu": "2"}, "limits": {"memory": "6Gi"}},
        {},
    ],
    ids=["requests", "limits", "both", "none"],
)
def test_a_pod_gets_the_resources_as_its_policy_says(engine: str, resources: Object) -> None:
    """KServe merges the runtime's container with the server's, key by key."""
    objects = render(VLLM)
    (operator,) = pick(objects, "Deployment", "tunegate-operator")["spec"]["template"]["spec"]["containers"]
    given = dict(word.removeprefix("--").split("=", 1) for word in operator["args"])
    config = Config(
        store="s3://models",
        evaluation_image="trainer",
        serving_runtime=given["serving-runtime"],
        vllm_runtime=given["vllm-runtime"],
        serving_resources=json.loads(given["serving-resources"]),
        vllm_resources=json.loads(given["vllm-resources"]),
    )
    policy = make_cluster_policy(serving={"engine": engine, "resources": resources})
    model = inference_service("models", policy, "shop", VERSION, config)["spec"]["predictor"]["model"]
    (runtime,) = pick(objects, "ClusterServingRuntime", model["runtime"])["spec"]["containers"]
    found = merged(runtime.get("resources", {}), model["resources"])
    defaults = {
        "Transformers": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "VLLM": {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"}},
    }
    assert found == (resources or defaults[engine])


@pytest.mark.parametrize(
    ("resources", "pod"),
    [
        ({"requests": {"cpu": "2"}}, {"cpu": ("2", "2"), "memory": ("256Mi", "1Gi")}),
        ({"requests": {"memory": "1.5Gi"}}, {"cpu": ("100m", "1"), "memory": ("1.5Gi", "1.5Gi")}),
        ({"limits": {"cpu": "50m"}}, {"cpu": ("50m", "50m"), "memory": ("100Mi", "1Gi")}),
        ({"requests": {"cpu": "100m", "memory": "256Mi"}}, {"cpu": ("100m", "1"), "memory": ("256Mi", "1Gi")}),
    ],
)
def test_an_initializers_pod_is_one_that_the_api_server_takes(
    resources: Object, pod: dict[str, tuple[str, str]]
) -> None:
    none = {"requests": None, "limits": None}
    objects = render({"serving": {"storageInitializer": {"resources": none | resources}}})
    container = pick(objects, "ClusterStorageContainer", "tunegate")["spec"]["container"]
    found = merged(INITIALIZER_RESOURCES, container["resources"])
    assert {name: (found["requests"][name], found["limits"][name]) for name in ("cpu", "memory")} == pod


def test_a_secret_of_tools_is_the_environment_of_new_runtimes() -> None:
    objects = render({"serving": {"toolsSecret": "tunegate-tools", "vllm": {"enabled": True}}})
    runtimes = [each for each in objects if each["kind"] == "ClusterServingRuntime"]
    assert {RUNTIME, VLLM_RUNTIME}.isdisjoint(each["metadata"]["name"] for each in runtimes)
    for runtime in runtimes:
        (container,) = runtime["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "tunegate-tools"}}]
    (container,) = pick(render(), "ClusterServingRuntime", RUNTIME)["spec"]["containers"]
    assert "envFrom" not in container


def test_servers_log_texts_unless_that_is_switched_off() -> None:
    (container,) = pick(render(), "ClusterServingRuntime", RUNTIME)["spec"]["containers"]
    assert environment.LOG_CONTENT not in {each["name"] for each in container["env"]}
    objects = render({"serving": {"logContent": False}})
    (container,) = pick(objects, "ClusterServingRuntime", f"{RUNTIME}-numbers")["spec"]["containers"]
    assert {"name": environment.LOG_CONTENT, "value": "false"} in container["env"]


def test_a_secret_of_keys_is_mounted_where_it_can_change() -> None:
    objects = render({"serving": {"keysSecret": "tunegate-keys", "vllm": {"enabled": True}}})
    runtimes = [each for each in objects if each["kind"] == "ClusterServingRuntime"]
    assert {RUNTIME, VLLM_RUNTIME}.isdisjoint(each["metadata"]["name"] for each in runtimes)
    for runtime in runtimes:
        (container,) = runtime["spec"]["containers"]
        (path,) = [each["value"] for each in container["env"] if each["name"] == environment.KEYS]
        (mount,) = [each for each in container["volumeMounts"] if each["name"] == "keys"]
        assert path == f"{mount['mountPath']}/keys.yaml"
        assert "subPath" not in mount
        assert {"name": "keys", "secret": {"secretName": "tunegate-keys"}} in runtime["spec"]["volumes"]
    (container,) = pick(render(), "ClusterServingRuntime", RUNTIME)["spec"]["containers"]
    assert environment.KEYS not in {each["name"] for each in container["env"]}
