"""What the tests of the chart share: that Helm is there, other projects' CRDs, and a cluster of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer, find_assets, foreign_crds_folder
from tests.chart.rendering import Object, has_helm, read_yaml


@pytest.fixture(scope="session", autouse=True)
def needs_helm() -> None:
    if not has_helm():
        pytest.skip("needs `helm` on PATH: the package of your system, or a release of the Helm project")


@pytest.fixture(scope="session")
def foreign() -> dict[str, Object]:
    """The CRDs of KServe, the Gateway API and Prometheus by kind."""
    crds = [crd for path in foreign_crds_folder().glob("*.yaml") for crd in read_yaml(path.read_text())]
    return {crd["spec"]["names"]["kind"]: crd for crd in crds}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API of these tests' own: what a chart installs holds for the whole cluster, and would be in others' way."""
    assets = find_assets()
    if assets is None:
        pytest.skip("needs a folder with etcd, kube-apiserver and kubectl in KUBEBUILDER_ASSETS (setup-envtest)")
    folder = foreign_crds_folder()
    server = ApiServer.start(assets, tmp_path_factory.mktemp("chart-api"))
    server.install_crds([folder])
    yield server
    server.stop()
