"""What a healthy operator writes into its log in an hour, in fast motion: nothing that reads as trouble."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.builders import make_version
from tests.unit.operator.test_reconcile import GOOD, reconciler_of
from tests.unit.operator.world import NAMESPACE, World
from tunegate.kube.errors import ConflictError
from tunegate.kube.workqueue import Key

HOUR = 3600


def test_an_hour_of_promotions_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A conflict at every step, as there is when KServe and the gateway write statuses at the same time."""
    caplog.set_level(logging.INFO)
    candidate = make_version("run-1", created=1)
    world = World(bakingSeconds=600).step(3).publish(candidate).vote(candidate, GOOD, GOOD)
    reconciler, cluster = reconciler_of(world, "", None)
    write, written = cluster.apply, []

    def apply(obj: Any, *, status: bool = False) -> None:
        written.append(obj["kind"])
        if len(written) % 2 == 0:
            raise ConflictError("the object has been modified; please apply your changes to the latest version")
        write(obj, status=status)

    cluster.apply = apply  # type: ignore[method-assign]
    while world.now < HOUR:
        world.now += min(reconciler.reconcile(Key(NAMESPACE, "shop")) or 60, 60)
        world.follow()
    assert world.promotion()["status"]["phase"] == "Succeeded"
    assert len(written) > 10
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name.startswith("tunegate")]
    assert told == []
