"""What the cluster's objects say, in the words of `decide`: pure functions over single objects.

They read status and conditions only for the generation that is there now; what can't be told is None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from tunegate.api.errors import UsageError
from tunegate.api.labels import MODEL, QUEUE, RUN, STOPPED
from tunegate.api.pinned import parse_storage_uri
from tunegate.api.policy import ServingPods
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import ServerState
from tunegate_operator.types import server_name


@dataclass(frozen=True)
class JobState:
    """An evaluation Job: over or not, and why it failed."""

    done: bool = False
    failed: bool = False
    message: str = ""


@dataclass(frozen=True)
class Queued:
    """What Kueue says of what it holds back, by its Workloads: a job has one, a server one for each pod.

    waiting: what it waits for, as a sentence; empty where it waits for nothing. admitted: since when its last pods
    may run; None where no queue decided about it."""

    waiting: str = ""
    admitted: datetime | None = None


_NO_QUEUE = Queued()


def condition(obj: Object, kind: str) -> Object:
    """The condition of that type, or an empty one."""
    conditions = obj.get("status", {}).get("conditions", ())
    return next((found for found in conditions if found.get("type") == kind), {})


def created(obj: Object) -> datetime:
    return datetime.fromisoformat(obj["metadata"]["creationTimestamp"])


def controller(obj: Object) -> str:
    """The uid of the object's controller; empty where it has none."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")


def is_true(obj: Object, kind: str) -> bool:
    return condition(obj, kind).get("status") == "True"


def job_state(job: Object) -> JobState:
    if is_true(job, "Complete"):
        return JobState(done=True)
    if is_true(job, "Failed"):
        failed = condition(job, "Failed")
        return JobState(done=True, failed=True, message=f"{failed.get('reason', '')}: {failed.get('message', '')}")
    return JobState()


def is_answering(isvc: Object) -> bool:
    """Whether KServe says that any of its pods is ready, also while it waits for more of them or a rollout to end."""
    copies = isvc.get("status", {}).get("modelStatus", {}).get("copies", {}).get("totalCopies", 0)
    return copies > 0 or is_true(isvc, "Ready")


def server_state(
    isvc: Object,
    now: datetime,
    serving: ServingPods,
    had_traffic: bool,
    away_since: datetime | None,
    queue: Queued = _NO_QUEUE,
) -> ServerState:
    """A new server is ready when KServe says so, one with traffic for as long as any of its pods answers.

    away_since: since when none of them has; None while one does.

    Failed when a new one has not come up in time, or when none of the pods of one with traffic has answered for too
    long; what a queue holds back is no failure, and its time begins when it is admitted. KServe's
    observedGeneration is no guide: it is that of a Deployment.
    """
    status = isvc.get("status", {})
    if is_true(isvc, "Ready") or (had_traffic and away_since is None):
        return ServerState(ready=True)
    name, ready = isvc["metadata"]["name"], condition(isvc, "Ready")
    if queue.waiting:
        return ServerState(queued=True, message=f"{name} {queue.waiting}")
    if had_traffic:
        since, limit = away_since or now, serving.unavailable_seconds
    else:
        since, limit = created(isvc), serving.ready_timeout_seconds
        if "lastTransitionTime" in ready:
            since = max(since, datetime.fromisoformat(ready["lastTransitionTime"]))
    since = max(since, queue.admitted or since)
    model = status.get("modelStatus", {})
    # KServe keeps the last failure when it is over.
    is_blocked = model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec")
    failure = model.get("lastFailureInfo", {}) if is_blocked else {}
    last = failure.get("message", "").strip().rpartition("\n")[2]  # of what a container logged before it ended
    said = filter(None, (ready.get("reason"), ready.get("message"), failure.get("reason"), last))
    reason = ": ".join(dict.fromkeys(said)) or "KServe has not said why yet"
    if (now - since).total_seconds() > limit:
        look = f"see: kubectl describe {isvc['kind'].lower()} {name} and the logs of its pods"
        return ServerState(failed=True, message=f"{name} was not ready within {limit:.0f} s ({reason}); {look}")
    return ServerState(message=f"{name} is not ready: {reason}")


def digest_by_server(policy: str, servers: Mapping[str, Object], versions: Iterable[ModelVersion]) -> dict[str, str]:
    """What the servers serve: by name where the version is known, since a spec is easily edited; else by their spec."""
    named = {server_name(policy, version.digest): version.digest for version in versions}
    found = {}
    for name, isvc in servers.items():
        with suppress(UsageError):
            uri = isvc["spec"].get("predictor", {}).get("model", {}).get("storageUri", "")
            found[name] = named.get(name) or parse_storage_uri(uri).digest
    return found


def finished_runs(jobs: Iterable[Object], model: str) -> frozenset[str]:
    """The runs of a model whose training job has succeeded (PyTorchJob) or completed (TrainJob)."""
    labels = [
        job["metadata"].get("labels", {}) for job in jobs if is_true(job, "Succeeded") or is_true(job, "Complete")
    ]
    return frozenset(found[RUN] for found in labels if found.get(MODEL) == model and RUN in found)


def is_training(job: Object) -> bool:
    """Whether the job may still write checkpoints. Its last condition is no guide: transitions are not clean."""
    ended = any(is_true(job, condition) for condition in ("Succeeded", "Complete", "Failed"))
    return not ended and not is_suspended(job)


def is_suspended(job: Object) -> bool:
    """Whether the job's pods are held back: a PyTorchJob's runPolicy says so, a TrainJob's spec."""
    spec = job.get("spec", {})
    return bool(spec.get("suspend") or spec.get("runPolicy", {}).get("suspend"))


def is_queued(job: Object) -> bool:
    """Whether Kueue decides when the job runs."""
    return QUEUE in job["metadata"].get("labels", {})


def queued(workloads: Iterable[Object]) -> Queued:
    """Of an object by its Workloads; it waits as long as any of them does."""
    found = [workload for workload in workloads if not is_true(workload, "Finished")]
    waiting = next((workload for workload in found if not is_true(workload, "Admitted")), None)
    if waiting is not None:
        return Queued(_sentence(waiting))
    times = [datetime.fromisoformat(condition(workload, "Admitted")["lastTransitionTime"]) for workload in found]
    return Queued(admitted=max(times, default=None))


def _sentence(workload: Object) -> str:
    queue = f"waits in the queue {workload['spec'].get('queueName', '')} of Kueue"
    evicted = condition(workload, "Evicted")
    if evicted.get("status") == "True":
        queue = f"lost its place ({evicted.get('reason', '')}: {evicted.get('message', '')}) and {queue}"
    said = condition(workload, "QuotaReserved").get("message")
    return f"{queue}: {said}" if said else queue


def server_of(owner: Object) -> str:
    """The server that this owner is a pod of, or whose engine it is; empty for another's. So KServe calls them, and we
    those that versions share: after the server of their base."""
    parts = {"Pod": ("-predictor-", "-kserve-", "-engine-"), "LeaderWorkerSet": ("-kserve-",)}
    for part in parts.get(owner["kind"], ()):
        server, _, rest = owner["name"].rpartition(part)
        if server and rest:
            return str(server)
    return ""


def training_runs(jobs: Iterable[Object], model: str) -> Mapping[str, Object]:
    """The jobs that train a model now, and were never stopped for their numbers, by run."""
    return {run: job for run, job in _by_run(jobs, model).items() if is_training(job) and not stopped_for(job)}


def stopped_jobs(jobs: Iterable[Object], model: str) -> Mapping[str, Object]:
    """The jobs of a model that were suspended for their numbers and still are, by run."""
    return {run: job for run, job in _by_run(jobs, model).items() if is_suspended(job) and stopped_for(job)}


def _by_run(jobs: Iterable[Object], model: str) -> Mapping[str, Object]:
    labeled = ((job["metadata"].get("labels", {}), job) for job in jobs)
    return {labels[RUN]: job for labels, job in labeled if labels.get(MODEL) == model and RUN in labels}


def stopped_for(job: Object) -> str:
    """Why we stopped the job, whether or not a person has it go on since; empty where we never did."""
    return str(job["metadata"].get("annotations", {}).get(STOPPED, ""))
