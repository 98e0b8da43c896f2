"""From a judge model's verdicts to results, which stand beside those of people and never in their place. Pure.

They tell how far the judge agrees with people, how often it contradicts itself and whether it leans to long answers.
"""

from __future__ import annotations

from datetime import datetime
from itertools import combinations
from statistics import fmean

import msgspec

from tunegate.api.codec import Resource
from tunegate.api.digest import Digest
from tunegate.api.errors import EvaluationError
from tunegate.api.evaluation import BY_JUDGE, BY_PEOPLE, Evaluation, Metric
from tunegate.evaluation import scores
from tunegate.evaluation.agreement import kappa
from tunegate.evaluation.criteria import Criterion
from tunegate.review.items import Review
from tunegate.review.judge import SYSTEM, Judged
from tunegate.review.marks import Marks
from tunegate.review.results import WON, Kappa, evaluations, given_by


class Account(Resource, frozen=True, kw_only=True):
    """What to know of a judge before its verdicts by one criterion are trusted.

    kappas: Cohen's, with each reviewer; agreement: the same over all their `n` marks. contradicted: in how many of the
    items it said something else once the sides were changed, which made them ties. leans: of the answers that it told
    apart, the share of which the longer was the better one, and the same by people.
    """

    model: str
    criterion: str
    agreement: float | None
    n: int
    kappas: tuple[Kappa, ...]
    items: int
    contradicted: int
    leans: Metric
    people_lean: Metric


def accounts(review: Review, judged: Judged, people: Marks) -> list[Account]:
    """One for each criterion, of the verdicts so far."""
    found = []
    for criterion in review.criteria:
        given = {digest: mark.value for (digest, _, name), mark in judged.marks.items() if name == criterion.name}
        said = {digest: values for digest, values in given_by(review, people, criterion).items() if digest in given}
        both = [(name, given[digest], value) for digest, values in said.items() for name, value in values.items()]
        kappas = []
        for reviewer in sorted({name for name, _, _ in both}):
            own = [(verdict, value) for name, verdict, value in both if name == reviewer]
            columns = [verdict for verdict, _ in own], [value for _, value in own]
            kappas.append(Kappa(reviewers=(judged.model, reviewer), n=len(own), value=kappa(*columns)))
        found.append(
            Account(
                model=judged.model,
                criterion=criterion.name,
                agreement=kappa([verdict for _, verdict, _ in both], [value for _, _, value in both]),
                n=len(both),
                kappas=tuple(kappas),
                items=len(given),
                contradicted=judged.contradictions[criterion.name],
                leans=length_lean(f"longer_wins/{criterion.name}", review, judged.marks, criterion),
                people_lean=length_lean(f"longer_wins/{criterion.name}", review, people, criterion),
            )
        )
    return found


def length_lean(name: str, review: Review, marks: Marks, criterion: Criterion) -> Metric:
    """The share of the comparisons that were decided which the longer answer won; 0.5 is no lean.

    Single answers are compared with all others that got another mark. Such comparisons depend on each other, so only
    that of pairs has an interval.
    """
    given = {digest: values for digest, values in given_by(review, marks, criterion).items() if values}
    if review.mode == "pairs":
        shares = {digest: fmean(WON[value] for value in values.values()) for digest, values in given.items()}
        lengths = {digest: [len(answer.text) for answer in review.judged[digest].answers] for digest in given}
        decided = [digest for digest in given if shares[digest] != 0.5 and lengths[digest][0] != lengths[digest][1]]
        won = [(shares[digest] > 0.5) == (lengths[digest][0] > lengths[digest][1]) for digest in decided]
        return scores.share(name, won)
    means = [
        (len(review.judged[digest].answers[0].text), fmean(float(value) for value in values.values()))
        for digest, values in given.items()
    ]
    won = [
        (one[0] > other[0]) == (one[1] > other[1])
        for one, other in combinations(means, 2)
        if one[0] != other[0] and one[1] != other[1]
    ]
    return Metric(name=name, value=fmean(won) if won else None, n=len(won))


def judge_results(review: Review, judged: Judged, people: Marks, now: datetime) -> list[Evaluation]:
    """One evaluation for each version, of a suite of its own. Raises EvaluationError while verdicts are missing."""
    if judged.missing or judged.unread:
        raise EvaluationError(
            f"{judged.missing} replies of {judged.model} are missing and {len(judged.unread)} hold no verdict, so "
            "there is no result of it yet; ask those again with `tunegate review judge`, with more --max-tokens where "
            "replies were cut off, or name another --model."
        )
    found = accounts(review, judged, people)
    more = [
        metric
        for account in found
        for metric in (
            Metric(name=f"agreement/{account.criterion}", value=account.agreement, n=account.n),
            *([_contradicted(account)] if review.mode == "pairs" else []),
            account.leans,
        )
        if metric.n
    ]
    asked = str(Digest.of_bytes(msgspec.json.encode([review.digest, judged.model, SYSTEM])))
    return [
        msgspec.structs.replace(
            result, suite=judge_suite(review), suite_digest=asked, settings=f"judge {judged.model}", seconds=0.0
        )
        for result in evaluations(review, judged.marks, more, now)
    ]


def _contradicted(account: Account) -> Metric:
    of_items = [place < account.contradicted for place in range(account.items)]
    share = scores.share(f"contradicted/{account.criterion}", of_items)
    return msgspec.structs.replace(share, higher_is_better=False)


def judge_suite(review: Review) -> str:
    """What a judge's results are called: never as those of people."""
    ends = dict(zip(BY_PEOPLE, BY_JUDGE, strict=True))
    name, dot, kind = review.suite.rpartition(".")
    return name + ends[dot + kind]
