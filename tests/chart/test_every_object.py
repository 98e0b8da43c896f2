"""What holds for every object, whatever the values."""

from __future__ import annotations

import json
from pathlib import Path

import kubernetes_validate
import pytest

from tests.chart.rendering import VALUES_FILES, Object, check_against_crd, pick, pod_templates, render

KUBERNETES = "1.36"
CLUSTER_KINDS = {
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterServingRuntime",
    "ClusterStorageContainer",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
each_values_file = pytest.mark.parametrize("path", VALUES_FILES, ids=lambda path: path.name)


@each_values_file
def test_kubernetes_knows_every_field(path: Path, foreign: dict[str, Object]) -> None:
    for each in render(path):
        if crd := foreign.get(each["kind"]):
            check_against_crd(each, crd)
        else:
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@each_values_file
def test_no_two_objects_have_the_same_name(path: Path) -> None:
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in render(path)]
    assert len(names) == len(set(names))


@each_values_file
def test_an_object_says_its_namespace_unless_it_has_none(path: Path) -> None:
    for each in render(path):
        assert ("namespace" in each["metadata"]) == (each["kind"] not in CLUSTER_KINDS), each["metadata"]["name"]


@each_values_file
def test_every_object_says_what_it_belongs_to(path: Path) -> None:
    for each in render(path, release="one"):
        if each["kind"] != "CustomResourceDefinition":
            labels = each["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "one"
            assert labels["app.kubernetes.io/part-of"] == "tunegate"
            assert {"app.kubernetes.io/component", "app.kubernetes.io/version", "helm.sh/chart"} <= set(labels)


@each_values_file
def test_selectors_find_their_pods_and_outlive_an_upgrade(path: Path) -> None:
    objects = render(path)
    pods = [each["spec"]["template"]["metadata"]["labels"] for each in objects if "template" in each.get("spec", {})]
    selectors = [
        each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])
        for each in objects
        if each["kind"] in ("Deployment", "StatefulSet", "Service", "PodDisruptionBudget")
    ]
    assert selectors
    for selector in selectors:
        assert set(selector) == {f"app.kubernetes.io/{word}" for word in ("name", "instance", "component")}
        assert [labels for labels in pods if selector.items() <= labels.items()]


def test_two_releases_share_no_name_but_those_that_are_fixed() -> None:
    # KServe and policies find these by their names.
    fixed = {("ClusterServingRuntime", "tunegate-predictor-0-1-0"), ("ClusterStorageContainer", "tunegate")}
    one, two = (
        {(each["kind"], each["metadata"]["name"]) for each in render(release=release)} for release in ("one", "two")
    )
    assert {name for name in one & two if name[0] != "CustomResourceDefinition"} == fixed


@each_values_file
def test_every_pod_is_restricted(path: Path) -> None:
    found = list(pod_templates(render(path)))
    assert found
    for name, pod in found:
        spec = pod["spec"]
        assert not spec.get("hostNetwork"), name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            said = container["securityContext"]
            assert said["runAsNonRoot"] is True, name
            assert (said["runAsUser"], said["runAsGroup"]) == (10001, 10001), name
            assert said["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert said["allowPrivilegeEscalation"] is False, name
            assert said["readOnlyRootFilesystem"] is True, name
            assert said["capabilities"] == {"drop": ["ALL"]}, name
            if container["name"] != "kserve-container":  # the operator says those, by policy
                assert {"requests", "limits"} <= set(container["resources"]), name


@each_values_file
def test_only_the_operator_gets_a_token(path: Path) -> None:
    for name, pod in pod_templates(render(path)):
        if not name.startswith(("ClusterServingRuntime", "ServingRuntime")):  # those pods are KServe's
            assert pod["spec"]["automountServiceAccountToken"] is name.endswith("/tunegate-operator"), name


@each_values_file
def test_every_image_is_pinned(path: Path) -> None:
    for name, pod in pod_templates(render(path)):
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            assert not container["image"].endswith(":latest"), name
            assert ":" in container["image"].rpartition("/")[2], name


def test_one_value_moves_every_image_to_a_mirror() -> None:
    values = {
        "image": {"registry": "mirror.example/x"},
        "serving": {"vllm": {"enabled": True}},
        "storage": {"enabled": True},
    }
    objects = render(values)
    images = {
        container["image"]
        for _, pod in pod_templates(objects)
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    }
    assert len(images) == 5
    assert all(image.startswith("mirror.example/x/") for image in images)
    assert "mirror.example/x/tunegate/trainer:0.1.0" in json.dumps(pick(objects, "Deployment"))


def test_nothing_optional_is_there_by_default() -> None:
    optional = ("NetworkPolicy", "PodMonitor", "ServiceMonitor", "PrometheusRule", "ConfigMap", "StatefulSet", "Secret")
    assert not {each["kind"] for each in render()} & set(optional)
