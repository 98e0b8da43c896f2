"""What is made of the API server's refusals."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import at, make_version
from tests.unit.operator.world import CONFIG, NAMESPACE, World
from tunegate.api.feedback import Tally
from tunegate.kube.errors import ClusterError, ConflictError
from tunegate.kube.workqueue import Key
from tunegate_operator.metrics import Metrics
from tunegate_operator.reconcile import AGAIN_SECONDS, Reconciler


class Refusing:
    """A cluster in which everything works but for writing one kind."""

    def __init__(self, world: World, kind: str, error: ClusterError) -> None:
        self._world, self._kind, self._error = world, kind, error

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    def apply(self, obj: Any, *, status: bool = False) -> None:
        if obj["kind"] == self._kind:
            raise self._error
        self._world._write_status(obj) if status else self._world.put(obj)


def reconcile(world: World, kind: str, error: ClusterError, metrics: Metrics | None = None) -> float | None:
    cluster: Any = Refusing(world, kind, error)
    reconciler = Reconciler(CONFIG, cluster, world, metrics or Metrics(), lambda: at(world.now), lambda key: None)
    reconciler._gatherer = world.gatherer
    return reconciler.reconcile(Key(NAMESPACE, "shop"))


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


def test_any_other_refusal_is_an_error() -> None:
    with pytest.raises(ClusterError, match="not allowed"):
        reconcile(World(), "InferenceService", ClusterError("not allowed"))
