"""What has to be written so that a plan becomes true: pure, from what was seen to the objects that should be there.

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
from tunegate_operator.gather import Seen, Unready
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


def unready_changes(seen: Unready, now: datetime) -> Changes:
    """Only say what is wrong."""
    phase = "Stalled" if seen.problem.stops else "Pending"
    status = {**seen.obj.get("status", {}), "phase": phase}
    checks = [seen.problem.about] if seen.problem.about != "Ready" else []
    found = conditions.of_policy([seen.problem], checks, busy=False, phase=phase)
    written = _status(seen.obj, status, found, now)
    notes = _problem_notes(seen.obj, [seen.problem])
    return Changes(statuses=written, notes=notes, again_seconds=10)


def changes(seen: Seen, plan: Plan, now: datetime, config: Config, producers: Mapping[str, Producer]) -> Changes:
    """Everything that is to be written now."""
    promotions = tuple(
        msgspec.structs.replace(each, status=plan.statuses.get(each.name, each.status))
        for each in seen.snapshot.promotions
    )
    retired, drained = _retire(seen, plan, now)
    entry = _entry(seen, plan)
    return Changes(
        create=(*_records(seen, producers), *_attempts(seen, plan)),
        statuses=(
            *_promotion_statuses(seen, promotions, now),
            *_unknown_statuses(seen, now),
            *_version_statuses(seen, now),
            *_policy_status(seen, promotions, now),
        ),
        apply=(*_jobs(seen, plan, config), *_servers(seen, plan, config), *entry, *retired),
        delete=(
            *drained,
            *_outdated(seen, promotions),
            *_finished(seen, now),
            *([seen.around.stale] if seen.around.stale and not entry else []),
        ),
        notes=(*_notes(seen, plan), *_problem_notes(seen.obj, seen.problems)),
        again_seconds=_again(promotions, bool(retired)),
    )


def _records(seen: Seen, producers: Mapping[str, Producer]) -> Iterable[Object]:
    versions = {each.digest: each for each in (seen.initial, *(seen.snapshot.versions or ()))}
    for version in versions.values():
        if object_name(version) not in seen.around.records:
            yield manifests.model_version(seen.namespace, seen.name, version, producers.get(version.digest))


def _attempts(seen: Seen, plan: Plan) -> Iterable[Object]:
    for promotion in plan.create:
        name = object_name(promotion.candidate)
        yield manifests.promotion(seen.namespace, seen.name, name, promotion.candidate)


def _promotion_statuses(seen: Seen, promotions: Iterable[Promotion], now: datetime) -> Iterable[Object]:
    for promotion, before in zip(promotions, seen.snapshot.promotions, strict=True):
        if before.status.phase in TERMINAL:
            continue
        status = {**to_plain(promotion.status), "candidate": to_plain(promotion.candidate)}
        found = conditions.of_promotion(promotion, seen.problems)
        yield from _status(seen.attempts[promotion.name], status, found, now)


def _unknown_statuses(seen: Seen, now: datetime) -> Iterable[Object]:
    for attempt in seen.unknown:
        message = f"there is no ModelVersion {attempt.version}; see: kubectl get modelversions"
        found = [Condition("Ready", "False", "VersionMissing", message)]
        found.append(Condition("Stalled", "True", "VersionMissing", message))
        yield from _status(seen.attempts[attempt.name], {"phase": "Pending"}, found, now)


def _version_statuses(seen: Seen, now: datetime) -> Iterable[Object]:
    listed = None if seen.snapshot.versions is None else {each.uri: each for each in seen.snapshot.versions}
    for record in seen.around.records.values():
        version = read_version(record)
        entries = [seen.summaries.get((version.digest, suite)) for suite in seen.policy.suites]
        kept = [
            each for each in record.get("status", {}).get("evaluations", ()) if each["suite"] not in seen.policy.suites
        ]
        status = {
            "phase": record.get("status", {}).get("phase", "Pending"),
            "evaluations": [*kept, *(to_plain(each) for each in entries if each)],
        }
        evaluated = all(each and not each.failures for each in entries)
        verified = _verified(seen, version, listed)
        failures = [each.message for each in entries if each and each.failures]
        if verified.status != "Unknown":
            status["phase"] = _UNVERIFIED.get(verified.reason) or ("Evaluated" if evaluated else "Verified")
        found = [verified, _evaluated(evaluated, failures)]
        yield from _status(record, status, found, now)


def _verified(seen: Seen, version: ModelVersion, listed: Mapping[str, ModelVersion] | None) -> Condition:
    if listed is None:
        return Condition("Verified", "Unknown", "Waiting")
    if version.model != seen.policy.model:
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


def _policy_status(seen: Seen, promotions: tuple[Promotion, ...], now: datetime) -> Iterable[Object]:
    running = shown(promotions) or next((each for each in promotions if each.status.phase not in TERMINAL), None)
    stable = stable_version(replace(seen.snapshot, promotions=promotions))
    phase = _policy_phase(seen, running, stable)
    weights = seen.snapshot.weights or {}
    names = {each.digest: each.name for each in _known(seen)}
    status: Object = {
        "phase": phase,
        "initial": to_plain(seen.initial),
        "stable": to_plain(stable),
        "weights": [
            {"version": short(digest), "name": names.get(digest, ""), "weight": weight}
            for digest, weight in weights.items()
        ],
        "url": _url(seen),
    }
    if running:
        status["promotion"] = running.name
    problems = list(seen.problems)
    if seen.policy.suspend:
        problems.append(Problem("Suspended", "Suspended", "spec.suspend is true: nothing new is started", stops=False))
    found = conditions.of_policy(problems, CHECKS, busy=running is not None, phase=phase)
    return _status(seen.obj, status, found, now)


def _policy_phase(seen: Seen, running: Promotion | None, stable: ModelVersion) -> str:
    if any(problem.stops for problem in seen.problems):
        return "Stalled"
    if seen.policy.suspend:
        return "Suspended"
    if running:
        return "Promoting"
    server = seen.snapshot.servers.get(stable.digest)
    # Once it was reached, a gateway that takes its time over a change doesn't stop its answering.
    reached = seen.snapshot.weights is not None or is_true(seen.obj, "Ready")
    return "Serving" if server and server.ready and reached else "Pending"


def _url(seen: Seen) -> str:
    if not seen.policy.traffic.is_shared:
        return f"http://{seen.name}.{seen.namespace}.svc"
    host = seen.policy.traffic.hostnames[0] if seen.policy.traffic.hostnames else ""
    return f"http://{host}{seen.policy.traffic.path_prefix}" if host else ""


def _jobs(seen: Seen, plan: Plan, config: Config) -> Iterable[Object]:
    unfinished = sum(not job_state(job).done for job in seen.around.jobs.values())
    for wanted in plan.evaluations:
        if manifests.evaluation_name(wanted) in seen.around.jobs:
            continue
        record = seen.around.records.get(object_name(wanted.version))
        if record is None:
            continue  # it is being created; its Job comes with the next look
        if unfinished >= MOST_JOBS:
            return
        unfinished += 1
        job = manifests.evaluation_job(seen.namespace, seen.policy, seen.name, wanted, config)
        yield manifests.owned(job, record)


def _servers(seen: Seen, plan: Plan, config: Config) -> Iterable[Object]:
    if seen.snapshot.modified:
        return
    for version in plan.servers:
        wanted = manifests.remembered(
            manifests.inference_service(seen.namespace, seen.policy, seen.name, version, config)
        )
        live = seen.around.servers.get(wanted["metadata"]["name"])
        if live and UNUSED_SINCE not in live["metadata"].get("annotations", {}) and not _differs(wanted, live):
            continue
        yield _over(manifests.owned(wanted, seen.obj), live)


def _entry(seen: Seen, plan: Plan) -> tuple[Object, ...]:
    """The route or the switch; an empty plan leaves both alone."""
    if not plan.weights:
        return ()
    if seen.policy.traffic.is_shared:
        wanted = manifests.http_route(seen.namespace, seen.policy, seen.name, plan.weights)
    else:
        digest = max(plan.weights, key=lambda each: plan.weights[each])
        wanted = manifests.switch(seen.namespace, seen.policy, seen.name, digest)
    wanted = manifests.remembered(wanted)
    if seen.around.entry and not _differs(wanted, seen.around.entry):
        return ()
    return (_over(manifests.owned(wanted, seen.obj), seen.around.entry),)


def _retire(seen: Seen, plan: Plan, now: datetime) -> tuple[list[Object], list[Object]]:
    """Servers nobody needs: first marked, and deleted once their last answers are over."""
    needed = {server_name(seen.name, version.digest) for version in plan.servers}
    marked, drained = [], []
    for name, live in seen.around.servers.items():
        if name in needed or seen.snapshot.modified or seen.snapshot.weights is None:
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


def _finished(seen: Seen, now: datetime) -> Iterable[Object]:
    """Evaluation Jobs that did their work a while ago: their numbers are recorded, and nobody reads their logs now."""
    for job in seen.around.jobs.values():
        state = job_state(job)
        if state.failed or not state.done:
            continue
        ended = datetime.fromisoformat(job["status"].get("completionTime", now.isoformat()))
        if (now - ended).total_seconds() >= KEEP_JOB_SECONDS and _is_recorded(seen, job):
            yield job


def _is_recorded(seen: Seen, job: Object) -> bool:
    labels = job["metadata"].get("labels", {})
    records = [each for each in seen.around.records.values() if short(each["spec"]["digest"]) == labels.get(VERSION)]
    entries = [each for record in records for each in record.get("status", {}).get("evaluations", ())]
    return any(dns(each["suite"]) == labels.get(SUITE) and not each.get("failures") for each in entries)


def _outdated(seen: Seen, promotions: tuple[Promotion, ...]) -> Iterable[Object]:
    """Ended promotions beyond the limit, and records of versions that are gone and that nobody speaks of.

    Kept besides the newest: the one that made the stable version, and the one with the newest candidate, which is what
    keeps older ones from being tried again.
    """
    ended = [each for each in promotions if each.status.phase in TERMINAL]
    made = [each for each in ended if each.status.phase == "Succeeded" and each.status.decision]
    keep = {each.name for each in ended[-seen.policy.history_limit :]}
    keep |= {max(made, key=lambda each: each.status.decision.time).name} if made else set()  # type: ignore[union-attr]
    keep |= {max(promotions, key=lambda each: each.candidate.created).name} if promotions else set()
    gone = [each for each in ended if each.name not in keep]
    yield from (seen.attempts[each.name] for each in gone)
    if seen.snapshot.versions is None:
        return
    spoken_of = {each.digest for each in (seen.initial, seen.snapshot.initial, *seen.snapshot.versions)}
    names = {each.name for each in gone}
    spoken_of |= {each.candidate.digest for each in promotions if each.name not in names}
    for record in seen.around.records.values():
        if record["spec"]["digest"] not in spoken_of and record["spec"]["model"] == seen.policy.model:
            yield record


def _notes(seen: Seen, plan: Plan) -> Iterable[Note]:
    bad = ("Failed", "RolledBack", "Rejected")
    for event in plan.events:
        status = plan.statuses[event.promotion]
        decided = status.decision is not None and status.decision.outcome in bad
        yield Note(seen.attempts[event.promotion], event.reason or status.phase, event.message, warning=decided)


def _problem_notes(obj: Object, problems: Iterable[Problem]) -> tuple[Note, ...]:
    """One Event when a problem begins to stop promotions; it is in the conditions for as long as it lasts."""
    was_stalled = is_true(obj, "Stalled")
    said = {
        (each.get("type"), each.get("reason"))
        for each in obj.get("status", {}).get("conditions", ())
        if was_stalled  # else the problem was there, and nothing waited for it
    }
    return tuple(
        Note(obj, each.reason, each.message, warning=True)
        for each in problems
        if each.stops and (each.about, each.reason) not in said and ("Stalled", each.reason) not in said
    )


def _again(promotions: Iterable[Promotion], draining: bool) -> float:
    """Seconds until the next look without a change in the cluster: for clocks, Prometheus and gateways."""
    phases = {each.status.phase for each in promotions}
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
    """What is written over an object is written over the one that was looked at, or not at all."""
    if live is None:
        return wanted
    return {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}}


def _known(seen: Seen) -> Iterable[ModelVersion]:
    yield seen.initial
    yield seen.snapshot.initial
    yield from seen.snapshot.versions or ()
    yield from (each.candidate for each in seen.snapshot.promotions)
