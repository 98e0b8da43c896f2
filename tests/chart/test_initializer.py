"""The storage initializer as KServe starts it where the service account has a Secret for S3: our store is read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart.rendering import Object, pick, render
from tests.kserve import environment_of, with_service_account
from tests.operator.running import publish
from tunegate.api.environment import ENDPOINT_URL
from tunegate.api.pinned import storage_uri
from tunegate.processes import free_port
from tunegate.store import EmbeddedStore, Store

OTHERS = {"awsAccessKeyID": "somebody", "awsSecretAccessKey": "else"}


def bring(
    store: Store, embedded: EmbeddedStore, folder: Path, endpoint_url: str | None, secret: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Bring a version of this store as the chart's container does in such a pod."""
    version = publish(store, folder / "made", "run-1")
    values: Object = {"store": {"uri": store.uri, **({"endpointUrl": endpoint_url} if endpoint_url else {})}}
    container = pick(render(values), "ClusterStorageContainer", "tunegate")["spec"]["container"]
    keys = {name: embedded.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    secrets = {"tunegate-store": keys, "others": secret}
    environment = environment_of(with_service_account(container, "others", secret), secrets)
    return subprocess.run(
        [sys.executable, "-m", "tunegate", "initialize", storage_uri(version), str(folder / "models")],
        env={"PATH": os.environ["PATH"], **environment, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("endpoint", [None, "127.0.0.1:1"], ids=["keys", "keys and endpoint"])
def test_our_keys_and_endpoint_win_over_those_of_a_service_account(
    store: Store, embedded_store: EmbeddedStore, tmp_path: Path, endpoint: str | None
) -> None:
    secret = OTHERS | ({"S3_ENDPOINT": endpoint} if endpoint else {})
    done = bring(store, embedded_store, tmp_path, embedded_store.endpoint_url, secret)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models/model.safetensors").is_file()


def test_an_endpoint_that_a_service_account_brings_where_we_name_none_is_told(
    store: Store, embedded_store: EmbeddedStore, tmp_path: Path
) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    done = bring(store, embedded_store, tmp_path, None, OTHERS | {"S3_ENDPOINT": endpoint})
    assert done.returncode != 0
    assert f"{ENDPOINT_URL}=http://{endpoint}" in done.stderr
    assert "set store.endpointUrl in the chart" in done.stderr
