"""Whatever a string looks like, a string it stays: names that YAML takes for numbers, and texts that would break it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.rendering import Object, template
from tunegate_operator.__main__ import RESOURCES


class GoLoader(yaml.CSafeLoader):
    """YAML as Helm and kubectl read it: 1e3 is a number, which it isn't to PyYAML."""


GoLoader.yaml_implicit_resolvers = {key: list(each) for key, each in yaml.SafeLoader.yaml_implicit_resolvers.items()}
GoLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
GoLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(y|Y|n|N)$"), list("yYnN"))

NAMES = ("123", "1e3", "0123", "yes", "n", "null", "true", "0x1f", "3240286e-210077", "2024-01-01")
TEXTS = (*NAMES, "a: b", "#c", "{x", "- x", '"', "it's", "%d", "$(HOME)", "$$", "~", "1_000", "12:30", ".inf", "\u4f60")


def values(name: str, text: str) -> Object:
    """All that a name or a text may be given for."""
    knobs = {
        "nodeSelector": {"pool": name},
        "tolerations": [{"key": "k", "value": name, "effect": "NoSchedule"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": name, "whenUnsatisfiable": "DoNotSchedule"}],
        "affinity": {"nodeAffinity": {"x": [{"values": [name]}]}},
        "priorityClassName": name,
        "runtimeClassName": name,
        "podLabels": {"team": name},
        "podAnnotations": {"note": text},
        "extraEnv": [{"name": "TEXT", "value": text}],
    }
    image = {"repository": "r", "tag": name}
    account = {"create": True, "annotations": {"role": text}}
    return {
        "commonLabels": {"cost": name},
        "namespaces": [name],
        "crds": {"install": False},
        "image": {"registry": name, "pullSecrets": [name, {"name": f"{name}-2"}]},
        "caBundle": {"configMap": name, "key": name},
        "proxy": {"httpProxy": "http://p", "noProxy": name},
        "rbac": {"scope": "Namespaced"},
        "traffic": {"gatewayNamespaces": [name]},
        "store": {
            "region": name,
            "secretName": name,
            "secretKeys": {"accessKeyId": f"{name}.1", "secretAccessKey": f"{name}.2", "sessionToken": name},
            "create": True,
            "accessKeyId": text,
            "secretAccessKey": text,
        },
        "feedback": {"secretName": name, "create": True},
        "records": {"enabled": True, "secretName": name},
        "operator": {"image": image, "prometheusSecret": name, "serviceAccount": {"annotations": {"r": text}}, **knobs},
        "evaluation": {"image": image, "serviceAccountName": name, "serviceAccount": account, **knobs},
        "serving": {
            "image": image,
            "serviceAccountName": name,
            "serviceAccount": account,
            "keysSecret": name,
            "toolsSecret": name,
            "storageInitializer": {"image": image, "extraEnv": knobs["extraEnv"]},
            **knobs,
        },
        "storage": {"enabled": True, "image": image, "storageClassName": name, **knobs},
        "monitoring": {
            **{part: {"enabled": True} for part in ("predictors", "trainers", "operator", "rules")},
            "dashboard": {"enabled": True, "labels": {"folder": name}},
            "labels": {"release": name},
        },
        "networkPolicy": {"enabled": True},
    }


def rendered(name: str, text: str, release: str) -> list[Object]:
    done = template(values(name, text), namespace=name, release=release)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, GoLoader) if each]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            assert isinstance(key, str), f"{path}.{key!r} is no string"
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{number}]")
    else:
        yield path, value


# Names that a digest is part of, and keys that are made anew.
MADE = re.compile(r"tunegate-predictor-|checksum|signing\.key|TUNEGATE_FEEDBACK_KEY")


@pytest.mark.parametrize("word", TEXTS)
def test_a_string_stays_what_it_is(word: str) -> None:
    name = word if word in NAMES else "plainname"
    plain, found = rendered("plainname", "plaintext", "one"), rendered(name, word, "one")
    plainly, really = (sorted(leaves({str(n): each for n, each in enumerate(side)})) for side in (plain, found))

    def wanted(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        changed = value.replace("plainname", name)
        # A flag is JSON, and read by a kubelet, to which $$ is one dollar.
        inner = word.replace("$", "$$").replace('"', '\\"') if value.startswith("--") else word
        return changed.replace("plaintext", inner)

    differences = [
        (path, value, seen)
        for (path, value), (_, seen) in zip(
            [(path.replace("plainname", name), value) for path, value in plainly], really, strict=True
        )
        if seen != wanted(value) and not MADE.search(f"{path} {value}")
    ]
    assert differences == []


@pytest.mark.parametrize("release", ["123", "1e3", "0123", "yes", "my.release", "a" * 53, "0" * 53])
def test_a_release_may_be_called_anything_that_helm_takes(release: str) -> None:
    objects = rendered("plainname", "plaintext", release)
    for each in objects:
        assert isinstance(each["metadata"]["name"], str)
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == release
        if each["kind"] == "Service":  # as RFC 1035 has it
            assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", each["metadata"]["name"])
            assert len(each["metadata"]["name"]) <= 63


def test_amounts_reach_the_operator_as_they_were_given() -> None:
    done = template({"serving": {"resources": {"requests": {"cpu": 0.5, "memory": "1e9"}, "limits": None}}})
    flag = next(line for line in done.stdout.splitlines() if "--serving-resources=" in line)
    given = yaml.safe_load(flag)[0].removeprefix("--serving-resources=")
    assert RESOURCES.convert(given, None, None) == {"requests": {"cpu": "0.5", "memory": "1e9"}}
