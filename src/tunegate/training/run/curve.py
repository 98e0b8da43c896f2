"""How a run goes, step by step: its loss as the trainer logged it, and what its checkpoints were measured at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.errors import NotFoundError
from tunegate.api.versions import ModelVersion
from tunegate.store import Store
from tunegate.store.evaluations import find, measured_suites
from tunegate.training.run.layout import RESUME

_STATE = "trainer_state.json"


class Point(Resource, frozen=True, kw_only=True):
    """The first metric of one suite at one step, with its 95 % interval where it has one."""

    step: int
    suite: str
    metric: str
    value: float
    low: float | None = None
    high: float | None = None


class Scores:
    """The points of a run so far; each result is read from the store once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._points: dict[tuple[str, str], Point | None] = {}

    def look(self, versions: Iterable[ModelVersion]) -> list[Point]:
        """Those of these versions, by suite and then by step. Raises StoreError."""
        for version in versions:
            for suite in measured_suites(self._store, version.digest):
                if (version.digest, suite) not in self._points:
                    self._points[version.digest, suite] = _point(self._store, version, suite)
        return sorted(filter(None, self._points.values()), key=lambda point: (point.suite, point.step))


def _point(store: Store, version: ModelVersion, suite: str) -> Point | None:
    """None where nothing was scored."""
    result = find(store, version.digest, suite)
    if result is None or (value := result.metrics[0].value) is None:
        return None
    metric, step = result.metrics[0], int(version.name.rpartition("-")[2])
    return Point(step=step, suite=suite, metric=metric.name, value=value, low=metric.low, high=metric.high)


def read_curve(store: Store, model: str, run: str) -> tuple[list[dict[str, Any]], list[Point]]:
    """The trainer's log of a run as its newest checkpoint in the store has it, and the points of all of them.

    Raises NotFoundError for a run that has none, StoreError when the store can't be read.
    """
    versions = [version for version in store.list(model) if version.run == run]
    if not versions:
        known = f"see what it has: tunegate models list {model}"
        raise NotFoundError(f"{store.uri} has no checkpoint of the run {model}/{run}; {known}.")
    body = store.get(f"{versions[-1].name}/{RESUME}/{_STATE}")
    history = msgspec.json.decode(body)["log_history"] if body else _losses(store, versions)
    return history, Scores(store).look(versions)


def _losses(store: Store, versions: Sequence[ModelVersion]) -> list[dict[str, Any]]:
    """What the manifests say of a run that was published without what it takes to resume."""
    producers = (store.manifest(version.name).producer for version in versions)
    return [{"step": made.step or 0, "loss": made.loss} for made in producers if made.loss is not None]
