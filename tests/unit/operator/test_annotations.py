"""Annotations are anybody's to remove: what the operator wrote into them must not be all that it goes by."""

from __future__ import annotations

import pytest

from tests.builders import make_version
from tests.unit.operator.world import BASE, DIGEST, World, server_of
from tunegate.api.digest import short
from tunegate.api.feedback import Tally
from tunegate.api.labels import APPLIED, UNUSED_SINCE
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate_operator.servers import DRAIN_SECONDS

GOOD, BAD = Tally(up=38, down=2), Tally(up=4, down=36)
CANDIDATE = make_version("run-1", created=1)


@pytest.fixture
def world() -> World:
    return World().step(3).publish(CANDIDATE).vote(CANDIDATE, GOOD, GOOD)


@pytest.mark.parametrize("taken", [[DIGEST], [APPLIED], [DIGEST, APPLIED]], ids=["digest", "applied", "both"])
@pytest.mark.parametrize("version", [BASE, CANDIDATE], ids=["stable", "candidate"])
def test_a_server_gets_the_annotations_back_that_somebody_took(
    world: World, version: ModelVersion, taken: list[str]
) -> None:
    world.until("Paused")
    before = annotations(world, version)
    for each in taken:
        del world.objects["InferenceService", server_of(version)]["metadata"]["annotations"][each]
    world.step()
    assert annotations(world, version) == before
    world.step(seconds=0)
    assert not world.written.apply, "once is enough"


@pytest.mark.parametrize("spoiled", ["", "{", "[]", "null"])
@pytest.mark.parametrize("kind", ["InferenceService", "HTTPRoute"])
def test_what_somebody_wrote_over_the_memory_of_what_was_applied_is_mended(
    world: World, kind: str, spoiled: str
) -> None:
    world.until("Paused")
    name = server_of(CANDIDATE) if kind == "InferenceService" else "shop"
    before, weights = world.objects[kind, name]["metadata"]["annotations"][APPLIED], world.weights()
    world.objects[kind, name]["metadata"]["annotations"][APPLIED] = spoiled
    world.step(seconds=0)
    assert world.objects[kind, name]["metadata"]["annotations"][APPLIED] == before
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


def test_a_server_that_nobody_needs_goes_without_annotations_too(world: World) -> None:
    world.until("Baking", limit=200)
    world.vote(CANDIDATE, BAD, GOOD).until("RolledBack")
    take_all(world)
    spec = server(world, CANDIDATE)["spec"]
    world.step()
    assert UNUSED_SINCE in annotations(world, CANDIDATE)
    assert server(world, CANDIDATE)["spec"] == spec, "it goes on with the answers under way"
    world.step(seconds=DRAIN_SECONDS)
    assert ("InferenceService", server_of(CANDIDATE)) not in world.objects


def test_a_server_of_a_version_that_nobody_knows_any_more_is_told_by_its_annotation(world: World) -> None:
    world.until("Paused")
    world.objects = {key: obj for key, obj in world.objects.items() if key[0] != "Promotion"}
    world.store.versions = (BASE,)
    world.step()
    shown = {each["version"]: each["weight"] for each in world.policy()["status"]["weights"]}
    assert shown == {short(BASE.digest): 90, short(CANDIDATE.digest): 10}, "as it was seen"
    assert world.weights() == {server_of(BASE): 100}


def take_all(world: World) -> None:
    """From every server, as `kubectl annotate` with a dash behind each key does."""
    for (kind, _), obj in world.objects.items():
        if kind == "InferenceService":
            obj["metadata"].pop("annotations", None)


def server(world: World, version: ModelVersion) -> Object:
    return world.objects["InferenceService", server_of(version)]


def annotations(world: World, version: ModelVersion) -> Object:
    return dict(server(world, version)["metadata"].get("annotations", {}))
