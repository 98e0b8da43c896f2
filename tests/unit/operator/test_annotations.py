"""Annotations are anybody's to remove: what the operator wrote into them must not be all that it goes by."""

from __future__ import annotations

import pytest

from tests.builders import make_version
from tests.unit.operator.world import BASE, World, server_of
from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate.api.labels import APPLIED
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate_operator.servers import DRAIN_SECONDS

GOOD, BAD = Tally(up=38, down=2), Tally(up=4, down=36)
CANDIDATE = make_version("run-1", created=1)


@pytest.fixture
def world() -> World:
    return World().step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD)


@pytest.mark.parametrize("version", [BASE, CANDIDATE], ids=["stable", "candidate"])
def test_a_server_whose_annotations_were_taken_is_left_as_it_is(world: World, version: ModelVersion) -> None:
    """KServe has replaced its pods already; giving them back would replace them again, and nothing depends on them."""
    world.until("Paused")
    server(world, version)["metadata"].pop("annotations")
    world.step(3)
    assert "annotations" not in server(world, version)["metadata"]
    assert world.policy()["status"]["phase"] == "Promoting"


@pytest.mark.parametrize("spoiled", ["", "{", "[]", "null"])
def test_a_route_whose_memory_of_what_was_applied_is_spoiled_gets_it_back(world: World, spoiled: str) -> None:
    world.until("Paused")
    annotations = world.objects["HTTPRoute", "shop"]["metadata"]["annotations"]
    before, weights = annotations[APPLIED], world.weights()
    annotations[APPLIED] = spoiled
    world.step(seconds=0)
    assert world.objects["HTTPRoute", "shop"]["metadata"]["annotations"][APPLIED] == before
    assert (world.weights(), world.promotion()["status"]["phase"]) == (weights, "Paused")


def test_a_route_gets_the_memory_back_of_what_was_applied(world: World) -> None:
    world.until("Paused")
    route = world.objects["HTTPRoute", "shop"]["metadata"]
    before = route.pop("annotations")
    world.step()
    assert world.objects["HTTPRoute", "shop"]["metadata"]["annotations"] == before


@pytest.mark.parametrize("phase", ["Paused", "Baking"])
def test_taken_annotations_move_no_users(world: World, phase: str) -> None:
    world.until(phase, limit=200)
    weights, shares = world.weights(), world.policy()["status"]["weights"]
    take_all(world)
    world.step(seconds=0)
    assert world.weights() == weights
    assert world.promotion()["status"]["phase"] == phase
    assert world.policy()["status"]["weights"] == shares
    assert world.condition(world.policy(), "Serving")["status"] == "True"


@pytest.mark.parametrize("phase", ["Paused", "Baking"])
def test_a_rollback_needs_no_annotations(world: World, phase: str) -> None:
    world.until(phase, limit=200)
    world.vote(CANDIDATE, BAD, GOOD)
    for _ in range(10):
        take_all(world)
        world.step()
    assert world.weights() == {server_of(BASE): 100}
    assert world.promotion()["status"]["phase"] == "RolledBack"


def test_a_server_that_is_not_needed_goes_without_annotations_too(world: World) -> None:
    world.until("Baking", limit=200)
    world.vote(CANDIDATE, BAD, GOOD).until("RolledBack")
    take_all(world)
    before = server(world, CANDIDATE)["metadata"]["generation"]
    world.step()
    assert server(world, CANDIDATE)["metadata"]["generation"] == before, "it finishes the answers under way"
    world.step(seconds=DRAIN_SECONDS)
    assert ("InferenceService", server_of(CANDIDATE)) not in world.objects


def test_a_server_of_an_unknown_version_is_told_by_what_it_was_asked_to_serve(world: World) -> None:
    world.until("Paused")
    world.objects = {key: obj for key, obj in world.objects.items() if key[0] != "Promotion"}
    world.store.versions = (BASE,)
    world.step()
    shown = {weight["version"]: weight["weight"] for weight in world.policy()["status"]["weights"]}
    assert shown == {short(BASE.digest): 90, short(CANDIDATE.digest): 10}, "as it was seen"
    assert world.weights() == {server_of(BASE): 100}


def take_all(world: World) -> None:
    """From every server, as `kubectl annotate` with a dash behind each key does."""
    for (kind, _), obj in world.objects.items():
        if kind == "InferenceService":
            obj["metadata"].pop("annotations", None)


def server(world: World, version: ModelVersion) -> Object:
    return world.objects["InferenceService", server_of(version)]
