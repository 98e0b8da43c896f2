"""The API that other tests stand on: it checks, remembers, and can be hurt."""

from __future__ import annotations

import pytest
from kubernetes.client import ApiException

from tests.apiserver import ApiServer, call, new_api_server


def test_a_service_account_may_do_nothing_until_it_is_bound(api_server: ApiServer, namespace: str) -> None:
    with api_server.client_as(namespace, "somebody") as client, pytest.raises(ApiException) as refused:
        call(client, "GET", f"/api/v1/namespaces/{namespace}/pods")
    assert refused.value.status == 403


def test_pod_security_is_enforced(api_server: ApiServer) -> None:
    namespace = api_server.new_namespace({"pod-security.kubernetes.io/enforce": "restricted"})
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
    with api_server.client() as client, pytest.raises(ApiException, match="violates PodSecurity"):
        call(client, "POST", f"/api/v1/namespaces/{namespace}/pods", pod)


def test_what_was_written_survives_kill_9(tmp_path_factory: pytest.TempPathFactory) -> None:
    with new_api_server(tmp_path_factory.mktemp("api")) as server:
        namespace = server.new_namespace()
        server.kill()
        server.restart()
        with server.client() as client:
            assert call(client, "GET", f"/api/v1/namespaces/{namespace}")["metadata"]["name"] == namespace


@pytest.mark.usefixtures("foreign_crds")
def test_foreign_kinds_are_served(api_server: ApiServer, namespace: str) -> None:
    with api_server.client() as client:
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
        assert call(client, "GET", path)["items"] == []
