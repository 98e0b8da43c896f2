"""What operators and the canary analysis see on `/metrics`: answers, failures, latencies and verdicts per version.

It knows of numbers and labels, never of texts.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from tunegate.api.digest import short
from tunegate.api.feedback import Verdict

# From a warm GPU to a crowded CPU.
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ANSWER = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_REASONS = ("request", "unavailable", "engine", "disconnect", "internal")


class Metrics:
    """The metrics of one server; `digest` and `model` say what it serves."""

    def __init__(self, digest: str, model: str, registry: CollectorRegistry = REGISTRY) -> None:
        version = short(digest)
        by_version = ["model_version"]
        answers = Counter("tunegate_answers", "Answers given completely.", by_version, registry=registry)
        errors = Counter(
            "tunegate_answer_errors", "Answers refused or broken off.", [*by_version, "reason"], registry=registry
        )
        first_token = Histogram(
            "tunegate_time_to_first_token_seconds",
            "From the request to the first text of a streamed answer.",
            by_version,
            registry=registry,
            buckets=_FIRST_TOKEN,
        )
        answer = Histogram(
            "tunegate_answer_seconds",
            "From the request to the end of the answer.",
            by_version,
            registry=registry,
            buckets=_ANSWER,
        )
        self._admitted = Counter(
            "tunegate_requests_admitted",
            "Requests let in; `key` is the name of the API key, empty where none is asked for.",
            [*by_version, "key"],
            registry=registry,
        )
        self._refused = Counter(
            "tunegate_requests_refused",
            "Requests refused before they were read: no known key, or too many (rate, concurrent, capacity).",
            [*by_version, "key", "reason"],
            registry=registry,
        )
        info = Gauge("tunegate_model_info", "What is served.", [*by_version, "digest", "model"], registry=registry)
        info.labels(version, digest, model).set(1)
        self._feedback = Counter(
            "tunegate_feedback",
            "Verdicts, each answer once and at most 3 of one user.",
            [*by_version, "verdict"],
            registry=registry,
        )
        self._version = version
        self._answers = answers.labels(version)
        self._errors = {reason: errors.labels(version, reason) for reason in _REASONS}
        self._first_token = first_token.labels(version)
        self._answer = answer.labels(version)
        for verdict in ("up", "down"):
            self._feedback.labels(version, verdict)  # 0 from the start: absent would mean unknown

    def admitted(self, key: str) -> None:
        self._admitted.labels(self._version, key).inc()

    def refused(self, reason: str, key: str) -> None:
        self._refused.labels(self._version, key, reason).inc()

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def answered(self, seconds: float) -> None:
        self._answers.inc()
        self._answer.observe(seconds)

    def failed(self, reason: str) -> None:
        self._errors[reason].inc()

    def judged(self, digest: str, verdict: Verdict) -> None:
        """A verdict that counts, on an answer of the version with `digest`: it may be another than the one served."""
        self._feedback.labels(short(digest), verdict).inc()
