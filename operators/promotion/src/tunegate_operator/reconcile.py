"""Reconcile one policy: gather, decide, apply. Everything between the watches and the writes meets here.

Nothing is remembered from one reconcile to the next but caches of what is immutable, so an operator that is stopped
between any two calls resumes where it was, and so does another one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Literal

from tunegate.api.digest import short
from tunegate.api.labels import MODEL, POLICY
from tunegate.api.promotion import Decision
from tunegate.kube.client import Cluster
from tunegate.kube.kinds import Kind, Object
from tunegate.kube.workqueue import Key
from tunegate.promotion.counting import stable_version
from tunegate.promotion.decide import decide
from tunegate.store import Store
from tunegate_operator import kinds
from tunegate_operator.config import Config
from tunegate_operator.desired import Changes, changes, unready_changes
from tunegate_operator.feedback_counts import AWAY
from tunegate_operator.gather import Caches, Gathered, Gatherer, Last, PolicyProblem
from tunegate_operator.metrics import Metrics
from tunegate_operator.read import is_training, is_true, server_of
from tunegate_operator.store_watch import Source
from tunegate_operator.writes import Writes

log = logging.getLogger(__name__)

# While a training job runs, a new checkpoint should not wait for the slow scan.
TRAINING_SCAN_SECONDS = 1.0
# A gateway writes the status of the route that we write: what it wrote comes by the watch, at once.
AGAIN_SECONDS = 0.2
# How often what was refused is tried again.
REFUSED_SECONDS = 10.0


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
            self._intervals,
            self._changed,
            metrics.store_scan_seconds.observe,
            config.signing_key,
        )
        self._last: dict[Key, Last] = {}
        self._gatherer = Gatherer(config, watches, self._source, self._pod_message, self._has_ready_pod)

    def start(self, stop: threading.Event) -> threading.Thread:
        """Watch the store until `stop` is set, in a thread of its own."""
        self._source.follow()
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
            self._source.follow()
            return [Key(namespace, metadata["name"])]
        if kind == kinds.PROMOTION:
            return [Key(namespace, obj["spec"]["policy"])]
        if kind in kinds.TRAINING:
            self._source.follow()
            self._source.hurry(labels.get(MODEL, ""))
            return self._keys_of(labels.get(MODEL, ""), namespace)
        if kind == kinds.WORKLOAD:
            owners = (self._owner(namespace, owner) for owner in metadata.get("ownerReferences", ()))
            return [key for found in owners if found for key in self.keys_for(*found)]
        return [Key(namespace, labels[POLICY])] if POLICY in labels else []

    def _owner(self, namespace: str, owner: Object) -> tuple[Kind, Object] | None:
        """The object of ours, or training job, that a Workload is of; None for others'."""
        known = {kind.kind: kind for kind in (kinds.JOB, *kinds.TRAINING)} | {"Pod": kinds.INFERENCE_SERVICE}
        of_engine = kinds.LLM_INFERENCE_SERVICE if server_of(owner) else None
        for kind in filter(None, (known.get(owner["kind"]), of_engine)):
            if found := self._caches.get(kind, namespace, server_of(owner) or owner["name"]):
                return kind, found
        shared = self._caches.get(kinds.DEPLOYMENT, namespace, f"{server_of(owner)}-engine")
        return (kinds.DEPLOYMENT, shared) if shared else None

    def reconcile(self, key: Key) -> float | None:
        """Make true what one policy needs now; returns the seconds after which to come again at the latest.

        Raises UnreachableError when the API server can't be reached: it is tried again later.
        """
        now = self._clock()
        gathered = self._gatherer.gather(*key, now, self._last.get(key, Last()))
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
            self._tell_age(key, gathered)
            decided_before = {promotion.name for promotion in gathered.snapshot.promotions if promotion.status.decision}
            decided = [status.decision for name, status in plan.statuses.items() if name not in decided_before]
        for problem in (gathered.problem,) if isinstance(gathered, PolicyProblem) else gathered.problems:
            if problem.stops or problem.reason in AWAY:
                self._metrics.errors.labels(problem.reason).inc()
        return self._write(key, todo, [decision for decision in decided if decision])

    def _tell_age(self, key: Key, gathered: Gathered) -> None:
        """When the version that serves was measured."""
        stable, policy = stable_version(gathered.snapshot), gathered.policy
        found = {suite: gathered.summaries.get((stable.digest, suite)) for suite in policy.suites}
        when = {suite: summary.time for suite, summary in found.items() if summary and summary.time}
        self._metrics.evaluated((key.namespace, key.name), policy.model, short(stable.digest), when)

    def _write(self, key: Key, todo: Changes, decided: list[Decision]) -> float | None:
        """Decisions are recorded before anything is done about them, then the route is written, then all else.

        What one object is refused for is told in the next reconcile's conditions and keeps no other from being written.
        """
        before = self._last.get(key, Last())
        writes = Writes(self._cluster, key.name, dict(before.asked))
        records = [obj for obj in todo.statuses if obj["kind"] == kinds.PROMOTION.kind]
        for obj in records:
            writes.record(obj)
        is_recorded = not writes.is_stale and not writes.refused
        for decision in decided if is_recorded else ():
            self._metrics.decisions.labels(decision.outcome).inc()
        # No user is sent to a candidate on a decision that could not be recorded; back to the stable they are.
        for obj in todo.route if todo.is_all_stable or is_recorded else ():
            writes.apply(obj)
        for obj in todo.create:
            writes.create(obj)
        for obj in (obj for obj in todo.statuses if obj not in records):
            writes.record(obj)
        stopped = [note for job, notes in todo.stop if writes.stop(job) for note in notes]
        for note in (*todo.notes, *stopped):
            kind: Literal["Normal", "Warning"] = "Warning" if note.warning else "Normal"
            self._cluster.emit(note.about, reason=note.reason, note=note.message, action="Promote", type=kind)
        for obj in todo.apply:
            writes.apply(obj)
        for obj in todo.patch:
            writes.patch(obj)
        for obj in todo.delete:
            writes.delete(obj)
            self._gatherer.forget(obj["metadata"]["uid"])
        is_restored = todo.restores and not writes.is_stale and not writes.refused
        restored = todo.restores if is_restored else before.restored
        self._last[key] = Last(writes.asked, tuple(writes.refused), restored)
        for refusal in (refusal for refusal in writes.refused if refusal not in before.refused):
            log.warning("%s", refusal.message)
            self._metrics.errors.labels(refusal.reason).inc()
        if writes.is_stale or self._last[key].refused != before.refused:
            return AGAIN_SECONDS
        return min(todo.again_seconds or REFUSED_SECONDS, REFUSED_SECONDS) if writes.refused else todo.again_seconds

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

    def _has_ready_pod(self, namespace: str, server: str) -> bool:
        pods = self._cluster.list(kinds.POD, namespace, f"serving.kserve.io/inferenceservice={server}")
        return any(is_true(pod, "Ready") for pod in pods)

    def _changed(self, model: str) -> None:
        for key in self._keys_of(model):
            self._notify(key)

    def _keys_of(self, model: str, namespace: str | None = None) -> list[Key]:
        found = self._caches.find(kinds.POLICY, model, namespace)
        return [Key(policy["metadata"]["namespace"], policy["metadata"]["name"]) for policy in found]

    def _intervals(self) -> dict[str, float]:
        """Which models matter to the store's thread, and how often each is to be listed: those in training sooner."""
        training = {
            job["metadata"].get("labels", {}).get(MODEL)
            for kind in kinds.TRAINING
            for job in self._caches.list(kind)
            if is_training(job)
        }
        models = {policy["spec"].get("model") for policy in self._caches.list(kinds.POLICY)} - {None}
        fast = min(TRAINING_SCAN_SECONDS, self._config.scan_seconds)
        return {model: fast if model in training else self._config.scan_seconds for model in models}
