"""From marks to results: one evaluation for each version, as a gate reads them, and how far reviewers agree. Pure."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from statistics import fmean

import msgspec

import tunegate
from tunegate.api.codec import Resource
from tunegate.api.errors import EvaluationError
from tunegate.api.evaluation import Evaluation, Metric, Record
from tunegate.evaluation import scores
from tunegate.evaluation.agreement import alpha, kappa
from tunegate.evaluation.criteria import Criterion
from tunegate.evaluation.paired import mcnemar
from tunegate.evaluation.ranking import strengths
from tunegate.review import queue
from tunegate.review.items import VERDICTS, Item, Review
from tunegate.review.marks import COMMENT, Marks
from tunegate.statistics.clusters import clusters_of

SETTINGS = "people"
WON: dict[int | str, float] = {"first": 1.0, "second": 0.0, "tie": 0.5, "both_bad": 0.5}
"""What the first answer of a pair has won by a verdict."""
_RESAMPLES = 200

Given = dict[str, dict[str, int | str]]  # digest of an item -> what each reviewer gave it by one criterion


@dataclass(frozen=True)
class Duel:
    """A pair of answers; won: by the first of them, in 0..1."""

    item: Item
    won: float


@dataclass(frozen=True)
class Comment:
    """answers: the versions that wrote them, in the order in which the reviewer saw them: A, then B."""

    question: str
    reviewer: str
    answers: tuple[str, ...]
    text: str


class Kappa(Resource, frozen=True, kw_only=True):
    """Cohen's kappa of two reviewers over the `n` items that both judged."""

    reviewers: tuple[str, str]
    n: int
    value: float | None


class Agreement(Resource, frozen=True, kw_only=True):
    """How far reviewers agree by one criterion: Krippendorff's alpha over the `n` items that several judged."""

    criterion: str
    n: int
    alpha: float | None
    kappas: tuple[Kappa, ...]


def results(review: Review, marks: Marks, now: datetime) -> list[Evaluation]:
    """One evaluation for each version. Raises EvaluationError while judgements are missing."""
    done = queue.judged(review, marks)
    progress = queue.progress(review, done)
    if progress.done < progress.total:
        people = {name for names in done.values() for name in names}
        several = max(queue.needed(review).values())
        alone = f" Some items get {several} reviewers." if len(people) < several > 1 else ""
        raise EvaluationError(
            f"{progress.total - progress.done} of {progress.total} judgements of {review.suite} are missing, so there "
            f"is no result yet; resume with `tunegate review serve`.{alone}"
        )
    agreed = [
        Metric(name=f"agreement/{found.criterion}", value=found.alpha, n=found.n)
        for found in agreement(review, marks)
        if found.n
    ]
    return evaluations(review, marks, agreed, now)


def evaluations(review: Review, marks: Marks, more: Sequence[Metric], now: datetime) -> list[Evaluation]:
    """One for each version, of marks that are complete, with `more` metrics."""
    used = [mark for mark in marks.values() if mark.answers in review.judged]
    measured = _pairs(review, marks) if review.mode == "pairs" else _singles(review, marks)
    return [
        Evaluation(
            version=version.name,
            digest=version.digest,
            suite=review.suite,
            suite_digest=review.digest,
            settings=SETTINGS,
            completed=len(records),
            total=len({item.question for item in review.items}),
            metrics=(*metrics, *more),
            records=tuple(records),
            code_version=tunegate.__version__,
            started=min((mark.time for mark in used), default=now),
            seconds=round(sum(mark.seconds for mark in used), 1),
        )
        for version, (metrics, records) in zip(review.versions, measured, strict=True)
    ]


def agreement(review: Review, marks: Marks) -> list[Agreement]:
    """How far reviewers agree so far, by each criterion."""
    found = []
    for criterion in review.criteria:
        given = [values for values in given_by(review, marks, criterion).values() if len(values) > 1]
        codes = {value: float(place) for place, value in enumerate(_values(review, criterion))}
        units = [[codes[value] for value in values.values()] for values in given]
        is_scale = review.mode == "single" and criterion.points > 2
        kappas = []
        for pair in combinations(sorted({name for values in given for name in values}), 2):
            both = [values for values in given if set(pair) <= set(values)]
            if both:
                columns = ([values[name] for values in both] for name in pair)
                kappas.append(Kappa(reviewers=pair, n=len(both), value=kappa(*columns)))
        level = "ordinal" if is_scale else "nominal"
        value = alpha(units, level)  # type: ignore[arg-type] # one of the two
        found.append(Agreement(criterion=criterion.name, n=len(units), alpha=value, kappas=tuple(kappas)))
    return found


def _values(review: Review, criterion: Criterion) -> Sequence[int | str]:
    return VERDICTS if review.mode == "pairs" else criterion.values


def given_by(review: Review, marks: Marks, criterion: Criterion) -> Given:
    """What those who judged an item by every criterion gave it by this one."""
    done = queue.judged(review, marks)
    return {
        digest: {name: marks[digest, name, criterion.name].value for name in sorted(names)}
        for digest, names in done.items()
    }


def _singles(review: Review, marks: Marks) -> list[tuple[list[Metric], list[Record]]]:
    """For each version: the share of answers that pass by every criterion (`score`) and by each, and scales' means."""
    means = {
        criterion.name: {
            digest: fmean(float(value) for value in values.values())
            for digest, values in given_by(review, marks, criterion).items()
        }
        for criterion in review.criteria
    }
    measured = []
    for version in range(len(review.versions)):
        items = [item for item in review.items if item.answers[0].version == version]
        records = []
        for item in items:
            passed = {c.name: float(means[c.name][item.digest] >= c.least) for c in review.criteria}
            records.append(_record(item, item.answers[0].text, {"score": float(all(passed.values())), **passed}))
        names = ["score", *(criterion.name for criterion in review.criteria)]
        clusters = [item.cluster for item in items]
        metrics = [scores.share(name, [record.scores[name] == 1 for record in records], clusters) for name in names]
        for criterion in review.criteria:
            if criterion.points > 2:
                values = [means[criterion.name][item.digest] for item in items]
                metrics.append(scores.mean(f"{criterion.name}_mean", values, clusters))
        measured.append((metrics, records))
    return measured


def _pairs(review: Review, marks: Marks) -> list[tuple[list[Metric], list[Record]]]:
    """For each version and criterion: what it won of its pairs, question by question, and what that may be worth."""
    duels = {}
    both_bad = []
    for criterion in review.criteria:
        given = given_by(review, marks, criterion)
        duels[criterion.name] = [
            Duel(item, 0.5 if item.is_same else fmean(WON[value] for value in given[item.digest].values()))
            for item in review.items
        ]
        bad = [sum(value == "both_bad" for value in values.values()) * 2 > len(values) for values in given.values()]
        clusters = [review.judged[digest].cluster for digest in given]
        share = scores.share(f"{criterion.name}_both_bad", bad, clusters)
        both_bad.append(msgspec.structs.replace(share, higher_is_better=False))
    measured = []
    for version in range(len(review.versions)):
        won = {name: _by_question(found, version) for name, found in duels.items()}
        metrics = [metric for name, found in duels.items() for metric in _pair_metrics(name, found, review, version)]
        texts = {
            item.question: (item, answer.text)
            for item in review.items
            for answer in item.answers
            if answer.version == version
        }
        records = [
            _record(item, text, {name: shares[question] for name, shares in won.items()})
            for question, (item, text) in texts.items()
        ]
        measured.append(([*metrics, *both_bad], records))
    return measured


def _pair_metrics(name: str, duels: Sequence[Duel], review: Review, version: int) -> list[Metric]:
    """`name`: the mean share of its pairs that the version won, a tie as half.

    Of two versions also `_wins`, its share of the questions that were decided, and `_p`, the chance of wins as uneven
    where versions are alike (sign test, exact, two-sided; a cluster counts once, by the side that won more of it); of
    more, `_strength` by Bradley and Terry, in log-odds.
    """
    won = _by_question(duels, version)
    named = {duel.item.question: duel.item.cluster for duel in duels}
    metrics = [scores.mean(name, list(won.values()), [named[question] for question in won])]
    if len(review.versions) > 2:
        return [*metrics, _strength(f"{name}_strength", duels, len(review.versions), version)]
    decided = {question: share > 0.5 for question, share in won.items() if share != 0.5}
    wins, clusters = list(decided.values()), [named[question] for question in decided]
    leans = [sum(1 if wins[place] else -1 for place in places) for places in clusters_of(clusters).values()]
    p = mcnemar(sum(lean > 0 for lean in leans), sum(lean < 0 for lean in leans))
    chance = Metric(name=f"{name}_p", value=p, n=len(decided), higher_is_better=False)
    return [*metrics, scores.share(f"{name}_wins", wins, clusters), chance]


def _strength(name: str, duels: Sequence[Duel], players: int, version: int) -> Metric:
    """The strength with its bootstrap interval over questions, or clusters of them; without one where too many draws
    have none."""

    def fit(drawn: Sequence[Duel]) -> float | None:
        wins: dict[tuple[int, int], float] = defaultdict(float)
        for duel in drawn:
            first, second = (answer.version for answer in duel.item.answers)
            wins[first, second] += duel.won
            wins[second, first] += 1 - duel.won
        found = strengths(wins, players)
        return None if found is None else found[version]

    questions = {duel.item.question for duel in duels}
    drawn_together: dict[str, list[Duel]] = defaultdict(list)
    for duel in duels:
        drawn_together[duel.item.cluster or f"\0{duel.item.question}"].append(duel)
    groups, draw = list(drawn_together.values()), random.Random(0)  # noqa: S311 - no secret
    fits = [fit([duel for group in draw.choices(groups, k=len(groups)) for duel in group]) for _ in range(_RESAMPLES)]
    finite = sorted(value for value in fits if value is not None)
    clusters = len(groups) if len(groups) < len(questions) else None
    metric = Metric(name=name, value=fit(duels), n=len(questions), clusters=clusters)
    if len(finite) < 0.95 * _RESAMPLES:
        return metric
    low, high = (finite[round(share * (len(finite) - 1))] for share in (0.025, 0.975))
    return msgspec.structs.replace(metric, low=low, high=high)


def _by_question(duels: Sequence[Duel], version: int) -> dict[str, float]:
    """What the version won of its pairs at each question."""
    shares: dict[str, list[float]] = defaultdict(list)
    for duel in duels:
        first, second = (answer.version for answer in duel.item.answers)
        if version in (first, second):
            shares[duel.item.question].append(duel.won if version == first else 1 - duel.won)
    return {question: fmean(won) for question, won in shares.items()}


def _record(item: Item, answer: str, values: dict[str, float]) -> Record:
    asked = item.messages[-1].content
    return Record(
        id=item.question,
        prompt=asked,
        expected=item.reference,
        answer=answer,
        cluster=item.cluster,
        scores=values,
    )


def comments(review: Review, marks: Marks) -> list[Comment]:
    """What reviewers wrote, in the order of the items; what was taken back is left out."""
    names = [version.name for version in review.versions]
    found = []
    written = [mark for mark in marks.values() if mark.criterion == COMMENT and mark.value]
    for digest, item in review.judged.items():
        for mark in (mark for mark in written if mark.answers == digest):
            shown = [names[answer.version] for answer in (*item.answers[mark.left :], *item.answers[: mark.left])]
            found.append(Comment(item.question, mark.reviewer, tuple(shown), str(mark.value)))
    return found
