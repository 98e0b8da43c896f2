"""What operators and the canary analysis see on `/metrics`: answers, failures, latencies and verdicts per version.

It knows of numbers and labels, never of texts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from tunegate.agent.toolbox import NAMES
from tunegate.api.digest import short
from tunegate.api.feedback import StepTag, Verdict
from tunegate.serving.events import Event, Finished, Sources, Step

# From a warm GPU to a crowded CPU.
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ANSWER = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_VERDICTS: tuple[Verdict, ...] = ("up", "down")
# Steps of promotions whose counts a server keeps: more than one promotion has, and not those of a year.
MOST_STEPS = 32
_REASONS = ("request", "unavailable", "engine", "disconnect", "internal")


class Metrics:
    """The metrics of one server; `digest` and `model` say what it serves."""

    def __init__(self, digest: str, model: str, registry: CollectorRegistry = REGISTRY) -> None:
        version = short(digest)
        by_version = ["model_version"]
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
        self._version = version
        self._steps = _Steps(version, registry)
        self._parts = _Parts(version, registry)
        self._errors = {reason: errors.labels(version, reason) for reason in _REASONS}
        self._first_token = first_token.labels(version)
        self._answer = answer.labels(version)

    def admitted(self, key: str) -> None:
        self._admitted.labels(self._version, key).inc()

    def refused(self, reason: str, key: str) -> None:
        self._refused.labels(self._version, key, reason).inc()

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def asked(self, step: StepTag | None) -> None:
        """A question that is to be answered, in this step of a promotion."""
        self._steps.of(self._version, step).questions.inc()

    def answered(self, seconds: float, step: StepTag | None) -> None:
        self._steps.of(self._version, step).answers.inc()
        self._answer.observe(seconds)

    def failed(self, reason: str) -> None:
        self._errors[reason].inc()

    def happened(self, event: Event) -> None:
        """An event of an answer that is made of more than the weights."""
        self._parts.happened(event)

    def judged(self, digest: str, verdict: Verdict, step: StepTag | None = None) -> None:
        """A verdict that counts, on an answer of the version with `digest`: it may be another than the one served."""
        self._steps.of(short(digest), step).feedback[verdict].inc()


@dataclass(frozen=True)
class _Counts:
    """The counters of one version in one step."""

    questions: Counter
    answers: Counter
    feedback: Mapping[Verdict, Counter]


class _Steps:
    """What is counted by step of a promotion. A server that stays sees one promotion after the other, so only the
    counts of the steps that were used last are kept; those of no step always are."""

    def __init__(self, version: str, registry: CollectorRegistry) -> None:
        by_step = ["model_version", "step"]
        self._questions = Counter(
            "tunegate_questions", "Questions taken, whatever became of them.", by_step, registry=registry
        )
        self._answers = Counter("tunegate_answers", "Answers given completely.", by_step, registry=registry)
        self._feedback = Counter(
            "tunegate_feedback",
            "Verdicts, each answer once and at most 3 of one user.",
            [*by_step, "verdict"],
            registry=registry,
        )
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
                self._questions.remove(*oldest)
                self._answers.remove(*oldest)
                for verdict in _VERDICTS:
                    self._feedback.remove(*oldest, verdict)
            return self._kept[version, step]

    def _counts(self, *labels: str) -> _Counts:
        feedback: dict[Verdict, Counter] = {verdict: self._feedback.labels(*labels, verdict) for verdict in _VERDICTS}
        return _Counts(self._questions.labels(*labels), self._answers.labels(*labels), feedback)


class _Parts:
    """What is counted of a release's knowledge and tools."""

    def __init__(self, version: str, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"tunegate_{name}", about, ["model_version", *labels], registry=registry)

        self._version = version
        self._tool_calls = counter(
            "tool_calls",
            "Steps of an agent, by the tool that was asked; `failed` where it found nothing but a reason.",
            *("tool", "outcome"),
        )
        misses = "Questions that the knowledge has no answer to: the fixed sentence was given."
        self._misses = counter("knowledge_misses", misses).labels(version)
        self._uncited = counter("answers_uncited", "Answers that cite none of their sources.").labels(version)

    def happened(self, event: Event) -> None:
        match event:
            case Sources(()):
                self._misses.inc()
            case Step():
                tool = event.tool if event.tool in NAMES else "unknown"
                self._tool_calls.labels(self._version, tool, "failed" if event.failed else "found").inc()
            case Finished(cited=()):
                self._uncited.inc()
