"""The decision record: what stands in the store, signed, of one promotion that is over.

The envelope is DSSE's, what it holds an in-toto statement whose subjects are the files of the candidate; what we say of
them is the predicate. Nothing here signs or reads anything.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from tunegate.api.codec import Document, Resource, prepare
from tunegate.api.evaluation import Metric
from tunegate.api.feedback import Tally
from tunegate.api.policy import FeedbackGuard
from tunegate.api.promotion import Promotion
from tunegate.api.versions import ModelVersion, Producer, Release

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
DECISION = "https://tunegate.io/decision/v1"
DEPARTURE = "https://tunegate.io/departure/v1"


class Place(Resource, frozen=True, kw_only=True):
    """Whose promotion it was. namespace: in a cluster; empty on a machine of one's own."""

    policy: str
    namespace: str = ""


class RecordedVersion(Resource, frozen=True, kw_only=True):
    """A version with what the store held of it when it was recorded.

    manifest: the digest of the bytes of its manifest, which its own digest does not cover; empty where the store had
    none.
    """

    name: str
    uri: str
    digest: str
    manifest: str = ""


class RecordedEvaluation(Resource, frozen=True, kw_only=True):
    """A result that gates were held against, of the version with `digest`.

    key, document: the document in the store that it stands in, and the digest of its bytes. Without metrics: the
    document could not be read.
    """

    key: str
    document: str
    digest: str
    suite: str
    suite_digest: str = ""
    metrics: tuple[Metric, ...] = ()
    started: datetime | None = None
    settings: str = ""


class StepEvidence(Resource, frozen=True, kw_only=True):
    """What users said in one step, and the evidence of all steps up to it, as e-values.

    weight: the share of the answers in percent that the candidate was to give.
    """

    step: int
    weight: int
    candidate: Tally
    stable: Tally
    worse: float
    not_worse: float


class ObservedWeight(Resource, frozen=True, kw_only=True):
    """The candidate's observed share of the traffic in percent, from a moment on."""

    weight: int
    since: datetime


class Decision(Document, frozen=True, kw_only=True):
    """The predicate of a promotion's record.

    promotion: whole, as it ended; its status has gates, verdicts, history and the decision. producer, release: who
    trained the candidate from what, and what is served with its weights; None where the store had no manifest any more.
    bases: the versions that it was tuned from, the nearest first. live: since when all of the traffic was its; None
    when it never was.
    """

    schema: Literal["tunegate.io/decision/v1"] = "tunegate.io/decision/v1"
    place: Place
    promotion: Promotion
    candidate: RecordedVersion
    producer: Producer | None = None
    release: Release | None = None
    bases: tuple[RecordedVersion, ...] = ()
    evaluations: tuple[RecordedEvaluation, ...] = ()
    guard: FeedbackGuard
    evidence: tuple[StepEvidence, ...] = ()
    weights: tuple[ObservedWeight, ...] = ()
    live: datetime | None = None


class Departure(Document, frozen=True, kw_only=True):
    """The predicate of the record that is added when a promoted version leaves.

    record: the digest of the statement of its promotion's record. left: when. successor: the version that has the
    traffic since, and `promotion` the attempt that brought it.
    """

    schema: Literal["tunegate.io/departure/v1"] = "tunegate.io/departure/v1"
    record: str
    left: datetime
    successor: ModelVersion
    promotion: str


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A file by name, with its digest by the algorithm's name."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """An in-toto statement, version 1: the predicate is true of the subjects."""

    type: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
    subject: tuple[Subject, ...]
    predicate_type: str
    predicate: dict[str, Any]


prepare(Decision, Departure, Statement)
