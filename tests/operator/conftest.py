"""A cluster as the operator sees it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from kubernetes.client import ApiClient

from tests.apiserver import ApiServer
from tunegate_operator.cluster import Cluster, connect


@pytest.fixture
def client(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiClient]:
    """A client that may do everything, made the way the operator makes its own."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    # KUBECONFIG was read when the client library was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(api_server.kubeconfig))
    made: AbstractContextManager[ApiClient] = connect()
    with made as client:
        yield client


@pytest.fixture
def cluster(client: ApiClient) -> Cluster:
    return Cluster(client, instance="operator-0")
