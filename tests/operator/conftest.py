"""A cluster as the operator sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from tests.apiserver import ApiServer
from tests.operator.objects import Api
from tests.operator.running import Shop, open_shop
from tunegate.kube.client import Cluster
from tunegate.store import Store
from tunegate_operator.kinds import operator_cluster


@pytest.fixture
def cluster(client: ApiClient) -> Cluster:
    return operator_cluster(client, instance="operator-0")


@pytest.fixture
def api(client: ApiClient, namespace: str) -> Api:
    return Api(client, namespace)


@pytest.fixture
def shop(
    api_server: ApiServer,
    tunegate_crds: None,
    foreign_crds: None,
    cluster: Cluster,
    namespace: str,
    store: Store,
    tmp_path: Path,
) -> Iterator[Shop]:
    """A namespace with everything around an operator; the test starts the policy and the operator."""
    with open_shop(api_server, cluster, namespace, store, tmp_path) as shop:
        yield shop


@pytest.fixture
def prometheus() -> str:
    """The program."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus on the PATH (Debian's package prometheus)")
    return program
