"""What the chart refuses, it renders once the sentence was followed; and its notes ask for what is missing alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.chart.rendering import API_VERSIONS, CHART, helm, refusal, render

Object = dict[str, Any]
KSERVE = [version for version in API_VERSIONS if version.startswith("serving.kserve.io")]
GATEWAYS, MONITORS = "gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1"


@dataclass(frozen=True)
class Case:
    """Refused in these words with `wrong` in a cluster without `lacks`; taken with `right`, or with all there."""

    words: str
    wrong: Object
    right: Object
    lacks: tuple[str, ...] = ()


CASES = [
    Case("or set serving.enabled=false", {}, {"serving": {"enabled": False}}, tuple(KSERVE)),
    Case("or set traffic.gatewayApi=false", {}, {"traffic": {"gatewayApi": False}}, (GATEWAYS,)),
    *(
        Case(
            "or leave monitoring.predictors, monitoring.trainers, monitoring.operator and monitoring.rules disabled",
            {"monitoring": {part: {"enabled": True}}},
            {"monitoring": {part: {"enabled": False}}},
            (MONITORS,),
        )
        for part in ("predictors", "trainers", "operator", "rules")
    ),
    Case(
        "set both",
        {"store": {"create": True, "accessKeyId": "id"}},
        {"store": {"create": True, "accessKeyId": "id", "secretAccessKey": "key"}},
    ),
    Case(
        "set store.secretName",
        {"storage": {"enabled": True}, "store": {"secretName": ""}},
        {"storage": {"enabled": True}, "store": {"secretName": "keys"}},
    ),
    Case(
        "name the one that holds the certificates",
        {"caBundle": {"configMap": "a", "secret": "b"}},
        {"caBundle": {"configMap": "a"}},
    ),
    *(
        Case(
            f"{name}.resources requests 8Gi of memory and limits it to",
            values({"requests": {"memory": "8Gi"}, "limits": {"memory": "4Gi"}}),
            values({"requests": {"memory": "8Gi"}, "limits": {"memory": None}}),
        )
        for name, values in {
            "operator": lambda resources: {"operator": {"resources": resources}},
            "evaluation": lambda resources: {"evaluation": {"resources": resources}},
            "serving": lambda resources: {"serving": {"resources": resources}},
            "serving.vllm": lambda resources: {"serving": {"vllm": {"resources": resources}}},
            "serving.storageInitializer": lambda resources: {
                "serving": {"storageInitializer": {"resources": resources}}
            },
            "storage": lambda resources: {"storage": {"resources": resources}},
        }.items()
    ),
    Case("set store.uri to s3://BUCKET[/PREFIX]", {"store": {"uri": ""}}, {"store": {"uri": "s3://models/shop"}}),
    Case("or storage.enabled=true", {"store": {"uri": ""}}, {"store": {"uri": ""}, "storage": {"enabled": True}}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_what_the_sentence_says_is_rendered(case: Case) -> None:
    there = [version for version in API_VERSIONS if version not in case.lacks]
    assert case.words in refusal(case.wrong, api_versions=there)
    assert render(case.right, api_versions=there)
    if case.lacks:
        assert render(case.wrong), "it was installed first"


def test_every_sentence_has_its_case() -> None:
    templates = [path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file()]
    sentences = [found for text in templates for found in re.findall(r'\bfail "(.+?)"', text)]
    assert len(sentences) >= 5
    assert [text for text in sentences if not any(case.words in text for case in CASES)] == []


def notes(*values: str) -> str:
    least = ("store.uri=s3://models", "serving.enabled=false", "traffic.gatewayApi=false")  # no cluster is asked
    words = [word for value in (*least, *values) for word in ("--set", value)]
    printed = helm("install", "tunegate", str(CHART), "--dry-run=client", *words).stdout
    return printed.partition("NOTES:")[2]


def test_the_notes_ask_for_the_secrets_that_the_release_does_not_make() -> None:
    asked = notes()
    assert "tunegate-store (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY; or a role)" in asked
    assert "tunegate-feedback (TUNEGATE_FEEDBACK_KEY)" in asked
    made = notes("store.create=true", "store.accessKeyId=id", "store.secretAccessKey=key", "feedback.create=true")
    assert "Secret" not in made
    assert "tunegate-store" not in notes("store.secretName=")
    assert "helm test tunegate" in made
