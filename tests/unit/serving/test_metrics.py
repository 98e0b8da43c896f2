"""What a server counts, by version and by step of a promotion."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tunegate.api.feedback import step_tag
from tunegate.api.metrics import PREDICTOR
from tunegate.serving.events import Finished, Sources, Step
from tunegate.serving.metrics import MOST_STEPS, Metrics

OWN, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_verdicts_of_a_step_begin_at_zero() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(OWN, "shop", registry)
    metrics.asked(step := step_tag("shop-run-1", 0))

    for verdict in ("up", "down"):
        for known in ("", step):
            labels = {"model_version": "a" * 12, "step": known, "verdict": verdict}
            assert registry.get_sample_value("tunegate_feedback_total", labels) == 0


def test_what_goes_wrong_and_how_long_it_takes_is_counted_by_step() -> None:
    registry = CollectorRegistry()
    metrics, step = Metrics(OWN, "shop", registry), step_tag("shop-run-1", 0)
    for each in (None, step, step):
        use(metrics, each)

    def counted(name: str, **labels: str) -> list[float | None]:
        steps = ("", step)
        return [registry.get_sample_value(name, {"model_version": "a" * 12, "step": each, **labels}) for each in steps]

    assert counted("tunegate_time_to_first_token_seconds_count") == [1, 2]
    assert counted("tunegate_answer_seconds_count") == [1, 2]
    assert counted("tunegate_answer_tokens_total") == [7, 14]
    assert counted("tunegate_answer_errors_total", reason="engine") == [1, 2]
    assert counted("tunegate_requests_refused_total", key="shop", reason="rate") == [1, 2]
    assert counted("tunegate_knowledge_misses_total") == [1, 2]
    assert counted("tunegate_answers_uncited_total") == [1, 2]
    assert counted("tunegate_tool_calls_total", tool="calculator", outcome="failed") == [1, 2]


def use(metrics: Metrics, step: str | None) -> None:
    """All that is counted by step, once."""
    metrics.asked(step)
    metrics.first_token(0.1, step)
    metrics.answered(0.2, step, 7)
    metrics.failed("engine", step)
    metrics.refused("rate", "shop", step)
    metrics.judged(OWN, "down", step, 1)
    for event in (Sources(()), Step(1, "", "calculator", "1/0", "", 0.1, failed=True), Finished("stop", cited=())):
        metrics.happened(event, step)


def test_whoever_is_refused_can_name_steps_and_pushes_no_count_out() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(OWN, "shop", registry)
    metrics.asked(step := step_tag("shop-run-1", 0))
    for number in range(2 * MOST_STEPS):
        metrics.refused("key", "", step_tag(f"made-up-{number}", 0))
    labels = {"model_version": "a" * 12, "step": "", "key": "", "reason": "key"}
    assert registry.get_sample_value("tunegate_requests_refused_total", labels) == 2 * MOST_STEPS
    assert registry.get_sample_value("tunegate_questions_total", {"model_version": "a" * 12, "step": step}) == 1


def test_a_server_keeps_the_counts_of_the_last_steps_however_many_promotions_it_sees() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(OWN, "shop", registry)
    of_today = step_tag("today", 0)
    metrics.asked(None)
    for number in range(10 * MOST_STEPS):
        metrics.asked(of_today)
        metrics.answered(0.1, step_tag(f"shop-run-{number}", 0))
        metrics.judged(OTHER, "down", step_tag(f"shop-run-{number}", 1))

        use(metrics, step_tag(f"shop-run-{number}", 2))

    by_step = {metric.name for metric in PREDICTOR if "step" in metric.labels}
    for family in registry.collect():
        steps = {
            (sample.labels["model_version"], sample.labels["step"])
            for sample in family.samples
            if family.name in by_step
        }
        assert len(steps) <= MOST_STEPS + 1
    kept = registry.get_sample_value("tunegate_questions_total", {"model_version": "a" * 12, "step": of_today})
    assert kept == 10 * MOST_STEPS
