"""Values, their schema and their table say the same, and a mistake is answered with a sentence."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.chart.rendering import API_VERSIONS, CHART, VALUES_FILES, helm, kinds, refusal, render

VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def _readme_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_readme", CHART / "generate_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return SCHEMA["$defs"][reference.rpartition("/")[2]] if reference else schema


def _leaves_of_schema(schema: dict[str, Any], path: str = "") -> set[str]:
    schema = _resolve(schema)
    # `resources` is one value to users, whatever it consists of.
    if "properties" not in schema or "requests" in schema["properties"]:
        return {path}
    steps = schema["properties"].items()
    return {leaf for key, each in steps for leaf in _leaves_of_schema(each, f"{path}.{key}".strip("."))}


def test_the_schema_and_the_comments_list_the_same_values() -> None:
    commented = {name for name, _, _ in _readme_script().read_values(VALUES)}
    assert commented == _leaves_of_schema(SCHEMA)


def test_every_value_has_a_comment() -> None:
    def count(value: object) -> int:
        whole = ("requests", "grafana_dashboard", "runAsNonRoot", "capabilities")
        if not isinstance(value, dict) or not value or any(word in value for word in whole):
            return 1
        return sum(count(each) for each in value.values())

    assert len(list(_readme_script().read_values(VALUES))) == count(yaml.safe_load(VALUES))


def test_the_readme_is_what_the_script_writes() -> None:
    assert (CHART / "README.md").read_text() == _readme_script().render(VALUES)


def test_every_object_of_the_schema_is_closed() -> None:
    def check(schema: Any, path: str) -> None:
        if isinstance(schema, dict):
            if "properties" in schema and path != "/properties/global":  # other charts read it, too
                assert schema["additionalProperties"] is False, path
            for key, each in schema.items():
                check(each, f"{path}/{key}")

    check({**SCHEMA, "$defs": SCHEMA["$defs"]}, "")


@pytest.mark.parametrize("path", VALUES_FILES, ids=lambda path: path.name)
def test_lint_is_content(path: Path) -> None:
    helm("lint", "--strict", str(CHART), "--values", str(path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"operater": {}}, "additional properties 'operater' not allowed"),
        ({"operator": {"replcas": 2}}, "at '/operator': additional properties 'replcas' not allowed"),
        ({"operator": {"replicas": 0}}, "at '/operator/replicas': minimum: got 0, want 1"),
        ({"rbac": {"scope": "cluster"}}, "at '/rbac/scope': value must be one of 'Cluster', 'Namespaced'"),
        ({"store": {"uri": "models"}}, "at '/store/uri': 'models' does not match pattern"),
        ({"serving": {"image": {"digest": "abc"}}}, "at '/serving/image/digest'"),
        ({"serving": {"resources": {"limit": {}}}}, "at '/serving/resources': additional properties 'limit'"),
    ],
    ids=["top", "nested", "range", "choice", "uri", "digest", "resources"],
)
def test_a_mistake_in_the_values_is_named(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


EVERYTHING: dict[str, Any] = {
    "storage": {"enabled": True},
    "feedback": {"create": True},
    "records": {"enabled": True, "create": True},
    "serving": {"vllm": {"enabled": True}, "storageInitializer": {"enabled": True}},
    "networkPolicy": {"enabled": True},
    "proxy": {"httpsProxy": "http://proxy:3128"},
    "monitoring": {part: {"enabled": True} for part in ("predictors", "trainers", "operator", "rules", "dashboard")},
}
# In a Secret, as base64, with a store of its own the chart's; and what another value stands in place of.
HIDDEN = {"store.accessKeyId", "store.secretAccessKey", "caBundle.secret", "image.registry"}


def _texts(schema: dict[str, Any] = SCHEMA, path: str = "") -> dict[str, dict[str, Any]]:
    """The values that are free text, by path, with their schemas."""
    schema = _resolve(schema)
    if "string" in schema.get("type", ()) and "enum" not in schema:
        return {path: schema}
    found: dict[str, dict[str, Any]] = {}
    for key, each in schema.get("properties", {}).items():
        found |= _texts(each, f"{path}.{key}".strip("."))
    return found


def _with(texts: dict[str, str]) -> dict[str, Any]:
    values = copy.deepcopy(EVERYTHING)
    for path, text in texts.items():
        *folders, name = path.split(".")
        place = values
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = text
    return values


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from _strings(each)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("text", ["a: b", "a #b", "'\"", "{{ .Release.Name }}", "a\nb: c", "100"])
def test_whatever_text_a_value_has_it_stays_that_text_or_is_refused_by_its_name(text: str) -> None:
    """What YAML reads as a number or a mapping, the API server then refuses, or an argument is cut."""
    texts = {path: f"{text}{number}" for number, path in enumerate(sorted(_texts().keys() - HIDDEN), 10)}
    said = refusal(_with(texts))
    taken = {path: each for path, each in texts.items() if f"at '/{path.replace('.', '/')}'" not in said}
    found = [*_strings(render(_with(taken)))]
    assert not {path for path, each in taken.items() if not any(each in string for string in found)}


@pytest.mark.parametrize(
    ("without", "values", "said"),
    [
        ("serving.kserve.io/v1beta1", {}, "KServe is missing from this cluster"),
        ("serving.kserve.io/v1alpha1", {}, "KServe is missing from this cluster"),
        ("gateway.networking.k8s.io/v1", {}, "The Gateway API is missing from this cluster"),
        (
            "monitoring.coreos.com/v1",
            {"monitoring": {"rules": {"enabled": True}}},
            "The Prometheus operator is missing",
        ),
        (None, {"store": {"uri": ""}}, "Say where the models are: set store.uri"),
        (None, {"store": {"create": True}}, "set both."),
    ],
    ids=["kserve", "kserve-alpha", "gateway", "prometheus", "store", "credentials"],
)
def test_what_can_not_work_is_refused_with_one_sentence(without: str | None, values: dict[str, Any], said: str) -> None:
    message = refusal(values, api_versions=[each for each in API_VERSIONS if each != without])
    first, *rest = message.splitlines()
    assert said in first
    assert first.endswith(".")
    assert [line for line in rest if line] == ["Use --debug flag to render out invalid YAML"]


@pytest.mark.parametrize(
    ("without", "values"),
    [
        ("serving.kserve.io", {"serving": {"enabled": False}}),
        ("gateway.networking.k8s.io", {"traffic": {"gatewayApi": False}}),
        ("monitoring.coreos.com", {}),
    ],
)
def test_what_is_not_asked_for_may_be_missing(without: str, values: dict[str, Any]) -> None:
    objects = render(values, api_versions=[each for each in API_VERSIONS if not each.startswith(without)])
    assert "Deployment" in kinds(objects)
    assert not [each for each in objects if each["apiVersion"].startswith(without)]
