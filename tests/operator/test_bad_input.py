"""What goes wrong around the operator: it says so in a condition that names the remedy, and moves no traffic."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.apiserver import ApiServer, wait_for
from tests.operator.running import POLICY_NAME, Shop, open_shop
from tunegate.api.versions import MANIFEST
from tunegate.store import Store
from tunegate_operator import cluster as kinds
from tunegate_operator.cluster import Cluster
from tunegate_operator.config import Config
from tunegate_operator.loop import Loop
from tunegate_operator.metrics import Metrics
from tunegate_operator.process import WATCHED, WITH_MANAGERS, _look_again
from tunegate_operator.reconcile import Reconciler
from tunegate_operator.resources import object_name
from tunegate_operator.watch import Watches


@pytest.fixture
def shop(
    api_server: ApiServer,
    tunegate_crds: None,
    foreign_crds: None,
    cluster: Cluster,
    namespace: str,
    store: Store,
    tmp_path: Path,
) -> Iterator[Shop]:
    with open_shop(api_server, cluster, namespace, store, tmp_path) as shop:
        yield shop


def abort(shop: Shop, name: str) -> None:
    spec = json.dumps({"spec": {"abort": {"actor": "ada", "message": "enough"}}})
    shop.server.kubectl("-n", shop.namespace, "patch", "promotion", name, "--type=merge", "-p", spec)


def told(shop: Shop, reason: str) -> str:
    """The note of the Event with that reason, when it has come."""
    wait_for(lambda: reason in dict(shop.events()), what=f"the Event {reason}, besides {shop.events()}")
    return dict(shop.events())[reason]


@contextmanager
def operator_whose_clock_is_off(shop: Shop, seconds: float) -> Iterator[None]:
    """The parts that `run` puts together, in this process."""

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=seconds)

    config = Config(store=shop.store.uri, evaluation_image="tunegate/trainer:0.1.0", scan_seconds=1)
    with shop.server.client() as client:
        cluster, metrics, stop = Cluster(client, clock=clock), Metrics(), threading.Event()
        watches = Watches(cluster, WATCHED, [shop.namespace], with_managers=WITH_MANAGERS)
        reconciler = Reconciler(config, cluster, watches, metrics, cluster.now)
        loop = Loop(reconciler.reconcile, metrics)
        reconciler.notify = loop.add
        watches.on_change(lambda kind, old, new: _look_again(loop, reconciler, kind, old, new))
        watches.start()
        wait_for(watches.synced, what="the watches")
        thread = reconciler.start(stop)
        loop.start()
        try:
            yield
        finally:
            loop.stop()
            stop.set()
            reconciler.wake()
            thread.join()
            watches.stop()


@pytest.mark.parametrize("seconds", [600, -600], ids=["ahead", "behind"])
def test_a_clock_that_is_off_fails_no_server_early_and_none_late(shop: Shop, seconds: float) -> None:
    shop.start_policy(serving={"readyTimeoutSeconds": 8, "unavailableSeconds": 8})
    with operator_whose_clock_is_off(shop, seconds):
        shop.until_serving()
        shop.hands.serve = False
        slow = shop.publish("run-1")
        shop.until(slow, "Progressing")
        server = shop.server_of(slow)
        wait_for(lambda: shop.cluster.get(kinds.INFERENCE_SERVICE, shop.namespace, server), what="the canary's server")
        made = shop.get(kinds.INFERENCE_SERVICE, server)["metadata"]["creationTimestamp"]
        ended = shop.until(slow, "Failed")
    decision = ended["status"]["decision"]
    assert decision["reason"] == "CanaryNotReady"
    waited = datetime.now(UTC) - datetime.fromisoformat(made)
    assert waited > timedelta(seconds=7), "no sooner than it was allowed to take, on anybody's clock"
    assert abs(datetime.fromisoformat(decision["time"]) - datetime.now(UTC)) < timedelta(seconds=60)
    assert shop.weights() == {shop.server_of(shop.base): 100}
