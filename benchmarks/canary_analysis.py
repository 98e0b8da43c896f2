"""How often the canary analysis is wrong, and how many judged answers it needs: measured by simulation.

    python benchmarks/canary_analysis.py [--runs 750] [--answers 5000]

Every run is looked at after every judged answer and decided by the shipped function. A look is left out only where an
upper bound of the evidence (the product of the two bets at one threshold instead of at the worst) is below 1/alpha.
Needs numpy; one core, about a minute.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np

from tunegate.api.feedback import Tally
from tunegate.api.policy import FeedbackGuard
from tunegate.promotion import analysis

Floats = np.ndarray
Split = Callable[[int, Floats, Floats], Floats | float]  # answer number, last arm was the candidate, last was a dislike

MARGIN = 0.1


def even(answer: int, was_candidate: Floats, was_down: Floats) -> float:
    return 0.5


def tenth(answer: int, was_candidate: Floats, was_down: Floats) -> float:
    return 0.1


def ramp(answer: int, was_candidate: Floats, was_down: Floats) -> float:
    """10 % for 200 judged answers, 50 % for the next 200, then 100 %."""
    return 0.1 if answer < 200 else 0.5 if answer < 400 else 1.0


def chase(answer: int, was_candidate: Floats, was_down: Floats) -> Floats:
    """An adversary: stays with the candidate after its dislikes, and leaves the stable after the stable's."""
    return (was_candidate == was_down).astype(float)


SPLITS: dict[str, Split] = {"50/50": even, "10/90": tenth, "10>50>100": ramp, "chasing": chase}


def simulate(rng: np.random.Generator, shares: tuple[object, object], split: Split, runs: int, answers: int) -> Floats:
    """Counts after each answer: candidate down, candidate n, stable down, stable n; shape (4, runs, answers).

    `shares` are numbers, or functions of the answer number for shares that drift.
    """
    counts = np.zeros((4, runs, answers), dtype=np.int16)
    now = np.zeros((4, runs), dtype=np.int16)
    candidate = down = np.zeros(runs, dtype=bool)
    for answer in range(answers):
        mine, theirs = (share(answer) if callable(share) else share for share in shares)
        candidate = rng.random(runs) < split(answer, candidate, down)
        down = rng.random(runs) < np.where(candidate, mine, theirs)
        now += np.stack([candidate & down, candidate, ~candidate & down, ~candidate])
        counts[:, :, answer] = now
    return counts


def bets(counts: Floats, wanted: str) -> tuple[Floats, Floats, Floats, Floats, float]:
    """Hits and trials of the two bets, and the largest sum of their rates under the null, as in `analysis`."""
    candidate_down, candidate_n, stable_down, stable_n = counts
    if wanted == "Worse":
        return candidate_down, candidate_n, stable_n - stable_down, stable_n, 1.0
    return stable_down, stable_n, candidate_n - candidate_down, candidate_n, 1.0 - MARGIN


def bound(counts: Floats, wanted: str) -> Floats:
    """An upper bound of the log evidence: the two bets at the pooled share."""
    hits_a, n_a, hits_b, n_b, total = bets(counts.astype(float), wanted)
    with np.errstate(all="ignore"):
        rate = hits_a / n_a
        q = np.clip(rate - (rate + hits_b / n_b - total) * n_b / (n_a + n_b), 0, total)

    def capital(hits: Floats, n: Floats, rate: Floats) -> Floats:
        return sum(np.exp(log + hits * effect - n * np.log1p(rate * gain)) for log, effect, gain in analysis._STAKES)

    with np.errstate(all="ignore"):
        value = np.log(capital(hits_a, n_a, q) * capital(hits_b, n_b, total - q))
    return np.where((n_a > 0) & (n_b > 0), np.nan_to_num(value, nan=np.inf), -np.inf)


def conclusions(counts: Floats, wanted: str, alphas: tuple[float, ...], min_verdicts: int = 1) -> dict[float, Floats]:
    """Answer index of the first look with enough evidence, per run and alpha; -1 where there is none."""
    first = {alpha: np.full(counts.shape[1], -1) for alpha in alphas}
    seen: dict[tuple[int, ...], float] = {}
    for run in range(counts.shape[1]):
        states = counts[:, run]
        upper = bound(states, wanted)
        for alpha in alphas:
            enough = -math.log(alpha)
            for look in np.flatnonzero((upper >= enough) & (states[1] >= min_verdicts)):
                state = tuple(int(count) for count in states[:, look])
                if state not in seen:
                    hits_a, n_a, hits_b, n_b, total = bets(states[:, look].astype(int), wanted)
                    seen[state] = analysis._log_evidence(hits_a, n_a, hits_b, n_b, total)
                if seen[state] >= enough:
                    first[alpha][run] = look
                    break
    return first


def needed(counts: Floats, first: Floats) -> str:
    """Share of runs that concluded, and median and 90th percentile of the candidate's judged answers until then."""
    runs = np.arange(len(first))
    answers = np.where(first >= 0, counts[1][runs, first].astype(int), 10**6)
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
            first = conclusions(counts, wanted, (0.05, 0.01))
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
        for name in ("50/50", "10/90", "10>50>100"):
            long = answers * 3 if name == "10/90" else answers
            counts = simulate(rng, (mine, theirs), SPLITS[name], runs, long)
            first = conclusions(counts, wanted, (0.05,), min_verdicts=10)[0.05]
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
    nulls = [simulate(rng, (p, p), even, runs, answers) for p in (0.05, 0.2, 0.5)]
    reals = [simulate(rng, (0.4, 0.2), even, runs, 1500), simulate(rng, (0.4, 0.2), tenth, runs, 4500)]

    def show(name: str, alarms: list[float], found: list[str]) -> None:
        print(f"{name:26}" + "".join(f"{alarm:8.1%}" for alarm in alarms) + "   " + "   ".join(found), flush=True)

    def summary(first: Floats, candidate_n: Floats) -> str:
        median = np.percentile(np.where(first >= 0, candidate_n.astype(int), 10**6), 50, method="inverted_cdf")
        return f"{np.mean(first >= 0):6.1%} {median if median < 10**6 else '-':>5}"

    def ours(counts: Floats) -> Floats:
        return conclusions(counts, "Worse", (0.05,), min_verdicts=10)[0.05]

    index = np.arange(runs)
    show(
        "tunegate",
        [float(np.mean(ours(null) >= 0)) for null in nulls],
        [summary(first := ours(real), real[1][index, first]) for real in reals],
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
    print(f"\nA limit: both shares drift together while the split changes (2,000 answers, {runs} runs, alpha 0.05)")
    changes = {
        "20 % > 40 % over the run, 50/50": (lambda t: 0.2 + 0.0001 * t, even),
        "day and night 10 % and 30 %, 50/50": (lambda t: 0.1 if t // 100 % 2 else 0.3, even),
        "20 % > 25 % as the ramp moves": (lambda t: 0.2 if t < 200 else 0.25, ramp),
        "20 % > 40 % as the ramp moves": (lambda t: 0.2 if t < 200 else 0.4, ramp),
    }
    for name, (share, split) in changes.items():
        first = conclusions(simulate(rng, (share, share), split, runs, 2000), "Worse", (0.05,))[0.05]
        print(f"{name:36} {np.mean(first >= 0):7.2%} wrong", flush=True)


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
                analysis.compare(candidate, stable, FeedbackGuard())
            best = min(best, (time.process_time() - start) / 100)
        print(f"{name:30} {best * 1e6:7.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="False alarms and power of the canary analysis, by simulation.")
    parser.add_argument("--runs", type=int, default=750)
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    rng, start = np.random.default_rng(arguments.seed), time.monotonic()
    false_alarms(rng, arguments.runs, arguments.answers)
    power(rng, arguments.runs)
    alternatives(rng, arguments.runs, arguments.answers)
    drift(rng, arguments.runs)
    speed()
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
