"""What `decide` is given and what it answers with: frozen values, the same for pods and for processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from tunegate.api.evaluation import Evaluation
from tunegate.api.feedback import Verdicts
from tunegate.api.policy import PromotionPolicy
from tunegate.api.promotion import Promotion, PromotionStatus, RunChoice
from tunegate.api.versions import ModelVersion
from tunegate.statistics.paired import Difference


@dataclass(frozen=True)
class EvaluationState:
    """One suite on one version: a result, or how often it failed and what it last said; where people judge, how far
    they are.

    queued: the cluster has no room for it at the moment, or not yet the engine that it is to ask, and `message` says
    so. begun: since when it has, where it did not from the beginning.
    """

    result: Evaluation | None = None
    failures: int = 0
    message: str = ""
    queued: bool = False
    begun: datetime | None = None


class Measured(NamedTuple):
    """One result of the version with `digest`, begun at `started`: a version may be measured again."""

    digest: str
    started: datetime


class Pair(NamedTuple):
    """Two results that a gate with `basis: Paired` compares question by question."""

    suite: str
    metric: str
    stable: Measured
    candidate: Measured


@dataclass(frozen=True)
class ServerState:
    """One version's server. `failed` means that it will not come up by itself.

    queued: the cluster has no room for it at the moment, which says nothing of the version.
    """

    ready: bool = False
    failed: bool = False
    queued: bool = False
    message: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything there is to see at one moment.

    initial: the version that serves before anything was promoted.
    versions: the complete versions of the policy's model, oldest first; None when the store can't be read.
    finished_runs: the runs whose training job succeeded. stopped_runs: those that were stopped for their numbers.
    training_runs: those that are being trained now, and were never stopped.
    promotions: every attempt so far, oldest first.
    evaluations: by (digest, suite). servers: by digest.
    differences: what the wanted pairs came to, or why they can't be compared; without those that are not known yet.
    weights: the observed share of each version in percent, by digest; None when the route can't be read.
    tallies: verdicts on answers given in the running canary, by digest and step; None when they can't be read.
    struck: by digest, why a version's server has answered with other weights since its canary began; its verdicts say
    nothing of the version.
    splits: how many questions the candidate and the stable were asked in the running step, counted in one or more ways;
    how many conversations, where those stay with one version. Empty: nobody knows.
    misfits: by digest, why a version can't be served on the GPUs that the policy names; empty where it can be, None
    while that is being reckoned. Without those that nobody has to know of.
    modified: who changed an object of ours by hand, and what; empty when nobody did.
    namespace: where the promotions are; empty on one machine.
    """

    policy: PromotionPolicy
    initial: ModelVersion
    versions: tuple[ModelVersion, ...] | None = ()
    finished_runs: frozenset[str] = frozenset()
    stopped_runs: frozenset[str] = frozenset()
    training_runs: frozenset[str] = frozenset()
    promotions: tuple[Promotion, ...] = ()
    evaluations: Mapping[tuple[str, str], EvaluationState] = field(default_factory=dict)
    differences: Mapping[Pair, Difference | str] = field(default_factory=dict)
    servers: Mapping[str, ServerState] = field(default_factory=dict)
    weights: Mapping[str, int] | None = None
    tallies: Mapping[str, Verdicts] | None = None
    struck: Mapping[str, str] = field(default_factory=dict)
    splits: tuple[tuple[int, int], ...] = ()
    misfits: Mapping[str, str | None] = field(default_factory=dict)
    modified: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class EvaluationJob:
    version: ModelVersion
    suite: str


@dataclass(frozen=True)
class Stop:
    """A run whose training is to be stopped, its newest checkpoint, and the numbers that say so."""

    run: str
    newest: ModelVersion
    message: str


@dataclass(frozen=True)
class Event:
    """Something a person may want to know, once per transition."""

    promotion: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What should be true next. It names desired states, never steps, so that applying it twice changes nothing.

    create: promotions to record. statuses: the new status of those that changed, by name.
    evaluations: results that are wanted and missing, most urgent first. servers: versions to keep serving.
    weights: the desired share of each version in percent, by digest; they add up to 100. Empty: leave them alone.
    step: the label of the canary's step that the weights are of; empty while no candidate has traffic.
    choices: what `selection` chose of each run. stops: runs whose training is to be stopped.
    """

    create: tuple[Promotion, ...] = ()
    statuses: Mapping[str, PromotionStatus] = field(default_factory=dict)
    evaluations: tuple[EvaluationJob, ...] = ()
    servers: tuple[ModelVersion, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    step: str = ""
    choices: tuple[RunChoice, ...] = ()
    stops: tuple[Stop, ...] = ()
    events: tuple[Event, ...] = ()
