"""A real Kubernetes API for tests: etcd and kube-apiserver on loopback, and nothing else.

Where the programs lie is envtest's convention: KUBEBUILDER_ASSETS, else /usr/local/kubebuilder/bin. No controllers run
here, so a test does itself what they would: a deleted namespace stays Terminating, a Job makes no pods, owned objects
are not collected. Admission (Pod Security, ValidatingAdmissionPolicy, quotas) and RBAC are real.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.waiting import wait_for
from tunegate.kube.client import connect
from tunegate.processes import Child, free_port

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

REPOSITORY = Path(__file__).parents[1]
OWN_CRDS = REPOSITORY / "charts/tunegate/files/crds"
ASSETS = ("etcd", "kube-apiserver", "kubectl")
START_SECONDS = 120
_FRESH = itertools.count()


def find_assets() -> Path | None:
    """The folder with etcd, kube-apiserver and kubectl."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS") or "/usr/local/kubebuilder/bin")
    return folder if all(os.access(folder / name, os.X_OK) for name in ASSETS) else None


class ApiServer:
    """A running API, its kubeconfig (as a member of system:masters), and ways to hurt it."""

    def __init__(self, kubeconfig: Path, kubectl: Path, processes: _Processes | None) -> None:
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self._processes = processes  # None: somebody else's cluster

    @classmethod
    def start(cls, assets: Path, folder: Path) -> ApiServer:
        processes = _Processes(assets, folder)
        processes.start()
        server = cls(processes.kubeconfig, assets / "kubectl", processes)
        server._wait_until_ready()
        return server

    @classmethod
    def existing(cls, kubeconfig: Path) -> ApiServer:
        return cls(kubeconfig, Path("kubectl"), None)

    @property
    def is_ours(self) -> bool:
        """Whether we started it, so that it reaches us, and nobody else's controllers are there."""
        return self._processes is not None

    def stop(self) -> None:
        self._own.stop()

    def kill(self) -> None:
        """Kill -9 of both programs; the data stays."""
        self._own.kill()

    def restart(self) -> None:
        """Both programs again, with the data and the addresses they had."""
        self._own.start()
        self._wait_until_ready()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Connections stay open and nothing answers, as when a network drops packets."""
        self._own.signal("kube-apiserver", signal.SIGSTOP)
        try:
            yield
        finally:
            self._own.signal("kube-apiserver", signal.SIGCONT)

    def compact(self) -> None:
        """Make etcd forget every revision before now, so that old watches end with 410 Gone."""
        self._own.compact()

    def client(self) -> ApiClient:
        """A client that may do everything."""
        from kubernetes import config

        return config.new_client_from_config(str(self.kubeconfig))

    def client_as(self, namespace: str, service_account: str) -> ApiClient:
        """A client with a token of this service account, which is made when it is missing."""
        from kubernetes import client

        with self.client() as admin:
            _make_service_account(admin, namespace, service_account)
            request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
            answer = client.CoreV1Api(admin).create_namespaced_service_account_token(
                service_account, namespace, request
            )
            configuration = client.Configuration()
            configuration.host = admin.configuration.host
            configuration.ssl_ca_cert = admin.configuration.ssl_ca_cert
            configuration.api_key = {"authorization": f"Bearer {answer.status.token}"}
        return client.ApiClient(configuration)

    def kubeconfig_as(self, namespace: str, service_account: str, folder: Path) -> Path:
        """A kubeconfig in `folder` with a token of this service account, for child processes."""
        with self.client_as(namespace, service_account) as client:
            token = client.configuration.api_key["authorization"].removeprefix("Bearer ")
            host, ca = client.configuration.host, client.configuration.ssl_ca_cert
        path = folder / f"{namespace}-{service_account}.kubeconfig"
        path.write_text(json.dumps(_kubeconfig(host, {"certificate-authority": ca}, token)))
        return path

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator; a failure shows what it printed unless `check` is false."""
        done = subprocess.run(
            [str(self._kubectl), "--kubeconfig", str(self.kubeconfig), *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done

    def install_crds(self, paths: Iterable[Path]) -> None:
        """Apply every CRD in these files or folders, and wait until their kinds can be used."""
        files = [f for path in paths for f in (sorted(path.glob("*.yaml")) if path.is_dir() else [path])]
        crds = [crd for file in files for crd in _documents(file) if crd["kind"] == "CustomResourceDefinition"]
        with self.client() as client:
            for crd in crds:
                path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd['metadata']['name']}"
                call(client, "PATCH", path, crd, query={"fieldManager": "tests", "force": "true"})
            for crd in crds:
                wait_for(lambda crd=crd: _served(client, crd), what=f"{crd['metadata']['name']} to be served")

    def new_namespace(self, labels: Mapping[str, str] | None = None) -> str:
        """A namespace that no other test uses, with the service account `default` that pods need."""
        name = f"test-{next(_FRESH)}-{secrets.token_hex(3)}"
        with self.client() as client:
            call(client, "POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": dict(labels or {})}})
            _make_service_account(client, name, "default")
        return name

    @property
    def _own(self) -> _Processes:
        if self._processes is None:
            pytest.skip("this test stops the API server, which it may only do with one of its own: KUBEBUILDER_ASSETS")
        return self._processes

    def _wait_until_ready(self) -> None:
        self._own.wait_until(lambda: self.kubectl("get", "--raw", "/readyz", check=False).returncode == 0)


class _Processes:
    """etcd and kube-apiserver, with fixed addresses and a folder, so that they can be started again."""

    def __init__(self, assets: Path, folder: Path) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._assets = assets
        self._folder = folder
        self._etcd, self._etcd_peer, self._api = (free_port() for _ in range(3))
        self._children: dict[str, Child] = {}
        key = folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        token = secrets.token_hex(16)
        (folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        # The server makes its own certificate on its first start; the file carries the authority, too.
        trust = {"certificate-authority": str(folder / "certificates/apiserver.crt")}
        self.kubeconfig.write_text(json.dumps(_kubeconfig(f"https://127.0.0.1:{self._api}", trust, token)))

    def start(self) -> None:
        for name, arguments in (("etcd", self._etcd_arguments()), ("kube-apiserver", self._api_arguments())):
            program = str(self._assets / name)
            self._children[name] = Child.start(name, [program, *arguments], log=self._folder / f"{name}.log")

    def stop(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            if name in self._children:
                self._children.pop(name).stop()

    def kill(self) -> None:
        for name in ("kube-apiserver", "etcd"):
            self.signal(name, signal.SIGKILL)
        self.stop()

    def signal(self, name: str, number: signal.Signals) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_text().split("\0")
            except OSError:
                continue  # it ended meanwhile
            if words[0] == str(self._assets / name) and any(str(self._folder) in word for word in words):
                os.kill(int(process.name), number)

    def compact(self) -> None:
        address = f"http://127.0.0.1:{self._etcd}/v3/kv"
        revision = int(_post(f"{address}/range", {"key": "AA=="})["header"]["revision"])
        _post(f"{address}/compaction", {"revision": revision, "physical": True})

    def wait_until(self, ready: Callable[[], bool]) -> None:
        self._children["kube-apiserver"].wait_until(ready, seconds=START_SECONDS)

    def _etcd_arguments(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._etcd_peer}"
        return [
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_arguments(self) -> list[str]:
        key = self._folder / "service-accounts.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._api}",
            f"--cert-dir={self._folder / 'certificates'}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
        ]


def call(
    client: ApiClient, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """One request, JSON in and out; a PATCH is a server-side apply. Raises kubernetes.client.ApiException."""
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if method == "PATCH":
        headers["Content-Type"] = "application/apply-patch+yaml"
        body = json.dumps(body)
    request = client.param_serialize(
        method, path, query_params=list((query or {}).items()), header_params=headers, body=body,
        auth_settings=["BearerToken"],
    )  # fmt: skip
    response = client.call_api(*request)
    response.read()
    client.response_deserialize(response, {})
    return dict(json.loads(response.data))


def _documents(file: Path) -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(file.read_text(), loader) if document]


def _served(client: ApiClient, crd: dict[str, Any]) -> bool:
    """Whether its objects can be read, and discovery tells of it, which comes a little later."""
    from kubernetes.client import ApiException

    group, plural = crd["spec"]["group"], crd["spec"]["names"]["plural"]
    try:
        for version in (v["name"] for v in crd["spec"]["versions"] if v["served"]):
            call(client, "GET", f"/apis/{group}/{version}/{plural}", query={"limit": "1"})
            if plural not in [each["name"] for each in call(client, "GET", f"/apis/{group}/{version}")["resources"]]:
                return False
    except ApiException as error:
        if error.status not in (404, 429, 500, 503):
            raise
        return False
    return True


def _make_service_account(client: ApiClient, namespace: str, name: str) -> None:
    body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}"
    call(client, "PATCH", path, body, query={"fieldManager": "tests"})


def _kubeconfig(server: str, trust: Mapping[str, str], token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": {"server": server, **trust}}],
        "users": [{"name": "tests", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    }


def _post(url: str, body: Mapping[str, Any]) -> dict[str, Any]:
    import urllib.request

    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return dict(json.loads(answer.read()))


@contextmanager
def new_api_server(folder: Path, crds: Iterable[Path] = ()) -> Iterator[ApiServer]:
    """An API of one's own in this folder, with these CRDs (files or folders); skips where there are no programs."""
    assets = find_assets()
    if assets is None:
        pytest.skip("needs a folder with etcd, kube-apiserver and kubectl in KUBEBUILDER_ASSETS (setup-envtest)")
    server = ApiServer.start(assets, folder)
    try:
        server.install_crds(crds)
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """The API of this test run: a cluster that TUNEGATE_TEST_KUBECONFIG names on purpose, else one of our own."""
    if given := os.environ.get("TUNEGATE_TEST_KUBECONFIG"):
        yield ApiServer.existing(Path(given))
        return
    with new_api_server(tmp_path_factory.mktemp("api")) as server:
        yield server


@pytest.fixture
def client(api_server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiClient]:
    """A client that may do everything, made the way our programs make theirs."""
    # KUBECONFIG was read when the client library was imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(api_server.kubeconfig))
    with connect("tests/1", remedy="set KUBECONFIG") as client:
        yield client


@pytest.fixture
def namespace(api_server: ApiServer) -> str:
    """A namespace of this test's own."""
    return api_server.new_namespace()


@pytest.fixture(scope="session")
def tunegate_crds(api_server: ApiServer) -> None:
    """Our own kinds."""
    api_server.install_crds([OWN_CRDS])


@pytest.fixture(scope="session")
def foreign_crds(api_server: ApiServer) -> None:
    """The kinds of KServe, Kubeflow, Gateway API and Prometheus, from files that are not ours to copy."""
    api_server.install_crds([foreign_crds_folder()])


def foreign_crds_folder() -> Path:
    folder = Path(os.environ.get("TUNEGATE_TEST_CRDS") or REPOSITORY.parent / "shared/crds")
    if not any(folder.glob("*.yaml")):
        pytest.skip("needs the CRDs of KServe, Kubeflow, Gateway API and Prometheus in the folder TUNEGATE_TEST_CRDS")
    return folder
