"""What the tests of the chart share: other projects' CRDs, and a cluster of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer, foreign_crds_folder, new_api_server
from tests.chart.rendering import Object, read_yaml


@pytest.fixture(scope="session")
def foreign() -> dict[str, Object]:
    """The CRDs of KServe, the Gateway API and Prometheus by kind."""
    crds = [crd for path in foreign_crds_folder().glob("*.yaml") for crd in read_yaml(path.read_text())]
    return {crd["spec"]["names"]["kind"]: crd for crd in crds}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API of one file's own: what a chart installs holds for the whole cluster, and would be in others' way."""
    with new_api_server(tmp_path_factory.mktemp("chart-api"), [foreign_crds_folder()]) as server:
        yield server
