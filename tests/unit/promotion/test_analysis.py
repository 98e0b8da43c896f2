from __future__ import annotations

import functools
import itertools
import math
import random

import pytest

from tunegate.api.codec import from_json, to_json
from tunegate.api.feedback import Tally
from tunegate.api.policy import FeedbackGuard
from tunegate.api.promotion import Comparison
from tunegate.promotion import analysis
from tunegate.promotion.analysis import compare

GUARD = FeedbackGuard()


def tally(down: int, n: int) -> Tally:
    return Tally(up=n - down, down=down)


def at(candidate: tuple[int, int], stable: tuple[int, int], guard: FeedbackGuard = GUARD) -> Comparison:
    return in_steps([(candidate, stable)], guard)


def in_steps(
    steps: list[tuple[tuple[int, int], tuple[int, int]]], guard: FeedbackGuard = GUARD, weights: tuple[int, ...] = (50,)
) -> Comparison:
    """Thumbs down and judged answers of the candidate and of the stable in each step."""
    ours, theirs = ({index: tally(*step[arm]) for index, step in enumerate(steps)} for arm in (0, 1))
    return compare(ours, theirs, guard, weights)


@pytest.mark.parametrize(
    ("candidate", "stable", "outcome"),
    [
        pytest.param((12, 15), (9, 95), "Worse", id="most answers disliked"),
        pytest.param((40, 40), (0, 400), "Worse", id="all against none"),
        pytest.param((80, 200), (40, 200), "Worse", id="40 % against 20 %"),
        pytest.param((100, 500), (100, 500), "NotWorse", id="equal at 20 %"),
        pytest.param((40, 200), (40, 200), "Inconclusive", id="equal at 20 %, not enough"),
        pytest.param((20, 200), (100, 200), "NotWorse", id="better"),
        pytest.param((0, 100), (0, 100), "NotWorse", id="nobody dislikes anything"),
        pytest.param((3, 20), (9, 95), "Inconclusive", id="too little to tell"),
        pytest.param((20, 20), (20, 20), "Inconclusive", id="everything disliked, few"),
        pytest.param((200_000, 10**6), (150_000, 10**6), "NotWorse", id="worse for sure, but within the margin"),
    ],
)
def test_outcome_follows_from_the_counts(candidate, stable, outcome):
    assert at(candidate, stable).outcome == outcome


@pytest.mark.parametrize(
    ("candidate", "stable", "names"),
    [
        pytest.param(None, {0: tally(1, 10**6)}, "the candidate are", id="candidate"),
        pytest.param({0: tally(10**6, 10**6)}, None, "the stable are", id="stable"),
        pytest.param(None, None, "the candidate and the stable are", id="both"),
    ],
)
def test_missing_counts_never_decide(candidate, stable, names):
    result = compare(candidate, stable, GUARD, (50,))

    assert (result.outcome, result.answers_needed) == ("Inconclusive", None)
    assert (result.evidence_worse, result.evidence_not_worse) == (1.0, 1.0)
    assert f"{names} missing" in result.message


@pytest.mark.parametrize("down", [0, 9], ids=["none disliked", "all disliked"])
def test_fewer_judged_answers_than_the_minimum_never_decide(down):
    result = at((down, 9), (50, 10**6))

    assert result.outcome == "Inconclusive"
    assert result.answers_needed is not None
    assert at((9, 9), (50, 10**6)).evidence_worse > result.threshold


def test_overwhelming_evidence_decides_at_the_minimum():
    assert at((9, 9), (5, 100)).answers_needed == 1
    assert at((10, 10), (5, 100)).outcome == "Worse"


@pytest.mark.parametrize(
    ("candidate", "stable", "reason"),
    [
        pytest.param((0, 0), (0, 0), "no answer of the candidate", id="nothing judged"),
        pytest.param((0, 0), (5, 100), "no answer of the candidate", id="candidate not judged"),
        pytest.param((50, 50), (0, 0), "no answer of the stable", id="stable not judged"),
    ],
)
def test_an_unjudged_version_is_inconclusive(candidate, stable, reason):
    result = at(candidate, stable)

    assert (result.outcome, result.answers_needed) == ("Inconclusive", None)
    assert reason in result.message


def test_messages_carry_the_numbers():
    assert at((12, 15), (9, 95)).message == (
        "12 of 15 answers disliked against 9 of 95 of the stable: worse (evidence 1e+05, needed 20)"
    )
    assert at((40, 400), (40, 400)).message.startswith(
        "40 of 400 answers disliked against 40 of 400 of the stable: not worse by 0.1 or more (evidence "
    )
    assert at((4, 20), (5, 20)).message == (
        "inconclusive: 4 of 20 answers disliked against 5 of 20 of the stable; "
        "about 100 more judged answers of the candidate are needed at these rates"
    )


def test_forecast_comes_true_when_the_rates_stay():
    for candidate, stable in [((4, 20), (4, 20)), ((10, 100), (10, 100)), ((8, 20), (36, 180)), ((12, 60), (30, 200))]:
        needed = at(candidate, stable).answers_needed
        grown = 1 + 1.1 * needed / candidate[1]
        later = [(round(down * grown), round(n * grown)) for down, n in (candidate, stable)]
        assert at(*later).outcome != "Inconclusive"
        half = (1 + grown) / 2
        sooner = [(round(down * half), round(n * half)) for down, n in (candidate, stable)]
        assert at(*sooner).outcome == "Inconclusive"


def test_no_forecast_where_the_rates_lead_nowhere():
    # exactly on the edge of the margin, and too small a difference to be seen in a million answers
    guard = FeedbackGuard(margin=0.001)
    result = at((501, 1000), (500, 1000), guard)

    assert (result.outcome, result.answers_needed) == ("Inconclusive", None)
    assert "no conclusion is in sight" in result.message


def test_a_dislike_of_the_candidate_never_speaks_for_it():
    for up, stable in itertools.product((0, 3, 40), [(0, 5), (3, 10), (50, 100), (90, 100)]):
        results = [at((down, up + down), stable) for down in range(0, 60, 3)]
        worse = [result.evidence_worse for result in results]
        not_worse = [result.evidence_not_worse for result in results]
        assert all(a <= b * (1 + 1e-6) for a, b in itertools.pairwise(worse))
        assert all(a * (1 + 1e-6) >= b for a, b in itertools.pairwise(not_worse))


def test_a_dislike_of_the_stable_never_speaks_against_the_candidate():
    results = [at((12, 30), (down, 20 + down)) for down in range(60)]
    worse = [result.evidence_worse for result in results]

    assert all(a * (1 + 1e-6) >= b for a, b in itertools.pairwise(worse))


@pytest.mark.parametrize(
    ("candidate", "stable"),
    list(itertools.product([(0, 1), (0, 10**6), (10**6, 10**6), (200_000, 10**6), (1, 10**6)], repeat=2)),
)
def test_huge_and_extreme_counts_stay_finite(candidate, stable):
    result = at(candidate, stable)

    assert 0 <= result.evidence_worse < math.inf
    assert 0 <= result.evidence_not_worse < math.inf
    assert from_json(to_json(result), Comparison, "test") == result


def test_evidence_against_equal_counts_is_small():
    assert all(at((k, 100), (k, 100)).evidence_worse <= 1.0 for k in range(0, 101, 5))


def test_smaller_alpha_needs_more_evidence():
    strict = at((14, 20), (20, 100), FeedbackGuard(alpha=1e-6))

    assert at((14, 20), (20, 100)).outcome == "Worse"
    assert strict.outcome == "Inconclusive"
    assert strict.threshold == pytest.approx(1e6)
    assert strict.evidence_worse == at((14, 20), (20, 100)).evidence_worse


def test_same_counts_give_the_same_answer():
    assert at((7, 31), (11, 120)) == at((7, 31), (11, 120))


def test_all_money_is_bet_or_kept():
    for share in (0.01, 0.1, 0.5, 0.99):
        assert math.fsum(math.exp(log) for log, *_ in analysis._stakes(share)) == pytest.approx(1)


@pytest.mark.parametrize("weight", [10, 50])
def test_evidence_is_the_least_that_bets_own_at_any_threshold(weight: int):
    """Against a plain grid over p, with capitals computed from the definition, answer by answer."""

    def grown(hits: int, misses: int, rate: float, stake: float) -> float:
        money = 1.0
        for hit in [True] * hits + [False] * misses:
            money *= (math.exp(stake) if hit else 1.0) / (1 - rate + rate * math.exp(stake))
        return money

    def owned(share: float, total: float, a: tuple[int, int], b: tuple[int, int], p: float) -> float:
        pairs = analysis._stakes(share)
        return sum(
            math.exp(log) * grown(*a, p, stake_a) * grown(*b, total - p, stake_b)
            for log, stake_a, _, stake_b, _ in pairs
        )

    for (down, n), (stable_down, stable_n) in [((7, 12), (5, 40)), ((2, 30), (9, 20)), ((0, 10), (0, 8))]:
        ours, theirs, share = (down, n - down), (stable_down, stable_n - stable_down), weight / 100
        worse = min(owned(share, 1.0, ours, theirs[::-1], p / 500) for p in range(501))
        not_worse = min(owned(1 - share, 0.9, theirs, ours[::-1], p / 500) for p in range(451))
        result = in_steps([((down, n), (stable_down, stable_n))], weights=(weight,))
        assert result.evidence_worse == pytest.approx(worse, rel=1e-3)
        assert result.evidence_not_worse == pytest.approx(not_worse, rel=1e-3)


@pytest.mark.parametrize("weight", [5, 25, 50, 75])
def test_a_share_of_the_verdicts_that_is_not_the_one_of_the_answers_costs_little(weight: int):
    """The displeased vote more: a quarter of the verdicts is on the candidate, whatever was asked for."""
    assert in_steps([((60, 150), (90, 450))], weights=(weight,)).outcome == "Worse"


# Both versions are disliked in one answer of ten in the first step, and in three of ten in the second.
DRIFT = [((10, 100), (90, 900)), ((150, 500), (150, 500))]


def test_a_mood_that_changes_with_the_split_is_no_evidence():
    pooled = at(*(tuple(sum(counts) for counts in zip(*(step[arm] for step in DRIFT), strict=True)) for arm in (0, 1)))  # type: ignore[arg-type]
    assert pooled.outcome == "Worse"

    result = in_steps(DRIFT, weights=(10, 50))
    assert result.outcome == "NotWorse"
    assert result.evidence_worse < 1


def test_evidence_of_steps_is_multiplied():
    steps = [((8, 20), (18, 180)), ((30, 60), (18, 60))]
    alone = [in_steps([step], weights=(weight,)).evidence_worse for step, weight in zip(steps, (10, 50), strict=True)]
    together = in_steps(steps, weights=(10, 50))

    assert together.evidence_worse == pytest.approx(math.prod(alone))
    assert [(step.step, step.candidate.n, step.stable.n) for step in together.steps] == [(0, 20, 180), (1, 60, 60)]
    assert (together.candidate, together.stable) == (tally(38, 80), tally(36, 240))


def test_without_anyone_beside_the_candidate_the_last_step_is_what_it_is_compared_with():
    steps = {0: tally(2, 20), 1: tally(5, 50), 2: tally(40, 40)}
    baking = compare(steps, {0: tally(18, 180), 1: tally(5, 50)}, GUARD, (10, 50))

    assert baking == in_steps([((2, 20), (18, 180)), ((45, 90), (5, 50))], weights=(10, 50))
    assert baking.outcome == "Worse"


def test_answers_that_came_past_the_route_are_not_evidence():
    ours, theirs = {0: tally(2, 20), None: tally(90, 90)}, {0: tally(18, 180), None: tally(0, 500)}
    assert compare(ours, theirs, GUARD, (10, 50)) == in_steps([((2, 20), (18, 180))], weights=(10, 50))


def test_a_version_that_tells_no_steps_is_compared_as_a_whole():
    """Its server is one of 0.1.0, which stays when the chart is upgraded."""
    ours, theirs = {0: tally(3, 20), 1: tally(12, 60)}, {None: tally(20, 200)}
    assert compare(ours, theirs, GUARD, (10, 50)) == in_steps([((15, 80), (20, 200))], weights=(10, 50))


def test_judgments_of_a_candidate_past_the_route_are_not_evidence_before_its_first_one_by_the_route():
    ours, theirs = {None: tally(20, 20)}, {0: tally(0, 200)}
    result = compare(ours, theirs, GUARD, (10, 50))
    assert (result.outcome, result.candidate) == ("Inconclusive", tally(0, 0))


@pytest.mark.parametrize("liked", [True, False], ids=["liked", "disliked"])
@pytest.mark.parametrize("weight", [1, 10, 50, 95])
def test_verdicts_on_one_version_alone_lean_neither_way(weight, liked):
    for n in range(1, 300):
        one = {0: tally(0 if liked else n, n)}
        for ours, theirs in [(one, {}), ({}, one)]:
            assert compare(ours, theirs, GUARD, (weight,)).evidence_worse <= 1


@pytest.mark.parametrize(
    ("wanted", "candidate", "stable"),
    [
        *[pytest.param("worse", p, p, id=f"worse, both {p:.0%}") for p in (0.05, 0.2, 0.5, 0.8)],
        pytest.param("worse", 0.2, 0.5, id="worse, candidate better"),
        *[
            pytest.param("not_worse", p + 0.1, p, id=f"not worse, {p + 0.1:.0%} against {p:.0%}")
            for p in (0.05, 0.2, 0.5)
        ],
        pytest.param("not_worse", 0.6, 0.2, id="not worse, far worse"),
    ],
)
def test_no_stopping_rule_and_no_split_makes_evidence_on_average(all_evidence, wanted, candidate, stable):
    """Exact, by backward induction: a player who knows the true shares, chooses which version answers next and when to
    stop, within 12 judged answers. If the evidence is an e-process, even this player gets no more than 1 on average."""
    shares = (candidate, stable)

    @functools.cache
    def best(down: int, n: int, stable_down: int, stable_n: int) -> float:
        stop = all_evidence[down, n, stable_down, stable_n][wanted]
        if n + stable_n == HORIZON:
            return stop
        ask_candidate = shares[0] * best(down + 1, n + 1, stable_down, stable_n)
        ask_candidate += (1 - shares[0]) * best(down, n + 1, stable_down, stable_n)
        ask_stable = shares[1] * best(down, n, stable_down + 1, stable_n + 1)
        ask_stable += (1 - shares[1]) * best(down, n, stable_down, stable_n + 1)
        return max(stop, ask_candidate, ask_stable)

    assert best(0, 0, 0, 0) <= 1 + 1e-9


HORIZON = 12


@pytest.fixture(scope="module")
def all_evidence() -> dict[tuple[int, int, int, int], dict[str, float]]:
    found = {}
    for n in range(HORIZON + 1):
        for stable_n in range(HORIZON + 1 - n):
            for down, stable_down in itertools.product(range(n + 1), range(stable_n + 1)):
                result = at((down, n), (stable_down, stable_n), FeedbackGuard(alpha=0.9))
                evidence = {"worse": result.evidence_worse, "not_worse": result.evidence_not_worse}
                found[down, n, stable_down, stable_n] = evidence
    return found


# --- the promise: false alarms over whole runs, looked at after every answer ---------------------------------------


def first_conclusion(
    rng: random.Random, shares: tuple[float, float], split: float, guard: FeedbackGuard, answers: int, wanted: str
) -> int | None:
    """Judged answers until `wanted` is first heard, looking after each; None when it is not. Seeded, pure otherwise.

    A look is left out only where no method could conclude: the likelihood ratio of the best two rates over the best
    rates without a difference bounds the evidence from above.
    """
    down, n = [0, 0], [0, 0]
    for answer in range(1, answers + 1):
        arm = 0 if rng.random() < split else 1
        n[arm] += 1
        down[arm] += rng.random() < shares[arm]
        if n[0] < guard.min_verdicts or n[1] == 0 or not could_conclude(down, n, guard, wanted):
            continue
        if at((down[0], n[0]), (down[1], n[1]), guard).outcome == wanted:
            return answer
    return None


def could_conclude(down: list[int], n: list[int], guard: FeedbackGuard, wanted: str) -> bool:
    gap = guard.margin if wanted == "NotWorse" else 0.0
    pooled = min(max((down[0] + down[1] - gap * n[0]) / (n[0] + n[1]), 0.0), 1.0 - gap)
    rates = (pooled + gap, pooled)
    seen = [(d, k - d, r) for d, k, r in zip(down, n, rates, strict=True)]
    ratio = 0.0
    for hits, misses, rate in seen:
        for count, share in ((hits, rate), (misses, 1 - rate)):
            if count and share:
                ratio += count * math.log(count / (hits + misses) / share)
            elif count:
                return True
    return ratio >= -math.log(guard.alpha)


def binomial_tail(successes: int, trials: int, p: float) -> float:
    """P(X >= successes)."""
    return sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(successes, trials + 1))


@pytest.mark.parametrize("split", [0.5, 0.1], ids=["even split", "10/90"])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_an_equal_candidate_is_seldom_called_worse(share, split):
    guard, runs = FeedbackGuard(alpha=0.1, min_verdicts=1), 100
    rng = random.Random(7)  # noqa: S311
    alarms = sum(first_conclusion(rng, (share, share), split, guard, 400, "Worse") is not None for _ in range(runs))

    assert binomial_tail(alarms, runs, guard.alpha) > 1e-6, f"{alarms} false alarms in {runs} runs"


@pytest.mark.parametrize("split", [0.5, 0.1], ids=["even split", "10/90"])
def test_a_candidate_worse_by_the_margin_is_seldom_called_not_worse(split):
    guard, runs = FeedbackGuard(alpha=0.1, margin=0.1, min_verdicts=1), 100
    rng = random.Random(7)  # noqa: S311
    alarms = sum(first_conclusion(rng, (0.3, 0.2), split, guard, 400, "NotWorse") is not None for _ in range(runs))

    assert binomial_tail(alarms, runs, guard.alpha) > 1e-6, f"{alarms} false alarms in {runs} runs"


def test_a_split_that_reacts_to_the_votes_does_not_raise_false_alarms():
    """The worst player we can think of: after each dislike of the candidate it asks the candidate again."""
    guard, runs, alarms = FeedbackGuard(alpha=0.1, min_verdicts=1), 100, 0
    rng = random.Random(7)  # noqa: S311
    for _ in range(runs):
        down, n, arm = [0, 0], [0, 0], 0
        for _ in range(400):
            disliked = rng.random() < 0.2
            n[arm] += 1
            down[arm] += disliked
            possible = n[1] and could_conclude(down, n, guard, "Worse")
            if possible and at((down[0], n[0]), (down[1], n[1]), guard).outcome == "Worse":
                alarms += 1
                break
            arm = 0 if (arm == 0) == disliked else 1
    assert binomial_tail(alarms, runs, guard.alpha) > 1e-6, f"{alarms} false alarms in {runs} runs"


def test_a_candidate_twice_as_disliked_is_called_worse():
    rng = random.Random(7)  # noqa: S311
    answers = [first_conclusion(rng, (0.4, 0.2), 0.5, GUARD, 1200, "Worse") for _ in range(40)]

    assert None not in answers
    assert 100 <= sorted(answers)[20] <= 240


def test_looking_again_and_again_with_a_fixed_sample_test_cries_wolf():
    """Why the comparison is sequential: the usual z-test at the same level, looked at after every answer."""
    alpha, runs, alarms = 0.05, 150, 0
    rng = random.Random(7)  # noqa: S311
    for _ in range(runs):
        down, n = [0, 0], [0, 0]
        for _ in range(500):
            arm = rng.random() < 0.5
            n[arm] += 1
            down[arm] += rng.random() < 0.2
            if min(n) >= 10:
                pooled = sum(down) / sum(n)
                error = math.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1]))
                if error and (down[0] / n[0] - down[1] / n[1]) / error > 1.6449:
                    alarms += 1
                    break
    assert binomial_tail(alarms, runs, alpha) < 1e-6, f"{alarms} false alarms in {runs} runs"
