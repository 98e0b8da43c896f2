"""What is recorded of a promotion that is over: read from the store and the promotion, signed, put beside the model.

Records are only added, with conditional puts: whoever was stopped before it could note where the record is finds the
one that it wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from itertools import pairwise

import msgspec

from tunegate.api.codec import from_json
from tunegate.api.digest import Digest
from tunegate.api.errors import DecisionRecordError, DigestError, ModelError, NotFoundError, UsageError
from tunegate.api.evaluation import Evaluation
from tunegate.api.feedback import Verdicts
from tunegate.api.policy import PromotionPolicy
from tunegate.api.promotion import TERMINAL, GateResult, Promotion, Recorded
from tunegate.api.records import (
    DECISION,
    DEPARTURE,
    Decision,
    Departure,
    ObservedWeight,
    Place,
    RecordedEvaluation,
    RecordedVersion,
    Statement,
    StepEvidence,
    Subject,
)
from tunegate.api.versions import MANIFEST, Manifest, ModelVersion, Release
from tunegate.promotion.analysis import compare
from tunegate.promotion.desired import compared_weights
from tunegate.records.signing import PublicKey, Signer, predicate_of, seal, unseal
from tunegate.store import Store
from tunegate.store.evaluations import earlier, keys_of_version
from tunegate.store.release import read_release


@dataclass(frozen=True)
class Unrecorded:
    """A promotion that something is to be written of: its record, or that its version left for `successor`'s."""

    promotion: Promotion
    policy: PromotionPolicy
    place: Place
    successor: Promotion | None = None


def unrecorded(promotions: Iterable[Promotion], policy: PromotionPolicy, place: Place) -> Iterator[Unrecorded]:
    """What is still to be written of these promotions of one policy, in any order."""
    found = list(promotions)
    promoted = sorted(
        (promotion for promotion in found if promotion.status.phase == "Succeeded" and promotion.status.decision),
        key=lambda promotion: promotion.status.decision.time,  # type: ignore[union-attr]
    )
    successors = {promotion.name: later for promotion, later in pairwise(promoted)}
    for promotion in found:
        if promotion.status.phase not in TERMINAL:
            continue
        successor, record = successors.get(promotion.name), promotion.status.record
        if record is None:
            yield Unrecorded(promotion, policy, place)
        elif successor and not record.departure:
            yield Unrecorded(promotion, policy, place, successor)


def write(store: Store, asked: Unrecorded, signer: Signer, known: Iterable[PublicKey] = ()) -> Recorded:
    """Write what is asked for, or find it written; `known` are keys of before, whose records are ours, too.

    Raises StoreError, and DecisionRecordError where another has written in its place.
    """
    folder = folder_of(asked.promotion, asked.place)
    subjects = _subjects(store, asked.promotion.candidate)
    keys = (signer.public_key, *known)
    record = asked.promotion.status.record
    if asked.successor is None or record is None:
        decision = decision_of(store, asked)
        key = f"{folder}decision.json"
        document = _put(store, key, _statement(subjects, DECISION, decision), signer)
        statement, digest, signed_by = unseal(document, keys, f"{store.uri}/{key}")
        if predicate_of(statement, Decision, f"{store.uri}/{key}").promotion.name != asked.promotion.name:
            raise DecisionRecordError(f"{store.uri}/{key} is of another promotion; delete it from the store.")
        return Recorded(key=key, digest=digest, signed_by=signed_by)
    end = asked.successor.status.decision
    assert end is not None, "a successor was promoted"
    departure = Departure(
        record=record.digest, left=end.time, successor=asked.successor.candidate, promotion=asked.successor.name
    )
    key = f"{folder}departure.json"
    unseal(_put(store, key, _statement(subjects, DEPARTURE, departure), signer), keys, f"{store.uri}/{key}")
    return msgspec.structs.replace(record, departure=key)


def folder_of(promotion: Promotion, place: Place) -> str:
    """The prefix of a promotion's records: beside its candidate, by name and time, as attempts have no number.

    Policies of several namespaces that share a store try a version in the same second.
    """
    digest, whose = Digest.parse(promotion.candidate.digest).hex, f"{place.namespace}." if place.namespace else ""
    return f".tunegate/promotions/{digest}/{whose}{promotion.name}-{promotion.created.astimezone(UTC):%Y%m%dT%H%M%SZ}/"


def decision_of(store: Store, asked: Unrecorded) -> Decision:
    """What is recorded, from what the store holds now."""
    promotion, status = asked.promotion, asked.promotion.status
    manifest = _manifest(store, promotion.candidate.name, promotion.candidate.digest)
    is_live = bool(status.decision and status.decision.outcome == "Promoted")
    return Decision(
        place=asked.place,
        promotion=msgspec.structs.replace(promotion, status=msgspec.structs.replace(status, record=None)),
        candidate=_recorded(store, promotion.candidate.name, promotion.candidate.uri, promotion.candidate.digest),
        producer=manifest.producer if manifest else None,
        release=_release(store, promotion.candidate) if manifest else None,
        bases=tuple(_bases(store, manifest)),
        evaluations=tuple(_evaluations(store, promotion)),
        guard=asked.policy.feedback,
        evidence=evidence_of(promotion, asked.policy),
        weights=tuple(_weights(promotion)),
        live=status.decision.time if is_live and status.decision else None,
    )


def evidence_of(promotion: Promotion, policy: PromotionPolicy) -> tuple[StepEvidence, ...]:
    """The evidence after each step, by the function that decided on it."""
    comparison, weights = promotion.status.comparison, compared_weights(policy)
    if comparison is None:
        return ()
    found = []
    for count, step in enumerate(comparison.steps, 1):
        ours: Verdicts = {each.step: each.candidate for each in comparison.steps[:count]}
        theirs: Verdicts = {each.step: each.stable for each in comparison.steps[:count]}
        seen = compare(ours, theirs, policy.feedback, weights)
        found.append(
            StepEvidence(
                step=step.step,
                weight=weights[min(step.step, len(weights) - 1)],
                candidate=step.candidate,
                stable=step.stable,
                worse=seen.evidence_worse,
                not_worse=seen.evidence_not_worse,
            )
        )
    return tuple(found)


def _weights(promotion: Promotion) -> Iterator[ObservedWeight]:
    before = 0
    for step in promotion.status.history:
        if step.weight != before:
            before = step.weight
            yield ObservedWeight(weight=step.weight, since=step.time)


def _bases(store: Store, manifest: Manifest | None) -> Iterator[RecordedVersion]:
    """The versions that one was made from, as far as they have manifests in this store."""
    seen: set[str] = set()
    while manifest is not None:
        derived = manifest.producer.derived
        parent = derived or manifest.base
        if parent is None or parent.digest in seen:
            return
        seen.add(parent.digest)
        name = parent.uri.removeprefix(f"{store.uri}/").rstrip("/")
        yield _recorded(store, name, parent.uri, parent.digest)
        manifest = _manifest(store, name, parent.digest) if parent.uri.startswith(f"{store.uri}/") else None


def _evaluations(store: Store, promotion: Promotion) -> Iterator[RecordedEvaluation]:
    """Of the candidate, and of the stable where a gate compares with it."""
    status = promotion.status
    compared = {gate.suite for gate in status.gates if gate.bound == "maxRegression"}
    wanted: list[tuple[str, set[str] | None]] = [(promotion.candidate.digest, None)]
    wanted += [(status.stable.digest, compared)] if status.stable and compared else []
    for digest, suites in wanted:
        for key in keys_of_version(store, digest):
            body = store.get(key)
            if body is None:
                continue
            suite = key.rsplit("/", 1)[1].removesuffix(".json")
            if suites is not None and suite not in suites:
                continue
            recorded = _evaluation(key, body, digest, suite)
            if not _is_what_gates_saw(recorded, status.gates, is_stable=suites is not None):  # measured again since
                before = (_evaluation(key, each, digest, suite) for each in earlier(store, key))
                seen = (each for each in before if _is_what_gates_saw(each, status.gates, is_stable=suites is not None))
                recorded = next(seen, recorded)
            yield recorded


def _evaluation(key: str, body: bytes, digest: str, suite: str) -> RecordedEvaluation:
    recorded = RecordedEvaluation(key=key, document=str(Digest.of_bytes(body)), digest=digest, suite=suite)
    with suppress(UsageError):  # what can't be read was decided on as it is: as a failure
        found = from_json(body, Evaluation, key)
        recorded = msgspec.structs.replace(
            recorded,
            suite_digest=found.suite_digest,
            metrics=found.metrics,
            started=found.started,
            settings=found.settings,
        )
    return recorded


def _is_what_gates_saw(evaluation: RecordedEvaluation, gates: Iterable[GateResult], *, is_stable: bool) -> bool:
    values = {metric.name: metric.value for metric in evaluation.metrics}
    of_suite = [gate for gate in gates if gate.suite == evaluation.suite]
    if is_stable:
        return all(gate.stable == values.get(gate.metric) for gate in of_suite if gate.stable is not None)
    return all(gate.observed == values.get(gate.metric) for gate in of_suite)


def _subjects(store: Store, version: ModelVersion) -> tuple[Subject, ...]:
    """The files that a record is about: the manifest, and what it lists."""
    manifest = _manifest(store, version.name, version.digest)
    body = store.get(f"{version.name}/{MANIFEST}") if manifest else None
    if manifest is None or body is None:
        return (Subject(name=version.name, digest={"tunegateVersion": Digest.parse(version.digest).hex}),)
    files = [(MANIFEST, Digest.of_bytes(body).hex), *((file.path, file.sha256) for file in manifest.files)]
    return tuple(Subject(name=f"{version.name}/{path}", digest={"sha256": sha256}) for path, sha256 in files)


def _recorded(store: Store, name: str, uri: str, digest: str) -> RecordedVersion:
    body = store.get(f"{name}/{MANIFEST}") if uri.startswith(f"{store.uri}/") else None
    return RecordedVersion(name=name, uri=uri, digest=digest, manifest=str(Digest.of_bytes(body)) if body else "")


def _manifest(store: Store, name: str, digest: str) -> Manifest | None:
    """None where the store has none by this name, or one of other bytes."""
    try:
        found = store.manifest(name)
    except (NotFoundError, DigestError, UsageError):
        return None
    return found if found.digest == digest else None


def _release(store: Store, version: ModelVersion) -> Release | None:
    """None where the version has none, or one that was spoiled: the link of the weights says so."""
    try:
        return read_release(store, version)
    except (ModelError, DigestError):
        return None


def _statement(subjects: tuple[Subject, ...], kind: str, predicate: Decision | Departure) -> Statement:
    return Statement(subject=subjects, predicate_type=kind, predicate=msgspec.to_builtins(predicate))


def _put(store: Store, key: str, statement: Statement, signer: Signer) -> bytes:
    """What stands under the key now: ours, or what was there."""
    document = seal(statement, signer)
    if store.put_new(key, document):
        return document
    found = store.get(key)
    if found is None:
        raise DecisionRecordError(f"{store.uri}/{key} was there and is gone; see who deletes from the store.")
    return found
