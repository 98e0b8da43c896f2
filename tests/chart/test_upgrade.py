"""`helm upgrade` from the chart of an earlier release: what is in the cluster stays, and stays valid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, call
from tests.chart.rendering import CHART, REPOSITORY, Object, helm, render
from tests.operator.objects import CONDITION, PLURALS, STATUS, policy, promotion, version
from tunegate_operator.edits import is_same

# The chart as it was packaged at commit 2d11983.
BEFORE = Path(__file__).with_name("data") / "chart-2d11983.tgz"
VALUES = CHART / "ci/minimal-values.yaml"
NAMESPACE = "models"
CRDS = "customresourcedefinitions"
# A server as the operator of then made it.
MADE = json.loads((REPOSITORY / "tests/unit/operator/data/objects-2d11983.json").read_text())["InferenceService"]
SERVER: Object = {**MADE, "metadata": {**MADE["metadata"], "namespace": NAMESPACE}}
CONTENT = ("spec", "data", "rules", "subjects", "roleRef")
# Fields of a status that are newer.
NEW = ("servers", "restored", "rolledOut")
REUSED: dict[str, Object] = {}  # what an upgrade with --reuse-values made
RUNTIMES = "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes"


@pytest.fixture(scope="module")
def before(cluster: ApiServer) -> Iterator[dict[str, Object]]:
    """The chart of before, installed, with objects of all our kinds and a server; what there was, by kind and name."""
    for name in ("tunegate", NAMESPACE):
        cluster.kubectl("create", "namespace", name)
    change(cluster, "install", BEFORE)
    with cluster.client() as client:
        for made in (policy(), version(), promotion()):
            make_old(client, made)
        call(client, "POST", f"/apis/serving.kserve.io/v1beta1/namespaces/{NAMESPACE}/inferenceservices", SERVER)
    found = everything(cluster)
    assert {key.split("/")[0] for key in found} >= {*PLURALS, "InferenceService", "Secret", "CustomResourceDefinition"}
    # Values of then, with none of a key that is newer; the next upgrade gives today's.
    helm("upgrade", "tunegate", str(CHART), "--reuse-values", *where(cluster))
    REUSED.update(released(cluster))
    change(cluster, "upgrade", CHART)
    yield found
    helm("uninstall", "tunegate", *where(cluster))


def test_objects_and_servers_are_as_they_were(cluster: ApiServer, before: dict[str, Object]) -> None:
    after = everything(cluster)
    for key, obj in before.items():
        assert after[key]["metadata"]["uid"] == obj["metadata"]["uid"], key
        if key.split("/")[0] in (*PLURALS, "InferenceService"):
            assert is_same(obj, after[key]), "but for the defaults of fields that are new"
        if key.startswith("Secret/"):
            assert after[key].get("data") == obj.get("data"), "a new key refuses the response ids given out before"


def test_servers_keep_the_runtime_they_were_started_with(cluster: ApiServer, before: dict[str, Object]) -> None:
    """KServe restarts every server of a runtime whose spec changes, and can't restart a pod of one that is gone."""
    name = SERVER["spec"]["predictor"]["model"]["runtime"]
    (wanted,) = (obj for obj in render(VALUES) if obj["kind"] == "ClusterServingRuntime")
    assert wanted["metadata"]["name"] != name
    with cluster.client() as client:
        kept = call(client, "GET", f"{RUNTIMES}/{name}")
        assert kept["metadata"]["uid"] == before[f"ClusterServingRuntime//{name}"]["metadata"]["uid"]
        assert kept["spec"] == before[f"ClusterServingRuntime//{name}"]["spec"]
        call(client, "GET", f"{RUNTIMES}/{wanted['metadata']['name']}")


def test_a_policy_that_kserve_could_not_serve_is_refused_with_the_numbers(
    cluster: ApiServer, before: dict[str, Object]
) -> None:
    for length, words in ((33, ""), (34, "64"), (36, "35 characters")):
        obj = {**policy(name="a" * length), "metadata": {"name": "a" * length, "namespace": NAMESPACE}}
        done = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(obj), check=False)
        assert bool(words) == bool(done.returncode), done.stderr
        assert words in done.stderr


def test_todays_schema_takes_the_objects_of_before(cluster: ApiServer, before: dict[str, Object]) -> None:
    with cluster.client() as client:
        for kind, plural in PLURALS.items():
            old = next(obj for key, obj in before.items() if key.startswith(f"{kind}/"))
            again = {**old, "metadata": {"name": f"again-{old['metadata']['name']}"}}
            make_old(client, again, again["status"])
            found = call(client, "GET", path_of(plural, again["metadata"]["name"]))
            assert is_same(old["spec"], found["spec"]), "but for the defaults of fields that are new"
            assert found["status"] == old["status"]


def test_the_operator_is_the_one_of_today(cluster: ApiServer, before: dict[str, Object]) -> None:
    (wanted,) = (each for each in render(VALUES) if each["kind"] == "Deployment")
    found = json.loads(
        cluster.kubectl("get", "deployment", "tunegate-operator", "-n", "tunegate", "--output", "json").stdout
    )
    pod = wanted["spec"]["template"]["spec"]["containers"][0]
    running = found["spec"]["template"]["spec"]["containers"][0]
    assert (running["image"], running["args"]) == (pod["image"], pod["args"])


def test_values_kept_from_the_earlier_release_make_what_todays_make(
    cluster: ApiServer, before: dict[str, Object]
) -> None:
    today = released(cluster)
    assert REUSED.keys() == today.keys()
    for name, obj in today.items():
        kept = REUSED[name]
        assert {key: kept.get(key) for key in CONTENT} == {key: obj.get(key) for key in CONTENT}, name


def change(cluster: ApiServer, verb: str, chart: Path) -> None:
    words = ["--values", str(VALUES), "--set", f"namespaces={{{NAMESPACE}}}", "--set", "feedback.create=true"]
    helm(verb, "tunegate", str(chart), *words, *where(cluster))


def where(cluster: ApiServer) -> list[str]:
    return ["--kubeconfig", str(cluster.kubeconfig), "--namespace", "tunegate"]


def released(cluster: ApiServer) -> dict[str, Object]:
    """What the release has of what an upgrade changes, as the API server keeps it."""
    kinds = "deployments,configmaps,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,"
    kinds += "clusterservingruntimes,clusterstoragecontainers,validatingadmissionpolicies"
    found = cluster.kubectl(
        "get", kinds, "--all-namespaces", "--output", "json", "-l", "app.kubernetes.io/name=tunegate"
    )
    return {f"{obj['kind']}/{obj['metadata']['name']}": obj for obj in json.loads(found.stdout)["items"]}


def path_of(plural: str, *more: str) -> str:
    return "/".join((f"/apis/tunegate.io/v1alpha1/namespaces/{NAMESPACE}", plural, *more))


def make_old(client: object, obj: Object, status: Object | None = None) -> None:
    """The object with its status, strictly checked."""
    plural, name = PLURALS[obj["kind"]], obj["metadata"]["name"]
    strict = {"fieldValidation": "Strict"}
    made = call(client, "POST", path_of(plural), {key: obj[key] for key in obj if key != "status"}, query=strict)  # type: ignore[arg-type]
    known = {key: value for key, value in STATUS[obj["kind"]].items() if key not in NEW}
    made["status"] = status or known | {"conditions": [CONDITION], "observedGeneration": 1}
    call(client, "PUT", path_of(plural, name, "status"), made, query=strict)  # type: ignore[arg-type]


def everything(cluster: ApiServer) -> dict[str, Object]:
    kinds = ",".join([*PLURALS.values(), "inferenceservices", "secrets", "clusterservingruntimes"])
    lists = [
        cluster.kubectl("get", kinds, "--all-namespaces", "--output", "json"),
        cluster.kubectl("get", CRDS, "--output", "json"),
    ]
    objects = [obj for listed in lists for obj in json.loads(listed.stdout)["items"]]
    return {
        f"{obj['kind']}/{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}": obj
        for obj in objects
        if obj.get("type") != "helm.sh/release.v1"
    }
