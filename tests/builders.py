"""Small values for tests: say what matters, take the rest as given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.api.feedback import Feedback, FeedbackRecord, Verdict
from tunegate.api.policy import CanaryStep, ClusterPolicy, FeedbackGuard, Gate, PromotionPolicy
from tunegate.api.versions import File, Manifest, ModelVersion, Producer, digest_of
from tunegate.feedback import ResponseIds

START = datetime(2026, 1, 1, tzinfo=UTC)
_IDS = ResponseIds(bytes(32), "shop")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def make_version(run: str, *, created: float = 0, model: str = "shop", step: int = 10) -> ModelVersion:
    name = f"{model}/{run}/checkpoint-{step}"
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    return ModelVersion(
        model=model, name=name, uri=f"s3://models/{name}/", digest=digest, format="huggingface", created=at(created)
    )


def make_manifest(model: str, step: int) -> Manifest:
    """Of a version of a few bytes."""
    name, body = f"{model}/run/checkpoint-{step}", f"{model} {step}".encode()
    files = (File(path="model.safetensors", size=len(body), sha256=hashlib.sha256(body).hexdigest()),)
    return Manifest(
        model=model,
        name=name,
        format="huggingface",
        digest=digest_of(files),
        files=files,
        base=None,
        producer=Producer(kind="test", run="run", step=step),
        created=at(step),
    )


def make_vote(
    digest: str, verdict: Verdict = "down", *, answered: float = 0, step: str | None = None, user: str | None = None
) -> FeedbackRecord:
    """A vote on an answer of its own, received a second after it."""
    said = Feedback(response_id=_IDS.issue(digest, at(answered)), verdict=verdict)
    received = at(answered + 1)
    return FeedbackRecord(digest=digest, step=step, user=user, answered=at(answered), received=received, feedback=said)


def make_evaluation(version: ModelVersion, suite: str = "quality", **metrics: float | None) -> Evaluation:
    return Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite,
        suite_digest=f"sha256:{suite}",
        metrics=tuple(_metric(name, value) for name, value in metrics.items()),
        records=(),
        code_version="test",
        started=START,
        seconds=1.0,
    )


def with_answers(evaluation: Evaluation, **scores: Sequence[float]) -> Evaluation:
    """The same with a record for each question, of these scores by name."""
    records = tuple(
        Record(id=str(number), prompt="?", expected="", answer="", scores=dict(zip(scores, row, strict=True)))
        for number, row in enumerate(zip(*scores.values(), strict=True))
    )
    return msgspec.structs.replace(evaluation, records=records)


def _metric(name: str, value: float | None) -> Metric:
    low, high = (None, None) if value is None else (value - 0.02, value + 0.02)
    return Metric(name=name, value=value, stderr=0.01, low=low, high=high, n=100)


def make_policy(**changes: object) -> PromotionPolicy:
    fields: dict[str, object] = {
        "model": "shop",
        "initial_version": "s3://models/base/base/checkpoint-0/",
        "suites": ("quality",),
        "gates": (Gate(suite="quality", metric="score", min=0.5),),
        "steps": (CanaryStep(weight=10, pause_seconds=5, min_verdicts=3), CanaryStep(weight=50, min_verdicts=10)),
        "feedback": FeedbackGuard(alpha=0.05, margin=0.2, min_verdicts=5),
        "baking_seconds": 60,
        "evaluation_timeout_seconds": 100,
        "deadline_seconds": 1000,
    }
    return PromotionPolicy(**(fields | changes))  # type: ignore[arg-type]


def make_cluster_policy(**spec: object) -> ClusterPolicy:
    """The spec of a PromotionPolicy; `spec` in the words of the kind, such as `initialVersion`."""
    least = {
        "model": "shop",
        "initialVersion": "s3://models/shop/base/checkpoint-0/",
        "suites": ["quality"],
        "gates": [{"suite": "quality", "metric": "score", "min": 0.5}],
        "steps": [{"weight": 10}],
        "traffic": {"gateway": {"name": "public"}},
    }
    return msgspec.convert(least | spec, ClusterPolicy)
