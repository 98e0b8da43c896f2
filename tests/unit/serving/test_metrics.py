"""What a server counts, by version and by step of a promotion."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from tunegate.api.feedback import step_tag
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


def test_a_server_keeps_the_counts_of_the_last_steps_however_many_promotions_it_sees() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(OWN, "shop", registry)
    of_today = step_tag("today", 0)
    metrics.asked(None)
    for number in range(10 * MOST_STEPS):
        metrics.asked(of_today)
        metrics.answered(0.1, step_tag(f"shop-run-{number}", 0))
        metrics.judged(OTHER, "down", step_tag(f"shop-run-{number}", 1))

    for name, most in (("tunegate_questions", 1), ("tunegate_answers", 1), ("tunegate_feedback", 2)):
        (family,) = (family for family in registry.collect() if family.name == name)
        totals = [sample for sample in family.samples if sample.name.endswith("_total")]
        assert len(totals) <= most * (MOST_STEPS + 1)
    kept = registry.get_sample_value("tunegate_questions_total", {"model_version": "a" * 12, "step": of_today})
    assert kept == 10 * MOST_STEPS
