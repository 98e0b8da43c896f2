"""What routes say of the traffic, as gateways leave them, and what a gateway does with those that we write."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.builders import at, make_version
from tests.gateway import run_gateway
from tests.unit.operator.world import BASE, NAMESPACE, POLICY_SPEC, World, server_of
from tests.unit.serving.standin import StandIn, run_engine
from tunegate.api.feedback import Tally
from tunegate.api.policy import ClusterPolicy
from tunegate_operator import manifests
from tunegate_operator.routes import address, route_state

Object = dict[str, Any]
DIGESTS = {"shop-0": "old", "shop-1": "new"}
PUBLIC = {"name": "public", "namespace": "gateways"}
GOOD = Tally(up=38, down=2)


def make_entry(
    ref: Object = PUBLIC, conditions: dict[str, tuple[str, int]] | None = None, controller: str = "example.test/gateway"
) -> Object:
    """A gateway's answer to generation 3 of a route, unless the conditions say otherwise."""
    told = {"Accepted": ("True", 3), "ResolvedRefs": ("True", 3)} if conditions is None else conditions
    return {
        "parentRef": ref,
        "controllerName": controller,
        "conditions": [
            {"type": kind, "status": status, "observedGeneration": seen, "reason": "Why", "message": "because"}
            for kind, (status, seen) in told.items()
        ],
    }


def make_route(*weights: int, entries: tuple[Object, ...] | None = None, ref: Object = PUBLIC) -> Object:
    refs = [{"name": f"shop-{number}-predictor", "weight": weight} for number, weight in enumerate(weights)]
    return {
        "kind": "HTTPRoute",
        "metadata": {"name": "shop", "namespace": "models", "generation": 3},
        "spec": {"parentRefs": [ref], "rules": [{"backendRefs": refs}]},
        "status": {"parents": [make_entry()] if entries is None else list(entries)},
    }


def older(ref: Object = PUBLIC, controller: str = "example.test/gateway") -> Object:
    return make_entry(ref, {"Accepted": ("True", 2), "ResolvedRefs": ("True", 2)}, controller)


def test_the_weights_are_those_the_gateway_has_accepted() -> None:
    assert route_state(make_route(90, 10), DIGESTS).weights == {"old": 90, "new": 10}


def test_weights_that_a_person_wrote_are_told_in_percent() -> None:
    assert route_state(make_route(3, 1), DIGESTS).weights == {"old": 75, "new": 25}


def test_what_a_gateway_said_of_an_older_route_is_no_refusal() -> None:
    conditions = {"Accepted": ("True", 3), "ResolvedRefs": ("True", 3), "PartiallyInvalid": ("True", 2)}
    assert route_state(make_route(90, 10, entries=(make_entry(PUBLIC, conditions),)), DIGESTS).weights is not None


def test_a_route_that_is_not_there_sends_nothing_anywhere() -> None:
    assert route_state(None, DIGESTS).weights == {}


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        pytest.param(None, "no status of Gateway public yet", id="no controller"),
        pytest.param({"Accepted": ("True", 2), "ResolvedRefs": ("True", 2)}, "has not reconciled", id="older"),
        pytest.param(
            {"Accepted": ("False", 3), "ResolvedRefs": ("True", 3)}, "not Accepted: Why: because", id="refused"
        ),
        pytest.param({"Accepted": ("True", 3), "ResolvedRefs": ("False", 3)}, "not ResolvedRefs", id="no backend"),
        pytest.param({"Accepted": ("True", 3)}, "has not reconciled", id="half a status"),
        pytest.param(
            {"Accepted": ("True", 3), "ResolvedRefs": ("True", 3), "PartiallyInvalid": ("True", 3)},
            "is PartiallyInvalid: Why: because",
            id="one rule refused",
        ),
    ],
)
def test_weights_are_unknown_until_the_gateway_accepts_the_route_as_it_is(
    conditions: dict[str, tuple[str, int]] | None, problem: str
) -> None:
    entries = () if conditions is None else (make_entry(PUBLIC, conditions),)
    state = route_state(make_route(90, 10, entries=entries), DIGESTS)
    assert state.weights is None
    assert state.asked == {"old": 90, "new": 10}
    assert problem in state.problem
    assert state.is_waiting == ("HTTPRoute shop is " not in state.problem)


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"parents": []},
        {"parents": [{"parentRef": PUBLIC, "controllerName": "example.test/gateway"}]},
        {"parents": [{"parentRef": PUBLIC, "conditions": []}]},
        {"parents": [{"parentRef": PUBLIC, "conditions": [{"type": "Accepted", "status": "True"}]}]},
    ],
)
def test_a_gateway_that_leaves_no_status_or_half_of_one_is_waited_for(status: Object | None) -> None:
    route = {key: value for key, value in make_route(90, 10).items() if key != "status"}
    state = route_state(route if status is None else {**route, "status": status}, DIGESTS)
    assert (state.weights, state.asked, state.is_waiting) == (None, {"old": 90, "new": 10}, True)
    assert "controller" in state.problem


@pytest.mark.parametrize(
    ("ref", "entries", "is_known"),
    [
        pytest.param(PUBLIC, (older({"name": "before"}), make_entry()), True, id="a gateway that was named before"),
        pytest.param(PUBLIC, (make_entry({"name": "before"}),), False, id="only one that was named before"),
        pytest.param(PUBLIC, (older(controller="a.test/x"), make_entry()), True, id="its controller before"),
        pytest.param(PUBLIC, (make_entry({**PUBLIC, "sectionName": "https"}),), False, id="another listener"),
        pytest.param({"name": "public"}, (make_entry({"name": "public", "namespace": "models"}),), True, id="default"),
        pytest.param({"name": "public"}, (make_entry(),), False, id="the same name in another namespace"),
        pytest.param(
            PUBLIC,
            (make_entry({**PUBLIC, "group": "gateway.networking.k8s.io", "kind": "Gateway"}),),
            True,
            id="written out",
        ),
        pytest.param(PUBLIC, (make_entry({**PUBLIC, "kind": "Service", "group": ""}),), False, id="a mesh"),
    ],
)
def test_only_the_gateways_that_the_route_names_count(ref: Object, entries: tuple[Object, ...], is_known: bool) -> None:
    state = route_state(make_route(90, 10, entries=entries, ref=ref), DIGESTS)
    assert (state.weights is not None) == is_known


def test_weights_are_seen_after_a_policy_went_to_another_gateway() -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3)
    world.change(traffic={**POLICY_SPEC["traffic"], "gateway": {"name": "private"}})
    world.step(3).publish(candidate).vote(candidate, GOOD, GOOD).until("Paused")
    parents = world.objects["HTTPRoute", "shop"]["status"]["parents"]
    assert [entry["parentRef"]["name"] for entry in parents] == ["public", "private"]


@pytest.mark.parametrize("is_silent", [True, False], ids=["a dead controller", "a refusal"])
def test_a_gateway_that_does_not_take_a_change_calls_a_person_within_minutes(is_silent: bool) -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    world.follow_route = False
    world.until("Progressing").step()
    if not is_silent:
        world.accept(accepted="False", reason="NotAllowedByListeners")
    world.step(6, seconds=50)
    stalled = world.condition(world.policy(), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "RouteNotAccepted")
    assert ("controller of Gateway public" in stalled["message"]) == is_silent
    assert [reason for reason, _ in world.notes].count("RouteNotAccepted") == 1


@pytest.mark.parametrize("is_silent", [True, False], ids=["a dead controller", "no backend"])
def test_a_candidate_that_is_down_is_rolled_back_whatever_the_gateway_says(is_silent: bool) -> None:
    candidate = make_version("run-1", created=1)
    world = World(bakingSeconds=10000).step(3).publish(candidate).vote(candidate, GOOD, GOOD).until("Baking", 200)
    world.follow_route = world.follow_servers = False
    if is_silent:
        world.objects["HTTPRoute", "shop"]["metadata"]["generation"] += 1
    else:
        world.accept(resolved="False", reason="BackendNotFound")
    world.ready(server_of(candidate), "False", copies=0)
    world.step(4, seconds=60)
    assert world.promotion()["status"]["decision"]["reason"] == "CandidateDown"
    assert world.weights() == {server_of(BASE): 100}


def second_policy(world: World, name: str = "later", **traffic: Any) -> None:
    world.now += 1
    spec = {**POLICY_SPEC, "traffic": {**POLICY_SPEC["traffic"], **traffic}}
    metadata = {"name": name, "namespace": "search", "uid": f"uid-{name}"}
    world.put({"apiVersion": "tunegate.io/v1alpha1", "kind": "PromotionPolicy", "metadata": metadata, "spec": spec})


def test_two_policies_that_would_take_each_others_requests_are_told_so() -> None:
    world = World().step(3)
    second_policy(world, hostnames=["other.example", "shop.example"])
    world.step(2)
    found = world.condition(world.policy(), "TrafficSplit")
    assert (found["status"], found["reason"]) == ("False", "RequestsTaken")
    assert "PromotionPolicy later in namespace search" in found["message"]
    assert "shop.example below /" in found["message"]
    assert world.condition(world.policy(), "Stalled")["status"] == "False", "it is older, and gets them"
    world.objects["HTTPRoute", "shop"]["metadata"]["creationTimestamp"] = at(1000).isoformat()
    world.step(2)
    stalled = world.condition(world.policy(), "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "RequestsTaken")


@pytest.mark.parametrize("hosts", [["shop.example"], ["a.example", "shop.example"]], ids=["one host", "by host"])
def test_of_several_policies_that_ask_for_the_same_requests_the_oldest_gets_them(hosts: list[str]) -> None:
    traffic = {**POLICY_SPEC["traffic"], "hostnames": ["a.example", "shop.example"]}
    world = World(traffic=traffic).step(3)
    second_policy(world, "later", hostnames=hosts[:1])
    second_policy(world, "oldest")
    world.objects["PromotionPolicy", "oldest"]["metadata"]["creationTimestamp"] = at(-1000).isoformat()
    world.step(2)
    found = world.condition(world.policy(), "Stalled")
    assert (found["status"], found["reason"]) == ("True", "RequestsTaken")
    assert "PromotionPolicy oldest in namespace search" in found["message"]
    assert "(shop.example below /), and it gets them" in found["message"]


@pytest.mark.parametrize(
    "traffic",
    [
        pytest.param({"hostnames": ["other.example"]}, id="another host"),
        pytest.param({"hostnames": ["*.example"]}, id="a pattern, which is weaker than a name"),
        pytest.param({"hostnames": []}, id="every host that nobody names"),
        pytest.param({"pathPrefix": "/search"}, id="below a prefix"),
        pytest.param({"gateway": {"name": "public"}}, id="a gateway of that name in its own namespace"),
        pytest.param({"gateway": None}, id="no gateway"),
    ],
)
def test_policies_that_share_a_gateway_as_they_say_are_no_problem(traffic: Object) -> None:
    world = World().step(3)
    second_policy(world, **traffic)
    world.step(2)
    assert world.condition(world.policy(), "TrafficSplit")["status"] == "True"


def test_routes_leave_out_what_the_cluster_does_not_know() -> None:
    world = World()
    world.missing_fields.add("spec.rules.timeouts")
    world.step(2)
    assert not any("timeouts" in rule for rule in world.objects["HTTPRoute", "shop"]["spec"]["rules"])
    world.missing_fields.clear()
    world.step(2)
    rules = world.objects["HTTPRoute", "shop"]["spec"]["rules"]
    assert [rule["timeouts"] for rule in rules] == [{"request": "0s"}] * 2


def test_servers_are_told_the_step_for_as_long_as_a_candidate_has_traffic() -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    told: dict[str, set[int]] = {}
    while not world.promotions() or world.promotion()["status"]["phase"] != "Succeeded" or len(world.weights()) > 1:
        world.step()
        told.setdefault(step_told(world), set()).add(world.weights().get(server_of(candidate), 0))
    name = world.promotion()["metadata"]["name"]
    assert told.pop("") == {0, 100}, "before, and when it is the stable version"
    assert told == {f"shop/{name}/{index}": shares for index, shares in enumerate(({10}, {50}, {95, 100}))}


def step_told(world: World) -> str:
    """What the route lets servers know of the step; a client's own header never passes."""
    rule = world.objects["HTTPRoute", "shop"]["spec"]["rules"][0]
    (header,) = [each["requestHeaderModifier"] for each in rule["filters"] if each["type"] == "RequestHeaderModifier"]
    step = "".join(each["value"] for each in header.get("set", ()))
    assert header == ({"set": [{"name": "tunegate-step", "value": step}]} if step else {"remove": ["tunegate-step"]})
    return step


HTTP = {"name": "web", "protocol": "HTTP", "port": 80}
HTTPS = {"name": "secure", "protocol": "HTTPS", "port": 443}


@pytest.mark.parametrize(
    ("traffic", "listeners", "controller", "url"),
    [
        pytest.param({}, [], "", "http://shop.example/", id="no gateway to be read"),
        pytest.param({}, [HTTP], "", "http://shop.example/", id="http"),
        pytest.param({}, [HTTP, HTTPS], "", "https://shop.example/", id="https"),
        pytest.param({"pathPrefix": "/shop"}, [HTTPS], "", "https://shop.example/shop", id="a prefix"),
        pytest.param(
            {"gateway": {"name": "public", "sectionName": "web"}},
            [HTTP, HTTPS],
            "",
            "http://shop.example/",
            id="one listener",
        ),
        pytest.param({}, [{**HTTP, "port": 8080}], "", "http://shop.example:8080/", id="a port"),
        pytest.param(
            {}, [{**HTTP, "port": 8000}], "traefik.io/gateway-controller", "http://shop.example/", id="Traefik"
        ),
        pytest.param(
            {"hostnames": ["*.example", "shop.example"]}, [HTTP], "", "http://shop.example/", id="a pattern first"
        ),
        pytest.param({"hostnames": ["*.example"]}, [HTTP], "", "", id="only a pattern"),
        pytest.param({"hostnames": []}, [HTTP], "", "", id="no name"),
        pytest.param(
            {"hostnames": []}, [{**HTTP, "hostname": "gate.example"}], "", "http://gate.example/", id="the listener's"
        ),
        pytest.param(
            {}, [HTTP, {**HTTPS, "hostname": "other.example"}], "", "http://shop.example/", id="of another host"
        ),
        pytest.param({}, [HTTP, {**HTTPS, "hostname": "*.example"}], "", "https://shop.example/", id="of many hosts"),
        pytest.param({}, [{"name": "tcp", "protocol": "TCP", "port": 1}], "", "http://shop.example/", id="not HTTP"),
    ],
)
def test_the_address_is_one_that_can_be_called(
    traffic: Object, listeners: list[Object], controller: str, url: str
) -> None:
    policy = make_policy(**traffic)
    gateway = {"spec": {"listeners": listeners}} if listeners else None
    route = make_route(100, entries=(make_entry(controller=controller),))
    assert address(policy, route, gateway) == url


def make_policy(**traffic: Any) -> ClusterPolicy:
    return msgspec.convert({**POLICY_SPEC, "traffic": {**POLICY_SPEC["traffic"], **traffic}}, ClusterPolicy)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with run_engine() as running:
        yield running


def ask(url: str, host: str = "shop.example") -> tuple[int, str]:
    body = {"messages": [{"role": "user", "content": "Price?"}]}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Host": host, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=100) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("prefix", ["/", "/shop", "/shop/", "/team-a/shop"])
def test_a_request_below_the_prefix_reaches_the_server_as_it_knows_it(server: StandIn, prefix: str) -> None:
    route = manifests.http_route(NAMESPACE, make_policy(pathPrefix=prefix), "shop", {BASE.digest: 100})
    endpoints = {f"{server_of(BASE)}-predictor": [server.url]}
    with run_gateway(route, endpoints=endpoints) as gateway:
        status, text = ask(f"{gateway.url}{prefix.rstrip('/')}/v1/chat/completions")
        assert (status, "Blue." in text) == (200, True), text
        if prefix != "/":
            assert ask(f"{gateway.url}/v1/chat/completions")[0] == 404
            assert ask(f"{gateway.url}{prefix.rstrip('/')}s/v1/chat/completions")[0] == 404


@pytest.mark.parametrize("takes_timeouts", [True, False])
def test_an_answer_may_take_longer_than_the_gateways_default(server: StandIn, takes_timeouts: bool) -> None:
    weights = {BASE.digest: 100}
    route = manifests.http_route(NAMESPACE, make_policy(), "shop", weights, takes_timeouts=takes_timeouts)
    endpoints = {f"{server_of(BASE)}-predictor": [server.url]}
    body = json.dumps({"stream": True, "messages": [{"role": "user", "content": "go on"}]}).encode()
    with run_gateway(route, endpoints=endpoints, default_timeout=0.1) as gateway:
        request = urllib.request.Request(f"{gateway.url}/v1/chat/completions", body, {"Host": "shop.example"})
        if not takes_timeouts:  # cut within the answer, or before it where the machine is busy
            with pytest.raises((http.client.HTTPException, OSError)), urllib.request.urlopen(request) as reply:
                reply.read()
            return
        with urllib.request.urlopen(request, timeout=100) as reply:
            reply.read(100_000)  # the stand-in sends a thousand bytes each 5 ms
            server.go_on.set()
            assert b'"stop"' in reply.read()
