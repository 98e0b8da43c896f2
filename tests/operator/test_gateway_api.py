"""Routes as we write them, on a real API server with the Gateway API's own CRDs."""

from __future__ import annotations

import msgspec
import pytest

from tests.builders import make_version
from tests.operator.objects import policy
from tunegate.api.policy import ClusterPolicy
from tunegate.api.traffic import ANSWER_PATHS
from tunegate.kube.client import Cluster
from tunegate.kube.kinds import Kind
from tunegate_operator import kinds, manifests
from tunegate_operator.edits import is_same

pytestmark = pytest.mark.usefixtures("foreign_crds")


@pytest.mark.parametrize("prefix", ["/", "/shop", "/shop/"])
def test_the_api_server_takes_every_field_of_a_route(cluster: Cluster, namespace: str, prefix: str) -> None:
    traffic = {"gateway": {"name": "public", "sectionName": "web"}, "hostnames": ["*.example"], "pathPrefix": prefix}
    spec = msgspec.convert(policy(traffic=traffic)["spec"], ClusterPolicy)
    weights = {make_version("base").digest: 90, make_version("run-1").digest: 10}
    wanted = manifests.http_route(namespace, spec, "shop", weights, step="team-a/shop-run-1/0")
    cluster.apply(wanted)
    found = cluster.get(kinds.HTTP_ROUTE, namespace, "shop")
    assert found is not None
    *answers, others = found["spec"]["rules"]
    assert len(answers) == (1 if prefix == "/" else len(ANSWER_PATHS))
    for rule in answers:
        assert [ref["weight"] for ref in rule["backendRefs"]] == [90, 10]
        assert rule["timeouts"] == {"request": "0s"}
        header = rule["filters"][0]["requestHeaderModifier"]
        assert header == {"set": [{"name": "tunegate-step", "value": "team-a/shop-run-1/0"}]}
        assert (len(rule["filters"]) > 1) == (prefix != "/")
    assert len(others["backendRefs"]) == 1
    assert is_same(wanted["spec"], found["spec"])


def test_the_one_rule_of_an_older_operator_is_replaced_as_a_whole(cluster: Cluster, namespace: str) -> None:
    spec = msgspec.convert(policy(traffic={"gateway": {"name": "public"}})["spec"], ClusterPolicy)
    wanted = manifests.http_route(
        namespace, spec, "shop", {make_version("base").digest: 90, make_version("a").digest: 10}
    )
    backends = wanted["spec"]["rules"][0]["backendRefs"]
    older = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}
    cluster.apply({**wanted, "spec": {**wanted["spec"], "rules": [older]}})
    found = cluster.apply(wanted)
    assert [len(rule["backendRefs"]) for rule in found["spec"]["rules"]] == [2, 1]
    assert is_same(wanted["spec"], found["spec"])


@pytest.mark.parametrize(
    ("kind", "path", "is_there"),
    [
        pytest.param(kinds.HTTP_ROUTE, ("spec", "rules", "timeouts"), True, id="since Gateway API 1.2"),
        pytest.param(kinds.HTTP_ROUTE, ("spec", "rules", "sessionPersistence"), False, id="experimental"),
        pytest.param(kinds.HTTP_ROUTE, ("spec", "nothing", "timeouts"), False, id="nothing above it"),
        pytest.param(Kind("example.test", "v1", "things", "Thing"), ("spec",), True, id="not to be told"),
    ],
)
def test_what_fields_a_kind_has_is_asked_of_the_api_server(
    cluster: Cluster, kind: Kind, path: tuple[str, ...], is_there: bool
) -> None:
    assert cluster.has_field(kind, *path) == is_there
