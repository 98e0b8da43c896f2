"""While training runs: what is chosen of a run, and when its job is suspended for its numbers."""

from __future__ import annotations

import pytest

from tests.builders import make_version
from tests.unit.operator.training import STOP, is_suspended, training_job
from tests.unit.operator.world import BASE, World
from tunegate.kube.kinds import Kind, Object
from tunegate_operator import kinds

BOTH = pytest.mark.parametrize("kind", [kinds.PYTORCH_JOB, kinds.TRAIN_JOB], ids=lambda kind: kind.kind)


def trained(kind: Kind, *scores: float | None, job: Object | None = None, **spec: object) -> World:
    """A world in which `run-1` has left checkpoints with these scores, and is still being trained."""
    world = World(**spec)
    world.score(BASE, 0.9)
    world.put(job or training_job(kind, "run-1"))
    for number, score in enumerate(scores, start=1):
        world.publish(make_version("run-1", created=number, step=10 * number), score)
    return world.step(6)


def job_of(world: World, kind: Kind) -> Object:
    return world.objects[kind.kind, "train-run-1"]


@BOTH
def test_a_job_whose_checkpoints_are_worse_is_suspended_with_the_numbers(kind: Kind) -> None:
    world = trained(kind, 0.3, 0.2, stopTraining={**STOP, "checkpoints": 2})
    assert is_suspended(job_of(world, kind))
    why = (
        "run-1: quality score is 0.3 at checkpoint-10, 0.2 at checkpoint-20, all worse than the 95 % interval of the "
        f"stable {BASE.name}, 0.9 (0.88 to 0.92, n=100)"
    )
    assert job_of(world, kind)["metadata"]["annotations"] == {"tunegate.io/stopped": why}
    assert [note for note in world.notes if note[0] == "TrainingStopped"] == [("TrainingStopped", why)] * 2
    found = world.condition(world.policy(), "Training")
    assert (found["status"], found["reason"]) == ("False", "TrainingStopped")
    assert found["message"].startswith(f"{kind.kind} train-run-1 is suspended: {why}; to have it go on: kubectl patch")
    assert world.condition(world.policy(), "Ready")["status"] == "True", "users notice nothing"


@BOTH
def test_a_job_is_stopped_once_and_a_person_has_the_last_word(kind: Kind) -> None:
    world = trained(kind, 0.3, stopTraining=STOP)
    goes_on = {"runPolicy": {"suspend": False}} if kind == kinds.PYTORCH_JOB else {"suspend": False}
    world.edit(kind.kind, "train-run-1", lambda spec: spec.update(goes_on))
    world.publish(make_version("run-1", created=9, step=90), 0.1).step(5)
    assert not is_suspended(job_of(world, kind))
    assert world.condition(world.policy(), "Training")["status"] == "True"


@pytest.mark.parametrize(
    ("scores", "spec"),
    [
        pytest.param((0.3, 0.2), {}, id="off by default"),
        pytest.param((0.3, 0.89), {"stopTraining": STOP}, id="good again"),
        pytest.param((0.3,), {"stopTraining": {**STOP, "checkpoints": 2}}, id="too few"),
        pytest.param((None,), {"stopTraining": STOP}, id="not measured"),
    ],
)
def test_a_job_runs_on_unless_the_numbers_say_otherwise(scores: tuple[float, ...], spec: Object) -> None:
    world = trained(kinds.PYTORCH_JOB, *scores, **spec)
    assert not is_suspended(job_of(world, kinds.PYTORCH_JOB))


def test_a_failed_evaluation_stops_no_job() -> None:
    world = trained(kinds.PYTORCH_JOB, None, stopTraining=STOP)
    version = make_version("run-1", created=1, step=10)
    world.fail_job(f"evaluate-{version.digest[7:19]}-quality")
    world.step(5)
    assert not is_suspended(job_of(world, kinds.PYTORCH_JOB))


def test_a_job_of_kueue_is_only_told_of() -> None:
    """Kueue would have it go on at once."""
    job = training_job(kinds.PYTORCH_JOB, "run-1", **{"kueue.x-k8s.io/queue-name": "research"})
    world = trained(kinds.PYTORCH_JOB, 0.3, job=job, stopTraining=STOP)
    assert not is_suspended(job_of(world, kinds.PYTORCH_JOB))
    message = world.condition(world.policy(), "Training")["message"]
    assert message.endswith(
        "; Kueue decides when it runs, so it goes on; to end it: kubectl delete pytorchjob train-run-1"
    )
    assert len([note for note in world.notes if note[0] == "TrainingStopped"]) == 2, "once, of policy and job"


def test_the_best_checkpoint_of_a_stopped_run_is_its_candidate_and_the_status_says_why() -> None:
    best = {"type": "BestOf", "suite": "quality", "metric": "score"}
    fields = {"candidates": "FinishedRuns", "selection": best}
    world = trained(kinds.PYTORCH_JOB, 0.5, 0.7, 0.6, **fields)
    (run,) = (each for each in world.policy()["status"]["runs"] if each["run"] == "run-1")
    assert (run["version"], run["message"]) == ("", "the run has not ended; its best checkpoint is chosen then")
    assert world.promotions() == []
    world.change(stopTraining={**STOP, "checkpoints": 2}).step(4)
    (run,) = (each for each in world.policy()["status"]["runs"] if each["run"] == "run-1")
    assert run["version"] == "shop/run-1/checkpoint-20"
    assert run["message"] == "checkpoint-20 has the best quality score of 3: 0.7 (0.68 to 0.72, n=100)"
    assert world.promotion()["status"]["candidate"]["name"] == "shop/run-1/checkpoint-20"
    assert world.promotion()["status"]["history"][0]["message"].endswith(f"; {run['message']}")
