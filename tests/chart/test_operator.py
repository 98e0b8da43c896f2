"""The operator: what it is told, what it may do, and what stands beside it."""

from __future__ import annotations

import json
import re

import pytest

from tests.chart.rendering import CHART, REPOSITORY, Object, kinds, pick, read_yaml, render

DIGEST = "sha256:" + "b" * 64


def _container(objects: list[Object]) -> Object:
    (container,) = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(container)


def _arguments(objects: list[Object]) -> list[tuple[str, str]]:
    return [tuple(word.removeprefix("--").split("=", 1)) for word in _container(objects)["args"]]


def test_the_operator_is_told_what_the_values_say() -> None:
    values = {
        "store": {"uri": "oss://models/shop", "endpointUrl": "https://oss.example", "secretName": "keys"},
        "feedback": {"secretName": "signing"},
        "operator": {"prometheusUrl": "http://prometheus:9090", "scanSeconds": 5, "logLevel": "debug"},
        "evaluation": {"serviceAccountName": "evaluator", "image": {"digest": DIGEST}},
    }
    objects = render(values)
    image = {"name": "EVALUATION_IMAGE", "value": f"tunegate/trainer@{DIGEST}"}
    assert image in _container(objects)["env"]
    told = dict(_arguments(objects))
    assert json.loads(told.pop("evaluation-pods"))["serviceAccountName"] == "evaluator"
    assert "serviceAccountName" not in json.loads(told.pop("serving-pods"))
    assert json.loads(told.pop("initializer-pods"))["resources"]["limits"] == {"memory": "1Gi"}
    brings = {"name": "INITIALIZER_IMAGE", "value": "tunegate/storage-initializer:0.1.0"}
    assert brings in _container(objects)["env"]
    assert {"name": "ENGINE_IMAGE", "value": "tunegate/predictor-vllm:0.1.0"} in _container(objects)["env"]
    assert told == {
        "store": "oss://models/shop",
        "endpoint-url": "https://oss.example",
        "store-secret": "keys",
        "feedback-secret": "signing",
        "evaluation-image": "$(EVALUATION_IMAGE)",
        "initializer-image": "$(INITIALIZER_IMAGE)",
        "engine-image": "$(ENGINE_IMAGE)",
        "serving-runtime": "tunegate-predictor-0-1-0",
        "vllm-runtime": "tunegate-predictor-vllm-0-1-0",
        "serving-resources": '{"limits":{"memory":"4Gi"},"requests":{"cpu":"1","memory":"2Gi"}}',
        "vllm-resources": '{"limits":{"memory":"32Gi","nvidia.com/gpu":"1"},"requests":{"cpu":"2","memory":"8Gi"}}',
        "grace-seconds": "60",
        "prometheus-url": "http://prometheus:9090",
        "scan-seconds": "5",
        "metrics-port": "8080",
        "log-level": "debug",
    }


def test_evaluated_agents_get_the_secret_of_those_that_serve() -> None:
    assert "tools-secret" not in dict(_arguments(render()))
    assert dict(_arguments(render({"serving": {"toolsSecret": "tools"}})))["tools-secret"] == "tools"


def test_the_operator_knows_every_flag_that_it_is_given() -> None:
    source = REPOSITORY / "operators/promotion/src/tunegate_operator/__main__.py"
    known = set(re.findall(r'"--([a-z-]+)"', source.read_text()))
    values = {
        "rbac": {"scope": "Namespaced"},
        "operator": {"prometheusUrl": "http://p", "prometheusSecret": "s"},
        "storage": {"enabled": True},
    }
    given = {name for name, _ in _arguments(render(values | {"store": {"uri": ""}}))}
    assert {"namespace", "endpoint-url", "prometheus-url"} <= given <= known


def test_the_operator_gets_what_prometheus_wants_as_files() -> None:
    objects = render({"operator": {"prometheusUrl": "https://p", "prometheusSecret": "thanos"}})
    folder = dict(_arguments(objects))["prometheus-credentials"]
    (mount,) = [each for each in _container(objects)["volumeMounts"] if each["mountPath"] == folder]
    volumes = pick(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert mount["readOnly"]
    assert {"name": mount["name"], "secret": {"secretName": "thanos"}} in volumes


def test_credentials_come_from_the_secret_and_from_nowhere_else() -> None:
    objects = render(
        {"store": {"secretName": "keys", "create": True, "accessKeyId": "id", "secretAccessKey": "hidden"}}
    )
    env = {each["name"]: each for each in _container(objects)["env"]}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert env[name]["valueFrom"] == {"secretKeyRef": {"name": "keys", "key": name, "optional": True}}
    assert "hidden" not in str([each for each in objects if each["kind"] != "Secret"])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "tunegate/operator:0.1.0"),
        ({"tag": "main"}, "tunegate/operator:main"),
        ({"tag": "main", "digest": DIGEST}, f"tunegate/operator@{DIGEST}"),
        ({"repository": "mine/op", "digest": DIGEST}, f"mine/op@{DIGEST}"),
    ],
    ids=["version", "tag", "digest-wins", "repository"],
)
def test_which_image_runs(image: Object, expected: str) -> None:
    assert _container(render({"operator": {"image": image}}))["image"] == expected


def test_new_credentials_bring_new_pods() -> None:
    def checksum(key: str) -> str:
        store = {"create": True, "accessKeyId": "id", "secretAccessKey": key}
        template = pick(render({"store": store}), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/store"])

    assert checksum("one") == checksum("one") != checksum("two")


@pytest.mark.parametrize(("replicas", "budget"), [(1, False), (2, True)])
def test_a_second_replica_brings_a_disruption_budget(replicas: int, budget: bool) -> None:
    objects = render({"operator": {"replicas": replicas}})
    assert pick(objects, "Deployment")["spec"]["replicas"] == replicas
    assert ("PodDisruptionBudget" in kinds(objects)) is budget


def test_probes_ask_the_port_that_the_container_listens_on() -> None:
    container = _container(render())
    assert container["ports"] == [{"name": "metrics", "containerPort": 8080}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}


def test_the_test_pod_asks_the_operators_service() -> None:
    objects = render(release="one")
    service, pod = pick(objects, "Service"), pick(objects, "Pod")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    url = pod["spec"]["containers"][0]["command"][-1]
    assert url == f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/readyz"
    compile(pod["spec"]["containers"][0]["command"][2], "ready", "exec")


def _roles(objects: list[Object]) -> list[Object]:
    return [each for each in objects if each["kind"] in ("Role", "ClusterRole")]


@pytest.mark.parametrize("scope", ["Cluster", "Namespaced"])
def test_no_role_has_a_secret_or_a_wildcard(scope: str) -> None:
    for role in _roles(render({"rbac": {"scope": scope}, "namespaces": ["a", "b"]})):
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert not [word for word in words if "*" in word or word.startswith(("secret", "escalate", "impersonate"))]


def test_one_lease_may_be_changed_and_no_other() -> None:
    (change, create) = pick(render(), "Role", "tunegate-operator-lease")["rules"]
    assert change["resourceNames"] == ["tunegate-operator"]
    assert create["verbs"] == ["create"]


def test_within_namespaces_there_is_no_cluster_role_of_the_operator() -> None:
    objects = render({"rbac": {"scope": "Namespaced"}, "namespaces": ["b", "a"]}, namespace="system")
    assert "ClusterRoleBinding" not in kinds(objects)
    assert "tunegate-operator" not in [each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"]
    for namespace in ("a", "b"):
        binding = pick(objects, "RoleBinding", "tunegate-operator", namespace)
        assert binding["subjects"][0]["namespace"] == "system"
        assert pick(objects, "Role", "tunegate-operator", namespace)["rules"]
    assert [value for name, value in _arguments(objects) if name == "namespace"] == ["a", "b"]


def test_within_namespaces_the_releases_own_is_the_default() -> None:
    objects = render({"rbac": {"scope": "Namespaced"}}, namespace="team")
    assert [value for name, value in _arguments(objects) if name == "namespace"] == ["team"]


def test_without_the_gateway_api_there_is_no_rule_for_routes() -> None:
    def resources(gateway_api: bool) -> set[str]:
        role = pick(render({"traffic": {"gatewayApi": gateway_api}}), "ClusterRole", "tunegate-operator")
        return {resource for rule in role["rules"] for resource in rule["resources"]}

    assert resources(True) - resources(False) == {"httproutes", "gateways"}


def test_the_network_policy_lets_the_named_ports_through() -> None:
    values = {"networkPolicy": {"enabled": True, "operatorEgressPorts": [6443, 9000]}}
    policy = pick(render(values), "NetworkPolicy", "tunegate-operator")["spec"]
    (egress,) = policy["egress"]
    assert [(port["port"], port["protocol"]) for port in egress["ports"]] == [
        (53, "UDP"),
        (53, "TCP"),
        (6443, "TCP"),
        (9000, "TCP"),
    ]
    assert policy["ingress"] == [{"ports": [{"port": 8080}]}]


def test_crds_stay_when_the_release_goes() -> None:
    def crds(**values: bool) -> list[Object]:
        return [each for each in render({"crds": values}) if each["kind"] == "CustomResourceDefinition"]

    assert {each["spec"]["names"]["kind"] for each in crds()} == {"ModelVersion", "PromotionPolicy", "Promotion"}
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in crds())
    assert not [
        each for each in crds(keep=False) if each["metadata"].get("annotations", {}).get("helm.sh/resource-policy")
    ]
    assert crds(install=False) == []


def test_helm_reads_the_kinds_as_they_are_written() -> None:
    """Helm and kubectl take a bare `n` for false, which PyYAML does not."""
    rendered = {each["metadata"]["name"]: each for each in render() if each["kind"] == "CustomResourceDefinition"}
    files = sorted((CHART / "files/crds").glob("*.yaml"))
    assert len(rendered) == len(files) == 3
    for path in files:
        (written,) = read_yaml(path.read_text())
        assert rendered[written["metadata"]["name"]]["spec"] == written["spec"]
