"""Evaluations as child processes: what counts as an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.builders import make_evaluation, make_version
from tests.waiting import wait_for
from tunegate.api.errors import UsageError
from tunegate.api.evaluation import Evaluation, ReviewProgress
from tunegate.api.versions import ModelVersion
from tunegate.local.evaluations import Evaluations
from tunegate.processes import Child
from tunegate.promotion.snapshot import EvaluationJob, EvaluationState

VERSION = make_version("run-1")
KEY = (VERSION.digest, "quality")


@pytest.mark.parametrize(("status", "failures"), [(1, 2), (75, 0)], ids=["failed", "store away"])
def test_only_what_failed_by_itself_uses_up_an_attempt(tmp_path: Path, status: int, failures: int) -> None:
    started: list[Child] = []

    def start(version: ModelVersion, suites: Sequence[str]) -> Child:
        argv = ["sh", "-c", f"echo it waited; exit {status}"]
        started.append(Child.start("evaluate", argv, log=tmp_path / f"{len(started)}.log"))
        return started[-1]

    with closing(Evaluations(start, lambda digest, suite: None)) as evaluations:
        for _ in range(2):
            evaluations.ensure([EvaluationJob(VERSION, "quality")])
            wait_for(lambda: started[-1].exit_code == status)
            state = evaluations.states([KEY])[KEY]
    assert (state.failures, len(started)) == (failures, 2)
    assert "it waited" in state.message


def test_what_people_judge_is_looked_for_again_without_a_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tunegate.local.evaluations.PEOPLE_SECONDS", 0.0)
    found: dict[tuple[str, str], Evaluation] = {}

    def never(version: ModelVersion, suites: Sequence[str]) -> Child:
        raise AssertionError(suites)

    by_people, by_machine = (VERSION.digest, "tone.people"), (VERSION.digest, "tone")
    said = ReviewProgress(
        digest=VERSION.digest, suite="tone.people", items=3, marked=1, judgements=1, needed=3, reviewers={"Li": 1}
    )
    told = {by_people: said}
    with closing(
        Evaluations(never, lambda *key: found.get(key), lambda *key: told.get(key))  # type: ignore[call-overload]
    ) as evaluations:
        assert evaluations.states([by_people])[by_people] == EvaluationState(message=str(said))
        found |= dict.fromkeys((by_people, by_machine), make_evaluation(VERSION, score=0.9))
        assert evaluations.states([by_people])[by_people].result is not None


def test_a_result_that_can_not_be_read_is_measured_again(tmp_path: Path) -> None:
    """It must not end the platform, which serves."""
    whole: list[Evaluation] = []

    def start(version: ModelVersion, suites: Sequence[str]) -> Child:
        whole.append(make_evaluation(version, score=0.9))
        return Child.start("evaluate", ["true"], log=tmp_path / "log")

    def find(digest: str, suite: str) -> Evaluation:
        if not whole:
            raise UsageError("quality.json is not a valid Evaluation.")
        return whole[0]

    with closing(Evaluations(start, find)) as evaluations:
        state = evaluations.states([KEY])[KEY]
        assert (state.result, state.failures) == (None, 0)
        assert "can't be read: quality.json is not" in state.message
        evaluations.ensure([EvaluationJob(VERSION, "quality")])
        wait_for(lambda: evaluations.states([KEY])[KEY].result is not None)
