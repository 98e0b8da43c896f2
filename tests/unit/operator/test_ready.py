"""What a policy's Ready says while its first server and its route come up, or don't."""

from __future__ import annotations

from tests.builders import at
from tests.unit.operator.world import World
from tunegate_operator.gather import Gathered, Last


def summary(world: World) -> dict[str, str]:
    return {kind: world.condition(world.policy(), kind)["status"] for kind in ("Ready", "Reconciling", "Stalled")}


def test_a_policy_is_not_ready_before_its_first_server_answers() -> None:
    world = World()
    world.follow_servers = False
    world.step(5)
    assert summary(world) == {"Ready": "False", "Reconciling": "True", "Stalled": "False"}
    assert world.condition(world.policy(), "Ready")["reason"] == "StableNotReady"
    world.follow_servers = True
    world.step(2)
    assert summary(world) == {"Ready": "True", "Reconciling": "False", "Stalled": "False"}


def test_a_gateway_that_never_answers_is_a_persons_matter_after_a_while_and_stays_it() -> None:
    world = World()
    world.follow_route = False
    world.step(5)
    assert summary(world) == {"Ready": "False", "Reconciling": "True", "Stalled": "False"}
    world.step(60)
    seen = {str(summary(world)) for _ in range(10) if world.step()}
    assert seen == {str({"Ready": "False", "Reconciling": "False", "Stalled": "True"})}
    assert [reason for reason, _ in world.notes].count("RouteNotAccepted") == 1


def test_a_route_that_is_refused_later_stalls_its_policy_until_it_is_accepted() -> None:
    world = World().step(3)
    world.follow_route = False
    world.accept(resolved="False", reason="BackendNotFound")
    seen = {str(summary(world)) for _ in range(10) if world.step()}
    assert seen == {str({"Ready": "False", "Reconciling": "False", "Stalled": "True"})}
    world.accept()
    world.step(2)
    assert summary(world)["Ready"] == "True"


def test_a_gateway_that_has_yet_to_look_at_a_change_does_not_stop_the_answers() -> None:
    world = World().step(3)
    world.follow_route = False
    world.objects["HTTPRoute", "shop"]["metadata"]["generation"] += 1
    world.step(5)
    assert summary(world)["Ready"] == "True"


def test_a_name_that_kserve_cannot_serve_is_told_at_once_with_the_numbers() -> None:
    world = World()
    world.follow_servers = False
    policy = world.policy()
    del world.objects["PromotionPolicy", "shop"]
    policy["metadata"].update(name="customer-support-assistant", namespace="team-customer-care")
    world.objects["PromotionPolicy", policy["metadata"]["name"]] = policy
    found = [world.gatherer.gather("team-customer-care", policy["metadata"]["name"], at(0), Last())]
    problems = [problem for gathered in found if isinstance(gathered, Gathered) for problem in gathered.problems]
    (told,) = (problem for problem in problems if problem.reason == "NameTooLong")
    assert told.about == "Serving"
    assert told.stops
    assert all(number in told.message for number in ("68", "63", "21 characters"))
