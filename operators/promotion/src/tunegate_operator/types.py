"""Our custom resources as values, and back: the same types the store and the command line use.

An object of the cluster is a dict with a JSON form; what `decide` sees is a frozen value. Nothing here talks to a
cluster.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from tunegate.api import kubernetes
from tunegate.api.codec import Resource, prepare
from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, Metric
from tunegate.api.labels import GROUP
from tunegate.api.policy import ClusterPolicy, Count
from tunegate.api.promotion import Promotion
from tunegate.api.versions import ModelVersion
from tunegate.kube.kinds import Object

T = TypeVar("T")

API_VERSION = f"{GROUP}/{kubernetes.VERSION}"
MANAGER = "tunegate-operator"


class EvaluationSummary(Resource, frozen=True, kw_only=True):
    """One suite's entry in a ModelVersion's status: the metrics, or how it failed.

    engine_failed: the version's own engine did not come up, so that there was no Job, which could be deleted to try
    again.
    """

    suite: str
    suite_digest: str = ""
    time: datetime | None = None
    completed: Count | None = None
    total: Count | None = None
    metrics: tuple[Metric, ...] = ()
    failures: Count = 0
    message: str = ""
    engine_failed: bool = False


class ServerRecord(Resource, frozen=True, kw_only=True):
    """What is remembered of one InferenceService, in the policy's status.

    away_since: since when none of its pods has answered. unused_since: since when no promotion has needed it.
    """

    name: str
    away_since: datetime | None = None
    unused_since: datetime | None = None


def read_servers(obj: Object) -> dict[str, ServerRecord]:
    """What a policy's status remembers of its servers, by name."""
    found = (_convert(obj, record, ServerRecord) for record in obj.get("status", {}).get("servers", ()))
    return {record.name: record for record in found}


def read_policy(obj: Object) -> ClusterPolicy:
    """Raises UsageError that names the field."""
    return _convert(obj, obj["spec"], ClusterPolicy)


def read_version(obj: Object) -> ModelVersion:
    """The version; its producer, which stands beside it in the spec, is for people."""
    spec = {field: value for field, value in obj["spec"].items() if field != "producer"}
    return _convert(obj, spec, ModelVersion)


def read_summaries(obj: Object) -> tuple[EvaluationSummary, ...]:
    return tuple(_convert(obj, summary, EvaluationSummary) for summary in obj.get("status", {}).get("evaluations", ()))


def read_promotion(obj: Object, candidate: ModelVersion | None) -> Promotion | None:
    """The promotion; its status remembers the candidate, else `candidate` is it. None while there is neither."""
    try:
        return kubernetes.read_promotion(obj, candidate)
    except msgspec.ValidationError as error:
        raise _unreadable(obj, error) from None


def to_plain(value: Any) -> Any:
    """The value as the dicts, lists, numbers and strings of JSON; what is None is left out, as the API server does."""
    return _without_none(msgspec.to_builtins(value))


def to_evaluation(version: ModelVersion, summary: EvaluationSummary) -> Evaluation:
    """What the gates look at; the records stay in the store."""
    assert summary.time is not None, "a summary without failures was measured"
    return Evaluation(
        version=version.name,
        digest=version.digest,
        suite=summary.suite,
        suite_digest=summary.suite_digest,
        completed=summary.completed,
        total=summary.total,
        metrics=summary.metrics,
        records=(),
        code_version="",
        started=summary.time,
        seconds=0,
    )


def to_summary(result: Evaluation) -> EvaluationSummary:
    return EvaluationSummary(
        suite=result.suite,
        suite_digest=result.suite_digest,
        time=result.started,
        completed=result.completed,
        total=result.total,
        metrics=result.metrics,
    )


def object_name(version: ModelVersion) -> str:
    """The name of a version's ModelVersion, and of the promotion that tunegate starts for it."""
    return dns(f"{version.model}-{version.run}-{short(version.digest)}")


def server_name(policy: str, digest: str) -> str:
    """The name of a version's InferenceService: 13 characters more than its policy's, and KServe adds 10 and more."""
    return f"{policy}-{short(digest)}"


def dns(name: str) -> str:
    return name.replace(".", "-")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(field) for key, field in value.items() if field is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value


def _convert(obj: Object, value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _unreadable(obj, error) from None


def _unreadable(obj: Object, error: msgspec.ValidationError) -> UsageError:
    return UsageError(f"{obj['kind']} {obj['metadata']['name']} can't be read: {error}.")


prepare(EvaluationSummary, ServerRecord)
