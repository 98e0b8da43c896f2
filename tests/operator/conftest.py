"""A cluster as the operator sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.client import ApiClient

from tests.apiserver import ApiServer
from tests.operator.kserve_webhook import defaulting
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


@pytest.fixture(scope="session")
def kserve(api_server: ApiServer, foreign_crds: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """KServe's webhook, where the API server is one of our own: another's cluster may have the real one."""
    if not api_server.is_ours:
        yield
        return
    with defaulting(api_server, tmp_path_factory.mktemp("kserve")):
        yield


@pytest.fixture
def shop(
    api_server: ApiServer,
    tunegate_crds: None,
    kserve: None,
    cluster: Cluster,
    namespace: str,
    store: Store,
    tmp_path: Path,
) -> Iterator[Shop]:
    """A namespace with everything around an operator; the test starts the policy and the operator.

    In the end no pod of a server may have been replaced that a server has kept.
    """
    with open_shop(api_server, cluster, namespace, store, tmp_path) as shop:
        yield shop
    assert shop.hands.replaced == 0, "a server that was there has had all of its pods replaced"


@pytest.fixture
def prometheus() -> str:
    """The program."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("needs prometheus on the PATH (Debian's package prometheus)")
    return program
