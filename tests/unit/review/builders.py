"""Reviews and marks, as the tests of this room need them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.builders import START
from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.api.versions import ModelVersion
from tunegate.evaluation import rules
from tunegate.evaluation.business import BusinessSuite, Message, Question
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import Mode, Review, make_review
from tunegate.review.marks import Mark

DIGESTS = ["sha256:" + letter * 64 for letter in "abc"]
SUITE_DIGEST = "sha256:" + "9" * 64
CRITERIA = (
    Criterion(name="correct", question="Is all of it true?"),
    Criterion(name="tone", question="Would you say it so to a customer?", points=5),
)
_FRESH = itertools.count()


def make_suite(questions: int = 10, criteria: Sequence[Criterion] = CRITERIA) -> BusinessSuite:
    asked = [
        Question(
            id=f"q{number}",
            messages=(
                Message(role="system", content="You are Xuan. Catalogue: Lovi lamp, $30."),
                Message(role="user", content=f"Question {number}: what is the **Lovi lamp**?"),
            ),
            rules=(rules.Contains(any=("$30",)),),
            reference=f"$30, {number}",
            context="Prices include tax.",
        )
        for number in range(questions)
    ]
    return BusinessSuite("shop", SUITE_DIGEST, 64, tuple(asked), tuple(criteria))


def make_answers(suite: BusinessSuite, version: int, same: int = 0, more: str = "") -> Evaluation:
    """An evaluation whose first `same` answers are those of every other version; the others end in `more`."""
    texts = [f"$30, {n}" if n < same else f"$30 says number {version} to {n}{more}" for n in range(len(suite))]
    records = [
        Record(id=question.id, prompt=question.messages[-1].content, expected="", answer=text, scores={"score": 1.0})
        for question, text in zip(suite.questions, texts, strict=True)
    ]
    return Evaluation(
        version=f"shop/run-{version}/checkpoint-1",
        digest=DIGESTS[version],
        suite=suite.name,
        suite_digest=suite.digest,
        metrics=(Metric(name="score", value=1.0, n=len(records)),),
        records=tuple(records),
        code_version="test",
        started=START,
        seconds=1.0,
    )


def build_review(
    mode: Mode = "single",
    versions: int = 1,
    questions: int = 10,
    same: int = 0,
    reviewers: int = 2,
    share: float = 0.2,
    criteria: Sequence[Criterion] = CRITERIA,
    longer: int | None = None,
) -> Review:
    """longer: the version whose answers are longer than those of the others."""
    suite = make_suite(questions, criteria)
    more = [", gladly and at once" if version == longer else "" for version in range(versions)]
    answers = [make_answers(suite, version, same, more[version]) for version in range(versions)]
    return make_review(suite, answers, mode, reviewers=reviewers, share=share)


def make_mark(digest: str, reviewer: str, criterion: str, value: int | str, **more: object) -> Mark:
    fields: dict[str, object] = {"id": f"mark-{next(_FRESH):08}", "item": "q", "seconds": 1.5, "time": START}
    return Mark(answers=digest, reviewer=reviewer, criterion=criterion, value=value, **(fields | more))  # type: ignore[arg-type]


def stored_answers(version: ModelVersion, suite: BusinessSuite, answers: Sequence[str]) -> Evaluation:
    """What the store has of a version that was asked the suite's questions."""
    records = [
        Record(id=question.id, prompt="", expected="", answer=answer, scores={})
        for question, answer in zip(suite.questions, answers, strict=True)
    ]
    return Evaluation(
        version=version.name,
        digest=version.digest,
        suite=suite.name,
        suite_digest=suite.digest,
        metrics=(Metric(name="score", value=0.5, n=len(records)),),
        records=tuple(records),
        code_version="test",
        started=START,
        seconds=1.0,
    )
