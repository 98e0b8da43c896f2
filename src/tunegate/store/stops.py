"""Word to a trainer, through the store, that its run is to end early. Knows nothing of why."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from tunegate.api.codec import Document, from_json, prepare, to_json

if TYPE_CHECKING:
    from tunegate.store import Store

_FOLDER = ".tunegate/stops"


class RunStop(Document, frozen=True, kw_only=True):
    """message: the numbers that say so. A trainer that is started after `time` goes on: a person wants it to."""

    schema: Literal["tunegate.io/run-stop/v1"] = "tunegate.io/run-stop/v1"
    message: str
    time: datetime


def stop_run(store: Store, model: str, run: str, stop: RunStop) -> None:
    """Leave word for the trainer of `run`, unless there is some already: a run is stopped once."""
    store.put_new(_key(model, run), to_json(stop))


def find_stop(store: Store, model: str, run: str) -> RunStop | None:
    key = _key(model, run)
    body = store.get(key)
    return None if body is None else from_json(body, RunStop, key)


def stopped_runs(store: Store, model: str) -> frozenset[str]:
    """The runs of `model` that there is word for."""
    keys = store.keys(f"{_FOLDER}/{model}/")
    return frozenset(key.rsplit("/", 1)[1].removesuffix(".json") for key in keys)


def _key(model: str, run: str) -> str:
    return f"{_FOLDER}/{model}/{run}.json"


prepare(RunStop)
