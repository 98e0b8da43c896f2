"""What operators and the canary analysis see on `/metrics`: answers, failures, latencies and verdicts per version.

It knows of numbers and labels, never of texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from tunegate.agent.toolbox import NAMES
from tunegate.api import metrics as known
from tunegate.api.digest import short
from tunegate.api.feedback import StepTag, Verdict
from tunegate.metrics import counter, gauge, histogram
from tunegate.serving.events import Event, Finished, Sources, Step

_VERDICTS: tuple[Verdict, ...] = ("up", "down")
_RATINGS = range(1, 6)
# Steps of promotions whose counts a server keeps: more than one promotion has, and not those of a year.
MOST_STEPS = 32
_REASONS = ("request", "unavailable", "engine", "disconnect", "internal")


class Metrics:
    """The metrics of one server; `digest` and `model` say what it serves."""

    def __init__(self, digest: str, model: str, registry: CollectorRegistry = REGISTRY) -> None:
        version = short(digest)
        errors = counter(known.ANSWER_ERRORS, registry)
        self._admitted = counter(known.ADMITTED, registry)
        self._refused = counter(known.REFUSED, registry)
        gauge(known.MODEL_INFO, registry).labels(version, digest, model).set(1)
        self._version = version
        self._steps = _Steps(version, registry)
        self._parts = _Parts(version, registry)
        self._errors = {reason: errors.labels(version, reason) for reason in _REASONS}
        self._first_token = histogram(known.FIRST_TOKEN, registry).labels(version)
        self._answer = histogram(known.ANSWER_SECONDS, registry).labels(version)

    def admitted(self, key: str) -> None:
        self._admitted.labels(self._version, key).inc()

    def refused(self, reason: str, key: str) -> None:
        self._refused.labels(self._version, key, reason).inc()

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def asked(self, step: StepTag | None) -> None:
        """A question that is to be answered, in this step of a promotion."""
        self._steps.of(self._version, step).questions.inc()

    def answered(self, seconds: float, step: StepTag | None, tokens: int = 0) -> None:
        """A complete answer of so many tokens."""
        counts = self._steps.of(self._version, step)
        counts.answers.inc()
        counts.tokens.inc(tokens)
        self._answer.observe(seconds)

    def failed(self, reason: str) -> None:
        self._errors[reason].inc()

    def happened(self, event: Event) -> None:
        """An event of an answer that is made of more than the weights."""
        self._parts.happened(event)

    def judged(self, digest: str, verdict: Verdict, step: StepTag | None = None, rating: int | None = None) -> None:
        """A verdict that counts, on an answer of the version with `digest`: it may be another than the one served."""
        counts = self._steps.of(short(digest), step)
        counts.feedback[verdict].inc()
        if rating is not None:
            counts.ratings[rating].inc()


@dataclass(frozen=True)
class _Counts:
    """The counters of one version in one step."""

    questions: Counter
    answers: Counter
    tokens: Counter
    feedback: Mapping[Verdict, Counter]
    ratings: Mapping[int, Counter]


class _Steps:
    """What is counted by step of a promotion. A server that stays sees one promotion after the other, so only the
    counts of the steps that were used last are kept; those of no step always are."""

    def __init__(self, version: str, registry: CollectorRegistry) -> None:
        self._questions = counter(known.QUESTIONS, registry)
        self._answers = counter(known.ANSWERS, registry)
        self._tokens = counter(known.TOKENS, registry)
        self._feedback = counter(known.FEEDBACK, registry)
        self._ratings = counter(known.RATINGS, registry)
        self._kept: OrderedDict[tuple[str, StepTag], _Counts] = OrderedDict()
        self._lock = Lock()
        self._of_none = {version: self._counts(version, "")}  # 0 from the start: absent would mean unknown

    def of(self, version: str, step: StepTag | None) -> _Counts:
        with self._lock:
            if step is None:
                if version not in self._of_none:
                    self._of_none[version] = self._counts(version, "")
                return self._of_none[version]
            if (version, step) not in self._kept:
                self._kept[version, step] = self._counts(version, step)
            self._kept.move_to_end((version, step))
            if len(self._kept) > MOST_STEPS:
                oldest, _ = self._kept.popitem(last=False)
                for metric in (self._questions, self._answers, self._tokens):
                    metric.remove(*oldest)
                for verdict in _VERDICTS:
                    self._feedback.remove(*oldest, verdict)
                for rating in _RATINGS:
                    self._ratings.remove(*oldest, str(rating))
            return self._kept[version, step]

    def _counts(self, *labels: str) -> _Counts:
        return _Counts(
            self._questions.labels(*labels),
            self._answers.labels(*labels),
            self._tokens.labels(*labels),
            {verdict: self._feedback.labels(*labels, verdict) for verdict in _VERDICTS},
            {rating: self._ratings.labels(*labels, str(rating)) for rating in _RATINGS},
        )


class _Parts:
    """What is counted of a release's knowledge and tools."""

    def __init__(self, version: str, registry: CollectorRegistry) -> None:
        self._version = version
        self._tool_calls = counter(known.TOOL_CALLS, registry)
        self._misses = counter(known.KNOWLEDGE_MISSES, registry).labels(version)
        self._uncited = counter(known.UNCITED, registry).labels(version)

    def happened(self, event: Event) -> None:
        match event:
            case Sources(()):
                self._misses.inc()
            case Step():
                tool = event.tool if event.tool in NAMES else "unknown"
                self._tool_calls.labels(self._version, tool, "failed" if event.failed else "found").inc()
            case Finished(cited=()):
                self._uncited.inc()
