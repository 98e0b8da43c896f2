"""Which results are compared question by question now.

What decides has no answers: each platform compares them where it has them, and gives what came of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunegate.promotion.counting import stable_version
from tunegate.promotion.snapshot import EvaluationState, Measured, Pair, Snapshot
from tunegate.statistics.paired import Difference, paired


def wanted_pairs(snapshot: Snapshot) -> Iterator[Pair]:
    """Of the promotions that wait for their gates, as soon as both results are there."""
    stable = stable_version(snapshot).digest
    gates = [gate for gate in snapshot.policy.gates if gate.basis == "Paired"]
    for promotion in snapshot.promotions:
        for gate in gates if promotion.status.phase == "Evaluating" else ():
            states = [
                snapshot.evaluations.get((digest, gate.suite), EvaluationState())
                for digest in (stable, promotion.candidate.digest)
            ]
            results = [Measured(state.result.digest, state.result.started) for state in states if state.result]
            if len(results) == len(states):
                yield Pair(gate.suite, gate.metric, *results)


def compare_pairs(snapshot: Snapshot) -> dict[Pair, Difference | str]:
    """All that are wanted, where the snapshot's results have their answers."""
    found = {}
    for pair in wanted_pairs(snapshot):
        before, after = (snapshot.evaluations[each.digest, pair.suite].result for each in (pair.stable, pair.candidate))
        assert before, "a wanted pair has both"
        assert after
        found[pair] = paired(before, after, pair.metric)
    return found
