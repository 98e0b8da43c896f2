"""A thousand promotions that are over: a new operator is soon ready, and leaves every one of them as it is."""

from __future__ import annotations

import http.client
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from tests.builders import make_version
from tests.operator.running import POLICY_NAME, Shop
from tests.waiting import wait_for
from tunegate.api.promotion import Decision, PromotionStatus, Transition
from tunegate_operator import kinds, manifests
from tunegate_operator.types import object_name, to_plain

MANY = 1000
READY_SECONDS = 240


def make_ended(shop: Shop, number: int) -> None:
    version = make_version(f"run-{number}", created=number)
    name, now = object_name(version), datetime.now(UTC)
    obj = manifests.promotion(shop.namespace, POLICY_NAME, name, version)
    shop.cluster.apply(obj)
    refused = Decision(outcome="Rejected", reason="GateFailed", message="0.4 is below 0.5", time=now)
    last = Transition(phase="Rejected", time=now, reason="GateFailed", message="0.4 is below 0.5")
    status = to_plain(PromotionStatus(phase="Rejected", decision=refused, history=(last,)))
    body = {key: obj[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": name, "namespace": shop.namespace},
        "status": {**status, "candidate": to_plain(version)},
    }
    shop.cluster.apply(body, status=True)


def is_ready(shop: Shop, operator: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{shop.metrics_ports[operator]}/readyz", timeout=60) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def versions_of(shop: Shop, kind: kinds.Kind) -> dict[str, str]:
    found = shop.cluster.list(kind, shop.namespace)
    return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in found}


def test_a_restart_among_a_thousand_ended_promotions_is_soon_ready_and_writes_to_none(shop: Shop) -> None:
    with ThreadPoolExecutor(8) as makers:
        list(makers.map(lambda number: make_ended(shop, number), range(MANY)))
    shop.start_policy(historyLimit=MANY)
    before = versions_of(shop, kinds.PROMOTION)
    assert len(before) == MANY
    operator = shop.start_operator()
    shop.until_serving()
    operator.stop()
    shop.start_operator("operator-1")
    wait_for(lambda: is_ready(shop, "operator-1"), seconds=READY_SECONDS, what="the new operator to be ready")
    # It works on: a newer version is tried, and not over yet, or else the oldest would go.
    shop.hands.evaluate = False
    newer = shop.publish("run-new")
    shop.until(newer, "Evaluating")
    after = versions_of(shop, kinds.PROMOTION)
    assert after.pop(object_name(newer))
    assert after == before
