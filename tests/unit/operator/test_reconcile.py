"""What is made of the API server's refusals."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.builders import at, make_version
from tests.unit.operator.world import BASE, CONFIG, NAMESPACE, World, server_of
from tunegate.api.feedback import Tally
from tunegate.kube.errors import ClusterError, ConflictError, Status, UnreachableError, error_of
from tunegate.kube.workqueue import Key
from tunegate_operator.metrics import Metrics
from tunegate_operator.reconcile import AGAIN_SECONDS, REFUSED_SECONDS, Reconciler

GOOD, BAD = Tally(up=38, down=2), Tally(up=4, down=36)


DOWN = error_of(
    Status(
        message='Internal error occurred: failed calling webhook "inferenceservice.kserve-webhook-server.defaulter": '
        'failed to call webhook: Post "https://kserve-webhook-server-service.kserve.svc:443/mutate": no endpoints',
        reason="InternalError",
        code=500,
    )
)
QUOTA = error_of(Status(message="jobs.batch is forbidden: exceeded quota: team", reason="Forbidden", code=403))
DENIED = error_of(Status(message='admission webhook "kyverno" denied the request: no', reason="BadRequest", code=400))


class Refusing:
    """A cluster in which everything works but for writing one kind; and who wrote what, in order."""

    def __init__(self, world: World, kind: str, error: ClusterError | None) -> None:
        self._world, self._kind, self._error = world, kind, error
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def emit(self, regarding: Any, *, reason: str, note: str, action: str, type: str) -> None:
        self._world.notes.append((reason, note))

    def apply(self, obj: Any, *, status: bool = False) -> None:
        self._check(obj["kind"])
        self._world._write_status(obj) if status else self._world.put(obj)

    def create(self, obj: Any) -> None:
        self._check(obj["kind"])
        self._world._create(obj)

    def merge(self, kind: Any, namespace: str, name: str, changes: Any) -> Any:
        self._check(kind.kind)
        self._world._patch({"kind": kind.kind, "metadata": {"name": name}, **changes})
        return self._world.objects[kind.kind, name]

    def _check(self, kind: str) -> None:
        if kind == self._kind and self._error:
            raise self._error
        self.written.append(kind)


def reconciler_of(
    world: World, kind: str, error: ClusterError | None, metrics: Metrics | None = None
) -> tuple[Reconciler, Refusing]:
    cluster = Refusing(world, kind, error)
    made = Reconciler(CONFIG, cast(Any, cluster), world, metrics or Metrics(), lambda: at(world.now), lambda key: None)
    made._gatherer = world.gatherer
    return made, cluster


def reconcile(world: World, kind: str, error: ClusterError, metrics: Metrics | None = None) -> float | None:
    return reconciler_of(world, kind, error, metrics)[0].reconcile(Key(NAMESPACE, "shop"))


def test_what_was_written_since_it_was_looked_at_is_looked_at_again_and_no_error() -> None:
    world = World()
    assert reconcile(world, "HTTPRoute", ConflictError("somebody wrote it")) == AGAIN_SECONDS
    assert [kind for kind, _ in world.objects if kind == "InferenceService"], "the others are written all the same"


def test_a_decision_counts_also_when_the_route_has_to_wait_for_the_next_look() -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, Tally(up=4, down=36), Tally(up=38, down=2))
    world.until("Paused")
    metrics = Metrics()
    while not world.promotion()["status"].get("decision"):
        world.now += 1
        reconcile(world, "HTTPRoute", ConflictError("somebody wrote it"), metrics)
    assert metrics.registry.get_sample_value("tunegate_operator_decisions_total", {"outcome": "RolledBack"}) == 1


def test_an_api_server_that_is_away_is_tried_again_later() -> None:
    with pytest.raises(UnreachableError):
        reconcile(World(), "InferenceService", UnreachableError("no answer"))


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("InferenceService", DOWN, "WebhookUnavailable"),
        ("InferenceService", DENIED, "WriteRefused"),
        ("Job", QUOTA, "WriteRefused"),
        ("Job", DOWN, "WebhookUnavailable"),
        ("ModelVersion", DENIED, "WriteRefused"),
        ("PromotionPolicy", DENIED, ""),
    ],
    ids=["kserve's webhook is away", "denied server", "quota", "kueue's webhook is away", "denied record", "status"],
)
def test_a_refused_write_keeps_no_rollback_from_the_route(kind: str, error: ClusterError, reason: str) -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, GOOD, GOOD).until("Paused")
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], "serving": {"replicas": 2}}})
    world.publish(make_version("run-2", created=2), score=None).vote(candidate, BAD, GOOD)
    reconciler, _ = reconciler_of(world, kind, error)
    for _ in range(3):
        world.now += 5
        assert (reconciler.reconcile(Key(NAMESPACE, "shop")) or 0) <= REFUSED_SECONDS
    assert world.weights() == {server_of(BASE): 100}
    if reason:
        told = world.condition(world.policy(), "Stalled")
        assert told["reason"] == reason
        assert str(error) in told["message"]
        events = [note for found, note in world.notes if found == reason]
        assert events
        assert len(events) == len(set(events)), "one for each object"
        about = {"InferenceService": "Serving"}.get(kind, "Ready")
        assert world.condition(world.policy(), about)["status"] == "False"


def test_what_was_refused_is_written_when_it_is_no_longer_and_the_condition_goes() -> None:
    world = World(serving={"replicas": 1}).step(3)
    policy = world.policy()
    world.put({**policy, "spec": {**policy["spec"], "serving": {"replicas": 2}}})
    reconciler, cluster = reconciler_of(world, "InferenceService", DOWN)
    for _ in range(2):
        reconciler.reconcile(Key(NAMESPACE, "shop"))
    assert world.condition(world.policy(), "Serving")["reason"] == "WebhookUnavailable"
    cluster._error = None
    for _ in range(2):
        reconciler.reconcile(Key(NAMESPACE, "shop"))
    assert world.condition(world.policy(), "Serving")["status"] == "True"
    assert world.deployments[server_of(BASE)].replicas == 2


def test_a_decision_that_can_not_be_recorded_brings_users_back_and_sends_none() -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, GOOD, GOOD).until("Paused")
    shown = world.weights()
    for _ in range(5):
        world.now += 5
        reconcile(world, "Promotion", DENIED)
    assert world.weights() == shown, "the next step is not recorded, so it is not taken"
    world.vote(candidate, BAD, GOOD)
    world.now += 5
    reconcile(world, "Promotion", DENIED)
    assert world.weights() == {server_of(BASE): 100}


def test_the_route_comes_before_all_but_the_decision() -> None:
    candidate = make_version("run-1", created=1)
    world = World().step(3).publish(candidate).vote(candidate, GOOD, GOOD).until("Paused")
    world.vote(candidate, BAD, GOOD)
    reconciler, cluster = reconciler_of(world, "", None)
    reconciler.reconcile(Key(NAMESPACE, "shop"))
    assert cluster.written[:2] == ["Promotion", "HTTPRoute"]
