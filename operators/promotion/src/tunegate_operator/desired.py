"""What has to be written so that a plan becomes true: pure, from what was gathered to the objects that should be there.

An object that is as it should be is not written. Records come before effects, so that what users see can always be
explained, whenever the operator is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from tunegate.api.digest import short
from tunegate.api.labels import DIGEST, SUITE, UNUSED_SINCE, VERSION
from tunegate.api.promotion import TERMINAL, Promotion
from tunegate.api.versions import ModelVersion, Producer
from tunegate.kube.kinds import Object
from tunegate.promotion.counting import SHOWN, shown, stable_version
from tunegate.promotion.snapshot import Plan
from tunegate_operator import conditions, manifests
from tunegate_operator.conditions import Condition, Problem
from tunegate_operator.config import Config
from tunegate_operator.gather import Gathered, PolicyProblem
from tunegate_operator.read import applied, first_difference, is_true, job_state
from tunegate_operator.types import API_VERSION, dns, object_name, read_version, server_name, to_plain

# Unfinished evaluation Jobs of one policy at a time: a store full of old checkpoints must not fill the cluster.
MOST_JOBS = 4
# How long a server that gets no more traffic stays, for answers under way and gateways that lag behind.
DRAIN_SECONDS = 30
# How long the Job of a recorded evaluation stays, with its logs.
KEEP_JOB_SECONDS = 3600
# The phase of a ModelVersion by the reason why it is not verified.
_UNVERIFIED = {"VersionMissing": "Missing", "DigestMismatch": "Mismatch"}
CHECKS = ("StoreReadable", "Serving", "TrafficSplit", "FeedbackReadable")


@dataclass(frozen=True)
class Note:
    """An Event about an object, for people."""

    about: Object
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Changes:
    """In the order in which they are to be made. `statuses` go to the status subresource."""

    create: tuple[Object, ...] = ()
    statuses: tuple[Object, ...] = ()
    apply: tuple[Object, ...] = ()
    delete: tuple[Object, ...] = ()
    notes: tuple[Note, ...] = ()
    again_seconds: float | None = None


def unready_changes(problem: PolicyProblem, now: datetime) -> Changes:
    """Only say what is wrong."""
    phase = "Stalled" if problem.problem.stops else "Pending"
    status = {**problem.obj.get("status", {}), "phase": phase}
    checks = [problem.problem.about] if problem.problem.about != "Ready" else []
    found = conditions.of_policy([problem.problem], checks, busy=False, phase=phase)
    written = _status(problem.obj, status, found, now)
    notes = _problem_notes(problem.obj, [problem.problem])
    return Changes(statuses=written, notes=notes, again_seconds=10)


def changes(
    gathered: Gathered, plan: Plan, now: datetime, config: Config, producers: Mapping[str, Producer]
) -> Changes:
    """Everything that is to be written now."""
    promotions = tuple(
        msgspec.structs.replace(promotion, status=plan.statuses.get(promotion.name, promotion.status))
        for promotion in gathered.snapshot.promotions
    )
    retired, drained = _retire(gathered, plan, now)
    route = _route(gathered, plan)
    return Changes(
        create=(*_model_versions(gathered, producers), *_promotions(gathered, plan)),
        statuses=(
            *_promotion_statuses(gathered, promotions, now),
            *_statuses_without_version(gathered, now),
            *_version_statuses(gathered, now),
            *_policy_status(gathered, promotions, now),
        ),
        apply=(*_jobs(gathered, plan, config), *_inference_services(gathered, plan, config), *route, *retired),
        delete=(
            *drained,
            *_outdated(gathered, promotions),
            *_finished(gathered, now),
            *([gathered.objects.stale_route] if gathered.objects.stale_route and not route else []),
        ),
        notes=(*_notes(gathered, plan), *_problem_notes(gathered.obj, gathered.problems)),
        again_seconds=_again(promotions, bool(retired)),
    )


def _model_versions(gathered: Gathered, producers: Mapping[str, Producer]) -> Iterable[Object]:
    versions = {version.digest: version for version in (gathered.initial, *(gathered.snapshot.versions or ()))}
    for version in versions.values():
        if object_name(version) not in gathered.objects.model_versions:
            yield manifests.model_version(gathered.namespace, gathered.name, version, producers.get(version.digest))


def _promotions(gathered: Gathered, plan: Plan) -> Iterable[Object]:
    for promotion in plan.create:
        name = object_name(promotion.candidate)
        yield manifests.promotion(gathered.namespace, gathered.name, name, promotion.candidate)


def _promotion_statuses(gathered: Gathered, promotions: Iterable[Promotion], now: datetime) -> Iterable[Object]:
    for promotion, before in zip(promotions, gathered.snapshot.promotions, strict=True):
        if before.status.phase in TERMINAL:
            continue
        status = {**to_plain(promotion.status), "candidate": to_plain(promotion.candidate)}
        found = conditions.of_promotion(promotion, gathered.problems)
        yield from _status(gathered.objects.promotions[promotion.name], status, found, now)


def _statuses_without_version(gathered: Gathered, now: datetime) -> Iterable[Object]:
    known = {promotion.name for promotion in gathered.snapshot.promotions}
    for promotion in (obj for name, obj in gathered.objects.promotions.items() if name not in known):
        message = f"there is no ModelVersion {promotion['spec']['version']}; see: kubectl get modelversions"
        found = [Condition("Ready", "False", "VersionMissing", message)]
        found.append(Condition("Stalled", "True", "VersionMissing", message))
        yield from _status(promotion, {"phase": "Pending"}, found, now)


def _version_statuses(gathered: Gathered, now: datetime) -> Iterable[Object]:
    listed = (
        None if gathered.snapshot.versions is None else {version.uri: version for version in gathered.snapshot.versions}
    )
    for model_version in gathered.objects.model_versions.values():
        version = read_version(model_version)
        entries = [gathered.summaries.get((version.digest, suite)) for suite in gathered.policy.suites]
        kept = [
            evaluation
            for evaluation in model_version.get("status", {}).get("evaluations", ())
            if evaluation["suite"] not in gathered.policy.suites
        ]
        status = {
            "phase": model_version.get("status", {}).get("phase", "Pending"),
            "evaluations": [*kept, *(to_plain(summary) for summary in entries if summary)],
        }
        evaluated = all(summary and not summary.failures for summary in entries)
        verified = _verified(gathered, version, listed)
        failures = [summary.message for summary in entries if summary and summary.failures]
        if verified.status != "Unknown":
            status["phase"] = _UNVERIFIED.get(verified.reason) or ("Evaluated" if evaluated else "Verified")
        found = [verified, _evaluated(evaluated, failures)]
        yield from _status(model_version, status, found, now)


def _verified(gathered: Gathered, version: ModelVersion, listed: Mapping[str, ModelVersion] | None) -> Condition:
    if listed is None:
        return Condition("Verified", "Unknown", "Waiting")
    if version.model != gathered.policy.model:
        return Condition("Verified", "True", "Verified")  # the listing says nothing of another model
    found = listed.get(version.uri)
    if found is None:
        return Condition("Verified", "False", "VersionMissing", f"{version.uri} is no longer in the store")
    if found.digest != version.digest:
        message = f"{version.uri} now holds {found.digest}; publish under a new name instead of over an old one"
        return Condition("Verified", "False", "DigestMismatch", message)
    return Condition("Verified", "True", "Verified", "the store's manifest has this digest")


def _evaluated(done: bool, failures: list[str]) -> Condition:
    if failures:
        return Condition("Evaluated", "False", "EvaluationFailed", "; ".join(failures))
    return Condition("Evaluated", "True", "Evaluated") if done else Condition("Evaluated", "Unknown", "Waiting")


def _policy_status(gathered: Gathered, promotions: tuple[Promotion, ...], now: datetime) -> Iterable[Object]:
    running = shown(promotions) or next(
        (promotion for promotion in promotions if promotion.status.phase not in TERMINAL), None
    )
    stable = stable_version(replace(gathered.snapshot, promotions=promotions))
    phase = _policy_phase(gathered, running, stable)
    weights = gathered.snapshot.weights or {}
    names = {version.digest: version.name for version in _known(gathered)}
    status: Object = {
        "phase": phase,
        "initial": to_plain(gathered.initial),
        "stable": to_plain(stable),
        "weights": [
            {"version": short(digest), "name": names.get(digest, ""), "weight": weight}
            for digest, weight in weights.items()
        ],
        "url": _url(gathered),
    }
    if running:
        status["promotion"] = running.name
    problems = list(gathered.problems)
    if gathered.policy.suspend:
        problems.append(Problem("Suspended", "Suspended", "spec.suspend is true: nothing new is started", stops=False))
    found = conditions.of_policy(problems, CHECKS, busy=running is not None, phase=phase)
    return _status(gathered.obj, status, found, now)


def _policy_phase(gathered: Gathered, running: Promotion | None, stable: ModelVersion) -> str:
    if any(problem.stops for problem in gathered.problems):
        return "Stalled"
    if gathered.policy.suspend:
        return "Suspended"
    if running:
        return "Promoting"
    server = gathered.snapshot.servers.get(stable.digest)
    # Once it was reached, a gateway that takes its time over a change doesn't stop its answering.
    reached = gathered.snapshot.weights is not None or is_true(gathered.obj, "Ready")
    return "Serving" if server and server.ready and reached else "Pending"


def _url(gathered: Gathered) -> str:
    if not gathered.policy.traffic.is_shared:
        return f"http://{gathered.name}.{gathered.namespace}.svc"
    host = gathered.policy.traffic.hostnames[0] if gathered.policy.traffic.hostnames else ""
    return f"http://{host}{gathered.policy.traffic.path_prefix}" if host else ""


def _jobs(gathered: Gathered, plan: Plan, config: Config) -> Iterable[Object]:
    unfinished = sum(not job_state(job).done for job in gathered.objects.jobs.values())
    for wanted in plan.evaluations:
        if manifests.evaluation_name(wanted) in gathered.objects.jobs:
            continue
        model_version = gathered.objects.model_versions.get(object_name(wanted.version))
        if model_version is None:
            continue  # it is being created; its Job comes with the next reconcile
        if unfinished >= MOST_JOBS:
            return
        unfinished += 1
        job = manifests.evaluation_job(gathered.namespace, gathered.policy, gathered.name, wanted, config)
        yield manifests.owned(job, model_version)


def _inference_services(gathered: Gathered, plan: Plan, config: Config) -> Iterable[Object]:
    if gathered.snapshot.modified:
        return
    for version in plan.servers:
        wanted = manifests.remembered(
            manifests.inference_service(gathered.namespace, gathered.policy, gathered.name, version, config)
        )
        live = gathered.objects.inference_services.get(wanted["metadata"]["name"])
        if live and UNUSED_SINCE not in live["metadata"].get("annotations", {}) and not _differs(wanted, live):
            continue
        yield _over(manifests.owned(wanted, gathered.obj), live)


def _route(gathered: Gathered, plan: Plan) -> tuple[Object, ...]:
    """The route or the switch; an empty plan leaves both alone."""
    if not plan.weights:
        return ()
    if gathered.policy.traffic.is_shared:
        wanted = manifests.http_route(gathered.namespace, gathered.policy, gathered.name, plan.weights)
    else:
        digest = max(plan.weights, key=lambda digest: plan.weights[digest])
        wanted = manifests.switch(gathered.namespace, gathered.policy, gathered.name, digest)
    wanted = manifests.remembered(wanted)
    if gathered.objects.route and not _differs(wanted, gathered.objects.route):
        return ()
    return (_over(manifests.owned(wanted, gathered.obj), gathered.objects.route),)


def _retire(gathered: Gathered, plan: Plan, now: datetime) -> tuple[list[Object], list[Object]]:
    """Servers nobody needs: first marked, and deleted once their last answers are over."""
    needed = {server_name(gathered.name, version.digest) for version in plan.servers}
    marked, drained = [], []
    for name, live in gathered.objects.inference_services.items():
        if name in needed or gathered.snapshot.modified or gathered.snapshot.weights is None:
            continue
        since = live["metadata"].get("annotations", {}).get(UNUSED_SINCE)
        if since is None:
            marked.append(_marked(live, now))
        elif (now - datetime.fromisoformat(since)).total_seconds() >= DRAIN_SECONDS:
            drained.append(live)
    return marked, drained


def _marked(live: Object, now: datetime) -> Object:
    """The server as it is, with the time from which on nobody needed it."""
    metadata = live["metadata"]
    kept = {
        key: metadata[key]
        for key in ("name", "namespace", "labels", "ownerReferences", "resourceVersion")
        if key in metadata
    }
    annotations = {**metadata.get("annotations", {}), UNUSED_SINCE: now.isoformat()}
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {**kept, "annotations": annotations},
        "spec": applied(live) or live["spec"],
    }


def _finished(gathered: Gathered, now: datetime) -> Iterable[Object]:
    """Evaluation Jobs that did their work a while ago: their numbers are recorded, and nobody reads their logs now."""
    for job in gathered.objects.jobs.values():
        state = job_state(job)
        if state.failed or not state.done:
            continue
        ended = datetime.fromisoformat(job["status"].get("completionTime", now.isoformat()))
        if (now - ended).total_seconds() >= KEEP_JOB_SECONDS and _is_recorded(gathered, job):
            yield job


def _is_recorded(gathered: Gathered, job: Object) -> bool:
    labels = job["metadata"].get("labels", {})
    return any(
        dns(evaluation["suite"]) == labels.get(SUITE) and not evaluation.get("failures")
        for model_version in gathered.objects.model_versions.values()
        if short(model_version["spec"]["digest"]) == labels.get(VERSION)
        for evaluation in model_version.get("status", {}).get("evaluations", ())
    )


def _outdated(gathered: Gathered, promotions: tuple[Promotion, ...]) -> Iterable[Object]:
    """Ended promotions beyond the limit, and records of versions that are gone and that nobody speaks of.

    Kept besides the newest: the one that made the stable version, and the one with the newest candidate, which is what
    keeps older ones from being tried again.
    """
    ended = [promotion for promotion in promotions if promotion.status.phase in TERMINAL]
    made = [promotion for promotion in ended if promotion.status.phase == "Succeeded" and promotion.status.decision]
    keep = {promotion.name for promotion in ended[-gathered.policy.history_limit :]}
    keep |= {max(made, key=lambda promotion: promotion.status.decision.time).name} if made else set()  # type: ignore[union-attr]
    keep |= {max(promotions, key=lambda promotion: promotion.candidate.created).name} if promotions else set()
    gone = [promotion for promotion in ended if promotion.name not in keep]
    yield from (gathered.objects.promotions[promotion.name] for promotion in gone)
    if gathered.snapshot.versions is None:
        return
    spoken_of = {
        version.digest for version in (gathered.initial, gathered.snapshot.initial, *gathered.snapshot.versions)
    }
    names = {promotion.name for promotion in gone}
    spoken_of |= {promotion.candidate.digest for promotion in promotions if promotion.name not in names}
    for model_version in gathered.objects.model_versions.values():
        if model_version["spec"]["digest"] not in spoken_of and model_version["spec"]["model"] == gathered.policy.model:
            yield model_version


def _notes(gathered: Gathered, plan: Plan) -> Iterable[Note]:
    bad = ("Failed", "RolledBack", "Rejected")
    for event in plan.events:
        status = plan.statuses[event.promotion]
        decided = status.decision is not None and status.decision.outcome in bad
        yield Note(
            gathered.objects.promotions[event.promotion], event.reason or status.phase, event.message, warning=decided
        )


def _problem_notes(obj: Object, problems: Iterable[Problem]) -> tuple[Note, ...]:
    """One Event when a problem begins to stop promotions; it is in the conditions for as long as it lasts."""
    was_stalled = is_true(obj, "Stalled")
    said = {
        (condition.get("type"), condition.get("reason"))
        for condition in obj.get("status", {}).get("conditions", ())
        if was_stalled  # else the problem was there, and nothing waited for it
    }
    return tuple(
        Note(obj, problem.reason, problem.message, warning=True)
        for problem in problems
        if problem.stops and (problem.about, problem.reason) not in said and ("Stalled", problem.reason) not in said
    )


def _again(promotions: Iterable[Promotion], draining: bool) -> float:
    """Seconds until the next reconcile without a change in the cluster: for clocks, Prometheus and gateways."""
    phases = {promotion.status.phase for promotion in promotions}
    if phases & SHOWN or draining:
        return 5  # more often than Prometheus scrapes, as a rule
    return 15 if phases - TERMINAL else 120


def _status(obj: Object, status: Object, found: list[Condition], now: datetime) -> tuple[Object, ...]:
    """The object with its whole status, if that is another than before."""
    metadata = obj["metadata"]
    wanted = {
        **{key: value for key, value in status.items() if key not in ("conditions", "observedGeneration")},
        "conditions": conditions.written(found, obj, now),
        "observedGeneration": metadata.get("generation", 0),
    }
    if wanted == obj.get("status"):
        return ()
    identity = {key: metadata[key] for key in ("name", "namespace", "resourceVersion")}
    return ({"apiVersion": API_VERSION, "kind": obj["kind"], "metadata": identity, "status": wanted},)


def _differs(wanted: Object, live: Object) -> bool:
    """Whether the spec is another, or somebody took away or spoiled what we remember there."""
    annotations = live["metadata"].get("annotations", {})
    taken = DIGEST in wanted["metadata"]["annotations"] and DIGEST not in annotations
    return bool(taken or applied(live) is None or first_difference(wanted["spec"], live["spec"], "spec"))


def _over(wanted: Object, live: Object | None) -> Object:
    """What is written over an object is written over the one that was read, or not at all."""
    if live is None:
        return wanted
    return {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}}


def _known(gathered: Gathered) -> Iterable[ModelVersion]:
    yield gathered.initial
    yield gathered.snapshot.initial
    yield from gathered.snapshot.versions or ()
    yield from (promotion.candidate for promotion in gathered.snapshot.promotions)
