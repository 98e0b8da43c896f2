"""The model store, watched: what versions there are, what their evaluations said, and what users voted.

All talking to the store happens in one thread of its own, so that nothing else ever waits for it: a rollback must work
while the store is away. Nothing here knows of the cluster.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tunegate.api.errors import (
    CredentialsError,
    DecisionRecordError,
    DigestError,
    ModelError,
    NotFoundError,
    StoreError,
    TunegateError,
    UsageError,
)
from tunegate.api.evaluation import is_reviewed
from tunegate.api.feedback import Verdicts
from tunegate.api.promotion import Recorded
from tunegate.api.versions import ModelVersion, Producer
from tunegate.feedback import FeedbackLog
from tunegate.models.memory import Footprint, of_version
from tunegate.promotion.counting import Counted
from tunegate.promotion.snapshot import Pair
from tunegate.records.signing import Signer, public_pem, read_key, read_pem, read_public_keys
from tunegate.records.writing import Unrecorded, write
from tunegate.statistics.paired import Difference, paired
from tunegate.store import Store
from tunegate.store.catalogue import Catalogue
from tunegate.store.evaluations import find, find_measured, find_progress
from tunegate_operator.conditions import Problem
from tunegate_operator.types import EvaluationSummary, to_summary

log = logging.getLogger(__name__)

ResultKey = tuple[str, str, str]  # digest, suite, uid of the Job that was to measure it; empty where people judge
Votes = Mapping[str, Verdicts] | Problem
# How old a count may be to decide on: any count of the canary is a look at its verdicts, and an old one tells less.
_USABLE_SECONDS = 120.0
# How old it may be what is known of answers with other weights.
_STRUCK_SECONDS = 5.0
# A store that has said nothing for so long is away.
_SILENT_SECONDS = 20.0
# For so long the thread reads manifests before it looks at what is asked, so many of a model at a time.
_LOOKING_SECONDS, _MANIFESTS = 1.0, 64
# After this time without a question a canary is over.
_FORGOTTEN_SECONDS = 600.0


class Canary(NamedTuple):
    """Whose votes are counted: policies of several namespaces may try versions of one model at a time."""

    model: str
    promotion: str
    since: datetime
    digests: tuple[str, str]

    @classmethod
    def of(cls, model: str, asked: Counted) -> Canary:
        return cls(model, asked.promotion, asked.since, asked.digests)


class RecordKey(NamedTuple):
    """departs: whether what is written says that the version left."""

    namespace: str
    promotion: str
    created: datetime
    departs: bool


@dataclass(frozen=True)
class RecordRequest:
    """What is to be recorded, and the public keys, in PEM, whose records are ours: those of the policy's status."""

    asked: Unrecorded
    known: tuple[str, ...]

    @property
    def key(self) -> RecordKey:
        promotion, successor = self.asked.promotion, self.asked.successor
        return RecordKey(self.asked.place.namespace, promotion.name, promotion.created, successor is not None)


@dataclass
class _Seen:
    """What is known; replaced piece by piece by the thread, read by others."""

    listings: dict[str, tuple[ModelVersion, ...] | None] = field(default_factory=dict)
    problems: dict[str, Problem] = field(default_factory=dict)
    versions: dict[str, ModelVersion] = field(default_factory=dict)
    missing: dict[str, Problem] = field(default_factory=dict)
    producers: dict[str, Producer] = field(default_factory=dict)
    results: dict[ResultKey, EvaluationSummary] = field(default_factory=dict)
    differences: dict[Pair, Difference | str] = field(default_factory=dict)
    footprints: dict[str, Footprint | str] = field(default_factory=dict)
    progress: dict[tuple[str, str], str] = field(default_factory=dict)  # by digest and suite
    votes: dict[Canary, tuple[float, Votes]] = field(default_factory=dict)  # when they were counted, and how many
    struck: dict[Canary, tuple[float, str]] = field(default_factory=dict)  # when it was read, and why; empty: it is not
    records: dict[RecordKey, Recorded] = field(default_factory=dict)
    unrecorded: dict[str, Problem] = field(default_factory=dict)
    public_key: tuple[str, str] | None = None


class Source:
    """`wanted` says which models are to be listed, and every how many seconds. `changed` hears the model whose versions
    or results are known anew; it must return at once.

    signing_key: the file that is read whenever something is signed, so that it may change; None: nothing is recorded.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        wanted: Callable[[], Mapping[str, float]],
        changed: Callable[[str], None],
        scanned: Callable[[float], None],
        signing_key: Path | None = None,
    ) -> None:
        self._open, self._changed, self._scanned, self._signing_key = open_store, changed, scanned, signing_key
        self._wanted = wanted
        self._is_followed = True
        self._store: Store | None = None
        self._catalogue: Catalogue | None = None
        self._seen = _Seen()
        self._intervals: Mapping[str, float] = {}
        self._due: dict[str, float] = {}
        self._unread: deque[str] = deque()  # models that were listed, and whose manifests are being read
        self._asked_versions: dict[str, str] = {}
        self._asked_results: dict[ResultKey, str] = {}
        self._asked_pairs: dict[Pair, str] = {}
        self._asked_footprints: dict[str, ModelVersion] = {}
        self._asked_votes: dict[Canary, Counted] = {}
        self._asked_struck: dict[Canary, Counted] = {}
        self._asked_since: dict[Canary, float] = {}  # since when its votes are asked for
        self._logs: dict[Canary, tuple[float, FeedbackLog]] = {}  # when each was last read
        self._asked_records: dict[RecordKey, tuple[RecordRequest, str]] = {}
        self._wake = threading.Condition()

    def follow(self) -> None:
        """Ask anew which models are to be listed, once for all that call this meanwhile."""
        with self._wake:
            self._is_followed = False
            self._wake.notify()

    def hurry(self, model: str) -> None:
        """List `model` now, if it is to be listed: there is news."""
        with self._wake:
            self._due[model] = 0
            self._wake.notify()

    def listing(self, model: str) -> tuple[ModelVersion, ...] | None:
        """The complete versions of `model` as last listed; None while that is not known."""
        return self._seen.listings.get(model)

    def problem(self, model: str) -> Problem | None:
        """Why the store can't be listed, if it can't."""
        return self._seen.problems.get(model)

    def producer(self, digest: str) -> Producer | None:
        return self._seen.producers.get(digest)

    def version(self, uri: str, model: str) -> ModelVersion | Problem | None:
        """The version at `uri`; None when it is not known yet: then `model` is told later."""
        if known := self._seen.versions.get(uri):
            return known
        with self._wake:
            self._asked_versions[uri] = model
            self._due.setdefault(model, 0)
            self._wake.notify()
        return self._seen.missing.get(uri)

    def result(self, key: ResultKey, model: str) -> EvaluationSummary | None:
        """What the store holds after a Job has ended; None when it is not known yet: then `model` is told later."""
        if known := self._seen.results.get(key):
            return known
        with self._wake:
            if key not in self._asked_results:
                self._asked_results[key] = model
                self._wake.notify()
        return None

    def difference(self, pair: Pair, model: str) -> Difference | str | None:
        """What two results came to question by question; None when it is not known yet: then `model` is told later."""
        if known := self._seen.differences.get(pair):
            return known
        with self._wake:
            self._asked_pairs[pair] = model
            self._wake.notify()
        return None

    def footprint(self, version: ModelVersion) -> Footprint | str | None:
        """How large the version is, or why nobody can say; None when it is not known yet: then its model is told
        later."""
        if known := self._seen.footprints.get(version.digest):
            return known
        with self._wake:
            self._asked_footprints[version.digest] = version
            self._wake.notify()
        return None

    def progress(self, digest: str, suite: str) -> str:
        """How far people are with the suite, as last asked for by `result`; empty where nobody says so."""
        return self._seen.progress.get((digest, suite), "")

    def votes(self, asked: Counted, model: str, fresh: float) -> Votes | None:
        """What the log of votes says of both versions, by digest; it is read again when that is older than so many
        seconds. None when it is not known yet: then `model` is told later, and when the log says something else."""
        canary = Canary.of(model, asked)
        read, votes = self._seen.votes.get(canary, (-math.inf, None))
        age = time.monotonic() - read
        if age > fresh:
            with self._wake:
                self._asked_votes[canary] = asked
                since = self._asked_since.setdefault(canary, time.monotonic())
                self._wake.notify()
            if time.monotonic() - since > _SILENT_SECONDS:
                message = f"it has not answered for {_SILENT_SECONDS:.0f} s; check that the store runs"
                return Problem("StoreReadable", "StoreUnreachable", message)
        return votes if age <= _USABLE_SECONDS else None

    def struck(self, asked: Counted, model: str) -> str:
        """Why the candidate's server has answered with other weights since the canary began; empty where it has not, as
        far as is known: it is read every few seconds, and `model` is told of what is new."""
        canary = Canary.of(model, asked)
        read, reason = self._seen.struck.get(canary, (-math.inf, ""))
        if time.monotonic() - read > _STRUCK_SECONDS:
            with self._wake:
                self._asked_struck[canary] = asked
                self._wake.notify()
        return reason

    def record(self, request: RecordRequest, model: str) -> Recorded | None:
        """Where what is asked for stands; None when it is not written yet: then `model` is told later."""
        if known := self._seen.records.get(request.key):
            return known
        with self._wake:
            self._asked_records[request.key] = (request, model)
            self._wake.notify()
        return None

    def record_problem(self, model: str) -> Problem | None:
        """Why what was asked for is not recorded, if it isn't."""
        return self._seen.unrecorded.get(model)

    def public_key(self) -> tuple[str, str] | None:
        """The id and the PEM of the key that signs; None while it is not known.

        It is read at the start, too: a policy that was deleted and made again has to know whose its records are.
        """
        return self._seen.public_key

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until `stop` says so; call `wake` after making it say so."""
        with suppress(TunegateError):  # what is wrong with it is told when something is to be signed
            self._signer()
        while not stop():
            with self._wake:
                self._wake.wait(self._pause())
            if not stop():
                self._work()

    def wake(self) -> None:
        with self._wake:
            self._wake.notify()

    def _pause(self) -> float:
        if (
            not self._is_followed
            or self._unread
            or self._asked_results
            or self._asked_pairs
            or self._asked_footprints
            or self._asked_votes
            or self._asked_struck
            or self._asked_records
            or any(uri not in self._seen.missing for uri in self._asked_versions)
        ):
            return 0
        due = [self._due[model] for model in self._intervals if model in self._due]
        return max(0.0, min(due) - time.monotonic()) if due else 60.0

    def _work(self) -> None:
        """Answer what is asked, and then look for versions for a while: nobody who asks waits for a large store."""
        for model in sorted(self._answer() | self._look()):
            self._changed(model)

    def _answer(self) -> set[str]:
        """What is asked; the models of which there is news."""
        with self._wake:
            versions, results, votes = dict(self._asked_versions), dict(self._asked_results), dict(self._asked_votes)
            pairs, records = dict(self._asked_pairs), list(self._asked_records.values())
            unmeasured, struck = list(self._asked_footprints.values()), dict(self._asked_struck)
            for asked in (
                self._asked_versions,
                self._asked_results,
                self._asked_pairs,
                self._asked_footprints,
                self._asked_votes,
                self._asked_struck,
                self._asked_records,
            ):
                asked.clear()
        news = {canary.model for canary, counted in votes.items() if self._count(canary, counted)}
        news |= {canary.model for canary, counted in struck.items() if self._look_for_struck(canary, counted)}
        for uri, model in versions.items():
            problem = None
            try:
                with _told():
                    self._seen.versions[uri] = self._opened().resolve(uri)
            except TunegateError as error:
                problem = problem_of(error)
            if problem is None or self._seen.missing.get(uri) != problem:
                news.add(model)
            if problem:
                self._seen.missing[uri] = problem
            else:
                self._seen.missing.pop(uri, None)
        news |= {model for key, model in results.items() if self._read_result(key, model)}
        news |= {model for pair, model in pairs.items() if self._compare(pair)}
        news |= {version.model for version in unmeasured if self._measure(version)}
        return news | {model for request, model in records if self._record(request, model)}

    def _look(self) -> set[str]:
        """List the models that are due, or read what of their manifests is new; those of which there is news."""
        self._follow()
        started = time.monotonic()
        due = [model for model in self._intervals if self._due.get(model, 0) <= started]
        if due:
            with self._wake:
                self._due |= {model: started + self._intervals[model] for model in due}
            try:
                with _told():
                    self._catalogued().list(due)
            except TunegateError as error:
                return {model for model in due if self._know(model, None, problem_of(error))}
            finally:
                self._scanned(time.monotonic() - started)
            self._unread.extend(model for model in due if model not in self._unread)
        news, started = set(), time.monotonic()
        while self._unread:
            model = self._unread.popleft()
            if self._read_on(model):
                news.add(model)
            if time.monotonic() - started > _LOOKING_SECONDS:
                break
        return news

    def _read_on(self, model: str) -> bool:
        """Read some new manifests of a model, and wait in line again if there are more; whether there is news of it."""
        try:
            with _told():
                if not self._catalogued().read(model, _MANIFESTS):
                    self._unread.append(model)
                    return False
                found, damaged = self._catalogued().versions(model), self._catalogued().damaged(model)
        except TunegateError as error:
            return self._know(model, None, problem_of(error))
        self._seen.producers |= {each.version.digest: each.producer for each in found}
        problem = replace(problem_of(damaged[-1]), stops=False) if damaged else None  # the others go on
        return self._know(model, tuple(each.version for each in found), problem)

    def _know(self, model: str, versions: tuple[ModelVersion, ...] | None, problem: Problem | None) -> bool:
        """Whether anything is different from before."""
        before = (self._seen.listings.get(model), self._seen.problems.get(model))
        self._seen.listings[model] = versions
        if problem:
            self._seen.problems[model] = problem
        else:
            self._seen.problems.pop(model, None)
        return before != (versions, problem)

    def _follow(self) -> None:
        if self._is_followed:
            return
        with self._wake:
            self._is_followed = True
        wanted, now = self._wanted(), time.monotonic()
        with self._wake:
            self._due = {model: min(self._due.get(model, now), now + seconds) for model, seconds in wanted.items()}
            self._intervals = wanted
        if self._catalogue:
            self._catalogue.keep(wanted)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open()
        return self._store

    def _catalogued(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = self._opened().catalogue()
        return self._catalogue

    def _read_result(self, key: ResultKey, model: str) -> bool:
        if key in self._seen.results:  # it was asked for again while it was being read
            return False
        digest, suite, _ = key
        try:
            with _told():
                result = find(self._opened(), digest, suite)
                said = str(find_progress(self._opened(), digest, suite) or "") if result is None else ""
        except UsageError as error:
            failed = f"the result in the store can't be read: {error}"
            self._seen.results[key] = EvaluationSummary(suite=suite, failures=1, message=failed)
            return True
        except StoreError:
            # the listing says what is wrong; the result is asked for again with the next reconcile
            return False
        if result is None and is_reviewed(suite):  # it is asked for again with the next reconcile
            before = self._seen.progress.get((digest, suite), "")
            self._seen.progress[digest, suite] = said
            return said != before
        if result is None:
            failed = "the Job ended without leaving a result for this digest in the store; read the Job's logs"
            self._seen.results[key] = EvaluationSummary(suite=suite, failures=1, message=failed)
        else:
            self._seen.results[key] = to_summary(result)
        return True

    def _compare(self, pair: Pair) -> bool:
        """Compare two results by their answers; says whether it could."""
        try:
            with _told():
                before, after = (
                    find_measured(self._opened(), each.digest, pair.suite, each.started)
                    for each in (pair.stable, pair.candidate)
                )
        except UsageError as error:
            self._seen.differences[pair] = f"would have to be read: {error}".rstrip(".")
            return True
        except StoreError:
            return False  # as with results
        if before is None or after is None:
            self._seen.differences[pair] = "would have to be in the store, and one is not any more"
        else:
            self._seen.differences[pair] = paired(before, after, pair.metric)
        return True

    def _measure(self, version: ModelVersion) -> bool:
        """Reckon how large a version is; says whether it could."""
        try:
            with _told():
                self._seen.footprints[version.digest] = of_version(self._opened(), version)
        except (ModelError, DigestError, NotFoundError) as error:
            self._seen.footprints[version.digest] = str(error)  # its server or evaluation says what is wrong with it
        except TunegateError:
            return False  # as with results
        return True

    def _count(self, canary: Canary, asked: Counted) -> bool:
        """Count the votes of a canary; says whether anything is different from before."""
        found: Votes
        try:
            with _told():
                _, votes = self._logs.get(canary) or (0, FeedbackLog(self._opened()))
                self._logs[canary] = (time.monotonic(), votes)
                found = {
                    digest: votes.tallies(digest, asked.promotion, asked.since, asked.per_address)
                    for digest in asked.digests
                }
        except TunegateError as error:
            found = problem_of(error)
        before = self._seen.votes.get(canary)
        self._asked_since.pop(canary, None)
        self._seen.votes[canary] = (time.monotonic(), found)
        self._forget_canaries()
        return before is None or before[1] != found

    def _look_for_struck(self, canary: Canary, asked: Counted) -> bool:
        """Says whether anything is different from before; a store that is away says nothing new."""
        _, before = self._seen.struck.get(canary, (0, ""))
        reason = before
        try:
            with _told():
                reason = FeedbackLog(self._opened()).struck(asked.candidate, asked.since)
        except TunegateError as error:
            log.warning("could not look for answers with other weights", extra={"error": str(error)})
        self._seen.struck[canary] = (time.monotonic(), reason)
        return reason != before

    def _forget_canaries(self) -> None:
        """What was read of one that nobody asks for any more is of no use for the next one."""
        long_ago = time.monotonic() - _FORGOTTEN_SECONDS
        for canary in [canary for canary, (read, _) in self._logs.items() if read < long_ago]:
            del self._logs[canary]
            self._seen.votes.pop(canary, None)
        for canary in [canary for canary, (read, _) in self._seen.struck.items() if read < long_ago]:
            del self._seen.struck[canary]

    def _record(self, request: RecordRequest, model: str) -> bool:
        """Write a record; says whether anything is different from before.

        Nothing is signed by a key before the policy's status has it: if it were replaced by another one just then,
        nobody would ever know whose that record is.
        """
        before, key_before = self._seen.unrecorded.get(model), self._seen.public_key
        try:
            with _told():
                signer, known = self._signer(), read_public_keys(request.known, ())
                if signer.public_key.keyid not in {key.keyid for key in known}:
                    return self._seen.public_key != key_before
                written = write(self._opened(), request.asked, signer, known)
        except TunegateError as error:
            is_refused = isinstance(error, DecisionRecordError)
            is_unsigned = isinstance(error, UsageError)
            reason = "SigningKeyUnusable" if is_unsigned else "RecordRefused" if is_refused else "RecordNotWritten"
            self._seen.unrecorded[model] = Problem("DecisionsRecorded", reason, str(error), stops=False)
            return before != self._seen.unrecorded[model]
        self._seen.unrecorded.pop(model, None)
        self._seen.records[request.key] = written
        return True

    def _signer(self) -> Signer:
        if self._signing_key is None:
            raise UsageError("There is no signing key.")
        signer = read_key(read_pem(self._signing_key), str(self._signing_key))
        self._seen.public_key = (signer.public_key.keyid, public_pem(signer).decode())
        return signer


@contextmanager
def _told() -> Iterator[None]:
    """Whatever nobody foresaw is told as a StoreError: it must not end the thread, which then would see nothing more,
    while the operator goes on as if nothing was new."""
    try:
        yield
    except TunegateError:
        raise
    except Exception as error:
        log.exception("the store was read in vain")
        said = f"what the store holds can't be used: {type(error).__name__}: {error}"
        raise StoreError(f"{said.rstrip('.')}; see the operator's log.") from error


def problem_of(error: TunegateError) -> Problem:
    """The store's error as a condition's reason; its message names the remedy already."""
    if isinstance(error, DigestError):
        reason = "DigestMismatch"
    elif isinstance(error, NotFoundError | UsageError):
        reason = "VersionMissing"
    else:
        reason = "CredentialsRefused" if isinstance(error, CredentialsError) else "StoreUnreachable"
    return Problem("StoreReadable", reason, str(error))
