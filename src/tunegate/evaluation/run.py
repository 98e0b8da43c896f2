"""Measure a version: load it once and ask it every suite.

The version comes as a folder whose bytes were verified just before, as `tunegate.models.materialize` does; fetching
it, and keeping the results, is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import tunegate
from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.api.versions import ModelVersion
from tunegate.evaluation import business, choice
from tunegate.evaluation.models.local import Done, Model
from tunegate.evaluation.suites import Suite

Progress = Callable[[int, int], None]  # answered questions, all questions
BATCH_SIZE = 32  # questions at once: more is faster until the memory is full
Measured = tuple[tuple[Metric, ...], tuple[Record, ...]]


def evaluate(
    folder: Path,
    version: ModelVersion,
    suite: Suite,
    *,
    system_prompt: str = "",
    progress: Progress | None = None,
    batch_size: int = BATCH_SIZE,
) -> Evaluation:
    """`evaluate_all` for one suite."""
    return evaluate_all(
        folder, version, [suite], system_prompt=system_prompt, progress=progress, batch_size=batch_size
    )[0]


def evaluate_all(
    folder: Path,
    version: ModelVersion,
    suites: Sequence[Suite],
    *,
    system_prompt: str = "",
    progress: Progress | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[Evaluation]:
    """Measure the model in `folder`, which `materialize` made of `version`, on each suite; answers are greedy.

    system_prompt: the release's; business questions are asked under it, as users' are.
    Raises ModelError when the folder can't be loaded, EvaluationError when a suite does not suit the model.
    """
    model = Model(folder)
    done = _counter(progress, sum(_size(suite) for suite in suites))

    def measure(suite: Suite) -> Measured:
        if isinstance(suite, business.BusinessSuite):
            return _ask_business(model, suite, system_prompt, batch_size, done)
        return _ask_choice(model, suite, batch_size, done)

    return [_evaluate(version, suite, measure) for suite in suites]


def _evaluate(version: ModelVersion, suite: Suite, measure: Callable[[Suite], Measured]) -> Evaluation:
    started, clock = datetime.now(UTC), time.monotonic()
    metrics, records = measure(suite)
    return Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite.name,
        suite_digest=suite.digest,
        metrics=metrics,
        records=records,
        code_version=tunegate.__version__,
        started=started,
        seconds=round(time.monotonic() - clock, 3),
    )


def _ask_business(
    model: Model, suite: business.BusinessSuite, system_prompt: str, batch_size: int, done: Done
) -> Measured:
    dialogues = [business.dialogue(question, system_prompt) for question in suite.questions]
    records = business.records(suite.questions, model.answer(dialogues, suite.max_tokens, batch_size, done))
    return business.metrics(records), records


def _ask_choice(model: Model, suite: choice.ChoiceSuite, batch_size: int, done: Done) -> Measured:
    """Subject by subject: the questions of one share their instruction and solved examples."""
    measured: dict[str, list[Record]] = {}
    for subject in suite.subjects:
        prompts = [choice.prompt(subject, item) for item in subject.items]
        logits = model.next_logits(prompts, choice.LETTERS, batch_size, done)
        measured[subject.handle] = [
            choice.record(subject, item, row) for item, row in zip(subject.items, logits, strict=True)
        ]
    return choice.metrics(measured), tuple(record for records in measured.values() for record in records)


def _size(suite: Suite) -> int:
    if isinstance(suite, business.BusinessSuite):
        return len(suite.questions)
    return sum(len(subject.items) for subject in suite.subjects)


def _counter(progress: Progress | None, total: int) -> Done:
    """Turn "so many more" into "so many of all"."""
    answered = 0

    def done(more: int) -> None:
        nonlocal answered
        answered += more
        if progress:
            progress(answered, total)

    return done
