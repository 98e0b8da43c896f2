"""What operators and the canary analysis see on `/metrics`: answers, failures, latencies and verdicts, by version and
step.

It knows of numbers and labels, never of texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

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
_OUTCOMES = ("found", "failed")
_REASONS = ("request", "unavailable", "engine", "disconnect", "internal")


class Metrics:
    """The metrics of one server; `digest` and `model` say what it serves. A step is that of a promotion in which
    something was asked, None outside of one."""

    def __init__(self, digest: str, model: str, registry: CollectorRegistry = REGISTRY) -> None:
        version = short(digest)
        self._admitted = counter(known.ADMITTED, registry)
        gauge(known.MODEL_INFO, registry).labels(version, digest, model).set(1)
        self._version = version
        self._steps = _Steps(version, registry)

    def admitted(self, key: str) -> None:
        self._admitted.labels(self._version, key).inc()

    def refused(self, reason: str, key: str, step: StepTag | None = None) -> None:
        self._steps.refused(self._version, step, key, reason)

    def first_token(self, seconds: float, step: StepTag | None = None) -> None:
        self._steps.of(self._version, step).first_token.observe(seconds)

    def asked(self, step: StepTag | None) -> None:
        """A question that is to be answered."""
        self._steps.of(self._version, step).questions.inc()

    def answered(self, seconds: float, step: StepTag | None, tokens: int = 0) -> None:
        """A complete answer of so many tokens."""
        counts = self._steps.of(self._version, step)
        counts.answers.inc()
        counts.tokens.inc(tokens)
        counts.seconds.observe(seconds)

    def failed(self, reason: str, step: StepTag | None = None) -> None:
        self._steps.of(self._version, step).errors[reason].inc()

    def happened(self, event: Event, step: StepTag | None = None) -> None:
        """An event of an answer that is made of more than the weights."""
        match event:
            case Sources(()):
                self._steps.of(self._version, step).misses.inc()
            case Step():
                tool = event.tool if event.tool in NAMES else "unknown"
                outcome = "failed" if event.failed else "found"
                self._steps.called(self._version, step, tool, outcome)
            case Finished(cited=()):
                self._steps.of(self._version, step).uncited.inc()

    def judged(self, digest: str, verdict: Verdict, step: StepTag | None = None, rating: int | None = None) -> None:
        """A verdict that counts, on an answer of the version with `digest`: it may be another than the one served."""
        counts = self._steps.of(short(digest), step)
        counts.feedback[verdict].inc()
        if rating is not None:
            counts.ratings[rating].inc()


@dataclass(frozen=True)
class _Counts:
    """What is counted of one version in one step."""

    questions: Counter
    answers: Counter
    tokens: Counter
    misses: Counter
    uncited: Counter
    first_token: Histogram
    seconds: Histogram
    errors: Mapping[str, Counter]
    feedback: Mapping[Verdict, Counter]
    ratings: Mapping[int, Counter]


class _Steps:
    """What is counted by step of a promotion. A server that stays sees one promotion after the other, so only the
    counts of the steps that were used last are kept; those of no step always are."""

    def __init__(self, version: str, registry: CollectorRegistry) -> None:
        self._counters = {
            metric: counter(metric, registry)
            for metric in known.PREDICTOR
            if metric.kind == "counter" and "step" in metric.labels
        }
        self._first_token = histogram(known.FIRST_TOKEN, registry)
        self._seconds = histogram(known.ANSWER_SECONDS, registry)
        self._kept: OrderedDict[tuple[str, StepTag], _Counts] = OrderedDict()
        self._lock = Lock()
        self._of_none = {version: self._counts(version, "")}  # 0 from the start: absent would mean unknown

    def of(self, version: str, step: StepTag | None) -> _Counts:
        with self._lock:
            return self._of(version, step)

    def called(self, version: str, step: StepTag | None, tool: str, outcome: str) -> None:
        with self._lock:
            self._of(version, step)
            for each in _OUTCOMES:  # so that the other begins at 0
                self._counters[known.TOOL_CALLS].labels(version, step or "", tool, each).inc(each == outcome)

    def refused(self, version: str, step: StepTag | None, key: str, reason: str) -> None:
        """Of no step where nothing was let in with it yet: who is refused may name any, and would push out others."""
        with self._lock:
            told = step if step and (version, step) in self._kept else ""
            self._counters[known.REFUSED].labels(version, told, key, reason).inc()

    def _of(self, version: str, step: StepTag | None) -> _Counts:
        if step is None:
            if version not in self._of_none:
                self._of_none[version] = self._counts(version, "")
            return self._of_none[version]
        if (version, step) not in self._kept:
            self._kept[version, step] = self._counts(version, step)
        self._kept.move_to_end((version, step))
        if len(self._kept) > MOST_STEPS:
            (of, oldest), _ = self._kept.popitem(last=False)
            for metric in (*self._counters.values(), self._first_token, self._seconds):
                metric.remove_by_labels({"model_version": of, "step": oldest})
        return self._kept[version, step]

    def _counts(self, *labels: str) -> _Counts:
        def counted(metric: known.Metric, *more: str) -> Counter:
            return self._counters[metric].labels(*labels, *more)

        return _Counts(
            questions=counted(known.QUESTIONS),
            answers=counted(known.ANSWERS),
            tokens=counted(known.TOKENS),
            misses=counted(known.KNOWLEDGE_MISSES),
            uncited=counted(known.UNCITED),
            first_token=self._first_token.labels(*labels),
            seconds=self._seconds.labels(*labels),
            errors={reason: counted(known.ANSWER_ERRORS, reason) for reason in _REASONS},
            feedback={verdict: counted(known.FEEDBACK, verdict) for verdict in _VERDICTS},
            ratings={rating: counted(known.RATINGS, str(rating)) for rating in _RATINGS},
        )
