"""What single objects say, and what they don't."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import at
from tunegate.api.policy import ServingPods
from tunegate_operator.edits import edits, modified
from tunegate_operator.read import finished_runs, job_state, server_state

Object = dict[str, Any]
SERVING = ServingPods(ready_timeout_seconds=100, unavailable_seconds=10)


def make_isvc(ready: str | None = "True", *, since: float = 0, copies: int = 0, reason: str = "") -> Object:
    made: Object = {"type": "Ready", "status": ready, "reason": reason, "lastTransitionTime": at(since).isoformat()}
    return {
        "kind": "InferenceService",
        "metadata": {"name": "shop-1", "generation": 2, "creationTimestamp": at(0).isoformat()},
        "status": {
            "conditions": [made] if ready else [],
            "observedGeneration": 1,  # the Deployment's
            "modelStatus": {"copies": {"totalCopies": copies}},
        },
    }


@pytest.mark.parametrize(
    ("isvc", "now", "state"),
    [
        pytest.param(make_isvc(copies=1), 1, (True, False), id="ready, and its Deployment was changed less often"),
        pytest.param(make_isvc(None), 99, (False, False), id="starting"),
        pytest.param(make_isvc(None), 101, (False, True), id="never came up"),
        pytest.param(make_isvc("False", copies=1), 99, (False, False), id="some of its pods are up"),
        pytest.param(make_isvc("Unknown", since=80), 99, (False, False), id="unknown, and still has time"),
    ],
)
def test_a_new_server_is_ready_when_all_of_it_is(isvc: Object, now: float, state: tuple[bool, bool]) -> None:
    found = server_state(isvc, at(now), SERVING, had_traffic=False, away_since=None)
    assert (found.ready, found.failed) == state


@pytest.mark.parametrize(
    ("isvc", "away", "state"),
    [
        pytest.param(make_isvc("False", since=9, copies=1), None, (True, False), id="a rollout that can't finish"),
        pytest.param(make_isvc("False", since=95, copies=1), None, (True, False), id="one pod of two"),
        pytest.param(make_isvc("False", since=9), 90, (False, False), id="away for a moment, and long not whole"),
        pytest.param(make_isvc("False", since=80), 80, (False, True), id="away for too long"),
        pytest.param(make_isvc(None), 98, (False, False), id="made again"),
    ],
)
def test_a_server_with_traffic_is_ready_for_as_long_as_any_pod_answers(
    isvc: Object, away: float | None, state: tuple[bool, bool]
) -> None:
    away_since = at(away) if away else None
    found = server_state(isvc, at(99), SERVING, had_traffic=True, away_since=away_since)
    assert (found.ready, found.failed) == state


FAILURE = {"reason": "ModelLoadFailed", "message": "loading tea\nError: no such digest\n"}


def reason_of(transition: str) -> str:
    isvc = make_isvc("False", reason="MinimumReplicasUnavailable")
    isvc["status"]["modelStatus"] = {"lastFailureInfo": FAILURE, "transitionStatus": transition}
    return server_state(isvc, at(1), SERVING, had_traffic=False, away_since=None).message


def test_a_server_that_cannot_load_its_model_says_why() -> None:
    assert "MinimumReplicasUnavailable: ModelLoadFailed: Error: no such digest" in reason_of("BlockedByFailedLoad")


@pytest.mark.parametrize("transition", ["InProgress", "UpToDate"])
def test_a_failure_that_is_over_is_no_reason_for_the_next_one(transition: str) -> None:
    assert "MinimumReplicasUnavailable" in reason_of(transition)
    assert "digest" not in reason_of(transition)


@pytest.mark.parametrize(
    ("wanted", "found", "path"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, "", id="defaults of the server are no difference"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 2}}, "spec.a.b", id="a changed value"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, "spec.a", id="a shorter list"),
        pytest.param({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, "", id="defaults within a list"),
        pytest.param({"a": 1}, {}, "spec.a", id="a removed value"),
        pytest.param({"a": {}}, {}, "", id="what is empty may be dropped"),
    ],
)
def test_what_differs_from_what_was_applied_has_a_path(wanted: Object, found: Object, path: str) -> None:
    obj = {"metadata": {"annotations": {"tunegate.io/applied": json.dumps(wanted)}}, "spec": found}
    assert [edit.path for edit in edits(obj)] == ([path] if path else [])


def test_an_edit_names_who_and_what() -> None:
    def spec(weight: int) -> Object:
        return {"rules": [{"backendRefs": [{"name": "shop-0-predictor", "weight": weight}]}]}

    annotations = {"tunegate.io/applied": json.dumps(spec(50))}
    metadata: Object = {"name": "shop", "namespace": "models", "annotations": annotations}
    route = {"kind": "HTTPRoute", "metadata": metadata, "spec": spec(90)}
    route["metadata"]["managedFields"] = [
        {"manager": "tunegate-operator", "time": "2026-01-01T00:00:02Z"},
        {"manager": "gateway", "time": "2026-01-01T00:00:03Z", "subresource": "status"},
        {"manager": "kubectl-edit", "time": "2026-01-01T00:00:01Z"},
    ]
    assert modified(route).startswith("kubectl-edit changed spec.rules[0].backendRefs[0].weight of HTTPRoute shop")


@pytest.mark.parametrize(
    ("conditions", "done", "failed"),
    [([], False, False), (["Complete"], True, False), (["Failed"], True, True), (["FailureTarget"], False, False)],
)
def test_a_job_is_over_when_it_says_so(conditions: list[str], done: bool, failed: bool) -> None:
    state = job_state({"status": {"conditions": [{"type": each, "status": "True"} for each in conditions]}})
    assert (state.done, state.failed) == (done, failed)


@pytest.mark.parametrize(
    ("conditions", "finished"),
    [
        pytest.param([("Succeeded", "True")], True, id="PyTorchJob"),
        pytest.param([("Complete", "True")], True, id="TrainJob"),
        pytest.param([("Succeeded", "True"), ("Running", "False")], True, id="not the last condition"),
        pytest.param([("Running", "True")], False, id="running"),
        pytest.param([("Succeeded", "False")], False, id="not succeeded"),
    ],
)
def test_a_run_is_finished_when_its_job_succeeded(conditions: list[tuple[str, str]], finished: bool) -> None:
    job = {
        "metadata": {"labels": {"tunegate.io/model": "shop", "tunegate.io/run": "run-1"}},
        "status": {"conditions": [{"type": kind, "status": status} for kind, status in conditions]},
    }
    assert finished_runs([job], "shop") == (frozenset({"run-1"}) if finished else frozenset())
    assert finished_runs([job], "other") == frozenset()
