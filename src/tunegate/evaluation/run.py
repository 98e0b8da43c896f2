"""Measure a version: ask a model every question of every suite."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import tunegate
from tunegate.api.digest import Digest
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.evaluation import business, choice
from tunegate.evaluation.models import Model
from tunegate.evaluation.sheets import Sheets
from tunegate.evaluation.suites import Suite

Progress = Callable[[int, int], None]  # answered questions, all questions


def evaluate(
    model: Model,
    version: ModelVersion,
    suites: Sequence[Suite],
    *,
    system_prompt: str = "",
    progress: Progress = lambda answered, total: None,
    cache: Path | None = None,
    finished: Callable[[Evaluation], None] = lambda result: None,
) -> list[Evaluation]:
    """Measure `model`, which is `version` with verified weights, on each suite.

    system_prompt: the release's; business questions are asked under it, as users' are.
    finished: gets each result as it comes, to save it.
    cache: where answers are kept until all are there, so that an evaluation that was killed goes on; None keeps none.
    Raises EvaluationError when a suite does not suit the model, ModelError when the model can't answer.
    """
    answered, total = 0, sum(len(suite) for suite in suites)

    def done(more: int) -> None:
        nonlocal answered
        answered += more
        progress(answered, total)

    results = []
    for suite in suites:
        # By version, suite and settings: what another model said is never taken for what this one says.
        name = "-".join((*(Digest.parse(of.digest).hex[:32] for of in (version, suite)), model.settings))
        sheets = Sheets(cache / "evaluations" / f"{name}.jsonl" if cache else None, done)
        results.append(measure(model, version, suite, system_prompt, sheets))
        finished(results[-1])
        sheets.close()
    return results


def measure(model: Model, version: ModelVersion, suite: Suite, system_prompt: str, sheets: Sheets) -> Evaluation:
    """Measure on one suite; `sheets` has the answers that are there already, and gets the others. Raises as above."""
    probes = model.probes
    started, clock = datetime.now(UTC), time.monotonic()
    before = replace(model.tokens) if model.tokens else None
    prompts_digest = ""
    if isinstance(suite, business.BusinessSuite):
        metrics, records = business.measure(model, suite, system_prompt, sheets)
    elif isinstance(suite, choice.ChoiceSuite):
        metrics, records = choice.measure(model, suite, sheets)
        prompts_digest = suite.prompts_digest
    else:
        from tunegate.evaluation.harness.tasks import measure as ask_harness  # an extra

        metrics, records, prompts_digest = ask_harness(model, suite.asked, sheets, is_chat=suite.mode == "chat")
        before = None  # it counts no tokens
    after = model.tokens if before else None
    return Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite.name,
        suite_digest=suite.digest,
        settings=model.settings,
        prompts_digest=prompts_digest,
        topic=suite.topic,
        tokens_read=after.read - before.read if before and after else None,
        tokens_written=after.written - before.written if before and after else None,
        completed=len(records),
        total=len(suite),
        metrics=metrics,
        averages=suite.averages if isinstance(suite, choice.ChoiceSuite) else {},
        records=records,
        probes=probes,
        code_version=tunegate.__version__,
        started=started,
        seconds=round(time.monotonic() - clock, 3),
    )
