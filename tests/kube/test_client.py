"""The REST layer against a real API server."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.client import ApiClient, Configuration

import tunegate
from tests.apiserver import ApiServer, call
from tests.kube.conftest import HTTP_ROUTE
from tunegate.api.errors import UsageError
from tunegate.kube.client import Cluster, connect
from tunegate.kube.errors import (
    ClusterError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    MissingError,
    UnreachableError,
)
from tunegate.kube.kinds import EVENT, JOB, LEASE, SERVICE, Kind, Object
from tunegate.processes import free_port

NOWHERE = Kind("nowhere.example", "v1", "things", "Thing")


def test_applying_makes_and_then_changes_an_object(cluster: Cluster, namespace: str) -> None:
    made = cluster.apply(_service(namespace, port=80))
    changed = cluster.apply(_service(namespace, port=81))
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    assert cluster.get(SERVICE, namespace, "web")["spec"]["ports"][0]["port"] == 81


def test_applying_the_same_again_changes_nothing(cluster: Cluster, namespace: str) -> None:
    first, second = (cluster.apply(_service(namespace, port=80)) for _ in range(2))
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_a_field_that_is_not_applied_any_more_goes_away(cluster: Cluster, namespace: str) -> None:
    labeled = _service(namespace, port=80)
    labeled["metadata"]["labels"] = {"a": "b"}
    cluster.apply(labeled)
    assert "labels" not in cluster.apply(_service(namespace, port=80))["metadata"]


def test_a_field_of_somebody_else_is_a_conflict_unless_forced(
    cluster: Cluster, api_server: ApiServer, namespace: str
) -> None:
    with api_server.client() as client:
        path = SERVICE.path(namespace, "web")
        call(client, "PATCH", path, _service(namespace, port=80), query={"fieldManager": "kubectl"})
    ours = _service(namespace, port=80)
    ours["spec"]["selector"] = {"app": "ours"}
    with pytest.raises(ConflictError, match="kubectl"):
        cluster.apply(ours, force=False)
    assert cluster.apply(ours)["spec"]["selector"] == {"app": "ours"}


def test_an_old_resource_version_is_a_conflict(cluster: Cluster, namespace: str) -> None:
    old = cluster.apply(_service(namespace, port=80))["metadata"]["resourceVersion"]
    cluster.apply(_service(namespace, port=81))
    late = _service(namespace, port=82)
    late["metadata"]["resourceVersion"] = old
    with pytest.raises(ConflictError):
        cluster.apply(late)
    assert cluster.get(SERVICE, namespace, "web")["spec"]["ports"][0]["port"] == 81


def test_applying_a_status_leaves_the_spec_alone(cluster: Cluster, namespace: str) -> None:
    cluster.apply(_job(namespace, parallelism=2))
    status = _job(namespace, parallelism=2)
    status["spec"] = {"parallelism": 1}
    status["status"] = {"active": 3}
    cluster.apply(status, status=True)
    job = cluster.get(JOB, namespace, "work")
    assert (job["spec"]["parallelism"], job["status"]["active"]) == (2, 3)


def test_a_field_that_the_kind_does_not_have_is_refused_by_name(cluster: Cluster, namespace: str) -> None:
    wrong = _service(namespace, port=80)
    wrong["spec"]["prots"] = []
    with pytest.raises(InvalidError, match=r"spec\.prots"):
        cluster.apply(wrong)


@pytest.mark.usefixtures("foreign_crds")
def test_a_field_that_an_installed_crd_does_not_know_is_refused_and_not_dropped(
    cluster: Cluster, namespace: str
) -> None:
    route: Object = {
        "apiVersion": HTTP_ROUTE.api_version,
        "kind": HTTP_ROUTE.kind,
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"hostnames": ["a.example"], "of-a-later-version": {"a": 1}},
    }
    with pytest.raises(InvalidError, match=r"spec\.of-a-later-version"):
        cluster.apply(route)


def test_an_invalid_object_is_refused_with_every_cause(cluster: Cluster, namespace: str) -> None:
    wrong = _service(namespace, port=80)
    wrong["spec"] = {"type": "Odd", "ports": [{"port": 99999}]}
    with pytest.raises(InvalidError, match=r"(?s)99999.*spec\.type"):
        cluster.apply(wrong)


def test_creating_what_exists_gives_nothing(cluster: Cluster, namespace: str) -> None:
    assert cluster.create(_service(namespace, port=80)) is not None
    assert cluster.create(_service(namespace, port=81)) is None
    assert cluster.get(SERVICE, namespace, "web")["spec"]["ports"][0]["port"] == 80


def test_merging_leaves_what_was_set_before(cluster: Cluster, namespace: str) -> None:
    cluster.apply(_lease(namespace, "one", a="b"))
    cluster.merge(LEASE, namespace, "one", {"spec": {"holderIdentity": "x"}})
    merged = cluster.merge(LEASE, namespace, "one", {"spec": {"leaseTransitions": 1}})
    assert merged["spec"] == {"holderIdentity": "x", "leaseTransitions": 1}
    assert merged["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(MissingError):
        cluster.merge(LEASE, namespace, "other", {"spec": {}})


def test_deleting_asks_for_the_very_object_that_was_meant(cluster: Cluster, namespace: str) -> None:
    uid = cluster.apply(_service(namespace, port=80))["metadata"]["uid"]
    with pytest.raises(ConflictError):
        cluster.delete(SERVICE, namespace, "web", uid="00000000-0000-0000-0000-000000000000")
    with pytest.raises(ConflictError):
        cluster.delete(SERVICE, namespace, "web", resource_version="1")
    assert cluster.get(SERVICE, namespace, "web") is not None
    cluster.delete(SERVICE, namespace, "web", uid=uid)
    assert cluster.get(SERVICE, namespace, "web") is None
    cluster.delete(SERVICE, namespace, "web", uid=uid)


def test_a_list_is_whole_over_several_pages(cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunegate.kube.client.PAGE", 2)
    names = {f"lease-{number}" for number in range(5)}
    for name in names:
        cluster.create(_lease(namespace, name, odd=str(int(name[-1]) % 2)))
    found = cluster.list(LEASE, namespace)
    assert {each["metadata"]["name"] for each in found} == names
    assert {each["kind"] for each in found} == {"Lease"}
    assert len(cluster.list(LEASE, namespace, "odd=1")) == 2
    assert len(cluster.list(LEASE, None, "odd=1")) >= 2


def test_events_say_what_happened_to_which_object(cluster: Cluster, namespace: str) -> None:
    service = cluster.apply(_service(namespace, port=80))
    cluster.emit(service, reason="Promoted", note="x" * 3000, action="Promote", type="Warning")
    (event,) = cluster.list(EVENT, namespace)
    assert event["regarding"]["uid"] == service["metadata"]["uid"]
    assert (event["reason"], event["type"], event["reportingInstance"]) == ("Promoted", "Warning", "operator-0")
    assert len(event["note"]) == 1024


def test_an_event_that_is_refused_stops_nobody(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    gone = _service("no-such-namespace", port=80)
    cluster.emit(gone, reason="Promoted", note="", action="Promote")
    assert "was not recorded" in caplog.text


@pytest.mark.usefixtures("foreign_crds")
def test_installed_kinds_are_found(cluster: Cluster) -> None:
    assert cluster.has(JOB)
    assert cluster.has(HTTP_ROUTE)
    assert not cluster.has(NOWHERE)


def test_a_kind_that_is_not_installed_is_missing(cluster: Cluster, namespace: str) -> None:
    assert cluster.get(NOWHERE, namespace, "x") is None
    with pytest.raises(MissingError):
        cluster.list(NOWHERE, namespace)


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(api_server: ApiServer, namespace: str) -> None:
    api_server.kubectl("-n", namespace, "create", "role", "reader", "--verb=get,list", "--resource=services")
    subject = f"--serviceaccount={namespace}:reader"
    api_server.kubectl("-n", namespace, "create", "rolebinding", "reader", "--role=reader", subject)
    with api_server.client_as(namespace, "reader") as client:
        limited = Cluster(client, manager="tests")
        assert limited.list(SERVICE, namespace) == []
        with pytest.raises(ForbiddenError, match="cannot patch"):
            limited.apply(_service(namespace, port=80))


def test_a_server_that_is_away_is_unreachable() -> None:
    configuration = Configuration(host=f"https://127.0.0.1:{free_port()}")
    with ApiClient(configuration) as client, pytest.raises(UnreachableError):
        Cluster(client, manager="tests", timeout=2).get(SERVICE, "default", "kubernetes")


def test_a_server_that_says_nothing_is_unreachable(cluster: Cluster, api_server: ApiServer) -> None:
    with api_server.client() as client:
        silent = Cluster(client, manager="tests", timeout=0.5)
        silent.list(LEASE, "default")
        with api_server.paused(), pytest.raises(UnreachableError):
            silent.list(LEASE, "default")
        silent.list(LEASE, "default")


def test_without_a_cluster_the_message_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="KUBECONFIG"):
        connect("tests/1", remedy="set KUBECONFIG")


def test_every_error_of_the_cluster_is_one_of_ours() -> None:
    assert issubclass(ClusterError, tunegate.api.errors.TunegateError)


def _service(namespace: str, *, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": port}]},
    }


def _job(namespace: str, *, parallelism: int) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "work", "image": "work"}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work", "namespace": namespace},
        "spec": {"parallelism": parallelism, "template": {"spec": pod}},
    }


def _lease(namespace: str, name: str, **labels: str) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata}
