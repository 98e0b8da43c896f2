"""What the evaluations of a run's checkpoints say: which of them may be promoted, and whether training should stop.

Only numbers decide. A checkpoint without one is waited for while it may still come, and named where it can't; it is
never taken for good or bad.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunegate.api.evaluation import Metric
from tunegate.api.promotion import RunChoice
from tunegate.api.versions import ModelVersion
from tunegate.promotion.counting import stable_version
from tunegate.promotion.snapshot import EvaluationState, Snapshot, Stop

MOST_RUNS = 20  # that are told of, the newest


@dataclass(frozen=True)
class Measured:
    """A checkpoint with its number, which is finite and over some items; `questions` is the digest of the suite."""

    version: ModelVersion
    metric: Metric
    value: float
    questions: str

    @property
    def gain(self) -> float:
        """The value, turned so that more is better."""
        return self.value if self.metric.higher_is_better else -self.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval, turned as `gain`, the worse end first; None where it is not known."""
        low, high = self.metric.low, self.metric.high
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            return None
        return (low, high) if self.metric.higher_is_better else (-high, -low)

    def __str__(self) -> str:
        between = f"{self.metric.low:.3g} to {self.metric.high:.3g}, " if self.interval else ""
        return f"{self.value:.3g} ({between}n={self.metric.n})"


def run_choices(snapshot: Snapshot) -> tuple[RunChoice, ...]:
    """Of each run, newest first, the checkpoint that `selection` makes its candidate, and why; BestOf alone chooses."""
    if snapshot.policy.selection.type == "Latest":
        return ()
    runs = list(_runs(snapshot.versions or ()).items())[::-1]
    return tuple(_choose(snapshot, run, versions) for run, versions in runs[:MOST_RUNS])


def _choose(snapshot: Snapshot, run: str, versions: Sequence[ModelVersion]) -> RunChoice:
    """The best of those checkpoints before which none is outstanding; of equal ones the latest."""
    selection, limit = snapshot.policy.selection, snapshot.policy.evaluation_attempts
    is_ended = run in snapshot.finished_runs | snapshot.stopped_runs
    states = [(version, _state(snapshot, version, selection.suite)) for version in versions]
    outstanding = next((version for version, state in states if _is_outstanding(state, limit)), None)
    if snapshot.policy.candidates == "FinishedRuns":
        if not is_ended:
            return RunChoice(run=run, message="the run has not ended; its best checkpoint is chosen then")
        if outstanding:
            return RunChoice(run=run, message=f"waits for {selection.suite} on {outstanding.name}")
    decided = [version for version, state in states[: versions.index(outstanding) if outstanding else None]]
    measured = [
        found for version in decided if (found := _measured(snapshot, version, selection.suite, selection.metric))
    ]
    # Numbers of other questions are not compared; the newest were made with what the suite holds now.
    usable = [each for each in measured if each.questions == measured[-1].questions]
    kept = {each.version.digest for each in usable}
    left_out = [_step(version) for version in decided if version.digest not in kept]
    more = f"; without {', '.join(left_out)}, which have no such number" if left_out else ""
    what = f"{selection.suite} {selection.metric}"
    if not usable:
        return RunChoice(run=run, message=f"no checkpoint has {what} yet{more}")
    best = max(reversed(usable), key=lambda each: each.gain)
    tried = [promotion.candidate for promotion in snapshot.promotions]
    newer = max(tried, key=lambda version: version.created, default=best.version)
    if newer.created > best.version.created and best.version not in tried:
        more += f"; it is not tried by itself, because {newer.name} is newer and was: make a Promotion of it to try it"
    message = f"{_step(best.version)} has the best {what} of {len(usable)}: {best}{more}"
    return RunChoice(run=run, version=best.version.name, digest=best.version.digest, message=message)


def training_stops(snapshot: Snapshot) -> tuple[Stop, ...]:
    """The runs in training whose numbers say, by the policy's rule, that going on is of no use."""
    if snapshot.policy.stop_training is None:
        return ()
    runs = _runs(snapshot.versions or ())
    found = ((run, _reason_to_stop(snapshot, runs[run])) for run in sorted(snapshot.training_runs & runs.keys()))
    return tuple(Stop(run, runs[run][-1], f"{run}: {reason}") for run, reason in found if reason)


def _reason_to_stop(snapshot: Snapshot, versions: Sequence[ModelVersion]) -> str:
    """The reason with its numbers; empty while there is none, and wherever one of the numbers is missing."""
    rule, limit = snapshot.policy.stop_training, snapshot.policy.evaluation_attempts
    assert rule is not None
    known = list(versions)
    while known and _is_outstanding(_state(snapshot, known[-1], rule.suite), limit):
        known.pop()  # newer ones are still being measured
    recent = [_measured(snapshot, version, rule.suite, rule.metric) for version in known[-rule.checkpoints :]]
    last = [each for each in recent if each]
    if len(last) < rule.checkpoints:
        return ""
    if rule.when == "WorseThanStable":
        reference = _measured(snapshot, stable_version(snapshot), rule.suite, rule.metric)
    else:
        earlier = (_measured(snapshot, each, rule.suite, rule.metric) for each in known[: -rule.checkpoints])
        comparable = [each for each in earlier if each and each.questions == last[-1].questions]
        reference = max(comparable, key=lambda each: each.gain, default=None)
    if reference is None or reference.interval is None:
        return ""
    if any(each.questions != reference.questions for each in last):
        return ""
    worst, best = reference.interval
    numbers = ", ".join(f"{each.value:.3g} at {_step(each.version)}" for each in last)
    what = f"{rule.suite} {rule.metric} is {numbers}"
    if rule.when == "WorseThanStable" and all(each.gain < worst for each in last):
        return f"{what}, all worse than the 95 % interval of the stable {reference.version.name}, {reference}"
    if rule.when == "NoGain" and all(each.gain <= best for each in last):
        return f"{what}, no gain beyond the 95 % interval of {_step(reference.version)}, {reference}"
    return ""


def _runs(versions: Iterable[ModelVersion]) -> Mapping[str, list[ModelVersion]]:
    """The versions of each run, oldest first; the run with the newest version comes last."""
    runs: dict[str, list[ModelVersion]] = {}
    for version in versions:
        runs[version.run] = [*runs.pop(version.run, []), version]
    return runs


def _state(snapshot: Snapshot, version: ModelVersion, suite: str) -> EvaluationState:
    return snapshot.evaluations.get((version.digest, suite), EvaluationState())


def _is_outstanding(state: EvaluationState, attempts: int) -> bool:
    return state.result is None and state.failures < attempts


def _measured(snapshot: Snapshot, version: ModelVersion, suite: str, name: str) -> Measured | None:
    """None where the number is missing, not finite, or over no items."""
    result = _state(snapshot, version, suite).result
    metric = result.metric(name) if result else None
    if result is None or metric is None or metric.n <= 0 or metric.value is None or not math.isfinite(metric.value):
        return None
    return Measured(version, metric, metric.value, result.suite_digest)


def _step(version: ModelVersion) -> str:
    return version.name.rsplit("/", 1)[-1]
