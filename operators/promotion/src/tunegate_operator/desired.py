"""What has to be written so that a plan becomes true: pure, from what was gathered to the objects that should be there.

An object that is as it should be is not written. Records come before effects, so that what users see can always be
explained, whenever the operator is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tunegate.api.promotion import TERMINAL, Promotion
from tunegate.api.versions import Producer
from tunegate.kube.kinds import Object
from tunegate.promotion.counting import SHOWN
from tunegate.promotion.snapshot import Plan
from tunegate_operator import conditions, manifests
from tunegate_operator.config import Config
from tunegate_operator.edits import applied, edits, is_same
from tunegate_operator.events import Note, problem_notes, rollout_notes, transition_notes
from tunegate_operator.gather import Gathered, PolicyProblem
from tunegate_operator.measuring import Measuring, measuring
from tunegate_operator.outdated import finished_jobs, outdated_records
from tunegate_operator.read import training_runs
from tunegate_operator.servers import (
    drained_servers,
    engine_changes,
    is_waiting,
    new_servers,
    retired_engines,
    server_patches,
    server_records,
    shared_engine_changes,
)
from tunegate_operator.statuses import policy_status, promotion_statuses, status, version_statuses
from tunegate_operator.types import object_name


@dataclass(frozen=True)
class Changes:
    """In the order in which they are to be made. `statuses` go to the status subresource; `patch` are merge patches.

    stop: training jobs to suspend, as merge patches, each with what is told once it is written.
    is_all_stable: the route sends all of the traffic to one version, so that no candidate is shown.
    restores: the request to put back what was edited by hand that these writes do.
    """

    create: tuple[Object, ...] = ()
    statuses: tuple[Object, ...] = ()
    route: tuple[Object, ...] = ()
    is_all_stable: bool = False
    restores: str = ""
    apply: tuple[Object, ...] = ()
    patch: tuple[Object, ...] = ()
    stop: tuple[tuple[Object, tuple[Note, ...]], ...] = ()
    delete: tuple[Object, ...] = ()
    notes: tuple[Note, ...] = ()
    again_seconds: float | None = None


def unready_changes(problem: PolicyProblem, now: datetime) -> Changes:
    """Only say what is wrong."""
    phase = "Stalled" if problem.problem.stops else "Pending"
    fields = {**problem.obj.get("status", {}), "phase": phase}
    checks = [problem.problem.about] if problem.problem.about != "Ready" else []
    found = conditions.of_policy([problem.problem], checks, busy=False, phase=phase)
    written = status(problem.obj, fields, found, now)
    notes = problem_notes(problem.obj, [problem.problem])
    return Changes(statuses=written, notes=notes, again_seconds=10)


def changes(
    gathered: Gathered, plan: Plan, now: datetime, config: Config, producers: Mapping[str, Producer]
) -> Changes:
    """Everything that is to be written now."""
    known = gathered.objects
    promotions = tuple(
        msgspec.structs.replace(promotion, status=plan.statuses.get(promotion.name, promotion.status))
        for promotion in gathered.snapshot.promotions
    )
    servers = server_records(gathered, plan, now)
    patches = tuple(server_patches(gathered, plan, config))
    measured = measuring(gathered, plan, promotions)
    engines = (
        *engine_changes(gathered, plan, config, measured.engines),
        *shared_engine_changes(gathered, plan, config),
    )
    drained = tuple(drained_servers(gathered, plan, servers, now, measured))
    is_done = not patches and not engines and not is_waiting(gathered, plan)
    is_rolled_out = bool(gathered.rollout) and is_done and not gathered.snapshot.modified
    route = _route(gathered, plan)
    # Users come in by it until the one in its place is known to work.
    left = [known.stale_route] if known.stale_route and not route and gathered.snapshot.weights else []
    return Changes(
        create=tuple(_new_records(gathered, plan, producers)),
        statuses=(
            *promotion_statuses(gathered, promotions, now),
            *version_statuses(gathered, now),
            *policy_status(gathered, promotions, servers, plan.choices, is_rolled_out, now),
        ),
        apply=(*_jobs(gathered, measured, config), *engines, *new_servers(gathered, plan, config)),
        route=route,
        is_all_stable=len(plan.weights) == 1,
        restores=gathered.edit.request if route or patches or engines else "",
        patch=patches,
        stop=tuple(_stopped_jobs(gathered, plan)),
        delete=(
            *drained,
            *retired_engines(gathered, plan, drained),
            *outdated_records(gathered, promotions),
            *finished_jobs(gathered, now),
            *left,
        ),
        notes=(
            *transition_notes(gathered, plan),
            *problem_notes(gathered.obj, gathered.problems),
            *rollout_notes(gathered, is_rolled_out),
        ),
        again_seconds=_again(promotions, any(server.unused_since for server in servers)),
    )


def _new_records(gathered: Gathered, plan: Plan, producers: Mapping[str, Producer]) -> Iterable[Object]:
    """Of versions that have none, and the promotions that the plan starts."""
    namespace, name = gathered.namespace, gathered.name
    versions = {version.digest: version for version in (gathered.initial, *(gathered.snapshot.versions or ()))}
    for digest, version in versions.items():
        if object_name(version) not in gathered.objects.model_versions:
            yield manifests.model_version(namespace, name, version, producers.get(digest))
    for promotion in plan.create:
        yield manifests.promotion(namespace, name, object_name(promotion.candidate), promotion.candidate)


def _jobs(gathered: Gathered, measured: Measuring, config: Config) -> Iterable[Object]:
    for wanted in measured.jobs:
        has_own = gathered.policy.serving.llm_inference_service is not None
        engine = gathered.engine_of(wanted.version) if has_own else None
        job = manifests.evaluation_job(gathered.namespace, gathered.policy, gathered.name, wanted, config, engine)
        yield manifests.owned(job, gathered.objects.model_versions[object_name(wanted.version)])


def _stopped_jobs(gathered: Gathered, plan: Plan) -> Iterable[tuple[Object, tuple[Note, ...]]]:
    """The training jobs of the runs that are to stop, suspended; each once, so that a person has the last word."""
    jobs = training_runs(gathered.objects.training_jobs, gathered.policy.model)
    for stop in plan.stops:
        job = jobs[stop.run]
        notes = (Note(about, "TrainingStopped", stop.message, warning=True) for about in (gathered.obj, job))
        yield manifests.suspended(job, stop.message), tuple(notes)


def _route(gathered: Gathered, plan: Plan) -> tuple[Object, ...]:
    """The route or the switch; an empty plan leaves both alone."""
    if not plan.weights:
        return ()
    if gathered.policy.traffic.is_shared:
        wanted = manifests.http_route(
            gathered.namespace,
            gathered.policy,
            gathered.name,
            plan.weights,
            step=plan.step,
            takes_timeouts=gathered.takes_timeouts,
        )
    else:
        digest = max(plan.weights, key=lambda digest: plan.weights[digest])
        wanted = manifests.switch(gathered.namespace, gathered.policy, gathered.name, digest)
    wanted, live = manifests.remembered(wanted), gathered.objects.route
    before = applied(live) if live else None
    # What it says besides is a webhook's or a person's, and neither is written against without being asked to.
    is_restored = bool(live and gathered.edit.is_restoring and edits(live))
    if before is not None and is_same(wanted["spec"], before) and is_same(before, wanted["spec"]) and not is_restored:
        return ()
    return (manifests.over(manifests.owned(wanted, gathered.obj), live),)


def _again(promotions: Iterable[Promotion], draining: bool) -> float:
    """Seconds until the next reconcile without a change in the cluster: for clocks, Prometheus and gateways."""
    phases = {promotion.status.phase for promotion in promotions}
    if phases & SHOWN or draining:
        return 5  # more often than Prometheus scrapes, as a rule
    return 15 if phases - TERMINAL else 120
