"""A cluster as any program sees it."""

from __future__ import annotations

import pytest
from kubernetes.client import ApiClient

from tunegate.kube.client import Cluster
from tunegate.kube.kinds import Kind

HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")


@pytest.fixture
def cluster(client: ApiClient) -> Cluster:
    return Cluster(client, manager="tests", kinds=[HTTP_ROUTE], instance="operator-0")
