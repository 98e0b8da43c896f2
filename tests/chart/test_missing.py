"""Values that are null, or that an earlier chart did not have: what must be there has its default."""

from __future__ import annotations

import functools
import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.chart.rendering import CHART, Object, check_against_crd, helm, pick, read_yaml, render
from tests.chart.test_upgrade import BEFORE

VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())
# Everything on, so that each value is used.
FULL: Object = yaml.safe_load((CHART / "ci/full-values.yaml").read_text())
TEMPLATES = [path for path in (CHART / "templates").rglob("*") if path.suffix in (".yaml", ".txt")]


def paths(values: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, inner in values.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from paths(inner, (*path, key))


def with_null(values: Object, path: tuple[str, ...]) -> Object:
    changed: Object = json.loads(json.dumps(values))
    *steps, last = path
    at: Any = changed
    for step in steps:
        at = at.setdefault(step, {})
    at[last] = None
    return changed


# These can't be left out of what they are the only part of.
NEEDED = {("store", "accessKeyId"), ("store", "secretAccessKey"), ("store", "secretName"), ("store", "uri")}
NEEDED |= {("podSecurityContext", "seccompProfile", "type")}
VALID: set[str] = set()
EVERY = [[path for path in paths({name: VALUES[name]}) if path not in NEEDED] for name in VALUES]
# One of each part at a time, since parts have nothing to do with each other.
AT_ONCE = [[path for path in each if path] for each in itertools.zip_longest(*EVERY)]


@pytest.mark.parametrize("these", AT_ONCE, ids=lambda these: ".".join(these[-1]))
def test_each_value_may_be_null(these: list[tuple[str, ...]], foreign: dict[str, Object]) -> None:
    values = functools.reduce(with_null, these, FULL)
    values["store"] = {**(values["store"] or {}), "create": False}
    for each in render({**values, "crds": {**(values.get("crds") or {}), "install": False}}):
        text = json.dumps(each)
        if text in VALID:
            continue
        if crd := foreign.get(each["kind"]):
            check_against_crd(each, crd)
        else:
            kubernetes_validate.validate(each, "1.36", strict=True)
        VALID.add(text)


def test_null_is_nothing_where_nothing_is_possible() -> None:
    none = {"requests": None, "limits": None}
    objects = render({"operator": {"resources": none}, "serving": {"resources": None}, "store": {"region": None}})
    (container,) = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {}
    assert "--serving-resources={}" in container["args"]
    assert "AWS_DEFAULT_REGION" not in [each["name"] for each in container["env"]]


def test_a_part_of_the_security_that_is_null_is_left_to_the_cluster() -> None:
    ours = ("runAsUser", "runAsGroup", "fsGroup")
    for each in render({"podSecurityContext": dict.fromkeys(ours), "storage": {"enabled": True}}):
        if each["kind"] != "CustomResourceDefinition":
            assert not [name for name in ours if f'"{name}"' in json.dumps(each)], each["metadata"]["name"]


def test_what_is_filled_in_is_the_default() -> None:
    """The defaults stand in values.yaml; those that the templates can't do without stand a second time."""
    text = (CHART / "templates/_values.tpl").read_text()
    needed = yaml.safe_load(text.partition('{{- define "tunegate.needed" -}}')[2].partition("{{- end -}}")[0])

    def differences(filled: Object, default: Object, path: str = "") -> Iterator[str]:
        for key, value in filled.items():
            if isinstance(value, dict) and not key.endswith("SecurityContext"):
                yield from differences(value, default[key], f"{path}.{key}")
            elif value != default[key]:
                yield f"{path}.{key}"

    assert list(differences(needed, VALUES)) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_each_template_begins_by_filling_in(path: Any) -> None:
    assert path.read_text().startswith('{{- include "tunegate.values" . }}\n')


def test_values_that_are_kept_from_an_earlier_chart_are_enough() -> None:
    """`--reuse-values` brings the defaults of then, and none of a value that is newer."""
    with tarfile.open(BEFORE) as packed:
        file = packed.extractfile("tunegate/values.yaml")
        assert file is not None
        old: Object = yaml.safe_load(file)

    def without_newer(now: Object, then: Object) -> Object:
        maps = {
            key: without_newer(value, then[key])
            for key, value in now.items()
            if isinstance(value, dict) and key in then
        }
        return {**then, **maps, **{key: None for key in now if key not in then}}

    kept = without_newer(VALUES, old)
    assert kept["caBundle"] is None
    found, fresh = render(kept | {"store": kept["store"] | {"uri": "s3://models"}}), render()
    names = [[(each["kind"], each["metadata"]["name"]) for each in side] for side in (found, fresh)]
    assert names[0] == names[1]


def test_a_chart_that_holds_this_one_may_say_null() -> None:
    """Helm hands such a null on as it is."""
    given = json.dumps({"store": {"uri": "s3://m"}, **{name: None for name in VALUES if name != "store"}})
    served = [word for api in ("serving.kserve.io/v1beta1", "serving.kserve.io/v1alpha1") for word in ("-a", api)]
    words = ["template", "t", str(CHART), "--values", "-", *served, "-a", "gateway.networking.k8s.io/v1"]
    assert read_yaml(helm(*words, stdin=given).stdout)
