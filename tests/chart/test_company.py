"""What companies set on every pod reaches every pod: those of the chart, those that the operator makes, KServe's."""

from __future__ import annotations

import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.apiserver import ApiServer
from tests.builders import make_cluster_policy, make_version
from tests.chart.rendering import (
    CHART,
    REPOSITORY,
    Object,
    check_against_crd,
    helm,
    pick,
    pod_templates,
    refusal,
    render,
)
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import manifests
from tunegate_operator.__main__ import command
from tunegate_operator.config import Config

ALL = {"storage": {"enabled": True}, "serving": {"vllm": {"enabled": True}}}
CA_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
COMPONENTS = ("operator", "evaluation", "serving", "storage")
KNOBS: dict[str, Any] = {
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
    "runtimeClassName": "gvisor",
    "podLabels": {"azure.workload.identity/use": "true"},
    "podAnnotations": {"sidecar.istio.io/inject": "false"},
    "extraEnv": [{"name": "LC_ALL", "value": "C"}],
}


def over(*values: Object) -> Object:
    """Each laid over the one before, as Helm does."""
    found: Object = {}
    for each in values:
        for key, value in each.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = over(found[key], value) if both else value
    return found


def operator_config(objects: list[Object]) -> Config:
    """What the operator of this release would be started with."""
    (container,) = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    # A kubelet replaces variables, and makes one dollar of two.
    words = [
        word.replace("$(EVALUATION_IMAGE)", evaluation_image(container)).replace("$$", "$")
        for word in container["args"]
    ]
    context = command.make_context("tunegate-operator", [*words, "--no-lease"])
    return Config(**{name: value for name, value in context.params.items() if name != "no_lease"})


def evaluation_image(container: Object) -> str:
    return next(str(each["value"]) for each in container["env"] if each["name"] == "EVALUATION_IMAGE")


def made(objects: list[Object], **policy: Any) -> tuple[Object, Object]:
    """The evaluation Job and the InferenceService that this release's operator makes."""
    config, version, wanted = operator_config(objects), make_version("run-1"), make_cluster_policy(**policy)
    job = manifests.evaluation_job("models", wanted, "shop", EvaluationJob(version, "quality"), config)
    return job, manifests.inference_service("models", wanted, "shop", version, config)


def every_pod(values: Object) -> dict[str, Object]:
    """The pod of each component, KServe's as KServe puts it together."""
    objects = render(over(ALL, values))
    job, server = made(objects)
    runtime = server["spec"]["predictor"]["model"]["runtime"]
    templates = dict(pod_templates(objects))
    predictor = server["spec"]["predictor"]
    scheme = predictor["model"]["storageUri"].partition("://")[0]
    initializer = pick(objects, "ClusterStorageContainer", scheme)["spec"]["container"]
    served = templates[f"ClusterServingRuntime/{runtime}"]["spec"]
    (container,) = served["containers"]
    names = ("env", "volumeMounts")
    joined = {name: [*container.get(name, ()), *predictor["model"].get(name, ())] for name in names}
    volumes = [*served["volumes"], *predictor.get("volumes", ())]
    spec = {**{k: v for k, v in predictor.items() if k not in ("labels", "annotations", "model")}}
    spec |= {"imagePullSecrets": served.get("imagePullSecrets", []), "volumes": volumes}
    spec |= {"containers": [{**container, **joined}], "initContainers": [initializer]}
    metadata = {key: predictor.get(key, {}) for key in ("labels", "annotations")}
    (operator,) = (each for name, each in templates.items() if name.startswith("Deployment/"))
    (store,) = (each for name, each in templates.items() if name.startswith("StatefulSet/"))
    pods = {"operator": operator, "storage": store, "evaluation": job["spec"]["template"]}
    return pods | {"serving": {"metadata": metadata, "spec": spec}}


def variables(container: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container.get("env", ())}


@pytest.mark.parametrize("component", COMPONENTS)
def test_each_component_takes_what_is_set_for_it_alone(component: str) -> None:
    for name, pod in every_pod({component: KNOBS}).items():
        spec, metadata = pod["spec"], pod["metadata"]
        found = {key: spec.get(key) for key in KNOBS if key in spec}
        found |= {"podLabels": metadata["labels"], "podAnnotations": metadata.get("annotations", {})}
        is_set = name == component
        for key in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName"):
            assert (found.get(key) == KNOBS[key]) is is_set, (name, key)
        assert ("azure.workload.identity/use" in found["podLabels"]) is is_set
        assert ("sidecar.istio.io/inject" in found["podAnnotations"]) is is_set
        assert ("LC_ALL" in variables(spec["containers"][0])) is is_set


def test_what_the_operator_makes_with_all_of_it_is_what_kubernetes_and_kserve_know(foreign: dict[str, Object]) -> None:
    values = dict.fromkeys(COMPONENTS, KNOBS) | {"caBundle": {"secret": "ca"}, "proxy": {"httpsProxy": "http://p"}}
    objects = render(over(ALL, values, {"commonLabels": {"team": "shop"}, "image": {"pullSecrets": ["registry"]}}))
    job, server = made(objects)
    kubernetes_validate.validate(job, "1.36", strict=True)
    check_against_crd(server, foreign["InferenceService"])
    for labels in (job["spec"]["template"]["metadata"]["labels"], server["spec"]["predictor"]["labels"]):
        assert labels["team"] == "shop"
    for pod in (job["spec"]["template"]["spec"], server["spec"]["predictor"]):
        assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_pod_security_restricted_admits_what_the_operator_makes(cluster: ApiServer) -> None:
    namespace = cluster.new_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    for name, pod in every_pod({"caBundle": {"configMap": "ca"}, "proxy": {"httpsProxy": "http://p"}}).items():
        if name == "storage":
            continue  # its claim is a StatefulSet's
        known = ("securityContext", "volumes", "containers", "initContainers", "automountServiceAccountToken")
        spec = {key: value for key, value in pod["spec"].items() if key in known}
        spec["volumes"] = [*spec["volumes"], {"name": "kserve-provision-location", "emptyDir": {}}]
        spec["volumes"] = list({each["name"]: each for each in spec["volumes"]}.values())
        made_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "any-"}, "spec": spec}
        text = json.dumps(
            {**made_pod, "spec": {**spec, "restartPolicy": "Always" if name != "evaluation" else "Never"}}
        )
        done = cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=text, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr}"


@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_a_ca_is_where_each_library_of_a_pod_looks_for_it(kind: str) -> None:
    for name, pod in every_pod({"caBundle": {kind: "company", "key": "root.pem"}}).items():
        if name == "storage":
            continue  # it calls nobody
        (source,) = (each[kind] for each in pod["spec"]["volumes"] if each["name"] == "ca")
        assert "company" in source.values()
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == "ca")
            assert mount["readOnly"] is True
            path = f"{mount['mountPath']}/root.pem"
            assert {variables(container).get(each) for each in CA_VARIABLES} == {path}, name
    assert not [name for name, pod in every_pod({}).items() if "ca" in [v["name"] for v in pod["spec"]["volumes"]]]


def test_servers_from_before_keep_an_initializer_without_the_ca() -> None:
    """Their pods have no such volume, and would be refused when a node is drained."""
    before, after = (render(over(ALL, {"caBundle": {"configMap": ca}})) for ca in ("", "company"))
    old = pick(before, "ClusterStorageContainer")
    assert pick(after, "ClusterStorageContainer", "tunegate") == old
    assert pick(after, "ClusterStorageContainer", "tunegate-ca")["spec"]["supportedUriFormats"] == [
        {"prefix": "tunegate-ca://"}
    ]


def test_a_proxy_stands_before_what_is_outside_alone() -> None:
    proxy = {"httpProxy": "http://p:3128", "httpsProxy": "http://p:3129", "noProxy": "s3.internal.example"}
    values = {"proxy": proxy, "operator": {"prometheusUrl": "http://prometheus.monitoring:9090"}}
    objects = every_pod(values)
    assert "HTTP_PROXY" not in variables(objects.pop("storage")["spec"]["containers"][0])
    for pod in objects.values():
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            found = variables(container)
            assert (found["HTTP_PROXY"], found["HTTPS_PROXY"]) == ("http://p:3128", "http://p:3129")
            around = found["NO_PROXY"].split(",")
            assert {"127.0.0.1", "localhost", "$(KUBERNETES_SERVICE_HOST)", ".svc", ".cluster.local"} <= set(around)
            assert {"prometheus.monitoring", "s3.internal.example"} <= set(around)
    own = {"proxy": proxy, "operator": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://mine"}]}}
    (container,) = every_pod(own)["operator"]["spec"]["containers"]
    assert [each for each in container["env"] if each["name"] == "HTTPS_PROXY"] == own["operator"]["extraEnv"]


def test_no_proxy_for_anything_stays_a_word_of_its_own() -> None:
    """In a list, urllib takes it for the name of a host."""
    proxy = {"httpProxy": "http://p:3128", "noProxy": "s3.internal.example,*"}
    (container,) = every_pod({"proxy": proxy})["operator"]["spec"]["containers"]
    assert variables(container)["NO_PROXY"] == "*"


def test_jobs_that_people_make_find_proxy_and_ca() -> None:
    values = {"proxy": {"httpsProxy": "http://p"}, "caBundle": {"configMap": "tunegate-ca"}, "namespaces": ["shop"]}
    (job,) = (each for each in yaml.safe_load_all((REPOSITORY / "pipelines/30-evaluate-by-hand.yaml").read_text()))
    spec = job["spec"]["template"]["spec"]
    named = [each["configMapRef"]["name"] for each in spec["containers"][0]["envFrom"] if "configMapRef" in each]
    data = pick(render(values), "ConfigMap", named[0], "shop")["data"]
    assert data["HTTPS_PROXY"] == "http://p"
    assert "$" not in data["NO_PROXY"]
    (mount,) = (each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "ca")
    assert {data[name] for name in CA_VARIABLES} == {f"{mount['mountPath']}/ca.crt"}
    other = render(values | {"caBundle": {"configMap": "company"}})
    assert not set(CA_VARIABLES) & pick(other, "ConfigMap", named[0], "shop")["data"].keys()


def test_roles_take_the_place_of_keys() -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}
    account = {"serviceAccount": {"create": True, "annotations": role}}
    values = {"namespaces": ["shop"], "store": {"secretName": ""}}
    objects = render(over(ALL | {"storage": {}}, values, dict.fromkeys(("operator", "evaluation", "serving"), account)))
    job, server = made(objects)
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each
        for each in objects
        if each["kind"] == "ServiceAccount"
    }
    pods = {"tunegate": pick(objects, "Deployment")["spec"]["template"]["spec"]}
    for namespace, spec in (
        *pods.items(),
        ("shop", job["spec"]["template"]["spec"]),
        ("shop", server["spec"]["predictor"]),
    ):
        assert accounts[namespace, spec["serviceAccountName"]]["metadata"]["annotations"] == role
    text = json.dumps([*objects, job, server])
    assert "secretKeyRef" not in text.replace(json.dumps(server), "")
    assert "AWS_ACCESS_KEY_ID" not in text


def test_an_account_of_ones_own_is_used_and_not_made() -> None:
    named = {
        "operator": {"serviceAccount": {"create": False, "name": "mine"}},
        "serving": {"serviceAccountName": "models"},
    }
    objects = render(named)
    assert not [each for each in objects if each["kind"] == "ServiceAccount"]
    assert pick(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    for binding in (each for each in objects if each["kind"].endswith("RoleBinding") or each["kind"] == "RoleBinding"):
        assert {each["name"] for each in binding["subjects"]} == {"mine"}
    assert made(objects)[1]["spec"]["predictor"]["serviceAccountName"] == "models"


def test_temporary_keys_and_keys_of_other_names_reach_every_pod() -> None:
    keys = {"accessKeyId": "id", "secretAccessKey": "secret", "sessionToken": "token"}
    wanted = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}
    for name, pod in every_pod({"store": {"secretKeys": keys, "secretName": "minio"}}).items():
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            found = {
                each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if each["name"] in wanted
            }
            assert {key: value["key"] for key, value in found.items()}.items() <= wanted.items()
            assert {value["name"] for value in found.values()} == {"minio"}
            assert name == "storage" or all(value["optional"] and len(found) == 3 for value in found.values())


@pytest.mark.parametrize(
    "given", [{"global": {"imageRegistry": "mirror.example"}}, {"image": {"registry": "mirror.example/"}}]
)
def test_one_registry_is_that_of_every_image(given: Object) -> None:
    digest = "sha256:" + "a" * 64
    values = over(given, {"operator": {"image": {"digest": digest}}, "evaluation": {"image": {"tag": "1e3"}}})
    pods = every_pod(
        over(values, {"global": {"imagePullSecrets": ["all"]}, "image": {"pullSecrets": [{"name": "own"}]}})
    )
    images = {
        name: [each["image"] for each in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]]
        for name, pod in pods.items()
    }
    assert all(image.startswith("mirror.example/tunegate/") for each in images.values() for image in each)
    assert images["operator"] == [f"mirror.example/tunegate/operator@{digest}"]
    assert images["evaluation"] == ["mirror.example/tunegate/trainer:1e3"]
    assert {name: pod["spec"]["imagePullSecrets"] for name, pod in pods.items()} == {
        name: [{"name": "all"}, {"name": "own"}] for name in pods
    }


def test_a_global_registry_goes_before_that_of_the_chart() -> None:
    objects = render({"global": {"imageRegistry": "a.example"}, "image": {"registry": "b.example"}})
    assert "b.example" not in json.dumps(objects)


def test_common_labels_are_on_every_object_and_in_no_selector() -> None:
    objects = render(over(ALL, {"commonLabels": {"cost-center": "42", "app.kubernetes.io/name": "forged"}}))
    for each in objects:
        if each["kind"] != "CustomResourceDefinition":
            labels = each["metadata"]["labels"]
            assert (labels["cost-center"], labels["app.kubernetes.io/name"]) == ("42", "tunegate")
        for selector in (each.get("spec", {}).get("selector"),):
            assert "cost-center" not in json.dumps(selector)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"operator": {"podLabel": {"a": "b"}}}, "'podLabel' not allowed"),
        ({"serving": {"nodeselector": {}}}, "'nodeselector' not allowed"),
        ({"operator": {"podLabels": {"a": 1}}}, "at '/operator/podLabels/a': got number"),
        ({"operator": {"extraEnv": [{"nam": "a"}]}}, "at '/operator/extraEnv/0'"),
        ({"caBundle": "company"}, "at '/caBundle': got string"),
        ({"proxy": {"httpsProxy": "proxy:3128"}}, "at '/proxy/httpsProxy'"),
        ({"fullnameOverride": "9-lives"}, "at '/fullnameOverride'"),
        ({"store": {"secretKeys": {"accessKey": "a"}}}, "'accessKey' not allowed"),
    ],
)
def test_a_mistake_is_named(values: Object, said: str) -> None:
    assert said in refusal(values)


def test_amounts_and_times_are_taken_in_each_form() -> None:
    for size in ("50G", "1.5Ti", "1e12"):
        claim = pick(render(over(ALL, {"storage": {"size": size}})), "StatefulSet")["spec"]["volumeClaimTemplates"][0]
        assert claim["spec"]["resources"]["requests"]["storage"] == size
    assert render({"monitoring": {"operator": {"enabled": True}, "interval": "1m30s"}})


def test_a_volume_without_a_class_is_one_made_by_hand() -> None:
    (claim,) = pick(render(over(ALL, {"storage": {"storageClassName": "-"}})), "StatefulSet")["spec"][
        "volumeClaimTemplates"
    ]
    assert claim["spec"]["storageClassName"] == ""


def test_two_releases_with_names_of_their_own_share_nothing_but_what_is_the_clusters() -> None:
    def names(release: str, **values: Any) -> set[tuple[str, str | None, str]]:
        given = {"crds": {"install": False}, "rbac": {"scope": "Namespaced"}, "namespaces": [release]}
        objects = render(over(given, {"serving": {"storageInitializer": {"enabled": False}}}, values), release=release)
        return {(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects}

    assert not names("one") & names("two")
    assert not names("one", fullnameOverride="a") & names("one", fullnameOverride="b", namespaces=["two"])


def test_a_chart_may_hold_this_one_under_another_name(tmp_path: Any) -> None:
    """Its values, global ones and its labels are this chart's, whatever it is called there."""
    chart = tmp_path / "platform"
    (chart / "charts").mkdir(parents=True)
    (chart / "charts/tunegate").symlink_to(CHART)
    head = {"apiVersion": "v2", "name": "platform", "version": "1.0.0"}
    needs = [{"name": "tunegate", "alias": "promoter", "version": "0.1.0", "repository": ""}]
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**head, "dependencies": needs}))
    values = {
        "global": {"imageRegistry": "m.example", "other": 1},
        "promoter": {"store": {"uri": "s3://m"}, "image": None},
    }
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    served = ("serving.kserve.io/v1beta1", "serving.kserve.io/v1alpha1", "gateway.networking.k8s.io/v1")
    words = [word for api in served for word in ("--api-versions", api)]
    objects = [each for each in yaml.safe_load_all(helm("template", "t", str(chart), *words).stdout) if each]
    (container,) = pick(objects, "Deployment", "t-tunegate-operator")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "m.example/tunegate/operator:0.1.0"


GUIDE = (REPOSITORY / "docs/company.md").read_text()


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL))
def test_the_values_of_the_guide_are_taken(block: str) -> None:
    plain, given = render(), render(yaml.safe_load(block))
    assert given != plain


def test_every_value_that_the_guide_names_exists() -> None:
    readme = (CHART / "README.md").read_text()
    named = re.findall(r"`((?:operator|evaluation|serving|caBundle|global|storage)\.[A-Za-z.]+)", GUIDE)
    assert [name for name in named if f"`{name}" not in readme] == []
