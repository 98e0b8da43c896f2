"""One object of each of our kinds, and a namespace of an API server that is strict about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException

from tests.apiserver import call

Object = dict[str, Any]
HEX = "0123456789abcdef" * 4
PLURALS = {"ModelVersion": "modelversions", "PromotionPolicy": "promotionpolicies", "Promotion": "promotions"}


def version(**changes: Any) -> Object:
    spec = {
        "model": "shop",
        "name": "shop/run-7/checkpoint-800",
        "uri": "s3://models/shop/run-7/checkpoint-800/",
        "digest": f"sha256:{HEX}",
        "format": "huggingface",
        "created": "2026-01-02T03:04:05Z",
    }
    return make("ModelVersion", "shop-run-7-0123456789ab", spec, changes)


def policy(name: str = "shop", **changes: Any) -> Object:
    spec = {
        "model": "shop",
        "initialVersion": "s3://models/shop/base/checkpoint-0/",
        "suites": ["shop-en"],
        "gates": [{"suite": "shop-en", "metric": "score", "min": 0.5}],
        "steps": [{"weight": 10}, {"weight": 50}],
    }
    return make("PromotionPolicy", name, spec, changes)


def promotion(**changes: Any) -> Object:
    spec = {"policy": "shop", "version": "shop-run-7-0123456789ab"}
    return make("Promotion", "shop-run-7-0123456789ab", spec, changes)


def make(kind: str, name: str, spec: Object, changes: Object) -> Object:
    """`changes` replace fields of the spec; None takes one away."""
    spec = {key: value for key, value in (spec | changes).items() if value is not None}
    return {"apiVersion": "tunegate.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


GATE = {"suite": "shop-en", "metric": "score"}
BASE = {"uri": "s3://models/shop/base/checkpoint-0/", "digest": f"sha256:{HEX}"}
VERSION = version()["spec"]
STATUS = {
    "ModelVersion": {
        "phase": "Evaluated",
        "evaluations": [
            {
                "suite": "shop-en",
                "suiteDigest": "sha256:1",
                "time": "2026-01-02T03:04:05Z",
                "metrics": [{"name": "score", "value": 0.75, "stderr": 0.125, "n": 10, "higherIsBetter": True}],
                "failures": 0,
                "message": "",
            }
        ],
    },
    "PromotionPolicy": {
        "phase": "Serving",
        "stable": VERSION,
        "initial": VERSION,
        "url": "http://shop.example.com/",
        "weights": [{"version": HEX[:12], "name": VERSION["name"], "weight": 100}],
        "promotion": "shop-run-7-0123456789ab",
        "servers": [
            {"name": f"shop-{HEX[:12]}", "awaySince": "2026-01-02T03:04:05.678901Z"},
            {"name": "shop-0", "unusedSince": "2026-01-02T03:04:05Z"},
        ],
        "restored": "2026-01-02T03:04:05.678901+00:00",
        "rolledOut": "2026-01-02T03:04:05.678901+00:00",
    },
    "Promotion": {
        "phase": "RolledBack",
        "candidate": VERSION,
        "stable": VERSION,
        "step": 1,
        "weight": 0,
        "canaryStarted": "2026-01-02T03:04:05Z",
        "gates": [
            {
                "suite": "shop-en",
                "metric": "score",
                "bound": "maxRegression",
                "threshold": 0.1,
                "passed": True,
                "observed": 0.5,
                "stderr": 0.25,
                "n": 10,
                "stable": 0.5,
                "message": "m",
            }
        ],
        "comparison": {
            "outcome": "Worse",
            "candidate": {"up": 1, "down": 9},
            "stable": {"up": 9, "down": 1},
            "evidenceWorse": 1e300,
            "evidenceNotWorse": 1e-300,
            "threshold": 20,
            "answersNeeded": 7,
            "message": "m",
        },
        "decision": {
            "outcome": "RolledBack",
            "reason": "FeedbackWorse",
            "message": "m",
            "time": "2026-01-02T03:04:05.678901Z",
            "actor": "tunegate",
        },
        "history": [{"phase": "Verifying", "time": "2026-01-02T03:04:05Z", "reason": "Started", "message": "m"}],
    },
}
CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Serving",
    "message": "it answers",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-02T03:04:05Z",
}
KINDS = [pytest.param(make, id=make.__name__) for make in (version, policy, promotion)]


class Api:
    """One namespace of the API server, strict about fields it does not know."""

    def __init__(self, client: ApiClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace

    def _path(self, obj: Object, *more: str) -> str:
        return "/".join(("/apis/tunegate.io/v1alpha1/namespaces", self._namespace, PLURALS[obj["kind"]], *more))

    def create(self, obj: Object) -> Object:
        return call(self._client, "POST", self._path(obj), obj, query={"fieldValidation": "Strict"})

    def get(self, obj: Object) -> Object:
        return call(self._client, "GET", self._path(obj, obj["metadata"]["name"]))

    def change(self, obj: Object, subresource: str = "", **parts: Any) -> Object:
        """Replace parts of the object as it is now."""
        new = self.get(obj) | parts
        more = (obj["metadata"]["name"], *([subresource] if subresource else []))
        return call(self._client, "PUT", self._path(obj, *more), new, query={"fieldValidation": "Strict"})

    def apply(self, obj: Object, manager: str, subresource: str = "", force: bool = False) -> Object:
        more = (obj["metadata"]["name"], *([subresource] if subresource else []))
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": json.dumps(force)}
        return call(self._client, "PATCH", self._path(obj, *more), obj, query=query)

    def refuses(self, act: Callable[[], object]) -> str:
        """The words of the refusal."""
        with pytest.raises(ApiException) as caught:
            act()
        answer = json.loads(caught.value.body)
        assert answer["reason"] in ("Invalid", "BadRequest", "Conflict"), answer
        return str(answer["message"])
