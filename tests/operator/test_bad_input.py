"""What goes wrong around the operator: it says so in a condition that names the remedy, and moves no traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.apiserver import OWN_CRDS, foreign_crds_folder, new_api_server
from tests.operator.running import POLICY_NAME, Shop, keep_voting, open_shop
from tests.waiting import wait_for
from tunegate.api.versions import MANIFEST
from tunegate.kube.client import connect
from tunegate.store import Store
from tunegate_operator import kinds
from tunegate_operator.config import Config
from tunegate_operator.kinds import operator_cluster
from tunegate_operator.main import join
from tunegate_operator.metrics import Metrics
from tunegate_operator.types import object_name


def abort(shop: Shop, name: str) -> None:
    spec = json.dumps({"spec": {"abort": {"actor": "ada", "message": "enough"}}})
    shop.server.kubectl("-n", shop.namespace, "patch", "promotion", name, "--type=merge", "-p", spec)


def is_told(shop: Shop, reason: str, text: str) -> None:
    """Wait for an Event with that reason and these words."""

    def came() -> bool:
        return any(each == reason and text in note for each, note in shop.events())

    wait_for(came, what=f"the Event {reason} with {text!r}, besides {shop.events()}")


@contextmanager
def operator_whose_clock_is_off(shop: Shop, seconds: float) -> Iterator[None]:
    """In this process, and without an election."""

    def clock() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=seconds)

    config = Config(
        store=shop.store.uri,
        evaluation_image="tunegate/trainer:0.1.0",
        namespaces=(shop.namespace,),
        scan_seconds=1,
    )
    with shop.server.client() as client:
        operator = join(config, operator_cluster(client, clock=clock), Metrics())
        with operator.watching():
            wait_for(operator.watches.synced, what="the watches")
            with operator.working():
                yield


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


def test_wrong_store_credentials_are_told_and_the_right_ones_go_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are read when the operator starts, so a corrected Secret takes a restart."""
    shop.start_policy()
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        operator = shop.start_operator()
        found = shop.until_condition("StoreReadable", "CredentialsRefused")
    assert found["status"] == "False"
    assert "AWS_SECRET_ACCESS_KEY" in found["message"]
    is_told(shop, "CredentialsRefused", "AWS_SECRET_ACCESS_KEY")
    assert shop.cluster.get(kinds.HTTP_ROUTE, shop.namespace, POLICY_NAME) is None
    operator.stop()
    shop.start_operator("operator-1")
    shop.until_serving()
    assert shop.condition(kinds.POLICY, POLICY_NAME, "StoreReadable")["status"] == "True"


def test_a_manifest_that_lies_is_named_and_stops_no_other(shop: Shop) -> None:
    shop.start_policy()
    shop.start_operator()
    shop.until_serving()
    shown = shop.publish("run-1")
    shop.until(shown, "Paused")
    lying = shop.publish("run-2")
    key = f"{lying.name}/{MANIFEST}"
    manifest = json.loads(shop.store.get(key) or b"")
    shop.store.put(key, json.dumps(manifest | {"digest": f"sha256:{'0' * 64}"}).encode())
    found = shop.until_condition("StoreReadable", "DigestMismatch")
    assert lying.name in found["message"]
    assert shop.weights() == {shop.server_of(shop.base): 90, shop.server_of(shown): 10}
    abort(shop, object_name(shown))
    shop.until(shown, "Aborted")
    shop.until(shop.publish("run-3"), "Paused")
    shop.store.delete(key)
    shop.until_condition("StoreReadable", "Readable")


def test_an_evaluation_that_takes_too_long_fails_and_shows_nothing(shop: Shop) -> None:
    shop.start_policy(evaluationTimeoutSeconds=3)
    shop.start_operator()
    shop.until_serving()
    shop.hands.evaluate = False
    version = shop.publish("run-1")
    ended = shop.until(version, "Failed")
    assert ended["status"]["decision"]["reason"] == "EvaluationTimeout"
    is_told(shop, "EvaluationTimeout", "3 s")
    assert shop.condition(kinds.PROMOTION, object_name(version), "Evaluated")["reason"] == "EvaluationTimeout"
    assert shop.weights() == {shop.server_of(shop.base): 100}


def test_a_canary_that_never_comes_up_gets_no_traffic(shop: Shop) -> None:
    shop.start_policy(serving={"readyTimeoutSeconds": 3})
    shop.start_operator()
    shop.until_serving()
    shop.hands.serve = False
    version = shop.publish("run-1")
    shop.until(version, "Failed")
    is_told(shop, "CanaryNotReady", f"describe inferenceservice {shop.server_of(version)}")
    assert shop.condition(kinds.PROMOTION, object_name(version), "Healthy")["reason"] == "CanaryNotReady"
    assert shop.weights() == {shop.server_of(shop.base): 100}


def make_ready_pod(shop: Shop, server: str) -> None:
    """As a kubelet would say it."""
    container = {"name": "kserve-container", "image": "predictor"}
    labels = {"serving.kserve.io/inferenceservice": server}
    metadata = {"name": server, "namespace": shop.namespace, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}
    shop.server.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    patch = json.dumps({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
    words = ["patch", "pod", server, "--subresource=status", "--type=merge", "-p", patch]
    shop.server.kubectl("-n", shop.namespace, *words)


@pytest.mark.parametrize("told", [1, 0], ids=["told", "not told"])
def test_one_of_several_replicas_that_loads_slowly_is_no_server_that_is_away(
    shop: Shop, prometheus: str, told: int
) -> None:
    """As after its node was drained: KServe says not ready, and what failed in that pod, while another answers.

    It says nothing of that other one while the initializer of the first runs again after a failure.
    """
    shop.start_policy(serving={"replicas": 2, "unavailableSeconds": 1}, bakingSeconds=5)
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator()
    shop.until(version, "Paused")
    shop.hands.serve = False
    server = {**shop.get(kinds.INFERENCE_SERVICE, shop.server_of(version)), "apiVersion": "serving.kserve.io/v1beta1"}
    condition = {"type": "Ready", "status": "False", "reason": "MinimumReplicasUnavailable"}
    failure = {"reason": "ModelLoadFailed", "message": "the store did not answer"}
    if not told:
        make_ready_pod(shop, shop.server_of(version))
    model = {"copies": {"totalCopies": told}, "transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": failure}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shop.hands.status(server, {"conditions": [{**condition, "lastTransitionTime": now}], "modelStatus": model})
    stop = keep_voting(shop, lambda: (shop.vote(version, up=10), shop.vote(shop.base, up=10)))  # type: ignore[func-returns-value]
    try:
        shop.until(version, "Succeeded", "RolledBack", "Failed")
    finally:
        stop()
    assert shop.phase(version) == "Succeeded"


@pytest.mark.timeout(600)
def test_kinds_that_are_installed_later_are_used_as_soon_as_they_are_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `helm install` before KServe and the Gateway API: the policy says what is missing, and then serves."""
    foreign = foreign_crds_folder()
    with new_api_server(tmp_path, [OWN_CRDS]) as server:
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(server.kubeconfig))
        namespace = server.new_namespace()
        with (
            connect("tests/1", remedy="") as client,
            open_shop(server, operator_cluster(client), namespace, store, tmp_path) as shop,
        ):
            shop.start_policy()
            shop.start_operator()
            found = shop.until_condition("Serving", "KServeMissing")
            assert "install KServe" in found["message"]
            shop.until_condition("TrafficSplit", "GatewayApiMissing")
            server.install_crds([foreign])
            # What is not there is looked for once a minute.
            wait_for(lambda: shop.policy_phase() == "Serving", what="the policy to serve")


def test_a_route_whose_backends_are_not_found_moves_nothing_and_can_be_aborted(shop: Shop) -> None:
    shop.start_policy()
    shop.start_operator()
    shop.until_serving()
    version = shop.publish("run-1")
    shop.until(version, "Paused")
    shop.hands.route = False
    before = shop.weights()
    shop.hands.accept(
        {**shop.get(kinds.HTTP_ROUTE, POLICY_NAME), "apiVersion": "gateway.networking.k8s.io/v1"}, "False"
    )
    found = shop.until_condition("TrafficSplit", "RouteNotAccepted")
    assert "describe httproute" in found["message"]
    is_told(shop, "RouteNotAccepted", "describe httproute")
    shop.until_condition("Stalled", "RouteNotAccepted")
    assert shop.weights() == before
    abort(shop, object_name(version))
    wait_for(lambda: shop.weights() == {shop.server_of(shop.base): 100}, what="the traffic to be sent back")
    assert shop.phase(version) == "RollingBack", "nobody has confirmed it"
    shop.hands.route = True
    shop.until(version, "Aborted")


def test_a_server_deleted_by_hand_is_made_again(shop: Shop) -> None:
    """The stable keeps its share; the canary's goes to the stable until it is ready again."""
    shop.start_policy()
    shop.start_operator()
    shop.until_serving()
    version = shop.publish("run-1")
    shop.until(version, "Paused")
    shown = {shop.server_of(shop.base): 90, shop.server_of(version): 10}
    shop.hands.serve = False
    delete_server(shop, shop.server_of(shop.base))
    assert shop.weights() == shown
    delete_server(shop, shop.server_of(version))
    wait_for(lambda: shop.weights() == {shop.server_of(shop.base): 100}, what="nobody to be sent to nothing")
    shop.hands.serve = True
    wait_for(lambda: shop.weights() == shown, what="the canary to be shown again")
    shop.until(version, "Paused")


def delete_server(shop: Shop, server: str) -> None:
    """As a person would; returns when the operator has made it again."""
    old = shop.get(kinds.INFERENCE_SERVICE, server)["metadata"]["uid"]
    shop.server.kubectl("-n", shop.namespace, "delete", "inferenceservice", server)

    def is_new() -> bool:
        found = shop.cluster.get(kinds.INFERENCE_SERVICE, shop.namespace, server)
        return found is not None and found["metadata"]["uid"] != old

    wait_for(is_new, what=f"{server} to be made again")


def test_a_prometheus_that_knows_nothing_lets_nothing_grow(shop: Shop, prometheus: str) -> None:
    shop.start_prometheus(prometheus)
    shop.start_policy()
    shop.start_operator()
    shop.until_serving()
    version = shop.publish("run-1")
    found = shop.until_condition("FeedbackReadable", "NoFeedbackCounts")
    assert "PodMonitor" in found["message"]
    shop.until(version, "Paused")
    assert shop.weights() == {shop.server_of(shop.base): 90, shop.server_of(version): 10}
    abort(shop, object_name(version))
    shop.until(version, "Aborted")


def test_an_older_version_may_be_promoted_by_hand(shop: Shop) -> None:
    shop.start_policy(steps=[{"weight": 100}], bakingSeconds=1)
    shop.start_operator()
    shop.until_serving()
    older = shop.publish("run-1", score=0.1)
    shop.until(older, "Rejected")
    newer = shop.publish("run-2", score=0.1)
    shop.until(newer, "Rejected")
    by_hand = {
        "apiVersion": "tunegate.io/v1alpha1",
        "kind": "Promotion",
        "metadata": {"name": "by-hand", "namespace": shop.namespace},
        "spec": {"policy": POLICY_NAME, "version": object_name(older)},
    }
    shop.cluster.apply(by_hand)

    def ended() -> bool:
        found = shop.get(kinds.PROMOTION, "by-hand").get("status", {})
        return bool(found.get("phase") == "Rejected")

    wait_for(ended, what="the gates to hold for a person, too")
    assert shop.weights() == {shop.server_of(shop.base): 100}
