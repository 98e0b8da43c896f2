"""What webhooks make of our objects is no person's edit, and a person's edit is told with the person's manager."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import make_version
from tests.kserve import canonical
from tests.unit.operator.world import BASE, World, server_of
from tunegate.api.feedback import Tally
from tunegate.kube.kinds import Object

GOOD = Tally(up=38, down=2)
CANDIDATE = make_version("run-1", created=1)
AMOUNTS = [
    ("nvidia.com/gpu", 1),
    ("cpu", "0.5"),
    ("cpu", "1000m"),
    ("memory", "1024Mi"),
    ("memory", "1.5Gi"),
    ("ephemeral-storage", "1000"),
]


def make_world(**spec: Any) -> World:
    return World(**spec).step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD)


@pytest.mark.parametrize(
    ("written", "answered"),
    [(1, "1"), ("0.5", "500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1000", "1k"), ("3Gi", "3Gi")],
)
def test_the_stand_in_writes_quantities_as_go_does(written: str | int, answered: str) -> None:
    assert canonical(written) == answered


@pytest.mark.parametrize(("name", "amount"), AMOUNTS)
def test_a_policy_promotes_whatever_way_its_amounts_are_written(name: str, amount: str | int) -> None:
    world = make_world(serving={"resources": {"limits": {name: amount}}})
    world.until("Succeeded", limit=200)
    assert world.policy()["status"]["phase"] == "Serving"


def add_label(obj: Object) -> None:
    obj["metadata"].setdefault("labels", {})["team"] = "shop"


def add_annotation(obj: Object) -> None:
    obj["metadata"].setdefault("annotations", {})["policies.kyverno.io/last-applied-patches"] = "team: added"


def add_toleration(obj: Object) -> None:
    if obj["kind"] == "InferenceService":
        predictor = obj["spec"]["predictor"]
        predictor["tolerations"] = [*predictor.get("tolerations", ()), {"key": "gpu", "operator": "Exists"}]


def add_variable(obj: Object) -> None:
    if obj["kind"] == "InferenceService":
        obj["spec"]["predictor"]["model"]["env"].append({"name": "HTTPS_PROXY", "value": "http://proxy:3128"})


def prefix_image(obj: Object) -> None:
    """As far as an InferenceService names what its pods run: its runtime."""
    if obj["kind"] == "InferenceService":
        model = obj["spec"]["predictor"]["model"]
        model["runtime"] = "mirror-" + model["runtime"].removeprefix("mirror-")


def raise_replicas(obj: Object) -> None:
    if obj["kind"] == "InferenceService":
        obj["spec"]["predictor"].update(minReplicas=2, maxReplicas=2)


def name_section(obj: Object) -> None:
    if obj["kind"] == "HTTPRoute":
        obj["spec"]["parentRefs"][0]["sectionName"] = "https"


WEBHOOKS = [add_label, add_annotation, add_toleration, add_variable, prefix_image, raise_replicas, name_section]


@pytest.mark.parametrize("webhook", WEBHOOKS)
def test_what_a_webhook_adds_or_rewrites_is_no_edit_and_not_fought(webhook: Any) -> None:
    world = World(serving={"tolerations": [{"key": "spot", "operator": "Exists"}]})
    world.webhooks.append(webhook)
    world.step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD).until("Paused").step(3, seconds=0)
    world.step(1, seconds=0)
    assert not world.written.apply, "each would write over the other for ever"
    assert not world.written.patch
    world.until("Succeeded", limit=200)
    assert {deployment.replaced for deployment in world.deployments.values()} == {0}


def test_a_value_that_is_put_back_ends_the_edit_in_whatever_form_it_is_written() -> None:
    world = make_world(serving={"resources": {"limits": {"memory": "1024Mi"}}})
    name = server_of(BASE)

    def limit(amount: str) -> None:
        def change(spec: Object) -> None:
            spec["predictor"]["model"]["resources"]["limits"]["memory"] = amount

        world.edit("InferenceService", name, change)
        world.step(2)

    limit("2Gi")
    assert world.condition(world.policy(), "Stalled")["reason"] == "TargetModified"
    limit("1024Mi")
    assert world.policy()["status"]["phase"] != "Stalled"


@pytest.mark.parametrize("manager", ["kubectl-edit", "kyverno-background-controller"])
def test_whoever_takes_a_field_over_is_named(manager: str) -> None:
    world = make_world(serving={"replicas": 2})

    def scale(spec: Object) -> None:
        spec["predictor"]["minReplicas"] = 7

    world.edit("InferenceService", server_of(BASE), scale, manager)
    world.step(2)
    found = world.condition(world.policy(), "Ready")
    assert found["reason"] == "TargetModified"
    assert found["message"].startswith(f"{manager} changed spec.predictor.minReplicas of InferenceService")


def test_what_an_operator_of_before_remembers_is_compared_as_amounts_too() -> None:
    """At 2d11983 the spec as it was written stood in an annotation, beside the live one as KServe rewrote it."""
    import json

    world = make_world(serving={"resources": {"limits": {"nvidia.com/gpu": 1, "memory": "1024Mi"}}}).step(2)
    server = world.objects["InferenceService", server_of(BASE)]
    asked = json.loads(json.dumps(server["spec"]))
    asked["predictor"]["model"]["resources"]["limits"] = {"nvidia.com/gpu": 1, "memory": "1024Mi"}
    server["metadata"].setdefault("annotations", {})["tunegate.io/applied"] = json.dumps(asked)
    world.step(3)
    assert world.policy()["status"]["phase"] != "Stalled"
    world.until("Succeeded", limit=200)


def set_weights(spec: Object) -> None:
    spec["rules"][0]["backendRefs"][0]["weight"] = 7


def set_replicas(spec: Object) -> None:
    spec["predictor"].update(minReplicas=7, maxReplicas=7)


def set_variable(spec: Object) -> None:
    spec["predictor"]["model"]["env"][0]["value"] = "s3://elsewhere"


def set_limits(spec: Object) -> None:
    spec["predictor"]["model"]["resources"]["limits"].update({"memory": "7Gi", "cpu": "9"})


EDITS = [("HTTPRoute", set_weights), ("InferenceService", set_replicas), ("InferenceService", set_variable)]
EDITS += [("InferenceService", set_limits)]


@pytest.mark.parametrize(("kind", "change"), EDITS)
def test_the_remedy_of_an_edit_puts_it_back_and_nothing_else(kind: str, change: Any) -> None:
    """Another webhook has changed the server besides, and that stays."""
    world = World(serving={"resources": {"limits": {"memory": "1024Mi"}}, "tolerations": [{"key": "spot"}]})
    world.webhooks.append(add_toleration)
    world.step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD).until("Paused").step(3, seconds=0)
    name = "shop" if kind == "HTTPRoute" else server_of(BASE)
    before, replaced = world.objects[kind, name]["spec"], world.deployments[server_of(BASE)].replaced
    world.webhooks.clear()
    world.edit(kind, name, change)
    world.step(2)
    message = world.condition(world.policy(), "Stalled")["message"]
    assert "tunegate policy restore shop -n shop" in message
    assert world.promotion()["status"]["phase"] == "Failed"
    world.policy()["metadata"]["annotations"] = {"tunegate.io/restore": "now"}
    world.step(3)
    after = world.objects[kind, name]["spec"]
    assert world.policy()["status"]["phase"] == "Serving"
    assert world.policy()["status"]["restored"] == "now"
    if kind == "InferenceService":
        after["predictor"]["model"].get("resources", {}).get("limits", {}).pop("cpu", None)  # not ours to take away
        assert after == before
    else:
        assert world.weights() == {server_of(BASE): 100}
    if change is set_replicas:
        assert world.deployments[server_of(BASE)].replaced == replaced
    world.edit(kind, name, change)
    world.step(2)
    assert world.policy()["status"]["phase"] == "Stalled", "each request is for once"
