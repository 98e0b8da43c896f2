"""What is recorded: the statuses of promotions, versions and the policy, written before anything is done about them.

A status that says what it said before is not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import msgspec

from tunegate.api.digest import short
from tunegate.api.promotion import TERMINAL, Promotion, RunChoice
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object
from tunegate.promotion.counting import shown, stable_version
from tunegate.promotion.phases import View, turn_after
from tunegate_operator import conditions
from tunegate_operator.conditions import Condition, Problem
from tunegate_operator.gather import Gathered
from tunegate_operator.read import is_true
from tunegate_operator.types import API_VERSION, ServerRecord, read_version, to_plain

CHECKS = (
    "StoreReadable",
    "Serving",
    "WeightsVerified",
    "TrafficSplit",
    "FeedbackReadable",
    "Training",
    "DecisionsRecorded",
)
"""The conditions of a policy that a problem makes False, besides the summary."""

# The phase of a ModelVersion by the reason why it is not verified.
_UNVERIFIED = {"VersionMissing": "Missing", "DigestMismatch": "Mismatch"}


def status(obj: Object, fields: Object, found: list[Condition], now: datetime) -> tuple[Object, ...]:
    """The object with its whole status, if that is another than before."""
    metadata = obj["metadata"]
    wanted = {
        **{key: value for key, value in fields.items() if key not in ("conditions", "observedGeneration")},
        "conditions": conditions.written(found, obj, now),
        "observedGeneration": metadata.get("generation", 0),
    }
    if wanted == obj.get("status"):
        return ()
    identity = {key: metadata[key] for key in ("name", "namespace", "resourceVersion")}
    return ({"apiVersion": API_VERSION, "kind": obj["kind"], "metadata": identity, "status": wanted},)


def promotion_statuses(gathered: Gathered, promotions: Iterable[Promotion], now: datetime) -> Iterable[Object]:
    """Of those that are not over or whose record was just written, and of those whose version is not known."""
    for promotion, before in zip(promotions, gathered.snapshot.promotions, strict=True):
        record = gathered.records.get(promotion.name)
        if before.status.phase in TERMINAL and record is None:
            continue
        if record:
            promotion = msgspec.structs.replace(
                promotion, status=msgspec.structs.replace(promotion.status, record=record)
            )
        fields = {**to_plain(promotion.status), "candidate": to_plain(promotion.candidate)}
        waits = turn_after(View(gathered.snapshot, before, gathered.initial, now))
        found = conditions.of_promotion(promotion, gathered.problems, gathered.namespace, waits)
        yield from status(gathered.objects.promotions[promotion.name], fields, found, now)
    known = {promotion.name for promotion in gathered.snapshot.promotions}
    for obj in (obj for name, obj in gathered.objects.promotions.items() if name not in known):
        missing = (
            f"there is no ModelVersion {obj['spec']['version']}; delete this Promotion, and make one that names one"
        )
        message = f"{missing} of: kubectl get modelversions --namespace {gathered.namespace}"
        found = [Condition("Ready", "False", "VersionMissing", message)]
        found.append(Condition("Stalled", "True", "VersionMissing", message))
        yield from status(obj, {"phase": "Pending"}, found, now)


def version_statuses(gathered: Gathered, now: datetime) -> Iterable[Object]:
    """Whether the store still has each version, and what was measured on it."""
    versions, suites = gathered.snapshot.versions, gathered.policy.suites
    listed = None if versions is None else {version.uri: version for version in versions}
    for model_version in gathered.objects.model_versions.values():
        version = read_version(model_version)
        before = model_version.get("status", {})
        summaries = [gathered.summaries.get((version.digest, suite)) for suite in suites]
        kept = [evaluation for evaluation in before.get("evaluations", ()) if evaluation["suite"] not in suites]
        fields = {
            "phase": before.get("phase", "Pending"),
            "evaluations": [*kept, *(to_plain(summary) for summary in summaries if summary)],
        }
        failures = [summary.message for summary in summaries if summary and summary.failures]
        if failures:
            evaluated = Condition("Evaluated", "False", "EvaluationFailed", "; ".join(failures))
        elif all(summaries):
            evaluated = Condition("Evaluated", "True", "Evaluated")
        else:
            evaluated = _awaited(gathered)
        verified = _verified(gathered, version, listed)
        if verified.status != "Unknown":
            is_evaluated = evaluated.status == "True"
            fields["phase"] = _UNVERIFIED.get(verified.reason) or ("Evaluated" if is_evaluated else "Verified")
        yield from status(model_version, fields, [verified, evaluated], now)


def _awaited(gathered: Gathered) -> Condition:
    """What evaluations without a result wait for, where that is known."""
    away = next((problem for problem in gathered.problems if problem.about == "StoreReadable"), None)
    if away is None:
        return Condition("Evaluated", "Unknown", "Waiting")
    message = f"evaluations wait for the store, which uses up none of their attempts: {away.message}"
    return Condition("Evaluated", "Unknown", away.reason, message)


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


def policy_status(
    gathered: Gathered,
    promotions: tuple[Promotion, ...],
    servers: Iterable[ServerRecord],
    choices: Iterable[RunChoice],
    is_rolled_out: bool,
    now: datetime,
) -> Iterable[Object]:
    """The summary: which version is stable, where the traffic goes, and what is in the way.

    is_rolled_out: the request for a rollout is done.
    """
    snapshot = gathered.snapshot
    running = shown(promotions) or next(
        (promotion for promotion in promotions if promotion.status.phase not in TERMINAL), None
    )
    stable = stable_version(replace(snapshot, promotions=promotions))
    phase = _policy_phase(gathered, running, stable)
    candidates = (promotion.candidate for promotion in snapshot.promotions)
    known = (gathered.initial, snapshot.initial, *(snapshot.versions or ()), *candidates)
    names = {version.digest: version.name for version in known}
    fields: Object = {
        "phase": phase,
        "initial": to_plain(gathered.initial),
        "stable": to_plain(stable),
        "weights": [
            {"version": short(digest), "name": names.get(digest, ""), "weight": weight}
            for digest, weight in (snapshot.weights or {}).items()
        ],
        "url": gathered.url,
        "servers": [to_plain(server) for server in servers],
    }
    optional = {
        "restored": gathered.edit.restored,
        "rolledOut": gathered.rollout if is_rolled_out else gathered.rolled_out,
        "runs": [to_plain(choice) for choice in choices],
        "promotion": running.name if running else "",
        "recordKeys": [{"id": key, "publicKey": pem} for key, pem in gathered.record_keys.items()],
    }
    fields |= {name: value for name, value in optional.items() if value}
    problems = list(gathered.problems)
    if gathered.policy.suspend:
        message = "spec.suspend is true, so nothing new is started; set it to false to resume"
        problems.append(Problem("Suspended", "Suspended", message, stops=False))
    found = conditions.of_policy(problems, CHECKS, busy=running is not None, phase=phase)
    return status(gathered.obj, fields, found, now)


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
