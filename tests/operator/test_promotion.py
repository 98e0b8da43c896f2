"""Promotions on a real API server, with the operator as a process: the whole story, and what happens to it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.builders import make_evaluation
from tests.operator.running import POLICY_NAME, Shop, keep_voting, publish
from tests.operator.test_rights import Grant, grant
from tests.unit.store.conftest import Proxy
from tests.waiting import wait_for
from tunegate.api.evaluation import ReviewProgress
from tunegate.kube.kinds import Kind
from tunegate.release import Changes, derive
from tunegate.store.evaluations import save, save_progress
from tunegate_operator import kinds
from tunegate_operator.types import object_name

REPOSITORY = Path(__file__).parents[2]
__all__ = ["grant"]
UNREACHABLE = "The API server can't be reached"
PHASES = ["Verifying", "Evaluating", "Progressing", "Paused", "Progressing", "Paused", "Promoting", "Baking"]


def history(obj: dict[str, Any]) -> list[str]:
    return [step["phase"] for step in obj["status"]["history"]]


def test_a_good_checkpoint_is_evaluated_shown_and_promoted(shop: Shop, prometheus: str) -> None:
    shop.start_policy()
    good = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, good)
    shop.start_operator()
    stop = keep_voting(shop, lambda: (shop.vote(good, up=4), shop.vote(shop.base, up=4)))  # type: ignore[func-returns-value]
    try:
        done = shop.until(good, "Succeeded")
    finally:
        stop()
    assert history(done) == [*PHASES, "Succeeded"]
    # the record comes before its effect: the old server leaves the route a moment later
    wait_for(lambda: shop.weights() == {shop.server_of(good): 100}, what="the route to name the new stable alone")
    wait_for(lambda: shop.policy_phase() == "Serving")
    policy = shop.get(kinds.POLICY, POLICY_NAME)
    assert policy["status"]["stable"]["digest"] == good.digest
    record = shop.get(kinds.MODEL_VERSION, object_name(good))
    assert record["status"]["evaluations"][0]["metrics"][0]["value"] == 0.9
    assert record["spec"]["producer"]["run"] == "run-1"
    assert "Baked" in [reason for reason, _ in shop.events()]


@pytest.mark.parametrize(
    ("kind", "file", "succeeded"),
    [
        pytest.param(kinds.PYTORCH_JOB, "10-train.yaml", "Succeeded", id="training operator 1.9"),
        pytest.param(kinds.TRAIN_JOB, "13-train-trainjob.yaml", "Complete", id="Trainer 2.x"),
    ],
)
def test_the_last_version_of_a_job_is_a_candidate_once_the_job_succeeded(
    shop: Shop, kind: Kind, file: str, succeeded: str
) -> None:
    """Whichever of Kubeflow's kinds it is: its labels tie it to its versions."""
    shop.start_policy(candidates="FinishedRuns", steps=[{"weight": 100}], bakingSeconds=1)
    (job,) = yaml.safe_load_all((REPOSITORY / "pipelines" / file).read_text())
    job["metadata"]["namespace"] = shop.namespace
    shop.server.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    name, run = job["metadata"]["name"], job["metadata"]["labels"]["tunegate.io/run"]
    versions = [shop.hands.knows(publish(shop.store, shop.folder, run, step=step)) for step in (60, 120)]
    shop.start_operator()
    records = [object_name(version) for version in versions]
    wait_for(lambda: all(shop.cluster.get(kinds.MODEL_VERSION, shop.namespace, record) for record in records))
    shop.until_serving()
    assert [shop.phase(version) for version in versions] == ["", ""]

    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": succeeded, "status": "True", "reason": "Done", "message": "", "lastTransitionTime": now}
    patch = json.dumps({"status": {"conditions": [condition]}})
    shop.server.kubectl(
        *("-n", shop.namespace, "patch", kind.plural, name, "--subresource=status", "--type=merge", "-p", patch)
    )
    shop.until(versions[1], "Succeeded")
    assert shop.phase(versions[0]) == ""

    # No job has to end for a version that is made without training.
    changes = Changes(system_prompt="Be kind.")
    derived = shop.hands.knows(derive(shop.store, versions[1], "shop/kind/checkpoint-120", changes))
    shop.until(derived, "Succeeded")
    record = shop.cluster.get(kinds.MODEL_VERSION, shop.namespace, object_name(derived))
    assert record["spec"]["producer"]["kind"] == "tunegate release derive"


@pytest.mark.parametrize(
    ("kind", "file", "field"),
    [
        pytest.param(kinds.PYTORCH_JOB, "10-train.yaml", ("runPolicy", "suspend"), id="training operator 1.9"),
        pytest.param(kinds.TRAIN_JOB, "13-train-trainjob.yaml", ("suspend",), id="Trainer 2.x"),
    ],
)
def test_a_training_job_whose_checkpoints_get_worse_is_suspended_once(
    shop: Shop, grant: Grant, kind: Kind, file: str, field: tuple[str, ...], tmp_path: Path
) -> None:
    """With no more rights than the chart gives."""
    grant("Namespaced")
    rule = {"when": "WorseThanStable", "suite": "quality", "metric": "score", "checkpoints": 2}
    shop.start_policy(candidates="FinishedRuns", stopTraining=rule)
    (job,) = yaml.safe_load_all((REPOSITORY / "pipelines" / file).read_text())
    job["metadata"]["namespace"] = shop.namespace
    shop.server.kubectl("apply", "-f", "-", stdin=json.dumps(job))
    name, run = job["metadata"]["name"], job["metadata"]["labels"]["tunegate.io/run"]
    for step, score in ((60, 0.3), (120, 0.2)):
        shop.hands.knows(publish(shop.store, shop.folder, run, step=step), score)
    shop.start_operator("operator-0", shop.server.kubeconfig_as(shop.namespace, "tunegate-operator", tmp_path))

    def is_suspended() -> bool:
        found: Any = shop.get(kind, name)["spec"]
        for part in field:
            found = found.get(part, {})
        return found is True

    wait_for(is_suspended, what="the job to be suspended")
    why = shop.get(kind, name)["metadata"]["annotations"]["tunegate.io/stopped"]
    assert "0.3 at checkpoint-60, 0.2 at checkpoint-120, all worse than the 95 % interval of the stable" in why
    told = shop.until_condition("Training", "TrainingStopped")
    assert why in told["message"]
    wait_for(
        lambda: [reason for reason, _ in shop.events()].count("TrainingStopped") == 2,
        what=f"both Events of {shop.events()}",
    )

    command = told["message"].rpartition("kubectl ")[2].replace("'", "").split()
    shop.server.kubectl("-n", shop.namespace, *command)
    shop.hands.knows(publish(shop.store, shop.folder, run, step=180), 0.1)
    third = shop.hands.versions
    wait_for(lambda: len(third) == 4 and shop.condition(kinds.POLICY, POLICY_NAME, "Training")["status"] == "True")
    assert not is_suspended()


def test_a_disliked_canary_is_rolled_back_and_the_stable_keeps_everybody(shop: Shop, prometheus: str) -> None:
    shop.start_policy()
    bad = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, bad)
    shop.start_operator()
    stop = keep_voting(shop, lambda: (shop.vote(bad, down=5), shop.vote(shop.base, up=5)))  # type: ignore[func-returns-value]
    try:
        ended = shop.until(bad, "RolledBack", "Succeeded")
    finally:
        stop()
    assert ended["status"]["phase"] == "RolledBack"
    decision = ended["status"]["decision"]
    assert decision["reason"] == "FeedbackWorse"
    assert "disliked" in decision["message"]
    assert shop.weights() == {shop.server_of(shop.base): 100}


@pytest.mark.parametrize("phase", ["Evaluating", "Progressing", "Paused", "Promoting", "Baking", "RollingBack"])
def test_an_operator_killed_in_any_phase_goes_on_from_the_status(shop: Shop, prometheus: str, phase: str) -> None:
    """Each phase is held until the kill: by a Job, a server, a gateway or users that don't get on."""
    shop.start_policy(steps=[{"weight": 50, "minVerdicts": 5}], bakingSeconds=5)
    shop.hands.evaluate = phase != "Evaluating"
    shop.hands.serve = phase != "Progressing"
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator()
    if phase in ("Promoting", "Baking"):
        shop.until(version, "Paused")
        shop.hands.route = phase != "Promoting"
        shop.vote(version, up=60)
        shop.vote(shop.base, up=60)
    if phase == "RollingBack":
        shop.until(version, "Paused")
        shop.hands.route = False
        shop.vote(version, down=60)
        shop.vote(shop.base, up=60)
    shop.until(version, phase)
    shop.kill_operator("operator-0")
    before = history(shop.promotion(version) or {})
    shop.hands.evaluate = shop.hands.serve = shop.hands.route = True
    shop.start_operator("operator-1")
    up = 0 if phase == "RollingBack" else 10
    stop = keep_voting(shop, lambda: (shop.vote(version, up=up), shop.vote(shop.base, up=10)))  # type: ignore[func-returns-value]
    try:
        ended = shop.until(version, "Succeeded", "RolledBack")
    finally:
        stop()
    assert ended["status"]["phase"] == ("RolledBack" if phase == "RollingBack" else "Succeeded")
    assert history(ended)[: len(before)] == before
    assert len(history(ended)) == len(set(history(ended))), "no phase is entered twice"


def test_a_second_replica_takes_over_when_the_leader_is_killed(shop: Shop, prometheus: str) -> None:
    shop.start_policy(steps=[{"weight": 50, "minVerdicts": 5}])
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator("operator-0")
    shop.until(version, "Paused")
    shop.start_operator("operator-1")
    shop.kill_operator("operator-0")
    shop.vote(version, up=60)
    shop.vote(shop.base, up=60)
    shop.until(version, "Succeeded")
    assert history(shop.promotion(version) or {}).count("Promoting") == 1


def test_a_persons_edit_stops_the_promotion_and_is_left_alone(shop: Shop, prometheus: str) -> None:
    shop.start_policy()
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator()
    shop.until(version, "Paused")
    patch = '[{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":0}]'
    shop.server.kubectl(
        "-n", shop.namespace, "patch", "httproute", POLICY_NAME, "--type=json", "-p", patch, "--field-manager=ada"
    )
    ended = shop.until(version, "Failed")
    assert ended["status"]["decision"]["reason"] == "TargetModified"
    assert "ada changed spec.rules[0].backendRefs[1].weight" in ended["status"]["decision"]["message"]
    assert shop.weights()[shop.server_of(version)] == 0
    shop.until_condition("Stalled", "TargetModified")
    shop.server.kubectl("-n", shop.namespace, "delete", "httproute", POLICY_NAME)
    wait_for(lambda: shop.cluster.get(kinds.HTTP_ROUTE, shop.namespace, POLICY_NAME), what="the route to be made again")
    assert shop.weights() == {shop.server_of(shop.base): 100}


def test_an_abort_works_with_store_and_prometheus_down(shop: Shop, prometheus: str, tmp_path: Path) -> None:
    shop.start_policy()
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator()
    shop.until(version, "Paused")
    shop.prometheus.stop()
    shop.until_condition("FeedbackReadable", "PrometheusUnreachable")
    abort = {"spec": {"abort": {"actor": "ada", "message": "wrong prices"}}}
    shop.server.kubectl(
        "-n", shop.namespace, "patch", "promotion", object_name(version), "--type=merge", "-p", json.dumps(abort)
    )
    ended = shop.until(version, "Aborted")
    assert ended["status"]["decision"]["actor"] == "ada"
    assert shop.weights() == {shop.server_of(shop.base): 100}


def test_what_prometheus_overcounts_is_decided_by_the_log(shop: Shop, prometheus: str) -> None:
    """One vote that was sent to many servers, say: Prometheus says that a decision is near, and no more."""
    shop.start_policy()
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator()
    shop.until(version, "Paused")
    shop.vote(shop.base, up=60)
    shop.vote(version, down=3)
    shop.vote(version, down=60, log=False)

    def verdicts() -> Any:
        status = (shop.promotion(version) or {}).get("status", {})
        return status.get("comparison", {}).get("candidate"), "3 of 5 verdicts" in status.get("waiting", "")

    wait_for(lambda: verdicts() == ({"up": 0, "down": 3}, True), what="the count of the log")

    def is_counted() -> bool:
        return bool(shop.condition(kinds.POLICY, POLICY_NAME, "FeedbackReadable")["status"] == "True")

    wait_for(is_counted, what="the first scrape; until then the log alone is asked")
    assert verdicts() == ({"up": 0, "down": 3}, True)
    shop.vote(version, down=60, metrics=False)
    ended = shop.until(version, "RolledBack")
    assert ended["status"]["comparison"]["candidate"] == {"up": 0, "down": 63}


@pytest.mark.parametrize("verdict", ["up", "down"])
def test_without_the_log_nothing_grows_and_the_worse_is_taken_back(
    shop: Shop, prometheus: str, monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    away = Proxy(int(str(shop.store.endpoint_url).rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", away.url)
    shop.start_policy(steps=[{"weight": 10, "minVerdicts": 5}, {"weight": 50, "minVerdicts": 200}])
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    shop.start_operator()
    shop.until(version, "Paused")
    away.close()
    shop.until_condition("StoreReadable", "StoreUnreachable")
    shop.vote(shop.base, up=60)
    shop.vote(version, **{verdict: 60})
    if verdict == "down":
        assert shop.until(version, "RolledBack")["status"]["decision"]["reason"] == "FeedbackWorse"
        return
    found = shop.until_condition("FeedbackReadable", "LogUnreadable")
    assert "nothing grows and nobody is promoted" in found["message"]
    assert shop.phase(version) == "Paused"
    assert shop.weights()[shop.server_of(version)] == 10
    abort = {"spec": {"abort": {"actor": "ada", "message": "enough"}}}
    patch = ("patch", "promotion", object_name(version), "--type=merge", "-p", json.dumps(abort))
    shop.server.kubectl("-n", shop.namespace, *patch)
    shop.until(version, "Aborted")


def test_a_failed_evaluation_says_why_and_deleting_the_job_tries_again(shop: Shop) -> None:
    shop.start_policy()
    version = shop.publish("run-1", score=None)
    shop.start_operator()
    ended = shop.until(version, "Failed")
    assert ended["status"]["decision"]["reason"] == "EvaluationFailed"
    job = f"evaluate-{version.digest[7:19]}-quality"
    assert f"delete Job {job}" in ended["status"]["decision"]["message"]
    shop.hands.knows(version, 0.9)
    shop.server.kubectl("-n", shop.namespace, "delete", "job", job)
    record = object_name(version)
    wait_for(
        lambda: shop.condition(kinds.MODEL_VERSION, record, "Evaluated").get("status") == "True",
        what="the version to be evaluated again",
    )


def test_a_promotion_that_waits_for_people_says_how_far_they_are(shop: Shop) -> None:
    shop.start_policy(
        suites=["tone.people"], gates=[{"suite": "tone.people", "metric": "score", "min": 0.5}], steps=[{"weight": 100}]
    )
    version = shop.publish("run-1", score=None)
    said = ReviewProgress(
        digest=version.digest, suite="tone.people", items=50, marked=12, judgements=13, needed=60, reviewers={"Li": 13}
    )
    save_progress(shop.store, said)
    shop.start_operator()

    def waiting() -> str:
        found = shop.promotion(version)
        return str(found.get("status", {}).get("waiting", "")) if found else ""

    wait_for(lambda: f"tone.people on {version.name} ({said})" in waiting(), what="the message")
    save(shop.store, msgspec.structs.replace(make_evaluation(version, score=0.9), suite="tone.people"))
    shop.until(version, "Progressing", "Promoting", "Baking", "Succeeded")


def test_the_shards_of_a_suite_are_one_indexed_job_that_the_api_server_takes(shop: Shop) -> None:
    shop.start_policy(evaluation={"shards": 3}, evaluationAttempts=4)
    shop.hands.evaluate = False
    version = shop.publish("run-1")
    shop.start_operator()
    shop.until(version, "Evaluating")
    name = f"evaluate-{version.digest[7:19]}-quality"
    wait_for(lambda: shop.cluster.get(kinds.JOB, shop.namespace, name), what="the Job")
    spec = shop.get(kinds.JOB, name)["spec"]
    indexed = {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimitPerIndex": 3}
    assert {field: spec[field] for field in indexed} == indexed
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "Ignore"]
    assert spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [75]
    shop.hands.evaluate = True
    shop.until(version, "Progressing", "Paused")


def test_rubbish_in_place_of_a_result_is_a_failure_with_its_place(shop: Shop) -> None:
    shop.start_policy()
    shop.hands.evaluate = False
    version = shop.publish("run-1")
    shop.start_operator()
    shop.until(version, "Evaluating")
    shop.store.put(f".tunegate/evaluations/{version.digest[7:]}/quality.json", b'{"score": "high"}')
    job = f"evaluate-{version.digest[7:19]}-quality"
    wait_for(lambda: shop.cluster.get(kinds.JOB, shop.namespace, job))
    obj = {**shop.get(kinds.JOB, job), "apiVersion": "batch/v1", "kind": "Job"}
    from tests.operator.running import _condition, _now

    ends = [_condition("SuccessCriteriaMet"), _condition("Complete")]
    shop.hands.status(obj, {"startTime": _now(), "completionTime": _now(), "succeeded": 1, "conditions": ends})
    ended = shop.until(version, "Failed")
    assert "can't be read" in ended["status"]["decision"]["message"]


def test_an_api_server_that_is_gone_for_a_while_loses_nothing(shop: Shop, prometheus: str) -> None:
    shop.start_policy(steps=[{"weight": 50, "minVerdicts": 5}])
    version = shop.publish("run-1")
    shop.start_prometheus(prometheus, shop.base, version)
    operator = shop.start_operator("operator-0", None, "--no-lease")
    shop.until(version, "Paused")
    assert UNREACHABLE not in operator.log.read_text()
    shop.server.kill()
    shop.vote(version, up=60)
    shop.vote(shop.base, up=60)
    wait_for(lambda: UNREACHABLE in operator.log.read_text(), what="the operator to meet a server that is not there")
    shop.server.restart()
    ended = shop.until(version, "Succeeded")
    assert history(ended).count("Promoting") == 1


def test_somebody_elses_object_of_the_same_name_is_left_alone_and_told_of(shop: Shop) -> None:
    mine = ["create", "service", "clusterip", POLICY_NAME, "--tcp=80:9999"]
    shop.server.kubectl("-n", shop.namespace, *mine)
    shop.start_policy(traffic=None)
    shop.start_operator()
    told = shop.until_condition("Stalled", "NameTaken")
    assert f"Service {POLICY_NAME}" in told["message"]
    service = shop.get(kinds.SERVICE, POLICY_NAME)
    assert service["spec"]["ports"][0]["targetPort"] == 9999
    shop.server.kubectl("-n", shop.namespace, "delete", "service", POLICY_NAME)
    wait_for(lambda: shop.policy_phase() == "Serving", what="the policy to serve")


def test_without_prometheus_the_log_alone_decides(shop: Shop) -> None:
    """None is named; one that is away, refuses or has lost its data is no different."""
    shop.start_policy()
    version = shop.publish("run-1")
    shop.start_operator()
    shop.until(version, "Paused")
    shop.vote(shop.base, up=60, metrics=False)
    shop.vote(version, down=60, metrics=False)
    ended = shop.until(version, "RolledBack")
    assert ended["status"]["comparison"]["candidate"] == {"up": 0, "down": 60}
    assert ended["status"]["decision"]["reason"] == "FeedbackWorse"
