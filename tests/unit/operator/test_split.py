"""Who gets which share of the answers, through gateways that split in turns and by chance, and the local proxy."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.builders import make_version
from tests.gateway import ByChance, Gateway, InTurns
from tests.unit.operator.world import BASE, NAMESPACE, POLICY_SPEC, World, server_of
from tunegate.api.feedback import Tally
from tunegate.api.policy import ClusterPolicy
from tunegate.api.traffic import ANSWER_PATHS, STEP_HEADER
from tunegate.api.versions import ModelVersion
from tunegate.local.route import Backend, Route, targets
from tunegate_operator import manifests
from tunegate_operator.gather import Gathered

Request = tuple[str, str]
ASK: Request = ("POST", "/v1/chat/completions")
VOTE: Request = ("POST", "/v1/feedback")
LIST: Request = ("GET", "/v1/models")
ANSWERS = 1000
CANDIDATE = make_version("run-1")

clients = pytest.mark.parametrize(
    "client",
    [
        pytest.param((ASK,), id="asks only"),
        pytest.param((ASK, VOTE), id="asks and votes in turn"),
        pytest.param((ASK, VOTE, VOTE, VOTE), id="votes three times an answer"),
        pytest.param((LIST, ASK), id="lists models before each question"),
        pytest.param((VOTE,) * 9 + (ASK,), id="as many requests as the turns of 10 %"),
    ],
)
WEIGHTS = (5, 10, 50)
weights = pytest.mark.parametrize("weight", WEIGHTS)


def chance(n: int, percent: int) -> tuple[int, int]:
    """Between which numbers of n random answers a share of so many percent is in 99.9 % of all cases (binomial)."""
    p, tail = percent / 100, 0.001 / 2
    below = 0.0
    cumulated = []
    for k in range(n + 1):
        below += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log(1 - p)
        )
        cumulated.append(below)
    return next(k for k in range(n) if cumulated[k] > tail), next(k for k in range(n) if cumulated[k] >= 1 - tail)


def answers_of_candidate(gateway: Gateway, client: tuple[Request, ...], prefix: str = "") -> int:
    """How many of the answers the candidate gave."""
    given: Counter[str] = Counter()
    for _ in range(ANSWERS):
        for method, path in client:
            forwarded = gateway.forward(f"{prefix}{path}", {"host": "shop.example"})
            assert forwarded is not None
            assert forwarded.path == path
            given[forwarded.service] += (method, path) == ASK
    assert given.total() == ANSWERS
    return given[f"{server_of(CANDIDATE)}-predictor"]


def make_route(weight: int, **traffic: Any) -> dict[str, Any]:
    policy = msgspec.convert({**POLICY_SPEC, "traffic": {**POLICY_SPEC["traffic"], **traffic}}, ClusterPolicy)
    shares = {BASE.digest: 100 - weight, CANDIDATE.digest: weight}
    return manifests.http_route(NAMESPACE, policy, "shop", shares, step="shop-run-1/0")


@weights
@clients
@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_a_gateway_that_goes_in_turns_gives_each_its_share(
    client: tuple[Request, ...], weight: int, prefix: str
) -> None:
    gateway = Gateway(routes=[make_route(weight, pathPrefix=prefix or "/")], split=InTurns())
    given = answers_of_candidate(gateway, client, prefix)
    assert abs(given - ANSWERS * weight / 100) <= 1


@weights
@clients
@pytest.mark.parametrize("seed", range(3))
def test_a_gateway_that_goes_by_chance_gives_each_its_share(
    client: tuple[Request, ...], weight: int, seed: int
) -> None:
    gateway = Gateway(routes=[make_route(weight)], split=ByChance(seed))
    least, most = chance(ANSWERS, weight)
    assert least <= answers_of_candidate(gateway, client) <= most


@weights
@clients
def test_the_local_proxy_gives_each_its_share(client: tuple[Request, ...], weight: int) -> None:
    stable = Backend(version=BASE.digest, url="http://127.0.0.1:8101", weight=100 - weight)
    canary = Backend(version=CANDIDATE.digest, url="http://127.0.0.1:8102", weight=weight)
    route = Route(salt="shop-run-1", backends=(stable, canary))
    given = 0
    for number in range(ANSWERS):
        body = msgspec.json.encode({"messages": [{"role": "user", "content": f"Question {number}?"}]})
        for method, path in client:
            first = targets(route, method, path, {}, body if (method, path) == ASK else b"")[0]
            given += (method, path) == ASK and first == canary
    least, most = chance(ANSWERS, weight)
    assert least <= given <= most


def test_the_bounds_of_chance_are_those_that_the_docs_tell() -> None:
    text = (Path(__file__).parents[3] / "docs" / "design" / "traffic.md").read_text()
    for weight in WEIGHTS:
        least, most = chance(ANSWERS, weight)
        assert f"| {weight} % | {least} to {most} |" in text


@pytest.mark.parametrize("prefix", ["", "/shop", "/team-a/shop"])
@pytest.mark.parametrize("said", [None, "shop-run-9/7"], ids=["silent", "forging"])
def test_a_server_is_told_the_step_with_answers_alone_whatever_the_client_says(prefix: str, said: str | None) -> None:
    gateway = Gateway(routes=[make_route(10, pathPrefix=prefix or "/")])
    headers = {"host": "shop.example"} | ({STEP_HEADER: said} if said else {})

    def told(path: str) -> str | None:
        forwarded = gateway.forward(prefix + path, headers)
        assert forwarded is not None
        assert forwarded.path == path
        return forwarded.headers.get(STEP_HEADER)

    assert {path: told(path) for path in ANSWER_PATHS} == dict.fromkeys(ANSWER_PATHS, "shop-run-1/0")
    others = ("/v1/feedback", "/openai/v1/models?limit=1", "/v1/chat/completions/more", "/")
    assert {path: told(path) for path in others} == dict.fromkeys(others, None)


@pytest.mark.parametrize(("weight", "most"), [(0, BASE), (50, BASE), (51, CANDIDATE), (100, CANDIDATE)])
def test_everything_but_answers_goes_to_the_server_with_most_of_the_traffic(weight: int, most: ModelVersion) -> None:
    gateway = Gateway(routes=[make_route(weight)])
    forwarded = [gateway.forward("/v1/feedback", {"host": "shop.example"}) for _ in range(3)]
    assert {each and each.service for each in forwarded} == {f"{server_of(most)}-predictor"}


def test_the_route_of_an_older_operator_is_read_right_and_replaced_without_another_weight() -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, Tally(up=2), Tally(up=2)).until("Paused")
    route = world.objects["HTTPRoute", "shop"]
    answers = route["spec"]["rules"][0]
    before = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": answers["backendRefs"]}
    spec = {**route["spec"], "rules": [before]}
    world.put(manifests.remembered({**route, "spec": spec}))
    world.accept()
    gathered = world.look()
    assert isinstance(gathered, Gathered)
    assert gathered.snapshot.weights == {BASE.digest: 90, candidate.digest: 10}
    assert gathered.snapshot.modified == ""

    world.step()

    assert world.objects["HTTPRoute", "shop"]["spec"] == route["spec"]
    assert world.weights() == {server_of(BASE): 90, server_of(candidate): 10}
    assert world.step(2).promotion()["status"]["phase"] == "Paused"
