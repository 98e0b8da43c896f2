"""Renders the chart with the real Helm and checks what comes out; knows nothing of single components."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CHART = REPOSITORY / "charts/tunegate"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
# The sets of values that must always work.
VALUES_FILES = [*CI_VALUES, CHART / "values.dev.yaml"]
API_VERSIONS = (
    "serving.kserve.io/v1beta1",
    "serving.kserve.io/v1alpha1",
    "gateway.networking.k8s.io/v1",
    "monitoring.coreos.com/v1",
)
Object = dict[str, Any]


def helm(*words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Helm; a failure shows what it printed unless `check` is false."""
    need_helm()
    done = subprocess.run(["helm", *words], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr
    return done


def read_yaml(text: str) -> list[Object]:
    """The documents in `text`, with libyaml where it is there: some CRDs are two megabytes."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document]


def need_helm() -> None:
    """Skip the test that asks where there is no Helm."""
    if shutil.which("helm") is None:
        pytest.skip("needs `helm` on PATH: the package of your system, or a release of the Helm project")


def render(
    values: Object | Path | None = None,
    *,
    api_versions: Iterable[str] = API_VERSIONS,
    release: str = "tunegate",
    namespace: str = "tunegate",
) -> list[Object]:
    """The objects of a release. A mapping of values is laid over the least that has to be said."""
    done = template(values, api_versions=api_versions, release=release, namespace=namespace)
    assert done.returncode == 0, done.stderr
    return read_yaml(done.stdout)


def refusal(values: Object, *, api_versions: Iterable[str] = API_VERSIONS) -> str:
    """What Helm says when it refuses these values."""
    done = template(values, api_versions=api_versions)
    assert done.returncode != 0, "these values were to be refused"
    return done.stderr


def template(
    values: Object | Path | None = None,
    *,
    api_versions: Iterable[str] = API_VERSIONS,
    release: str = "tunegate",
    namespace: str = "tunegate",
) -> subprocess.CompletedProcess[str]:
    path = values if isinstance(values, Path) else CHART / "ci/minimal-values.yaml"
    given = "{}" if isinstance(values, Path) else json.dumps(values or {})
    return _template(path, given, tuple(api_versions), release, namespace)


@functools.cache
def _template(
    path: Path, values: str, api_versions: tuple[str, ...], release: str, namespace: str
) -> subprocess.CompletedProcess[str]:
    served = [word for version in api_versions for word in ("--api-versions", version)]
    words = ["template", release, str(CHART), "--namespace", namespace, "--values", str(path), "--values", "-", *served]
    return helm(*words, check=False, stdin=values)


def pick(objects: list[Object], kind: str, name: str | None = None, namespace: str | None = None) -> Object:
    """The one object of this kind, and of this name and namespace where given."""
    found = [
        each
        for each in objects
        if each["kind"] == kind
        and name in (None, each["metadata"]["name"])
        and namespace in (None, each["metadata"].get("namespace"))
    ]
    assert len(found) == 1, [(each["kind"], each["metadata"]["name"]) for each in objects]
    return found[0]


def kinds(objects: list[Object]) -> set[str]:
    return {each["kind"] for each in objects}


def pod_templates(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod that follows from these objects; KServe's as KServe puts them together."""
    storage = [each["spec"]["container"] for each in objects if each["kind"] == "ClusterStorageContainer"]
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        match each["kind"]:
            case "Deployment" | "StatefulSet":
                yield name, each["spec"]["template"]
            case "Pod":
                yield name, {"metadata": each["metadata"], "spec": each["spec"]}
            case "ClusterServingRuntime" | "ServingRuntime":
                yield name, _served_pod(each["spec"], storage)


def _served_pod(runtime: Object, storage: list[Object]) -> Object:
    """As KServe builds it: the model's folder is a volume of a known name, and no field but these is a pod's."""
    volume = "kserve-provision-location"
    fields = ("imagePullSecrets", "nodeSelector", "tolerations", "affinity")
    spec = {field: runtime[field] for field in fields if field in runtime}
    containers = [dict(container) for container in runtime["containers"]]
    mount = {"name": volume, "mountPath": "/mnt/models", "readOnly": True}
    containers[0]["volumeMounts"] = [*containers[0]["volumeMounts"], mount]
    volumes = list(runtime["volumes"])
    if volume not in [each["name"] for each in volumes]:
        volumes.append({"name": volume, "emptyDir": {}})
    first = [{**each, "volumeMounts": [{"name": volume, "mountPath": "/mnt/models"}]} for each in storage]
    return {"metadata": {}, "spec": {**spec, "initContainers": first, "containers": containers, "volumes": volumes}}


def check_against_crd(each: Object, crd: Object) -> None:
    """Fail when an API server with this CRD would refuse `each`, or drop a field of it."""
    version = each["apiVersion"].rpartition("/")[2]
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version)
    spec = {**schema, "properties": {**schema["properties"], "metadata": {"type": "object"}}}
    jsonschema.Draft202012Validator(_closed(spec)).validate(each)


def _closed(schema: Any) -> Any:
    """OpenAPI's schema as JSON Schema that knows no field beyond those listed."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items() if key not in ("format", "type", "default")}
    closed["properties"] = {key: _closed(value) for key, value in schema.get("properties", {}).items()}
    if kind := schema.get("type"):
        closed["type"] = [kind, "null"] if schema.get("nullable") else kind
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed["additionalProperties"] = False
    return closed if closed["properties"] else {key: value for key, value in closed.items() if key != "properties"}
