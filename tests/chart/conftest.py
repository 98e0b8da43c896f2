"""What the tests of the chart share: other projects' CRDs, and a cluster of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer, find_assets, foreign_crds_folder
from tests.chart.rendering import Object, read_yaml


@pytest.fixture(scope="session")
def foreign() -> dict[str, Object]:
    """The CRDs of KServe, the Gateway API and Prometheus by kind."""
    crds = [crd for path in foreign_crds_folder().glob("*.yaml") for crd in read_yaml(path.read_text())]
    return {crd["spec"]["names"]["kind"]: crd for crd in crds}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API of one file's own: what a chart installs holds for the whole cluster, and would be in others' way."""
    assets = find_assets()
    if assets is None:
        pytest.skip("needs a folder with etcd, kube-apiserver and kubectl in KUBEBUILDER_ASSETS (setup-envtest)")
    folder = foreign_crds_folder()
    server = ApiServer.start(assets, tmp_path_factory.mktemp("chart-api"))
    server.install_crds([folder])
    yield server
    server.stop()
