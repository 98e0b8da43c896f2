"""Reconcile one policy: gather, decide, apply. Everything between the watches and the writes meets here.

Nothing is remembered from one reconcile to the next but caches of what is immutable, so an operator that is stopped
between any two calls resumes where it was, and so does another one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Literal

from tunegate.api.errors import TunegateError, UsageError
from tunegate.api.labels import MODEL, POLICY
from tunegate.api.promotion import Decision
from tunegate.kube.client import Cluster
from tunegate.kube.errors import ConflictError, UnreachableError
from tunegate.kube.kinds import Kind, Object
from tunegate.kube.workqueue import Key
from tunegate.promotion.decide import decide
from tunegate.store import Store
from tunegate_operator import kinds
from tunegate_operator.config import Config
from tunegate_operator.desired import Changes, changes, unready_changes
from tunegate_operator.gather import Caches, Gatherer, Last, PolicyProblem
from tunegate_operator.metrics import Metrics
from tunegate_operator.read import is_training
from tunegate_operator.store_watch import Source

log = logging.getLogger(__name__)

# While a training job runs, a new checkpoint should not wait for the slow scan.
TRAINING_SCAN_SECONDS = 1.0
# A gateway writes the status of the route that we write: what it wrote comes by the watch, at once.
AGAIN_SECONDS = 0.2


class Reconciler:
    """`clock` gives the time with its zone; `notify` hears the keys of policies to reconcile."""

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        watches: Caches,
        metrics: Metrics,
        clock: Callable[[], datetime],
        notify: Callable[[Key], None],
    ) -> None:
        self._config, self._cluster, self._caches, self._metrics, self._clock = config, cluster, watches, metrics, clock
        self._notify = notify
        self._source = Source(
            lambda: Store.open(config.store, endpoint_url=config.endpoint_url),
            self._changed,
            metrics.store_scan_seconds.observe,
        )
        # By policy: which foreign object has a name that it needs.
        self._conflicts: dict[Key, str] = {}
        # By policy: what was last asked for of each of its servers.
        self._asked: dict[Key, dict[str, tuple[Object, int]]] = {}
        self._gatherer = Gatherer(config, watches, self._source, self._pod_message)

    def start(self, stop: threading.Event) -> threading.Thread:
        """Watch the store until `stop` is set, in a thread of its own."""
        self._follow()
        thread = threading.Thread(target=self._source.run, args=(stop.is_set,), name="store", daemon=True)
        thread.start()
        return thread

    def wake(self) -> None:
        """Let the store's thread see that it should stop."""
        self._source.wake()

    def keys_for(self, kind: Kind, obj: Object) -> Iterable[Key]:
        """The policies that an object of the cluster concerns."""
        metadata = obj["metadata"]
        namespace, labels = metadata["namespace"], metadata.get("labels", {})
        if kind == kinds.POLICY:
            self._follow()
            return [Key(namespace, metadata["name"])]
        if kind == kinds.PROMOTION:
            return [Key(namespace, obj["spec"]["policy"])]
        if kind in kinds.TRAINING:
            self._follow()
            self._source.hurry(labels.get(MODEL, ""))
            return self._keys_of(labels.get(MODEL, ""), namespace)
        return [Key(namespace, labels[POLICY])] if POLICY in labels else []

    def reconcile(self, key: Key) -> float | None:
        """Make true what one policy needs now; returns the seconds after which to come again at the latest.

        Raises ClusterError when the API server refuses or can't be reached: it is tried again later.
        """
        now = self._clock()
        gathered = self._gatherer.gather(*key, now, Last(self._conflicts.get(key, ""), self._asked.get(key, {})))
        if gathered is None:
            return None
        decided: list[Decision | None] = []
        if isinstance(gathered, PolicyProblem):
            todo = unready_changes(gathered, now)
        else:
            plan = decide(gathered.snapshot, now)
            versions = (gathered.initial, *(gathered.snapshot.versions or ()))
            producers = {
                version.digest: found for version in versions if (found := self._source.producer(version.digest))
            }
            todo = changes(gathered, plan, now, self._config, producers)
            decided_before = {promotion.name for promotion in gathered.snapshot.promotions if promotion.status.decision}
            decided = [status.decision for name, status in plan.statuses.items() if name not in decided_before]
        for problem in (gathered.problem,) if isinstance(gathered, PolicyProblem) else gathered.problems:
            if problem.stops:
                self._metrics.errors.labels(problem.reason).inc()
        try:
            self._record(todo)
            for decision in decided:
                if decision:
                    self._metrics.decisions.labels(decision.outcome).inc()
            self._apply(key, todo)
        except ConflictError as error:
            log.info("%s; reconciling again", error)
            return AGAIN_SECONDS
        return todo.again_seconds

    def _record(self, todo: Changes) -> None:
        """Write what was seen and decided, before anything is done about it."""
        for obj in todo.create:
            self._cluster.create(obj)
        for obj in todo.statuses:
            self._cluster.apply(obj, status=True)
        for note in todo.notes:
            kind: Literal["Normal", "Warning"] = "Warning" if note.warning else "Normal"
            self._cluster.emit(note.about, reason=note.reason, note=note.message, action="Promote", type=kind)

    def _apply(self, key: Key, todo: Changes) -> None:
        # One object that can't be written must not keep the others from it, least of all the route from going back.
        failure: TunegateError | None = None
        for obj in todo.apply:
            try:
                self._write(key, obj)
            except UnreachableError:
                raise
            except ConflictError as error:
                failure = failure or error
            except TunegateError as error:
                log.warning("%s %s was not written: %s", obj["kind"], obj["metadata"]["name"], error)
                failure = error
        for obj in todo.patch:
            metadata = obj["metadata"]
            kind, asked = kinds.kind_of(obj), self._asked.setdefault(key, {})
            patched = self._cluster.merge(kind, metadata["namespace"], metadata["name"], {"spec": obj["spec"]})
            asked[metadata["name"]] = (obj["spec"], patched["metadata"]["generation"])
        for obj in todo.delete:
            metadata = obj["metadata"]
            with suppress(ConflictError):  # another object has its name by now
                self._cluster.delete(kinds.kind_of(obj), metadata["namespace"], metadata["name"], uid=metadata["uid"])
            if obj["kind"] == kinds.PROMOTION.kind:
                self._gatherer.forget(metadata["uid"])
        if failure:
            raise failure

    def _write(self, key: Key, obj: Object) -> None:
        """Apply an object of ours; a foreign one by the same name is left alone and told of."""
        metadata = obj["metadata"]
        if "resourceVersion" not in metadata:
            # What isn't ours isn't in the caches, and applying would take it over.
            there = self._cluster.get(kinds.kind_of(obj), metadata["namespace"], metadata["name"])
            if there and there["metadata"].get("labels", {}).get(POLICY) != key.name:
                self._conflicts[key] = message = (
                    f"{obj['kind']} {metadata['name']} is there and not tunegate's; rename or delete it"
                )
                raise UsageError(message)
            self._conflicts.pop(key, None)
        self._cluster.apply(obj)

    def _pod_message(self, namespace: str, job: str) -> str:
        """What the last failed pod of a Job said in the end."""
        pods = self._cluster.list(kinds.POD, namespace, f"batch.kubernetes.io/job-name={job}")
        said = [
            (state["terminated"].get("finishedAt", ""), state["terminated"].get("message", ""))
            for pod in pods
            for container in pod.get("status", {}).get("containerStatuses", ())
            if "terminated" in (state := container.get("state", {}))
        ]
        return " ".join(max(said)[1].split())[-1000:] if said else ""

    def _changed(self, model: str) -> None:
        for key in self._keys_of(model):
            self._notify(key)

    def _keys_of(self, model: str, namespace: str | None = None) -> list[Key]:
        return [
            Key(policy["metadata"]["namespace"], policy["metadata"]["name"])
            for policy in self._policies()
            if policy["spec"].get("model") == model and namespace in (None, policy["metadata"]["namespace"])
        ]

    def _follow(self) -> None:
        """Tell the store's thread which models matter, and which of them are being trained now."""
        training = {
            job["metadata"].get("labels", {}).get(MODEL)
            for kind in kinds.TRAINING
            for job in self._caches.list(kind, None)
            if is_training(job)
        }
        models = {policy["spec"].get("model") for policy in self._policies()} - {None}
        fast = min(TRAINING_SCAN_SECONDS, self._config.scan_seconds)
        self._source.follow({model: fast if model in training else self._config.scan_seconds for model in models})

    def _policies(self) -> Iterable[Object]:
        return self._caches.list(kinds.POLICY, None)
