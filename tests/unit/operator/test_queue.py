"""What Kueue holds back or takes away says nothing of a version: no clock runs against it, and its evidence stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.builders import at, make_version
from tests.unit.operator.training import training_job
from tests.unit.operator.world import BASE, CONFIG, NAMESPACE, World
from tunegate.api.feedback import Tally
from tunegate.kube.kinds import Object
from tunegate.promotion.snapshot import EvaluationJob
from tunegate_operator import kinds
from tunegate_operator.manifests import evaluation_job, evaluation_name
from tunegate_operator.read import queued
from tunegate_operator.types import read_policy, server_name

CANDIDATE = make_version("run-1", created=1)
GPU = {"limits": {"nvidia.com/gpu": 1}}
QUEUE = "kueue.x-k8s.io/queue-name"
NO_ROOM = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu, 1 more needed"


def workload(owner: Object, **conditions: tuple[str, str, float]) -> Object:
    """As Kueue has it: conditions by their type, each a status, a message and since when."""
    found = [
        {"type": kind, "status": status, "reason": "Preempted", "message": said, "lastTransitionTime": str(at(t))}
        for kind, (status, said, t) in conditions.items()
    ]
    metadata = {"name": f"of-{owner['name']}", "namespace": NAMESPACE, "ownerReferences": [owner], "uid": "w"}
    made = {"apiVersion": kinds.WORKLOAD.api_version, "kind": kinds.WORKLOAD.kind, "metadata": metadata}
    return {**made, "spec": {"queueName": "gpus"}, "status": {"conditions": found}}


def keep(world: World, obj: Object) -> None:
    world.objects[obj["kind"], obj["metadata"]["name"]] = obj


def pod_of(server: str) -> Object:
    return {"kind": "Pod", "name": f"{server}-predictor-5c9d-x2", "uid": "pod"}


def waits(owner: Object) -> Object:
    return workload(owner, QuotaReserved=("False", NO_ROOM, 0))


def runs(owner: Object, since: float) -> Object:
    return workload(owner, QuotaReserved=("True", "", since), Admitted=("True", "", since))


@pytest.mark.parametrize(("resources", "is_labeled"), [(GPU, True), ({"limits": {"memory": "1Gi"}}, False)])
def test_what_asks_for_a_gpu_has_the_queue_and_nothing_else_has(resources: Object, is_labeled: bool) -> None:
    config = replace(CONFIG, queue_name="gpus")
    world = World(config, serving={"resources": resources}, evaluation={"resources": resources})
    world.publish(CANDIDATE).until("Paused")

    made = [obj for (kind, _), obj in world.objects.items() if kind == "InferenceService"]
    policy = read_policy(world.policy())
    made.append(evaluation_job(NAMESPACE, policy, "shop", EvaluationJob(CANDIDATE, "quality"), config))
    assert [obj["metadata"]["labels"].get(QUEUE) for obj in made] == ["gpus" if is_labeled else None] * 3


def test_an_evicted_workload_says_why_and_one_that_is_over_waits_for_nothing() -> None:
    owner = {"kind": "Job", "name": "j", "uid": "u"}
    evicted = workload(owner, Evicted=("True", "a higher priority", 5), QuotaReserved=("False", NO_ROOM, 5))

    assert queued([evicted]).waiting == (
        f"lost its place (Preempted: a higher priority) and waits in the queue gpus of Kueue: {NO_ROOM}"
    )
    assert queued([runs(owner, 3), workload(owner, Finished=("True", "", 9))]).admitted == at(3)


def paused(**spec: Any) -> tuple[World, str]:
    """A canary that users see, and the name of its server."""
    return World(**spec).publish(CANDIDATE).until("Paused"), server_name("shop", CANDIDATE.digest)


def test_a_canary_whose_pods_are_taken_gives_its_traffic_back_waits_and_goes_on() -> None:
    world, server = paused()
    world.vote(CANDIDATE, Tally(up=4, down=0), Tally(up=4, down=0))
    world.follow_servers = False
    world.ready(server, "False")
    keep(world, waits(pod_of(server)))
    world.step(3, seconds=1000)  # longer than unavailableSeconds and readyTimeoutSeconds

    promotion = world.promotion()
    assert promotion["status"]["phase"] == "Progressing"
    assert NO_ROOM in promotion["status"]["waiting"]
    assert world.weights() == {server_name("shop", BASE.digest): 100}
    assert ("InferenceService", server) in world.objects, "it keeps its place in the queue"

    keep(world, runs(pod_of(server), world.now))
    world.step(1)
    assert world.promotion()["status"]["phase"] == "Progressing", "its time begins when it is admitted"
    world.ready(server)
    world.vote(CANDIDATE, Tally(up=40, down=0), Tally(up=40, down=0)).until("Baking")


def test_a_baking_version_whose_pods_are_taken_is_not_rolled_back() -> None:
    world, server = paused(bakingSeconds=100)
    world.vote(CANDIDATE, Tally(up=40, down=0), Tally(up=40, down=0)).until("Baking")
    world.follow_servers = False
    world.ready(server, "False")
    keep(world, waits(pod_of(server)))
    world.step(3, seconds=1000)

    assert world.promotion()["status"]["phase"] == "Baking"
    assert world.weights() == {server_name("shop", BASE.digest): 100}
    world.ready(server)
    keep(world, runs(pod_of(server), world.now))
    world.follow_servers = True
    world.step(2)
    assert world.promotion()["status"]["phase"] == "Baking", "it bakes from the beginning"
    world.step(8, seconds=30)
    assert world.promotion()["status"]["decision"]["outcome"] == "Promoted"


def test_an_evaluation_in_a_queue_does_not_run_out_of_time() -> None:
    world = World(evaluationTimeoutSeconds=100).publish(CANDIDATE, score=None)
    world.until("Evaluating").step(2)
    name = evaluation_name(EvaluationJob(CANDIDATE, "quality"))
    owner = {"kind": "Job", "name": name, "uid": world.objects["Job", name]["metadata"]["uid"]}
    keep(world, waits(owner))
    world.step(3, seconds=200)
    assert world.promotion()["status"]["phase"] == "Evaluating"
    told = f"quality on {CANDIDATE.name} waits in the queue gpus of Kueue: {NO_ROOM}"
    assert world.promotion()["status"]["waiting"] == told

    keep(world, runs(owner, world.now))
    world.step(1, seconds=90)
    assert world.promotion()["status"]["phase"] == "Evaluating"
    world.step(1, seconds=20)
    assert world.promotion()["status"]["decision"]["reason"] == "EvaluationTimeout"


def test_a_training_job_in_a_queue_is_told_of() -> None:
    world = World()
    job = world.put(training_job(kinds.PYTORCH_JOB, "run-1"))
    keep(world, waits({"kind": "PyTorchJob", "name": "train-run-1", "uid": job["metadata"]["uid"]}))
    world.step(3)

    found = world.condition(world.policy(), "Training")
    assert (found["status"], found["reason"]) == ("False", "Queued")
    assert found["message"] == f"PyTorchJob train-run-1 waits in the queue gpus of Kueue: {NO_ROOM}"
    assert world.condition(world.policy(), "Ready")["status"] == "True"
