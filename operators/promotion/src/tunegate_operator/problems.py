"""What only a person can mend, found in what was gathered: names, stopped trainings, routes that nobody takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime

from tunegate.api.labels import MODEL
from tunegate.api.policy import ClusterPolicy
from tunegate.kube.kinds import Object
from tunegate_operator import kinds
from tunegate_operator.conditions import Problem
from tunegate_operator.read import Queued, condition, is_queued, is_training, is_true, stopped_for, stopped_jobs
from tunegate_operator.routes import RouteState, written_at
from tunegate_operator.types import server_name

# A gateway's controller takes its time for a route that is new, or was changed.
_NEW_ROUTE_SECONDS = 60
_CHANGED_ROUTE_SECONDS = 180


# A part of a host name, as DNS has it.
MOST_HOST_CHARACTERS = 63


def name_too_long(obj: Object) -> Iterable[Problem]:
    """KServe makes a host name of a server's name and its namespace, unless its domainTemplate says otherwise."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    part = f"{server_name(name, '0' * 71)}-predictor-{namespace}"
    if len(part) > MOST_HOST_CHARACTERS:
        most = len(name) - (len(part) - MOST_HOST_CHARACTERS)
        message = (
            f"KServe serves as {part}, which has {len(part)} characters and may have {MOST_HOST_CHARACTERS}; name the "
            f"policy with {most} characters at most, or leave the namespace out of KServe's domainTemplate"
        )
        yield Problem("Serving", "NameTooLong", message)


def unverified_weights(policy: ClusterPolicy) -> Iterable[Problem]:
    """What tunegate can't hold to a version's digest, and who says that it is so instead."""
    if policy.serving.url:
        message = (
            f"{policy.vouched_for_by} vouches for the weights that answer as {policy.serving.url.model}; tunegate "
            "verifies what stands in front of them: prompts, knowledge and defaults"
        )
        yield Problem("WeightsVerified", "EngineVouches", message, stops=False)


def stopped_training(jobs: Iterable[Object], model: str) -> Iterable[Problem]:
    """The training jobs that were to stop for their numbers, and what a person can do about each."""
    told = []
    for job in stopped_jobs(jobs, model).values():
        name, kind = job["metadata"]["name"], job["kind"]
        field = {"runPolicy": {"suspend": False}} if kind == kinds.PYTORCH_JOB.kind else {"suspend": False}
        patch = json.dumps({"spec": field}, separators=(",", ":"))
        go_on = f"to have it go on: kubectl patch {kind.lower()} {name} --type=merge -p '{patch}'"
        told.append(f"{kind} {name} is suspended: {stopped_for(job)}; {go_on}")
    for job in jobs:
        if is_queued(job) and is_training(job) and job["metadata"]["labels"].get(MODEL) == model and stopped_for(job):
            name, kind = job["metadata"]["name"], job["kind"]
            end = f"Kueue decides when it runs, so it goes on; to end it: kubectl delete {kind.lower()} {name}"
            told.append(f"{kind} {name}: {stopped_for(job)}; {end}")
    if told:
        yield Problem("Training", "TrainingStopped", "; ".join(told), stops=False)


def queued_training(jobs: Iterable[Object], model: str, queue_of: Callable[[Object], Queued]) -> Iterable[Problem]:
    """The training jobs of a model that wait for room in the cluster, and why."""
    waiting = [
        f"{job['kind']} {job['metadata']['name']} {queue.waiting}"
        for job in jobs
        if job["metadata"]["labels"].get(MODEL) == model and (queue := queue_of(job)).waiting
    ]
    if waiting:
        yield Problem("Training", "Queued", "; ".join(waiting), stops=False)


def is_stuck(obj: Object, state: RouteState, route: Object, now: datetime) -> bool:
    """Whether a person is needed for the gateway to take the route; one who was called stays called."""
    stalled = condition(obj, "Stalled")
    if (stalled.get("status"), stalled.get("reason")) == ("True", "RouteNotAccepted"):
        return True
    was_reached = is_true(obj, "Ready") or is_true(obj, "Stalled")
    if was_reached and not state.is_waiting:
        return True
    limit = _CHANGED_ROUTE_SECONDS if was_reached else _NEW_ROUTE_SECONDS
    return (now - written_at(route)).total_seconds() >= limit
