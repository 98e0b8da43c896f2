"""What is judged: the answers of versions to the questions of a business suite, one by one or in pairs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tunegate.api.codec import Document, Resource
from tunegate.api.digest import Digest
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation
from tunegate.evaluation.business import BusinessSuite, Message
from tunegate.evaluation.criteria import Criterion

Mode = Literal["single", "pairs"]
Verdict = Literal["first", "second", "tie", "both_bad"]

VERDICTS: tuple[Verdict, ...] = ("first", "second", "tie", "both_bad")
QUALITY = Criterion(name="quality", points=5)
PREFERENCE = Criterion(name="preference")
SUITE = Criterion(name="suite", question="Ask every version this from now on?", labels=("no", "yes"))
CORPUS = Criterion(
    name="corpus",
    question="Learn a better answer? It is the one you write as a comment, or else the reference.",
    labels=("no", "yes"),
)


class Answer(Resource, frozen=True, kw_only=True):
    """version: its place among the versions of the review."""

    version: int
    text: str


class Item(Resource, frozen=True, kw_only=True):
    """An answer to a question, or two of them. digest: of all that reviewers see, whichever versions wrote it.

    cluster: what the question belongs to together with others. origin: what the answer was made by, for the corpus that
    may take it; reviewers don't see it.
    """

    question: str
    messages: tuple[Message, ...]
    context: str = ""
    reference: str = ""
    cluster: str = ""
    answers: Annotated[tuple[Answer, ...], Meta(min_length=1, max_length=2)]
    digest: str
    origin: dict[str, Any] = {}

    @property
    def is_same(self) -> bool:
        """Two answers without a difference: a tie that nobody is asked about."""
        return len(self.answers) == 2 and self.answers[0].text == self.answers[1].text


class Reviewed(Resource, frozen=True, kw_only=True):
    """A version whose answers are judged."""

    name: str
    digest: str


class Review(Document, frozen=True, kw_only=True):
    """What is judged, of whom and how.

    suite: what the results are called. digest: of questions and criteria, and of the answers where they meet in pairs.
    share: how many of the items get `reviewers` people; the others get one.
    """

    schema: Literal["tunegate.io/review/v1"] = "tunegate.io/review/v1"
    suite: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]*$")]
    digest: str
    mode: Mode
    versions: tuple[Reviewed, ...]
    criteria: Annotated[tuple[Criterion, ...], Meta(min_length=1)]
    reviewers: Annotated[int, Meta(ge=1, le=20)] = 2
    share: Annotated[float, Meta(ge=0, le=1)] = 0.2
    items: tuple[Item, ...]

    @property
    def judged(self) -> dict[str, Item]:
        """The items that people are asked about, by digest: the same answer of two versions is one."""
        return {item.digest: item for item in self.items if not item.is_same}

    @property
    def is_of_decisions(self) -> bool:
        """Whether people decide what follows from answers, and don't judge versions by them."""
        return {criterion.name for criterion in self.criteria} <= {SUITE.name, CORPUS.name}


def make_review(
    suite: BusinessSuite, evaluations: Sequence[Evaluation], mode: Mode, *, reviewers: int = 2, share: float = 0.2
) -> Review:
    """A review of what each version answered to `suite`. Pairs are all pairs of versions, question by question.

    Raises UsageError when an evaluation asked other questions, or there are too few versions.
    """
    if mode == "pairs" and len(evaluations) < 2:
        raise UsageError("Pairs take the answers of two versions or more; name another version, or judge single ones.")
    if len({evaluation.digest for evaluation in evaluations}) < len(evaluations):
        raise UsageError("A version is named twice; name each once.")
    for evaluation in evaluations:
        if evaluation.suite_digest != suite.digest:
            raise UsageError(
                f"{evaluation.version} was asked other questions than {suite.name} has now; evaluate it again with: "
                f"tunegate evaluate {evaluation.version} --suite {suite.name}."
            )
    texts = [{record.id: record.answer for record in evaluation.records} for evaluation in evaluations]
    groups = list(combinations(range(len(evaluations)), 2 if mode == "pairs" else 1))
    items = []
    for question in suite.questions:
        shown = (question.messages, question.context, question.reference)
        for group in groups:
            answers = tuple(Answer(version=version, text=texts[version][question.id]) for version in group)
            items.append(
                Item(
                    question=question.id,
                    messages=question.messages,
                    context=question.context,
                    reference=question.reference,
                    cluster=question.cluster,
                    answers=answers,
                    digest=digest_of(mode, shown, [answer.text for answer in answers]),
                )
            )
    criteria = suite.criteria or ((PREFERENCE,) if mode == "pairs" else (QUALITY,))
    return Review(
        suite=f"{suite.name}.{'pairs' if mode == 'pairs' else 'people'}",
        digest=digest_of(mode, suite.digest, criteria, [item.digest for item in items] if mode == "pairs" else None),
        mode=mode,
        versions=tuple(Reviewed(name=evaluation.version, digest=evaluation.digest) for evaluation in evaluations),
        criteria=criteria,
        reviewers=reviewers,
        share=share,
        items=tuple(items),
    )


def digest_of(*parts: object) -> str:
    """The digest of values as JSON."""
    return str(Digest.of_bytes(msgspec.json.encode(parts)))
