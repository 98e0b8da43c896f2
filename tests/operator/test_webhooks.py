"""On a real API server: what admission changes is no edit, a person's patch is, and its remedy works."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from tests.operator.running import POLICY_NAME, Shop
from tests.waiting import wait_for
from tunegate.cli import root
from tunegate_operator import kinds
from tunegate_operator.types import object_name

# What a policy engine might do, besides KServe's webhook, which rewrites the amounts.
CHANGES = """
[
  JSONPatch{op: "add", path: "/spec/predictor/labels/team", value: "shop"},
  JSONPatch{op: "add", path: "/spec/predictor/tolerations", value: [{"key": "gpu", "operator": "Exists"}]},
  JSONPatch{op: "replace", path: "/spec/predictor/model/runtime", value: "mirrored"},
  JSONPatch{op: "add", path: "/metadata/annotations/example.com~1seen", value: "yes"}
]
"""
SERVING = {
    "resources": {"limits": {"memory": "1024Mi", "nvidia.com/gpu": 1}},
    "tolerations": [{"key": "spot", "operator": "Exists"}],
}


def make(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    version = "admissionregistration.k8s.io/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def changing(shop: Shop) -> Iterator[None]:
    """Everything that is written to this namespace's InferenceServices is changed on the way."""
    name = f"changes-{shop.namespace}"
    served = shop.server.kubectl("api-resources", "--api-group=admissionregistration.k8s.io").stdout
    if not any(line.split()[0] == "mutatingadmissionpolicies" and "/v1 " in line for line in served.splitlines()):
        pytest.skip("needs MutatingAdmissionPolicy v1 (Kubernetes 1.36)")
    rule = {
        "apiGroups": ["serving.kserve.io"],
        "apiVersions": ["v1beta1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["inferenceservices"],
    }
    selector = {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}}
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": CHANGES}}],
    }
    for obj in (
        make("MutatingAdmissionPolicy", name, policy),
        make("MutatingAdmissionPolicyBinding", name, {"policyName": name}),
    ):
        shop.server.kubectl("apply", "-f", "-", stdin=json.dumps(obj))
    probe = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "probe", "annotations": {"a": "b"}},
        "spec": {"predictor": {"labels": {"a": "b"}, "model": {"runtime": "x", "modelFormat": {"name": "x"}}}},
    }

    def is_changed() -> bool:
        words = ["-n", shop.namespace, "create", "--dry-run=server", "-o", "json", "-f", "-"]
        return "mirrored" in shop.server.kubectl(*words, stdin=json.dumps(probe), check=False).stdout

    wait_for(is_changed, what="the admission policy to be in force")
    yield
    for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
        shop.server.kubectl("delete", kind, name)


@pytest.mark.usefixtures("changing")
def test_what_admission_changes_is_no_edit_and_a_persons_patch_can_be_restored(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start_policy(serving=SERVING)
    shop.start_operator()
    shop.until_serving()
    version = shop.publish("run-1")
    shop.until(version, "Paused")
    for made in (shop.base, version):
        generation = shop.get(kinds.INFERENCE_SERVICE, shop.server_of(made))["metadata"]["generation"]
        assert generation == 1, "it is written once, and not written against"
        model = shop.get(kinds.INFERENCE_SERVICE, shop.server_of(made))["spec"]["predictor"]["model"]
        assert model["resources"] == {"limits": {"memory": "1Gi", "nvidia.com/gpu": "1"}}
    server = shop.server_of(shop.base)
    patch = json.dumps({"spec": {"predictor": {"minReplicas": 5}}})
    shop.server.kubectl("-n", shop.namespace, "patch", "inferenceservice", server, "--type=merge", "-p", patch)
    found = shop.until_condition("Stalled", "TargetModified")
    assert found["message"].startswith("kubectl-patch changed spec.predictor.minReplicas")
    remedy = f"tunegate policy restore {POLICY_NAME} -n {shop.namespace}"
    assert remedy in found["message"]
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(shop.server.kubeconfig))
    result = CliRunner().invoke(root, remedy.split()[1:])
    assert result.exit_code == 0, (result.output, result.exception)

    def live() -> dict[str, Any]:
        return dict(shop.get(kinds.INFERENCE_SERVICE, server)["spec"]["predictor"])

    wait_for(lambda: live()["minReplicas"] == 1, what="the value to be put back")
    assert (live()["model"]["runtime"], live()["labels"]["team"]) == ("mirrored", "shop"), "and no other"
    shop.until_serving()


@pytest.mark.usefixtures("changing")
def test_a_rollout_replaces_the_pods_of_each_server_once_whatever_admission_makes_of_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.start_policy(serving=SERVING)
    shop.start_operator()
    shop.until_serving()
    version = shop.publish("run-1")
    shop.until(version, "Paused")
    more = {"resources": {"limits": {"memory": "2048Mi"}}, "tolerations": SERVING["tolerations"]}
    patch = json.dumps([{"op": "replace", "path": "/spec/serving", "value": more}])
    shop.server.kubectl("-n", shop.namespace, "patch", "promotionpolicy", POLICY_NAME, "--type=json", "-p", patch)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(shop.server.kubeconfig))
    result = CliRunner().invoke(root, ["policy", "rollout", POLICY_NAME, "-n", shop.namespace])
    assert result.exit_code == 0, (result.output, result.exception)
    wait_for(lambda: "RolledOut" in {reason for reason, _ in shop.events()}, what="the servers to be rolled out")
    wait_for(lambda: shop.hands.replaced == 2, what="the pods of both servers to be replaced")
    assert "rolledOut" in shop.get(kinds.POLICY, POLICY_NAME)["status"]
    for made in (shop.base, version):
        server = shop.get(kinds.INFERENCE_SERVICE, shop.server_of(made))
        assert server["metadata"]["generation"] == 2, "it is written once, and not written against"
        assert server["spec"]["predictor"]["model"]["resources"] == {"limits": {"memory": "2Gi"}}
    assert shop.condition(kinds.POLICY, POLICY_NAME, "Stalled")["reason"] != "TargetModified"
    assert shop.phase(version) == "Paused"
    shop.hands.deployments.clear()  # they were meant to be replaced


@pytest.fixture
def dead_webhook(shop: Shop) -> Iterator[Callable[[str, str], None]]:
    """Makes the API server ask a webhook that does not answer about one kind in this namespace."""
    name = f"dead-{shop.namespace}"

    def begin(group: str, plural: str) -> None:
        webhook = {
            "name": "dead.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:9/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shop.namespace}},
            "rules": [
                {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [plural]}
            ],
        }
        obj = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        made = {**obj, "metadata": {"name": name}, "webhooks": [webhook]}
        shop.server.kubectl("apply", "-f", "-", stdin=json.dumps(made))
        # The API server takes a moment to heed it.
        listed = shop.server.kubectl("-n", shop.namespace, "get", plural, "-o", "name").stdout.split()

        def is_heeded() -> bool:
            words = ["annotate", listed[0], f"probe={time.monotonic()}", "--overwrite", "--dry-run=server"]
            return "failed calling" in shop.server.kubectl("-n", shop.namespace, *words, check=False).stderr

        wait_for(is_heeded, what="the webhook to be asked")

    yield begin
    shop.server.kubectl("delete", "validatingwebhookconfiguration", name)


@pytest.mark.parametrize(
    ("group", "plural", "about"),
    [("serving.kserve.io", "inferenceservices", "Serving"), ("batch", "jobs", "Ready")],
    ids=["KServe", "Kueue"],
)
def test_a_rollback_reaches_the_route_while_a_webhook_is_away(
    shop: Shop, dead_webhook: Callable[[str, str], None], group: str, plural: str, about: str
) -> None:
    shop.start_policy()
    shop.start_operator()
    version = shop.publish("run-1")
    shop.until(version, "Paused")
    dead_webhook(group, plural)
    patch = json.dumps({"spec": {"serving": {"replicas": 2}}})
    shop.server.kubectl("-n", shop.namespace, "patch", "promotionpolicy", POLICY_NAME, "--type=merge", "-p", patch)
    shop.publish("run-2")
    found = shop.until_condition(about, "WebhookUnavailable")
    assert "failed calling webhook" in found["message"]
    abort = json.dumps({"spec": {"abort": {"actor": "ada", "message": "enough"}}})
    name = object_name(version)
    shop.server.kubectl("-n", shop.namespace, "patch", "promotion", name, "--type=merge", "-p", abort)
    wait_for(lambda: shop.weights() == {shop.server_of(shop.base): 100}, what="the traffic to go back")
    shop.until(version, "Aborted")
    assert "WebhookUnavailable" in {reason for reason, _ in shop.events()}
