"""What a real API server makes of the chart: installing, who may do what, pod security, and true approvals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, call
from tests.chart.rendering import CHART, VALUES_FILES, Object, helm, pod_templates, render
from tests.waiting import wait_for

OPERATOR = "system:serviceaccount:tunegate:tunegate-operator"
FEEDBACK = {"namespaces": ["models"], "feedback": {"create": True}}


@dataclass
class Release:
    """The chart, installed under its usual name."""

    cluster: ApiServer

    def run(self, *words: str, values: Object | None = None, check: bool = True) -> str:
        arguments = [*words, "--kubeconfig", str(self.cluster.kubeconfig), "--namespace", "tunegate"]
        if values is not None:
            arguments += ["--values", str(CHART / "ci/minimal-values.yaml"), "--values", "-"]
        done = helm(*arguments, check=check, stdin=json.dumps(values or {}))
        return done.stdout + done.stderr

    def upgrade(self, values: Object) -> str:
        return self.run("upgrade", "--install", "tunegate", str(CHART), values=values)

    def get(self, *words: str) -> list[Object]:
        return list(json.loads(self.cluster.kubectl("get", *words, "--output", "json").stdout)["items"])


@pytest.fixture(scope="module")
def release(cluster: ApiServer) -> Iterator[Release]:
    for name in ("tunegate", "models"):
        cluster.kubectl("create", "namespace", name)
    installed = Release(cluster)
    installed.run("install", "tunegate", str(CHART), values=FEEDBACK)
    yield installed
    installed.run("uninstall", "tunegate", "--ignore-not-found")


def test_the_notes_end_with_what_to_do_next(release: Release) -> None:
    text = release.upgrade(FEEDBACK)
    assert "watches all namespaces; the models are in s3://models." in text
    assert "Each namespace with policies needs the Secret tunegate-store" in text
    assert [line.strip() for line in text.strip().splitlines()][-2:] == [
        "helm test tunegate --namespace tunegate",
        "kubectl get promotionpolicies,promotions --all-namespaces --watch",
    ]


def test_a_second_upgrade_changes_nothing(release: Release) -> None:
    def state() -> dict[str, str]:
        kinds = (
            "deployments,services,serviceaccounts,secrets,roles,rolebindings,clusterroles,clusterrolebindings,"
            "clusterservingruntimes,clusterstoragecontainers,validatingadmissionpolicies,customresourcedefinitions"
        )
        return {
            f"{each['kind']}/{each['metadata'].get('namespace')}/{each['metadata']['name']}": each["metadata"]["uid"]
            + each["metadata"]["resourceVersion"]
            for each in release.get(kinds, "--all-namespaces", "--selector=app.kubernetes.io/instance=tunegate")
        }

    before = state()
    assert len(before) > 10
    release.upgrade(FEEDBACK)
    assert state() == before


def test_the_feedback_key_is_kept_over_upgrades(release: Release) -> None:
    def key(namespace: str) -> str:
        (secret,) = release.get("secrets", "--namespace", namespace, "--field-selector=metadata.name=tunegate-feedback")
        return str(secret["data"]["TUNEGATE_FEEDBACK_KEY"])

    before = key("models")
    release.upgrade(FEEDBACK | {"operator": {"scanSeconds": 60}})
    assert key("models") == before
    assert key("models") != key("tunegate")
    release.upgrade(FEEDBACK)


@pytest.mark.parametrize("path", VALUES_FILES, ids=lambda path: path.name)
def test_the_api_server_accepts_every_set_of_values(path: Path, cluster: ApiServer, release: Release) -> None:
    # No controller makes the service account that a bare pod needs here; pods have their own test.
    objects = [each for each in render(path, release="other") if each["kind"] != "Pod"]
    for namespace in {each["metadata"].get("namespace", "tunegate") for each in objects}:
        cluster.kubectl("create", "namespace", namespace, check=False)
    text = "---\n".join(json.dumps(each) + "\n" for each in objects)
    cluster.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", stdin=text)


MAY = [
    "list promotionpolicies.tunegate.io",
    "watch promotions.tunegate.io",
    "create promotions.tunegate.io",
    "create modelversions.tunegate.io",
    "delete promotions.tunegate.io",
    "patch promotionpolicies.tunegate.io/status",
    "patch promotions.tunegate.io/status",
    "patch modelversions.tunegate.io/status",
    "create jobs.batch",
    "delete jobs.batch",
    "list pods",
    "patch services",
    "create inferenceservices.serving.kserve.io",
    "delete inferenceservices.serving.kserve.io",
    "patch httproutes.gateway.networking.k8s.io",
    "watch workloads.kueue.x-k8s.io",
    "watch pytorchjobs.kubeflow.org",
    "patch pytorchjobs.kubeflow.org",
    "watch trainjobs.trainer.kubeflow.org",
    "patch trainjobs.trainer.kubeflow.org",
    "create events.events.k8s.io",
]
MAY_NOT = [
    "get promotionpolicies.tunegate.io",
    "patch modelversions.tunegate.io",
    "get secrets",
    "list secrets",
    "create pods",
    "delete pods",
    "create pods/exec",
    "get configmaps",
    "create deployments.apps",
    "patch promotionpolicies.tunegate.io",
    "delete promotionpolicies.tunegate.io",
    "update promotions.tunegate.io/status",
    "create pytorchjobs.kubeflow.org",
    "delete pytorchjobs.kubeflow.org",
    "delete namespaces",
    "create rolebindings.rbac.authorization.k8s.io",
    "create serviceaccounts/token",
    "impersonate users",
    "patch clusterservingruntimes.serving.kserve.io",
    "patch gateways.gateway.networking.k8s.io",
]


def _can(cluster: ApiServer, words: str, *, user: str = OPERATOR, namespace: str = "models") -> bool:
    """The answer of `kubectl auth can-i`, without the second that kubectl takes."""
    verb, _, what = words.partition(" ")
    resource, _, rest = what.partition("/")
    plural, _, group = resource.partition(".")
    named = "name" if plural == "leases" else "subresource"
    asked = {"verb": verb, "namespace": namespace, "group": group, "resource": plural, named: rest}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    with cluster.client() as client:
        answer = call(
            client,
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {**review, "spec": {"user": user, "resourceAttributes": asked}},
        )
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize("words", MAY)
def test_the_operator_may(words: str, cluster: ApiServer, release: Release) -> None:
    assert _can(cluster, words)


@pytest.mark.parametrize("words", MAY_NOT)
def test_the_operator_may_not(words: str, cluster: ApiServer, release: Release) -> None:
    assert not _can(cluster, words)


@pytest.mark.parametrize(
    ("words", "namespace", "expected"),
    [
        ("patch leases.coordination.k8s.io/tunegate-operator", "tunegate", True),
        ("create leases.coordination.k8s.io", "tunegate", True),
        ("patch leases.coordination.k8s.io/another", "tunegate", False),
        ("delete leases.coordination.k8s.io/tunegate-operator", "tunegate", False),
        ("get leases.coordination.k8s.io/tunegate-operator", "models", False),
    ],
)
def test_the_operator_has_its_own_lease(
    words: str, namespace: str, expected: bool, cluster: ApiServer, release: Release
) -> None:
    assert _can(cluster, words, namespace=namespace) is expected


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "viewer",
            ["get promotions.tunegate.io", "list promotionpolicies.tunegate.io"],
            ["patch promotions.tunegate.io", "create promotionpolicies.tunegate.io"],
        ),
        (
            "editor",
            ["create promotionpolicies.tunegate.io", "delete promotionpolicies.tunegate.io"],
            [
                "patch promotions.tunegate.io",
                "create modelversions.tunegate.io",
                "patch promotionpolicies.tunegate.io/status",
            ],
        ),
        (
            "approver",
            [
                "patch promotions.tunegate.io",
                "get modelversions.tunegate.io",
                "create promotions.tunegate.io",
                "delete promotions.tunegate.io",
                "delete modelversions.tunegate.io",
            ],
            [
                "create modelversions.tunegate.io",
                "patch promotionpolicies.tunegate.io",
                "patch promotions.tunegate.io/status",
            ],
        ),
    ],
)
def test_what_people_may(role: str, may: list[str], may_not: list[str], cluster: ApiServer, release: Release) -> None:
    name = f"{role}-of-models"
    words = ["create", "rolebinding", name, f"--clusterrole=tunegate-{role}", f"--user={name}", "--namespace=models"]
    cluster.kubectl(*words)
    # The authorizer hears of a binding a moment later.
    wait_for(lambda: _can(cluster, may[0], user=name), what="the binding to count")
    assert [_can(cluster, each, user=name) for each in may] == [True] * len(may)
    assert [_can(cluster, each, user=name) for each in may_not] == [False] * len(may_not)


@pytest.mark.parametrize("path", VALUES_FILES, ids=lambda path: path.name)
def test_pod_security_restricted_admits_every_pod(path: Path, cluster: ApiServer) -> None:
    namespace = cluster.new_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    for name, template in pod_templates(render(path)):
        spec = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
        mounts = [mount["name"] for container in spec["containers"] for mount in container.get("volumeMounts", [])]
        # A StatefulSet's claim; any volume does here.
        spec["volumes"] = [*spec.get("volumes", []), *([{"name": "data", "emptyDir": {}}] if "data" in mounts else [])]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "any-"}, "spec": spec}
        done = cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(pod), check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"


def _promotion(name: str, **spec: Object) -> str:
    return json.dumps(
        {
            "apiVersion": "tunegate.io/v1alpha1",
            "kind": "Promotion",
            "metadata": {"name": name, "namespace": "models"},
            "spec": {"policy": "shop", "version": "shop-run-aaaaaaaaaaaa", **spec},
        }
    )


@pytest.fixture
def approvers(cluster: ApiServer, release: Release) -> None:
    """Alice and Bob may patch promotions, and the admission policy is in force."""
    rule = ["create", "rolebinding", "people", "--clusterrole=tunegate-approver", "--namespace=models"]
    cluster.kubectl(*rule, "--user=alice", "--user=bob", check=False)
    wait_for(lambda: _can(cluster, "patch promotions.tunegate.io", user="alice"), what="the binding to count")
    forged = _promotion("probe", abort={"actor": "somebody"})
    wait_for(
        lambda: cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=forged, check=False).returncode != 0,
        what="the admission policy to be in force",
    )


def _patch(cluster: ApiServer, name: str, user: str, spec: Object) -> str:
    words = ["patch", "promotion", name, "--namespace=models", f"--as={user}", "--type=merge", "-p"]
    done = cluster.kubectl(*words, json.dumps({"spec": spec}), check=False)
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("field", "words"), [("approval", {"verdict": "Approved"}), ("abort", {"message": "wrong prices"})]
)
def test_nobody_speaks_in_anothers_name(
    field: str, words: Object, cluster: ApiServer, release: Release, approvers: None
) -> None:
    name = f"attempt-{field}"
    cluster.kubectl("create", "-f", "-", stdin=_promotion(name))
    said = _patch(cluster, name, "alice", {field: {**words, "actor": "bob"}})
    assert f"spec.{field}.actor must be alice, the user who asks, not bob" in said
    assert _patch(cluster, name, "alice", {field: {**words, "actor": "alice"}}) == ""
    # Somebody else may still touch the object, for a label say, or to abort what Alice approved.
    cluster.kubectl("label", "promotion", name, "--namespace=models", "--as=bob", "seen=true")
    if field == "approval":
        assert _patch(cluster, name, "bob", {"abort": {"actor": "bob"}}) == ""


def test_a_promotion_is_not_made_with_a_forged_approval(cluster: ApiServer, release: Release, approvers: None) -> None:
    forged = _promotion("forged", approval={"verdict": "Approved", "actor": "alice"})
    done = cluster.kubectl("create", "-f", "-", stdin=forged, check=False)
    assert "spec.approval.actor must be admin" in done.stderr


def test_uninstalling_leaves_the_kinds_and_their_records(cluster: ApiServer, release: Release) -> None:
    cluster.kubectl("create", "-f", "-", stdin=_promotion("record"))
    release.run("uninstall", "tunegate")
    assert cluster.kubectl("get", "promotion", "record", "--namespace=models").returncode == 0
    assert release.get("deployments", "--namespace=tunegate") == []
    # And a new installation takes them over.
    release.run("install", "tunegate", str(CHART), values=FEEDBACK)
