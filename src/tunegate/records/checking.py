"""Whether a promotion's record holds: link by link, from who signed it over what was trained and measured to the bytes
that serve now. The first link that does not hold ends the chain, as nothing after it says anything.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.digest import Digest, short
from tunegate.api.errors import DecisionRecordError, DigestError, NotFoundError, ServingError
from tunegate.api.policy import PromotionPolicy
from tunegate.api.promotion import TERMINAL, Promotion
from tunegate.api.records import DECISION, DEPARTURE, Decision, Departure, Place, RecordedVersion
from tunegate.api.versions import MANIFEST
from tunegate.processes import open_url
from tunegate.records.signing import PublicKey, predicate_of, unseal
from tunegate.records.writing import Unrecorded, decision_of, folder_of
from tunegate.store import Progress, Store
from tunegate.store.evaluations import earlier_key

LINKS = (
    "record",
    "promotion",
    "manifest",
    "bases",
    "weights",
    "knowledge",
    "evaluations",
    "gates",
    "departure",
    "serving",
)
"""The links, in order."""

Serving = Callable[[], Mapping[str, str]]
"""Asks what serves now: the digest by where it was asked. Raises TunegateError where nobody answers."""


class Link(Resource, frozen=True, kw_only=True):
    """holds: None where it was not looked at, as one before it does not hold. message: what was seen, or what is wrong
    and what to do."""

    name: str
    holds: bool | None
    message: str = ""


class Verification(Resource, frozen=True, kw_only=True):
    """The links of a promotion's record, from the first to the last."""

    promotion: str
    holds: bool
    links: tuple[Link, ...]

    @property
    def broken(self) -> Link | None:
        """The first link that does not hold."""
        return next((link for link in self.links if link.holds is False), None)


def verify(
    store: Store,
    promotion: Promotion,
    keys: Sequence[PublicKey],
    serving: Serving,
    progress: Progress | None = None,
) -> Verification:
    """Look at every link until one does not hold; `progress` hears of the weights, which are read byte by byte.

    Raises DecisionRecordError where there is no record, StoreError where the store can't be asked.
    """
    require_record(promotion)
    said: list[str] = []
    problem = ""
    try:
        said.extend(_chain(store, promotion, keys, serving, progress))  # keeps what came before an error
    except (DigestError, NotFoundError, DecisionRecordError, ServingError) as error:
        problem = str(error)
    links = [Link(name=name, holds=True, message=message) for name, message in zip(LINKS, said, strict=False)]
    if problem:
        links.append(Link(name=LINKS[len(links)], holds=False, message=problem))
    links += [Link(name=name, holds=None) for name in LINKS[len(links) :]]
    return Verification(promotion=promotion.name, holds=not problem, links=tuple(links))


def require_record(promotion: Promotion) -> None:
    """Raises DecisionRecordError for a promotion that has no record, with the reason."""
    if promotion.status.phase not in TERMINAL:
        raise DecisionRecordError(
            f"{promotion.name} is {promotion.status.phase}; its record is written when it is over."
        )
    if promotion.status.record is None:
        raise DecisionRecordError(
            f"{promotion.name} has no record: none is written while the store is away or there is no signing key, and "
            "it follows by itself once both are there."
        )


def explained(
    store: Store, promotion: Promotion, policy: tuple[PromotionPolicy, Place], keys: Sequence[PublicKey]
) -> tuple[Decision, Departure | None, str]:
    """The record of a promotion, the departure of its version, and the id of the key; for one that has no record, what
    would stand in it now, and no key.

    Raises DecisionRecordError where a record does not hold.
    """
    record = promotion.status.record
    if record is None:
        return decision_of(store, Unrecorded(promotion, *policy)), None, ""
    return read_decision(store, promotion, keys), _departure(store, promotion, keys), record.signed_by


def read_decision(store: Store, promotion: Promotion, keys: Sequence[PublicKey]) -> Decision:
    """The record of a promotion that has one. Raises DecisionRecordError where it does not hold."""
    record = promotion.status.record
    assert record is not None, "whoever asks has looked"
    document, source = store.get(record.key), f"{store.uri}/{record.key}"
    if document is None:
        raise DecisionRecordError(f"{source} is missing; bring it back from a backup of the store.")
    statement, digest, _ = unseal(document, keys, source)
    decision = predicate_of(statement, Decision, source) if statement.predicate_type == DECISION else None
    is_named = decision and record.key == f"{folder_of(promotion, decision.place)}decision.json"
    if decision is None or digest != record.digest or not is_named:
        raise DecisionRecordError(
            f"{source} is not the record that {promotion.name} names; bring it back from a backup."
        )
    return decision


def served_by(url: str, model: str) -> dict[str, str]:
    """What the server at `url` says that it serves. Raises ServingError."""
    asked = f"{url.rstrip('/')}{path_of(model)}"
    try:
        with open_url(asked, seconds=10) as answer:
            digest = digest_in(json.load(answer))
    except urllib.error.HTTPError as error:
        error.close()
        raise ServingError(f"{asked} answers with status {error.code}; see its log, and that --url is right.") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        remedy = "start it, or give the address that can be reached from here with --url"
        raise ServingError(f"{asked} can't be asked which version serves ({error}); {remedy}.") from None
    return {url: digest}


def path_of(model: str) -> str:
    """Where a server of a model says what it serves."""
    return f"/v2/models/{model}"


def digest_in(answer: Any) -> str:
    """What that answer says. Raises ValueError, KeyError or TypeError when it is no such answer."""
    (digest,) = answer["versions"]
    return str(digest)


def _chain(
    store: Store, promotion: Promotion, keys: Sequence[PublicKey], serving: Serving, progress: Progress | None
) -> Iterator[str]:
    """What is seen of each link, in the order of LINKS."""
    decision = read_decision(store, promotion, keys)
    assert promotion.status.record is not None
    yield f"signed by the key {promotion.status.record.signed_by[:12]}"
    yield _same_promotion(promotion, decision)
    yield _manifest(store, decision.candidate)
    yield "; ".join(_manifest(store, base) for base in decision.bases) or "it was made from no other version"
    for version in (decision.candidate, *decision.bases):
        if version.manifest:
            store.verify(version.name, progress)
    yield "every byte is what the manifests list"
    yield _knowledge(store, decision, progress)
    yield _evaluations(store, decision)
    yield _gates(decision)
    departure = _departure(store, promotion, keys)
    yield _left(departure, decision)
    is_live_anyway = _is_live_anyway(store, decision, keys)
    yield _serves(serving(), decision, departure, is_live_anyway=is_live_anyway)


def _same_promotion(promotion: Promotion, decision: Decision) -> str:
    said = msgspec.structs.replace(promotion, status=msgspec.structs.replace(promotion.status, record=None))
    if said != decision.promotion:
        mine, recorded = (
            {**msgspec.structs.asdict(each), **msgspec.structs.asdict(each.status)}
            for each in (said, decision.promotion)
        )
        changed = ", ".join(name for name in mine if name != "status" and mine[name] != recorded[name])
        raise DecisionRecordError(
            f"{promotion.name} is not as it was recorded ({changed}); it was changed since: go by the record, and see "
            "who may write promotions."
        )
    end = promotion.status.decision
    return f"{end.outcome} by {end.actor}: {end.message}" if end else promotion.status.phase


def _manifest(store: Store, version: RecordedVersion) -> str:
    if not version.manifest:
        return f"{version.name} ({short(version.digest)}) was not in this store when it was recorded"
    key = f"{version.name}/{MANIFEST}"
    body = store.get(key)
    if body is None:
        raise NotFoundError(f"{store.uri}/{key} is missing; bring it back from a backup of the store.")
    if str(Digest.of_bytes(body)) != version.manifest or store.manifest(version.name).digest != version.digest:
        raise DigestError(
            f"{store.uri}/{key}, which says who made the version from what, is not as it was recorded; bring it back "
            "from a backup of the store."
        )
    return f"{version.name} ({short(version.digest)})"


def _knowledge(store: Store, decision: Decision, progress: Progress | None) -> str:
    release = decision.release
    if release is None or release.knowledge is None:
        return "it answers from none"
    index = store.artifacts("knowledge").find(release.knowledge.index)
    store.artifacts("knowledge").verify(index, progress)
    return f"{index.name} ({short(index.digest)})"


def _evaluations(store: Store, decision: Decision) -> str:
    """One that was measured again holds as well: what was decided on stays beside it."""
    seen = []
    for evaluation in decision.evaluations:
        before = earlier_key(evaluation.key, evaluation.document)
        bodies = [body for key in (evaluation.key, before) if (body := store.get(key)) is not None]
        digests = [str(Digest.of_bytes(body)) for body in bodies]
        if evaluation.document not in digests:
            what = "was changed" if digests else "was deleted"
            raise DigestError(
                f"{store.uri}/{evaluation.key} {what} since it was recorded; bring it back from a backup, or go by the "
                "numbers in the record."
            )
        seen.append(evaluation.suite + ("" if digests[0] == evaluation.document else " (measured again since)"))
    return ", ".join(seen) or "none was made"


def _gates(decision: Decision) -> str:
    """The gates saw what the evaluations say."""
    metrics = {
        (evaluation.suite, metric.name): metric.value
        for evaluation in decision.evaluations
        if evaluation.digest == decision.candidate.digest
        for metric in evaluation.metrics
    }
    gates = decision.promotion.status.gates
    for gate in gates:
        measured = metrics.get((gate.suite, gate.metric))
        if gate.observed != measured:
            raise DecisionRecordError(
                f"the gate on {gate.suite} {gate.metric} saw {gate.observed} and the evaluation says {measured}; "
                "evaluate the version and promote it again."
            )
        if decision.live and not gate.passed:
            raise DecisionRecordError(f"it was promoted although a gate did not pass: {gate.message}; take it back.")
    return f"{sum(gate.passed is True for gate in gates)} of {len(gates)} passed, on what the evaluations say"


def _departure(store: Store, promotion: Promotion, keys: Sequence[PublicKey]) -> Departure | None:
    record = promotion.status.record
    assert record is not None
    key = f"{record.key.rpartition('/')[0]}/departure.json"
    document, source = store.get(key), f"{store.uri}/{key}"
    if document is None and not record.departure:
        return None
    if document is None:
        raise DecisionRecordError(f"{source} is missing; bring it back from a backup of the store.")
    statement, _, _ = unseal(document, keys, source)
    found = predicate_of(statement, Departure, source) if statement.predicate_type == DEPARTURE else None
    if found is None or found.record != record.digest:
        raise DecisionRecordError(f"{source} belongs to another record; bring it back from a backup of the store.")
    return found


def _left(departure: Departure | None, decision: Decision) -> str:
    if departure:
        return f"left at {departure.left:%Y-%m-%d %H:%M:%S} UTC for {departure.successor.name}"
    return "it has not left" if decision.live else "it never had all of the traffic"


def _is_live_anyway(store: Store, decision: Decision, keys: Sequence[PublicKey]) -> bool:
    """Whether the candidate is live for another reason: it was the stable when it was to be promoted, or another
    promotion of it succeeded, whose record says so."""
    stable, mine = decision.promotion.status.stable, folder_of(decision.promotion, decision.place)
    end = decision.promotion.status.decision
    if (stable and stable.digest == decision.candidate.digest) or (end and end.reason == "AlreadyStable"):
        return True
    of_version = f"{mine.rstrip('/').rpartition('/')[0]}/"
    for folder in (f"{of_version}{name}/" for name in store.folders(of_version)):
        document = store.get(f"{folder}decision.json")
        if folder == mine or document is None or store.get(f"{folder}departure.json") is not None:
            continue
        with suppress(DecisionRecordError):  # whoever signed that one
            statement, _, _ = unseal(document, keys, folder)
            if predicate_of(statement, Decision, folder).live:
                return True
    return False


def _serves(
    served: Mapping[str, str], decision: Decision, departure: Departure | None, *, is_live_anyway: bool = False
) -> str:
    """What serves now is the candidate while it is live, and is not when it isn't."""
    candidate, is_live = decision.candidate, bool(decision.live and not departure)
    for where, digest in served.items():
        if is_live and digest != candidate.digest:
            raise ServingError(
                f"{where} serves {short(digest)}, not {short(candidate.digest)}: somebody changed what serves past "
                "tunegate, or a later version is being shown; see: tunegate promotions list"
            )
        if not is_live and not is_live_anyway and digest == candidate.digest:
            raise ServingError(
                f"{where} serves {short(digest)}, which is not live by its record; see who changed the route or the "
                "server."
            )
    there = ", ".join(f"{where} serves {short(digest)}" for where, digest in served.items())
    return there or "nothing serves now"
