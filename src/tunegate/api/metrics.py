"""Every metric that tunegate shows, with its help, its labels and who shows it: the one place for their names.

Rules, alerts, the dashboard and docs/monitoring.md speak of no others. No label holds what users write or who they are,
and none the name of an object of a cluster, so the number of series stays small.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One metric. A counter's series is called `<name>_total`. buckets: the bounds of a histogram."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def series(self) -> str:
        """What queries ask for."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


# From a warm GPU to a crowded CPU.
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ANSWER = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_RECONCILE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Of predictors: by version, and by step of a promotion where answers are compared.
MODEL_INFO = Metric("tunegate_model_info", "gauge", "What is served.", ("model_version", "digest", "model"))
QUESTIONS = Metric(
    "tunegate_questions", "counter", "Questions taken, whatever became of them.", ("model_version", "step")
)
ANSWERS = Metric("tunegate_answers", "counter", "Answers given completely.", ("model_version", "step"))
TOKENS = Metric(
    "tunegate_answer_tokens",
    "counter",
    "Tokens of complete answers as the engine counts them; in a stream that is passed on, its pieces of text.",
    ("model_version", "step"),
)
FEEDBACK = Metric(
    "tunegate_feedback",
    "counter",
    "Verdicts, each answer once and at most 3 of one user.",
    ("model_version", "step", "verdict"),
)
RATINGS = Metric(
    "tunegate_ratings",
    "counter",
    "Ratings from 1, poor, to 5, counted as verdicts.",
    ("model_version", "step", "rating"),
)
FIRST_TOKEN = Metric(
    "tunegate_time_to_first_token_seconds",
    "histogram",
    "From the request to the first text of a streamed answer.",
    ("model_version", "step"),
    _FIRST_TOKEN,
)
ANSWER_SECONDS = Metric(
    "tunegate_answer_seconds",
    "histogram",
    "From the request to the end of the answer.",
    ("model_version", "step"),
    _ANSWER,
)
ANSWER_ERRORS = Metric(
    "tunegate_answer_errors",
    "counter",
    "Answers refused or broken off; request and disconnect are the client's doing.",
    ("model_version", "step", "reason"),
)
ADMITTED = Metric(
    "tunegate_requests_admitted",
    "counter",
    "Requests let in; `key` is the name of the API key, empty where none is asked for.",
    ("model_version", "key"),
)
REFUSED = Metric(
    "tunegate_requests_refused",
    "counter",
    "Requests refused before they were read: no known key, or too many (rate, concurrent, capacity).",
    ("model_version", "step", "key", "reason"),
)
TOOL_CALLS = Metric(
    "tunegate_tool_calls",
    "counter",
    "Steps of an agent, by the tool that was asked; `failed` where it found nothing but a reason.",
    ("model_version", "step", "tool", "outcome"),
)
KNOWLEDGE_MISSES = Metric(
    "tunegate_knowledge_misses",
    "counter",
    "Questions that the knowledge has no answer to: the fixed sentence was given.",
    ("model_version", "step"),
)
UNCITED = Metric(
    "tunegate_answers_uncited", "counter", "Answers that cite none of their sources.", ("model_version", "step")
)
PREDICTOR = (
    MODEL_INFO,
    QUESTIONS,
    ANSWERS,
    TOKENS,
    FEEDBACK,
    RATINGS,
    FIRST_TOKEN,
    ANSWER_SECONDS,
    ANSWER_ERRORS,
    ADMITTED,
    REFUSED,
    TOOL_CALLS,
    KNOWLEDGE_MISSES,
    UNCITED,
)

# Of the first process of a training run; the labels `model` and `run` come from its pod.
_TRAINING = (
    ("loss", "Mean over the trained tokens since the last logging step."),
    ("eval_loss", "Mean over the trained tokens that are held out."),
    ("learning_rate", "Learning rate of the last step."),
    ("step", "Steps done."),
    ("planned_steps", "Steps that the run takes."),
    ("tokens_per_second", "Tokens read by all processes, without padding."),
    ("padding_ratio", "Share of the computed positions that were padding."),
    ("mfu", "Share of the devices' arithmetic that the model's own work took."),
    ("checkpoint_age_seconds", "Since the newest complete checkpoint, or since the run began."),
    ("last_published_timestamp_seconds", "When a checkpoint was last published."),
)
TRAINER = tuple(Metric(f"tunegate_training_{name}", "gauge", about) for name, about in _TRAINING)

# Of the operator.
QUEUE_DEPTH = Metric("tunegate_operator_queue_depth", "gauge", "Policies that wait to be reconciled.")
RECONCILE_SECONDS = Metric(
    "tunegate_operator_reconcile_seconds", "histogram", "How long reconciling a policy took.", ("result",), _RECONCILE
)
DECISIONS = Metric("tunegate_operator_decisions", "counter", "Promotions that ended, by outcome.", ("outcome",))
LEADER = Metric("tunegate_operator_leader", "gauge", "1 while this replica acts.")
STORE_SCAN_SECONDS = Metric(
    "tunegate_operator_store_scan_seconds",
    "histogram",
    "How long one listing of the model store took.",
    (),
    _RECONCILE,
)
OPERATOR_ERRORS = Metric("tunegate_operator_errors", "counter", "Errors, by reason.", ("reason",))
EVALUATED = Metric(
    "tunegate_operator_evaluated_timestamp_seconds",
    "gauge",
    "When the version that serves was measured on a suite of its policy; its age is time() less this.",
    ("model", "model_version", "suite"),
)
OPERATOR = (
    QUEUE_DEPTH,
    RECONCILE_SECONDS,
    DECISIONS,
    LEADER,
    STORE_SCAN_SECONDS,
    OPERATOR_ERRORS,
    EVALUATED,
)
EVERY = (*PREDICTOR, *TRAINER, *OPERATOR)
