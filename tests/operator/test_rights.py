"""The operator with nothing but what the chart allows it: a whole promotion, on an API server that enforces RBAC."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import Object, render
from tests.operator.running import POLICY_NAME, Shop
from tests.waiting import wait_for
from tunegate_operator import kinds

ACCOUNT = "tunegate-operator"
RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


Grant = Callable[[str], None]


@pytest.fixture
def grant(shop: Shop) -> Iterator[Grant]:
    """Gives the operator what the chart gives it, as if released into the shop's namespace; until the test ends."""
    given: list[str] = []

    def give(scope: str) -> None:
        given.append(rights_of(shop, scope))
        shop.server.kubectl("apply", "-f", "-", stdin=given[-1])

    yield give
    for text in given:
        shop.server.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=text)


def rights_of(shop: Shop, scope: str, **more: Object) -> str:
    values = {"rbac": {"scope": scope}, **more}
    objects = [each for each in render(values, release="tunegate", namespace=shop.namespace) if each["kind"] in RIGHTS]
    wanted = [each for each in objects if ACCOUNT in each["metadata"]["name"]]
    assert {each["kind"] for each in wanted} >= {"ServiceAccount", "Role", "RoleBinding"}
    return str(yaml.safe_dump_all(wanted))


def test_a_team_reads_the_gateway_of_another_namespace_where_the_chart_is_told_of_it(
    shop: Shop, tmp_path: Path
) -> None:
    elsewhere = shop.server.new_namespace()
    traffic = {"gatewayNamespaces": [elsewhere]}
    given = rights_of(shop, "Namespaced", traffic=traffic)
    shop.server.kubectl("apply", "-f", "-", stdin=given)
    listener = {"name": "https", "protocol": "HTTPS", "port": 8443, "tls": {"certificateRefs": [{"name": "shop"}]}}
    gateway = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "public", "namespace": elsewhere},
        "spec": {"gatewayClassName": "any", "listeners": [listener]},
    }
    shop.server.kubectl("apply", "-f", "-", stdin=json.dumps(gateway))
    kubeconfig = shop.server.kubeconfig_as(shop.namespace, ACCOUNT, tmp_path)
    shop.start_policy(traffic={"gateway": {"name": "public", "namespace": elsewhere}, "hostnames": ["shop.example"]})
    operator = shop.start_operator("operator-0", kubeconfig, "--gateway-namespace", elsewhere)
    shop.until_serving()
    assert shop.get(kinds.POLICY, POLICY_NAME)["status"]["url"] == "https://shop.example:8443/"
    assert "forbidden" not in operator.log.read_text().lower()
    shop.server.kubectl("delete", "-f", "-", stdin=given)


@pytest.mark.parametrize("scope", ["Cluster", "Namespaced"])
def test_a_promotion_and_a_rollback_need_no_more_rights_than_the_chart_gives(
    shop: Shop, prometheus: str, grant: Grant, scope: str, tmp_path: Path
) -> None:
    grant(scope)
    kubeconfig = shop.server.kubeconfig_as(shop.namespace, ACCOUNT, tmp_path)
    shop.start_policy(steps=[{"weight": 50, "minVerdicts": 5}])
    good = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, good)
    operator = shop.start_operator("operator-0", kubeconfig)
    shop.until(good, "Paused")
    shop.vote(shop.base, up=60)
    shop.vote(good, up=60)
    shop.until(good, "Succeeded")
    bad = shop.publish("run-2")
    shop.show(bad)
    shop.until(bad, "Paused")
    shop.vote(good, up=60)
    shop.vote(bad, down=60)
    shop.until(bad, "RolledBack")
    assert shop.weights() == {shop.server_of(good): 100}
    assert {"Baked", "FeedbackWorse"} <= {reason for reason, _ in shop.events()}
    log = operator.log.read_text()
    assert "forbidden" not in log.lower(), log


def test_what_the_operator_deletes_in_the_end_it_may_delete(shop: Shop, grant: Grant, tmp_path: Path) -> None:
    """With a history of one, older attempts that have ended go."""
    grant("Namespaced")
    kubeconfig = shop.server.kubeconfig_as(shop.namespace, ACCOUNT, tmp_path)
    shop.start_policy(historyLimit=1)
    operator = shop.start_operator("operator-0", kubeconfig)
    first = shop.publish("run-1", score=0.1)
    shop.until(first, "Rejected")
    second = shop.publish("run-2", score=0.2)
    shop.until(second, "Rejected")
    wait_for(lambda: shop.promotion(first) is None, what="the older attempt to go")
    assert "forbidden" not in operator.log.read_text().lower()


def test_without_a_right_the_operator_says_which_one(shop: Shop, tmp_path: Path) -> None:
    kubeconfig = shop.server.kubeconfig_as(shop.namespace, "nobody", tmp_path)
    operator = shop.start_operator("operator-0", kubeconfig)
    wait_for(lambda: "promotionpolicies" in operator.log.read_text(), what="a word about what is forbidden")
    log = operator.log.read_text()
    assert "forbidden" in log
    assert "tunegate.io" in log


@pytest.mark.parametrize(
    "words",
    [
        "get secrets",
        "create pods/exec",
        "list nodes",
        "patch statefulsets.apps",
        "get clusterroles.rbac.authorization.k8s.io",
    ],
)
def test_the_same_account_has_no_otherrights_of(shop: Shop, grant: Grant, words: str) -> None:
    grant("Cluster")
    who = f"--as=system:serviceaccount:{shop.namespace}:{ACCOUNT}"
    verb, what = words.split()
    answer = shop.server.kubectl("auth", "can-i", verb, what, who, "-n", shop.namespace, check=False)
    assert answer.stdout.strip() == "no", answer
