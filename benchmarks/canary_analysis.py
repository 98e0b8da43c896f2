"""How often the canary analysis is wrong, and how many judged answers it needs: measured by simulation.

    python benchmarks/canary_analysis.py [TABLE ...] [--runs 750] [--answers 5000]

Every run is looked at after every judged answer and decided by the shipped function. A look is left out only where an
upper bound of the evidence (the bets at one threshold instead of at the worst) is below 1/alpha.
Needs numpy; one core, some minutes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tunegate.api.feedback import Tally
from tunegate.api.policy import FeedbackGuard
from tunegate.feedback.tally import Caps
from tunegate.promotion import analysis
from tunegate.promotion.sample_ratio import LEAST, mismatch

Floats = np.ndarray
Chance = Callable[
    [int, Floats, Floats], Floats | float
]  # answer number, last arm was the candidate, last was a dislike

MARGIN = 0.1


def even(answer: int, was_candidate: Floats, was_down: Floats) -> float:
    return 0.5


def tenth(answer: int, was_candidate: Floats, was_down: Floats) -> float:
    return 0.1


def ramp(answer: int, was_candidate: Floats, was_down: Floats) -> float:
    """10 % for 200 judged answers, 50 % for the next 200, then 95 %, as while a candidate bakes."""
    return 0.1 if answer < 200 else 0.5 if answer < 400 else 0.95


def chase(answer: int, was_candidate: Floats, was_down: Floats) -> Floats:
    """An adversary: stays with the candidate after its dislikes, and leaves the stable after the stable's."""
    return (was_candidate == was_down).astype(float)


@dataclass(frozen=True)
class Split:
    """How answers are split: the chance of the candidate, the steps' weights, and when each but the first begins."""

    chance: Chance
    weights: tuple[int, ...]
    begins: tuple[int, ...] = ()

    def step(self, answer: int) -> int:
        return sum(answer >= begin for begin in self.begins)


SPLITS = {
    "50/50": Split(even, (50,)),
    "10/90": Split(tenth, (10,)),
    "10>50>95": Split(ramp, (10, 50, 95), (200, 400)),
    "chasing": Split(chase, (50,)),
}


def simulate(rng: np.random.Generator, shares: tuple[object, object], split: Split, runs: int, answers: int) -> Floats:
    """Counts after each answer: candidate down, candidate n, stable down, stable n; shape (steps, 4, runs, answers).

    `shares` are numbers, or functions of the answer number for shares that drift.
    """
    counts = np.zeros((len(split.weights), 4, runs, answers), dtype=np.int16)
    now = np.zeros((len(split.weights), 4, runs), dtype=np.int16)
    candidate = down = np.zeros(runs, dtype=bool)
    for answer in range(answers):
        mine, theirs = (share(answer) if callable(share) else share for share in shares)
        candidate = rng.random(runs) < split.chance(answer, candidate, down)
        down = rng.random(runs) < np.where(candidate, mine, theirs)
        now[split.step(answer)] += np.stack([candidate & down, candidate, ~candidate & down, ~candidate])
        counts[..., answer] = now
    return counts


def bets(counts: Floats, weight: int, wanted: str) -> analysis._Bets:
    """A step's bets, as in `analysis`."""
    candidate_down, candidate_n, stable_down, stable_n = counts
    share = weight / 100
    if wanted == "Worse":
        return analysis._Bets(share, 1.0, candidate_down, candidate_n, stable_n - stable_down, stable_n)
    return analysis._Bets(1.0 - share, 1.0 - MARGIN, stable_down, stable_n, candidate_n - candidate_down, candidate_n)


def bound(counts: Floats, weight: int, wanted: str) -> Floats:
    """An upper bound of the log evidence of a step: what the bets own at the pooled share."""
    share, total, hits_a, n_a, hits_b, n_b = bets(counts.astype(float), weight, wanted)
    with np.errstate(all="ignore"):
        rate = hits_a / n_a
        q = np.clip(rate - (rate + hits_b / n_b - total) * n_b / (n_a + n_b), 0, total)
    q = np.where((n_a > 0) & (n_b > 0), q, np.where(n_a > 0, total, 0.0))
    logs = [
        part + hits_a * a - n_a * np.log1p(q * gain_a) + hits_b * b - n_b * np.log1p((total - q) * gain_b)
        for part, a, gain_a, b, gain_b in analysis._stakes(share)
    ]
    return np.logaddexp.reduce(logs)


def conclusions(
    counts: Floats, weights: tuple[int, ...], wanted: str, alphas: tuple[float, ...], min_verdicts: int = 1
) -> dict[float, Floats]:
    """Answer index of the first look with enough evidence, per run and alpha; -1 where there is none."""
    first = {alpha: np.full(counts.shape[2], -1) for alpha in alphas}

    @cache
    def evidence(state: tuple[int, ...], weight: int) -> float:
        return analysis._log_evidence(bets(np.array(state), weight, wanted))

    for run in range(counts.shape[2]):
        states = counts[:, :, run]
        upper = sum(bound(state, weight, wanted) for state, weight in zip(states, weights, strict=True))
        judged = states[:, 1].sum(axis=0)
        for alpha in alphas:
            enough = -math.log(alpha)
            for look in np.flatnonzero((upper >= enough) & (judged >= min_verdicts)):
                found = (tuple(int(count) for count in state[:, look]) for state in states)
                if sum(evidence(state, weight) for state, weight in zip(found, weights, strict=True)) >= enough:
                    first[alpha][run] = look
                    break
    return first


def needed(counts: Floats, first: Floats) -> str:
    """Share of runs that concluded, and median and 90th percentile of the candidate's judged answers until then."""
    runs = np.arange(len(first))
    answers = np.where(first >= 0, counts[:, 1].sum(axis=0)[runs, first].astype(int), 10**6)
    median, most = np.percentile(answers, [50, 90], method="inverted_cdf")
    shown = [f"{value:.0f}" if value < 10**6 else "-" for value in (median, most)]
    return f"{np.mean(first >= 0):6.1%} {shown[0]:>6} {shown[1]:>6}"


def false_alarms(rng: np.random.Generator, runs: int, answers: int) -> None:
    print(f"\nFalse alarms: share of {runs} runs of {answers} judged answers that ever conclude, wrongly")
    print(f"{'wrong conclusion':18} {'shares':>12} {'split':>10} {'alpha 0.05':>11} {'alpha 0.01':>11}")
    nulls = [("Worse", (p, p)) for p in (0.05, 0.2, 0.5)]
    nulls += [("NotWorse", (p + MARGIN, p)) for p in (0.05, 0.2, 0.5)]
    for wanted, shares in nulls:
        for name, split in SPLITS.items():
            counts = simulate(rng, shares, split, runs, answers)
            first = conclusions(counts, split.weights, wanted, (0.05, 0.01))
            print(
                f"{wanted:18} {shares[0]:5.0%} / {shares[1]:4.0%} {name:>10} "
                f"{np.mean(first[0.05] >= 0):11.2%} {np.mean(first[0.01] >= 0):11.2%}",
                flush=True,
            )


def power(rng: np.random.Generator, runs: int) -> None:
    print(f"\nJudged answers of the candidate until a right conclusion (alpha 0.05, at least 10, {runs} runs)")
    print(f"{'conclusion':10} {'shares':>12} {'split':>10} {'found':>6} {'median':>6} {'90 %':>6}")
    cases = [("Worse", 0.4, 0.2, 1500), ("Worse", 0.2, 0.1, 3000), ("Worse", 0.5, 0.05, 600), ("Worse", 0.9, 0.1, 600)]
    cases += [("NotWorse", 0.05, 0.05, 2000), ("NotWorse", 0.2, 0.2, 4000), ("NotWorse", 0.1, 0.2, 2000)]
    cases += [("NotWorse", 0.5, 0.5, 5000)]
    for wanted, mine, theirs, answers in cases:
        for name in ("50/50", "10/90", "10>50>95"):
            long = answers * 3 if name == "10/90" else answers
            counts = simulate(rng, (mine, theirs), SPLITS[name], runs, long)
            first = conclusions(counts, SPLITS[name].weights, wanted, (0.05,), min_verdicts=10)[0.05]
            print(f"{wanted:10} {mine:5.0%} / {theirs:4.0%} {name:>10} {needed(counts, first)}", flush=True)


# --- other methods, on the same runs --------------------------------------------------------------------------------


def z_test(counts: Floats) -> Floats:
    """The usual one-sided test at 5 %, at every look from 10 answers each."""
    k, n, ks, ns = counts.astype(float)
    with np.errstate(all="ignore"):
        pooled = (k + ks) / (n + ns)
        z = (k / n - ks / ns) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / ns))
    return (np.nan_to_num(z) > 1.6449) & (n >= 10) & (ns >= 10)


def fixed_threshold(counts: Floats) -> Floats:
    """A rate guard that knows no stable: more than 30 % disliked, from 20 answers."""
    k, n, _, _ = counts
    return (n >= 20) & (k > 0.3 * n)


def msprt(counts: Floats) -> Floats:
    """Mixture SPRT on the difference by the normal approximation, mixing variance 0.1 squared, estimated variance."""
    k, n, ks, ns = counts.astype(float)
    with np.errstate(all="ignore"):
        pooled = (k + ks) / (n + ns)
        variance, mixing = pooled * (1 - pooled) * (1 / n + 1 / ns), 0.01
        difference = k / n - ks / ns
        log = 0.5 * np.log(variance / (variance + mixing)) + mixing * difference**2 / (
            2 * variance * (variance + mixing)
        )
    return (np.nan_to_num(log, nan=-1, posinf=-1) >= math.log(20)) & (difference > 0) & (n >= 10) & (ns >= 10)


def universal_inference(counts: Floats) -> Floats:
    """Uniform mixture over both shares against the largest likelihood without a difference."""
    k, n, ks, ns = counts.astype(int)
    top = int(n.max() + ns.max()) + 2
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, top + 1)))])
    entropy = np.concatenate([[0.0], np.arange(1, top + 1) * np.log(np.arange(1, top + 1))])

    def mixture(k: Floats, n: Floats) -> Floats:
        return factorial[k] + factorial[n - k] - factorial[n + 1]

    both, all_n = k + ks, n + ns
    log = mixture(k, n) + mixture(ks, ns) - (entropy[both] + entropy[all_n - both] - entropy[all_n])
    return (log >= math.log(20)) & (k * ns > ks * n) & (n >= 10)


METHODS = {
    "z-test at every look": z_test,
    "fixed threshold 30 %": fixed_threshold,
    "mSPRT, normal approx.": msprt,
    "universal inference": universal_inference,
}


def safe_blocks(rng: np.random.Generator, shares: tuple[float, float], stable_per_block: int, runs: int, blocks: int):
    """The safe 2x2 test on blocks of 1 candidate and m stable answers, Bayes estimates with Beta(0.18, 0.18).

    Blocks until evidence of 20 while the candidate looks worse; -1 where there are none.
    """
    m, prior = stable_per_block, 0.18
    mine = (rng.random((runs, blocks)) < shares[0]).astype(float)
    theirs = rng.binomial(m, shares[1], (runs, blocks)).astype(float)
    k, ks = (np.cumsum(x, axis=1) - x for x in (mine, theirs))
    seen = np.arange(blocks)
    a, b = (k + prior) / (seen + 2 * prior), (ks + prior) / (m * seen + 2 * prior)
    common = (a + m * b) / (1 + m)
    log = mine * np.log(a / common) + (1 - mine) * np.log((1 - a) / (1 - common))
    log += theirs * np.log(b / common) + (m - theirs) * np.log((1 - b) / (1 - common))
    hit = (np.cumsum(log, axis=1) >= math.log(20)) & ((k + mine) * m > ks + theirs) & (seen >= 9)
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1)


def group_sequential(
    rng: np.random.Generator, shares: tuple[float, float], planned: int, runs: int
) -> tuple[float, str]:
    """O'Brien-Fleming with 5 looks up to `planned` answers of each; the boundary found by simulation."""
    normal = np.cumsum(rng.standard_normal((200_000, 5)), axis=1) / np.sqrt(5)
    boundary = np.quantile(normal.max(axis=1), 0.95)
    at = np.ceil(np.arange(1, 6) * planned / 5).astype(int)
    k, ks = (np.cumsum(rng.random((runs, planned)) < share, axis=1)[:, at - 1] for share in shares)
    pooled = (k + ks) / (2 * at)
    with np.errstate(all="ignore"):
        z = (k - ks) / at / np.sqrt(pooled * (1 - pooled) * 2 / at)
    hit = np.nan_to_num(z) >= boundary / np.sqrt(np.arange(1, 6) / 5)
    stop = np.where(hit.any(axis=1), at[hit.argmax(axis=1)], planned)
    return float(np.mean(hit.any(axis=1))), f"{np.median(stop):.0f}"


def alternatives(rng: np.random.Generator, runs: int, answers: int) -> None:
    print(
        f"\nOther methods at alpha 0.05 ({runs} runs): wrong 'worse' within {answers} answers at 5, 20 and 50 %, split"
    )
    print("50/50; found and median answers of the candidate for 20 % against 40 % within 1,500, splits 50/50 and 10/90")
    nulls = [simulate(rng, (p, p), SPLITS["50/50"], runs, answers)[0] for p in (0.05, 0.2, 0.5)]
    reals = [
        simulate(rng, (0.4, 0.2), SPLITS[name], runs, most)[0] for name, most in (("50/50", 1500), ("10/90", 4500))
    ]

    def show(name: str, alarms: list[float], found: list[str]) -> None:
        print(f"{name:26}" + "".join(f"{alarm:8.1%}" for alarm in alarms) + "   " + "   ".join(found), flush=True)

    def summary(first: Floats, candidate_n: Floats) -> str:
        median = np.percentile(np.where(first >= 0, candidate_n.astype(int), 10**6), 50, method="inverted_cdf")
        return f"{np.mean(first >= 0):6.1%} {median if median < 10**6 else '-':>5}"

    def ours(counts: Floats, weight: int = 50) -> Floats:
        return conclusions(counts[None], (weight,), "Worse", (0.05,), min_verdicts=10)[0.05]

    index = np.arange(runs)
    show(
        "tunegate",
        [float(np.mean(ours(null) >= 0)) for null in nulls],
        [
            summary(first := ours(real, weight), real[1][index, first])
            for real, weight in zip(reals, (50, 10), strict=True)
        ],
    )
    for name, method in METHODS.items():
        alarms = [float(np.mean(method(null).any(axis=1))) for null in nulls]
        found = []
        for real in reals:
            hit = method(real)
            first = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
            found.append(summary(first, real[1][index, first]))
        show(name, alarms, found)
    alarms = [float(np.mean(safe_blocks(rng, (p, p), 1, runs, answers // 2) >= 0)) for p in (0.05, 0.2, 0.5)]
    first = [safe_blocks(rng, (0.4, 0.2), m, runs, n) for m, n in ((1, 750), (9, 450))]
    show("safe 2x2 test on blocks", alarms, [summary(blocks, blocks + 1) for blocks in first])
    planned = 86  # fixed-sample size for 90 % power at exactly 20 % against 40 %
    alarms = [group_sequential(rng, (p, p), planned, runs)[0] for p in (0.05, 0.2, 0.5)]
    found, median = group_sequential(rng, (0.4, 0.2), planned, runs)
    show(f"O'Brien-Fleming, {planned} planned", alarms, [f"{found:6.1%} {median:>5}", "(ends at the plan)"])


def drift(rng: np.random.Generator, runs: int) -> None:
    print(f"\nBoth shares drift together (2,000 answers, {runs} runs, alpha 0.05): wrong 'worse', by step and pooled")
    alone = Split(lambda answer, *_: 0.1 if answer < 200 else 0.5 if answer < 400 else 1.0, (10, 50), (200,))
    grown = Split(lambda answer, *_: 0.1 if answer < 1000 else 0.5, (10, 50), (1000,))
    changes = {
        "20 % > 40 % over the run, 50/50": (lambda t: 0.2 + 0.0001 * t, SPLITS["50/50"]),
        "day and night 10 % and 30 %, 50/50": (lambda t: 0.1 if t // 100 % 2 else 0.3, SPLITS["50/50"]),
        "10 % > 30 % as 10 % becomes 50 %": (lambda t: 0.1 if t < 1000 else 0.3, grown),
        "30 % > 10 % as 10 % becomes 50 %": (lambda t: 0.3 if t < 1000 else 0.1, grown),
        "10 % > 30 % over the run, 10 % > 50 %": (lambda t: 0.1 + 0.0001 * t, grown),
        "10 % > 30 % as 50 % becomes 100 %": (lambda t: 0.1 if t < 400 else 0.3, alone),
        "10 % > 30 % as 50 % becomes 95 %": (lambda t: 0.1 if t < 400 else 0.3, SPLITS["10>50>95"]),
    }
    for name, (share, split) in changes.items():
        counts = simulate(rng, (share, share), split, runs, 2000)
        by_step = conclusions(counts, split.weights, "Worse", (0.05,))[0.05]
        pooled = conclusions(counts.sum(axis=0)[None], split.weights[:1], "Worse", (0.05,))[0.05]
        print(f"{name:44} {np.mean(by_step >= 0):7.2%} {np.mean(pooled >= 0):7.2%}", flush=True)


# --- how people vote ------------------------------------------------------------------------------------------------

# A canary of two steps: 10 % of the answers, then 50 %; nobody's candidate is worse, at 20 % disliked answers.
GROWN, ANSWERS, MOST_VOTES = (10, 50), 4000, 2000


@dataclass(frozen=True)
class Votes:
    """Votes of one run, in the order in which they come in: the step and the version of the answer, and what they say.
    user: who says so, as the cap counts them; -1 for each who is heard once."""

    step: Floats
    is_candidate: Floats
    is_down: Floats
    user: Floats

    def at(self, order: Floats) -> Votes:
        return Votes(self.step[order], self.is_candidate[order], self.is_down[order], self.user[order])

    def capped(self) -> Votes:
        """What counts, by the function that counts votes everywhere: three of one user for each version."""
        by_version, kept = (Caps(), Caps()), []
        for at, (user, is_candidate) in enumerate(zip(self.user, self.is_candidate, strict=True)):
            if user < 0 or by_version[int(is_candidate)].admit(str(user), None):
                kept.append(at)
        return self.at(np.array(kept, dtype=int))

    def counts(self) -> Floats:
        """After each of MOST_VOTES votes; shape (steps, 4, votes). What is missing at the end stays as it was."""
        mine = self.is_candidate
        each = np.stack([mine & self.is_down, mine, ~mine & self.is_down, ~mine])
        found = np.stack([np.cumsum(each & (self.step == step), axis=1) for step in range(len(GROWN))])
        short = max(0, MOST_VOTES - found.shape[2])
        return np.pad(found[..., :MOST_VOTES], ((0, 0), (0, 0), (0, short)), mode="edge")


def answered(rng: np.random.Generator, rate: Floats | float = 0.2) -> Votes:
    """ANSWERS answers, each of which somebody else judges at once."""
    step = (np.arange(ANSWERS) >= ANSWERS // 2).astype(int)
    is_candidate = rng.random(ANSWERS) < np.where(step, 0.5, 0.1)
    return Votes(step, is_candidate, rng.random(ANSWERS) < rate, np.full(ANSWERS, -1))


def judged_by(votes: Votes, rng: np.random.Generator, up: Floats | float, down: Floats | float) -> Votes:
    """Only so many of those who liked an answer say so, and of those who did not."""
    return votes.at(np.flatnonzero(rng.random(len(votes.step)) < np.where(votes.is_down, down, up)))


def in_bursts(rng: np.random.Generator) -> Votes:
    """A newsletter, a holiday: each hundred answers have a mood of their own, 5, 20 or 60 %."""
    return answered(rng, np.repeat(rng.choice([0.05, 0.2, 0.6], ANSWERS // 100), 100))


def late(rng: np.random.Generator) -> Votes:
    """Half of the votes come up to a thousand answers later, many of them in the next step; likes later still."""
    votes = answered(rng)
    wait = np.where(rng.random(ANSWERS) < 0.5, rng.integers(0, 1000, ANSWERS), 0)
    return votes.at(np.argsort(np.arange(ANSWERS) + wait * np.where(votes.is_down, 1, 2), kind="stable"))


def with_a_bot(rng: np.random.Generator) -> Votes:
    """Every twentieth answer is disliked by a program of one name, which stays with the candidate once it is there."""
    votes = answered(rng)
    is_bot = rng.random(ANSWERS) < 0.05
    return Votes(
        votes.step, np.where(is_bot, True, votes.is_candidate), votes.is_down | is_bot, np.where(is_bot, 0, -1)
    )


def with_many_bots(rng: np.random.Generator) -> Votes:
    """The same with a new name for each vote, and it dislikes the candidate alone."""
    votes = with_a_bot(rng)
    return Votes(votes.step, votes.is_candidate, votes.is_down, np.full(ANSWERS, -1))


HABITS: dict[str, Callable[[np.random.Generator], Votes]] = {
    "everybody, at once": answered,
    "bursts with a mood of their own": in_bursts,
    "late votes, likes later": late,
    "only the angry: 2 % of likes": lambda rng: judged_by(answered(rng), rng, 0.02, 0.5),
    "only dislikes": lambda rng: judged_by(answered(rng), rng, 0.0, 0.5),
    "a bot of one name, on the candidate": with_a_bot,
    "bots of many names, on the candidate": with_many_bots,
    "the candidate's contented vote half": lambda rng: judged_by(
        votes := answered(rng), rng, np.where(votes.is_candidate, 0.5, 1.0), 1.0
    ),
}


def habits(rng: np.random.Generator, runs: int) -> None:
    print(f"\nHow people vote: wrong 'worse' where both are disliked alike ({MOST_VOTES} votes, {runs} runs)")
    print(f"{'habit':40} {'alpha 0.05':>11} {'alpha 0.01':>11} {'uncapped':>9}")
    for name, habit in HABITS.items():
        given = [habit(rng) for _ in range(runs)]
        capped = np.stack([votes.capped().counts() for votes in given], axis=2)
        first = conclusions(capped, GROWN, "Worse", (0.05, 0.01))
        shown = [f"{np.mean(first[alpha] >= 0):11.2%}" for alpha in (0.05, 0.01)]
        whole = np.stack([votes.counts() for votes in given], axis=2)
        without = conclusions(whole, GROWN, "Worse", (0.05,))[0.05] if "bot" in name else first[0.05]
        print(f"{name:40} {' '.join(shown)} {np.mean(without >= 0):9.2%}", flush=True)


def against_an_oracle(rng: np.random.Generator, runs: int) -> None:
    """The likelihood ratio of the true shares against the one common share that is hardest to tell from them."""
    print(f"\nMean judged answers of the candidate until 'worse', beside a player who knows both shares ({runs} runs)")
    print(f"{'shares':>12} {'split':>6} {'alpha':>6} {'oracle':>7} {'ours':>7} {'ratio':>6}")
    for mine, theirs, answers in ((0.4, 0.2, 2000), (0.2, 0.1, 4000), (0.3, 0.2, 8000)):
        for name, weight in (("50/50", 50), ("10/90", 10)):
            counts = simulate(rng, (mine, theirs), SPLITS[name], runs, answers * (1 if weight == 50 else 2))
            k, n, ks, ns = counts[0].astype(float)
            common = weight / 100 * mine + (1 - weight / 100) * theirs
            known = k * math.log(mine / common) + (n - k) * math.log((1 - mine) / (1 - common))
            known += ks * math.log(theirs / common) + (ns - ks) * math.log((1 - theirs) / (1 - common))
            ours = conclusions(counts, (weight,), "Worse", (0.05, 0.01))
            for alpha in (0.05, 0.01):
                hit = known >= -math.log(alpha)
                oracle = np.where(hit.any(axis=1), hit.argmax(axis=1), -1)
                mean = [np.mean(n[np.arange(runs), first][first >= 0]) for first in (oracle, ours[alpha])]
                print(
                    f"{mine:5.0%} / {theirs:4.0%} {name:>6} {alpha:6} {mean[0]:7.1f} {mean[1]:7.1f} "
                    f"{mean[1] / mean[0]:6.2f}",
                    flush=True,
                )


# --- the whole canary -----------------------------------------------------------------------------------------------

STEPS = ((10, 20), (50, 50))  # weight and least verdicts


@cache
def evidence(state: tuple[int, ...], weight: int) -> tuple[float, float]:
    found = (analysis._log_evidence(bets(np.array(state), weight, wanted)) for wanted in ("Worse", "NotWorse"))
    return next(found), next(found)


def canary(rng: np.random.Generator, mine: float, theirs: float, most_lean: float) -> tuple[str, int, int, int]:
    """How a canary of STEPS ends, in which step, after how many answers of the candidate and of both; looked at every
    5 judged answers. `most_lean` is the policy's maxLean."""
    counts, at, enough = [[0, 0, 0, 0] for _ in STEPS], 0, math.log(20)
    for answers in range(5, 30_001, 5):
        for _ in range(5):
            is_candidate = rng.random() < STEPS[at][0] / 100
            is_down = rng.random() < (mine if is_candidate else theirs)
            counts[at][0 if is_candidate else 2] += is_down
            counts[at][1 if is_candidate else 3] += 1
        found = [evidence(tuple(counts[step]), STEPS[step][0]) for step in range(at + 1)]
        worse, not_worse = (sum(logs) for logs in zip(*found, strict=True))
        judged = sum(state[1] for state in counts)
        is_not_worse = judged >= 10 and not_worse >= enough
        if judged >= 10 and worse >= enough and not is_not_worse:
            return "Worse", at, judged, answers
        if judged < STEPS[at][1] or (worse > math.log(most_lean) and not is_not_worse):
            continue
        if at + 1 < len(STEPS):
            at += 1
        elif is_not_worse:
            return "Promoted", at, judged, answers
    return "Neither", at, judged, answers


def until_decided(rng: np.random.Generator, runs: int) -> None:
    print(f"\nUntil it is decided: steps 10 % (20 verdicts) and 50 % (50), margin 0.1, alpha 0.05, {runs} runs")
    print(
        f"{'shares':>12} {'maxLean':>8} {'worse':>6} {'at 10 %':>8} {'candidate':>10} {'promoted':>9} {'answers':>8}"
        f"{'90 %':>5}"
    )
    for mine, theirs in ((0.6, 0.2), (0.4, 0.2), (0.2, 0.1), (0.2, 0.2), (0.1, 0.1), (0.15, 0.2)):
        for most in (math.inf, 3.0, 1.0, 0.5):
            ends = [canary(rng, mine, theirs, most) for _ in range(runs)]
            bad, good = ([end for end in ends if end[0] == how] for how in ("Worse", "Promoted"))
            met = f"{np.median([end[2] for end in bad]):.0f}" if bad else "-"
            taken = [f"{value:.0f}" for value in np.percentile([end[3] for end in good], [50, 90])] if good else "--"
            print(
                f"{mine:5.0%} / {theirs:4.0%} {most:8.3g} {len(bad):6} {sum(end[1] == 0 for end in bad):8} {met:>10} "
                f"{len(good):9} {taken[0]:>8} {taken[1]:>4}",
                flush=True,
            )


def ratio_checks(rng: np.random.Generator, runs: int) -> None:
    print(f"\nThe split: questions until another one than was asked for is told ({runs} runs of 5,000)")
    print(f"{'asked':>6} {'true':>6} {'told':>7} {'median':>7}")
    for asked, true in ((10, 0.1), (50, 0.5), (20, 0.33), (10, 0.2), (10, 0.01), (50, 0.4)):
        given = np.cumsum(rng.random((runs, 5000)) < true, axis=1)
        first = [
            next((n for n in range(LEAST, 5001) if mismatch([(int(run[n - 1]), n - int(run[n - 1]))], asked)), 0)
            for run in given
        ]
        told = [n for n in first if n]
        print(f"{asked:4} % {true:6.0%} {len(told) / runs:7.1%} {np.median(told) if told else '-':>7}", flush=True)


def speed() -> None:
    print("\nCPU time of one comparison (microseconds, best of 5)")
    for name, candidate, stable in (
        ("worse", Tally(up=3, down=12), Tally(up=86, down=9)),
        ("not worse", Tally(up=950, down=50), Tally(up=950, down=50)),
        ("inconclusive, with forecast", Tally(up=17, down=3), Tally(up=86, down=9)),
    ):
        best = math.inf
        for _ in range(5):
            start = time.process_time()
            for _ in range(100):
                analysis.compare({0: candidate}, {0: stable}, FeedbackGuard(), (50,))
            best = min(best, (time.process_time() - start) / 100)
        print(f"{name:30} {best * 1e6:7.0f}")


TABLES: dict[str, Callable[[np.random.Generator, int, int], None]] = {
    "alarms": false_alarms,
    "power": lambda rng, runs, answers: power(rng, runs),
    "methods": alternatives,
    "drift": lambda rng, runs, answers: drift(rng, runs),
    "habits": lambda rng, runs, answers: habits(rng, runs),
    "oracle": lambda rng, runs, answers: against_an_oracle(rng, runs),
    "canary": lambda rng, runs, answers: until_decided(rng, runs // 2),
    "split": lambda rng, runs, answers: ratio_checks(rng, runs // 3),
    "speed": lambda rng, runs, answers: speed(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms and power of the canary analysis, by simulation.")
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"which of {', '.join(TABLES)}; all if none is named"
    )
    parser.add_argument("--runs", type=int, default=750)
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    start = time.monotonic()
    for name in arguments.tables or TABLES:
        TABLES[name](np.random.default_rng(arguments.seed), arguments.runs, arguments.answers)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
