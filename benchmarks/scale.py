"""What grows with what: one operator among ever more policies, and a large checkpoint by several publishers.

    python -m benchmarks.scale operator --policies 10 --policies 100 --policies 1000
    python -m benchmarks.scale store
    python -m benchmarks.scale checkpoint

"operator" is the real one, as a process of its own, against a real API server and a real store. Every policy has a
model of its own with ten versions, the oldest of which serves; all others were tried and are over. Nobody serves: a few
passes over the objects do what KServe and the gateway would. Then the operator is started again, and measured: until it
is ready, until it has looked at every policy, and over a while in which nothing happens. Requests are those that the
API server and the store counted. "reaction" is the time from an edit of a policy to the status that says so.

"store" looks for the versions of many models as the operator does, and one model after the other, as a process that
knows none of them and once more: requests, CPU time and memory.

"checkpoint" publishes one version of 100 small files by 8 publishers at once, and counts requests: what a checkpoint of
140 GB in 100 parts costs besides its bytes. How fast bytes go is what benchmarks/store.py measures.

From the root of the repository, with what the tests need: KUBEBUILDER_ASSETS, TUNEGATE_TEST_CRDS.
"""

from __future__ import annotations

import base64
import http.client
import json
import statistics
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.promotion_operator import (
    LOOK,
    OperatorMetrics,
    ended_attempt,
    evaluated_record,
    new_folder,
    open_cluster,
    serve_all,
)
from tests.apiserver import ApiServer
from tests.builders import make_manifest
from tests.operator.running import Shop, open_shop, policy_spec
from tests.waiting import wait_for
from tunegate.api.codec import to_json
from tunegate.api.versions import MANIFEST, Manifest, Producer, Release
from tunegate.cli.options import print_table
from tunegate.kube.kinds import Object
from tunegate.processes import free_port
from tunegate.store import EmbeddedStore, Store
from tunegate_operator import kinds
from tunegate_operator.main import WATCHED

VERSIONS = 10  # of each model
MAKERS = 2  # more, and a busy API server lets requests time out
SCAN_SECONDS = 30.0  # the default of --scan-seconds


@click.group(help=__doc__.split("\n")[0])
def main() -> None:
    pass


@main.command()
@click.option("--policies", "sizes", type=int, multiple=True, default=(10, 100, 1000), show_default=True)
@click.option("--idle-seconds", default=90, show_default=True)
@click.option("--edits", default=20, show_default=True, help="Policies edited, one after the other.")
@click.option("--again", is_flag=True, help="Ask for another round, with what the code is then.")
@click.option("--json", "as_json", is_flag=True)
def operator(sizes: tuple[int, ...], idle_seconds: int, edits: int, again: bool, as_json: bool) -> None:
    """One operator among policies that all serve."""
    with open_cluster() as (server, cluster, running, folder):
        count_requests(running)
        for size in sizes:
            store = Store.open(f"{running.uri}/{size}", endpoint_url=running.endpoint_url, **running.keys)
            with open_shop(server, cluster, server.new_namespace(), store, new_folder(folder / str(size))) as shop:
                shop.hands.close()
                began = time.monotonic()
                make_policies(shop, server, running, size)
                click.echo(f"{size} policies made in {time.monotonic() - began:.0f} s", err=True)
                settle(shop, size)
                while True:
                    _report(str(size), _operator_figures(shop, server, running, size, idle_seconds, edits), as_json)
                    if not again or not click.confirm("Once more?", err=True):
                        break


@main.command()
@click.option("--models", "sizes", type=int, multiple=True, default=(10, 100, 1000), show_default=True)
def store(sizes: tuple[int, ...]) -> None:
    """Looking for versions, ten of each model."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStore.start(Path(scratch)) as running:
        for size in sizes:
            found = Store.open(f"{running.uri}/{size}", endpoint_url=running.endpoint_url, **running.keys)
            models = [f"model-{number}" for number in range(size)]
            for model in models:
                put_in_store(running, found, [make_manifest(model, step) for step in range(VERSIONS)])
            requests = count_calls(found)
            for way, look in (("in one pass", _pass_over), ("one by one", _one_by_one)):
                again = look(found, models)
                for time_ in ("first", "again"):
                    requests.clear()
                    began, memory = time.process_time(), resident_mib()
                    again()
                    grown, busy = resident_mib() - memory, time.process_time() - began
                    lists, gets = requests["ListObjectsV2"], requests["GetObject"]
                    rows.append((size, way, time_, lists, gets, f"{busy:.2f}", f"{grown:.1f}"))
    print_table("Looking for versions", ("Models", "How", "When", "LIST", "GET", "CPU s", "MiB more"), rows)


def _pass_over(store: Store, models: Sequence[str]) -> Callable[[], None]:
    catalogue = store.catalogue()

    def look() -> None:
        catalogue.list(models)
        for model in models:
            while not catalogue.read(model, 64):
                pass

    return look


def _one_by_one(store: Store, models: Sequence[str]) -> Callable[[], None]:
    def look() -> None:
        for model in models:
            store.list(model)

    return look


@main.command()
@click.option("--files", default=100, show_default=True)
@click.option("--publishers", default=8, show_default=True)
def checkpoint(files: int, publishers: int) -> None:
    """One version of many files, by several publishers at once."""
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStore.start(Path(scratch, "store")) as running:
        folder = new_folder(Path(scratch, "model"))
        for number in range(files):
            (folder / f"model-{number:05}.safetensors").write_bytes(f"{number}".encode())
        stores = [Store.open(running.uri, endpoint_url=running.endpoint_url, **running.keys) for _ in range(publishers)]
        requests = [count_calls(each) for each in stores]

        def publish(one: Store) -> str:
            release, producer = Release(format="huggingface"), Producer(kind="benchmark")
            return one.publish(folder, "shop/run/checkpoint-1", release=release, producer=producer).digest

        with ThreadPoolExecutor(publishers) as all_at_once:
            digests = set(all_at_once.map(publish, stores))
        if len(digests) != 1:
            raise click.ClickException(f"they published {len(digests)} versions")
        names = sorted({name for each in requests for name in each})
        rows = [(name, sum(each[name] for each in requests), max(each[name] for each in requests)) for name in names]
        print_table(f"{files} files, {publishers} publishers", ("Request", "All", "Most of one publisher"), rows)


def count_calls(store: Store) -> Counter[str]:
    """What a store's client asks from now on, by operation."""
    found: Counter[str] = Counter()

    def seen(model: Any, **rest: Any) -> None:
        found[model.name] += 1

    store._bucket.client.meta.events.register("before-call.s3", seen)
    return found


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def make_policies(shop: Shop, server: ApiServer, store: EmbeddedStore, size: int) -> None:
    """Each with a model of its own and versions in the store, the oldest of which it is to serve; of all versions what
    an operator would have written.

    Documents go past the store's and the API server's doors, which would take an hour: what both answer is the same.
    """
    with ThreadPoolExecutor(MAKERS) as makers:
        for _ in makers.map(partial(_make_policy, shop, server, store), range(size)):
            pass


def _make_policy(shop: Shop, server: ApiServer, store: EmbeddedStore, number: int) -> None:
    model = f"model-{number}"
    manifests_ = [make_manifest(model, step) for step in range(VERSIONS)]
    put_in_store(store, shop.store, manifests_)
    versions = [shop.store.version_of(manifest) for manifest in manifests_]
    put_in_etcd(
        server,
        [
            *(evaluated_record(shop.namespace, model, version) for version in versions),
            *(ended_attempt(shop.namespace, model, version, versions[0]) for version in versions[1:]),
        ],
    )
    traffic = {"gateway": {"name": "public"}, "hostnames": [f"{model}.example"]}
    spec = policy_spec(versions[0].uri, model=model, historyLimit=100, traffic=traffic)
    metadata = {"name": model, "namespace": shop.namespace}
    shop.cluster.apply(
        {"apiVersion": "tunegate.io/v1alpha1", "kind": "PromotionPolicy", "metadata": metadata, "spec": spec}
    )


def put_in_store(running: EmbeddedStore, store: Store, manifests_: Sequence[Manifest]) -> None:
    """Versions as publishing leaves them, by the filer that is behind the store's S3."""
    connection = http.client.HTTPConnection("127.0.0.1", running._ports["filer.port"], timeout=60)
    for manifest in manifests_:
        bodies = {file.path: b"weights" for file in manifest.files} | {MANIFEST: to_json(manifest)}
        for path, body in bodies.items():
            where = f"/buckets/{store.uri.removeprefix('s3://')}/{manifest.name}/{path}"
            connection.request("PUT", where, body, {"Content-Type": "application/octet-stream"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 201:
                raise click.ClickException(f"{where}: {answer.status} {said!r}")
    connection.close()


def put_in_etcd(server: ApiServer, objects: Sequence[Object]) -> None:
    """Objects as the API server keeps them, with their status."""
    puts = []
    for obj in objects:
        metadata, kind = obj["metadata"], kinds.kind_of(obj)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
        key = f"/registry/{kind.group}/{kind.plural}/{metadata['namespace']}/{metadata['name']}"
        puts.append({"requestPut": {"key": _base64(key.encode()), "value": _base64(json.dumps(obj).encode())}})
    body = json.dumps({"success": puts}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server._own._etcd}/v3/kv/txn", body)
    with urllib.request.urlopen(request, timeout=60) as answer:
        if not json.load(answer).get("succeeded"):
            raise click.ClickException("etcd did not take the objects")


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def settle(shop: Shop, size: int) -> None:
    """Have a first operator make the servers and routes, and be KServe and the gateway until all serve."""
    child = shop.start_operator("operator-0", scan_seconds=SCAN_SECONDS)
    read = OperatorMetrics(shop.metrics_ports["operator-0"])
    wait_for(read.answers, seconds=120, what="the operator")
    serve_all(shop)
    wait_for(read.is_quiet, seconds=600, what="the operator to have nothing to write")
    child.stop()


def _operator_figures(
    shop: Shop, server: ApiServer, store: EmbeddedStore, size: int, idle_seconds: int, edits: int
) -> dict[str, float]:
    name = f"operator-{time.monotonic_ns()}"
    before_api, before_store, began = api_requests(server), store_requests(store), time.monotonic()
    child = shop.start_operator(name, None, "--log-level", "info", scan_seconds=SCAN_SECONDS)
    read = OperatorMetrics(shop.metrics_ports[name])
    wait_for(read.is_ready, seconds=300, what="the operator to be ready")
    ready = time.monotonic() - began
    wait_for(lambda: _looks(read()) >= 2 * size and not read()["tunegate_operator_queue_depth"], seconds=600)
    looked = time.monotonic() - began
    busy = read()["process_cpu_seconds_total"]
    wait_for(lambda: read()["tunegate_operator_store_scan_seconds_count"] >= 1, seconds=600)
    wait_for(read.is_quiet, seconds=300, what="the operator to have nothing to do")
    starting = {"start: API requests": total(api_requests(server), before_api)}
    starting["start: S3 requests"] = total(store_requests(store), before_store)
    before, before_api, before_store = read(), api_requests(server), store_requests(store)
    began = time.monotonic()
    time.sleep(idle_seconds)
    after, passed = read(), time.monotonic() - began
    looks = _looks(after) - _looks(before)
    figures = {
        "start: ready s": ready,
        "start: all looked at s": looked,
        "start: CPU s": busy,
        **starting,
        "resident MiB": after["process_resident_memory_bytes"] / 2**20,
        "CPU %": 100 * (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / passed,
        "looks/s": looks / passed,
        "look ms": 1000 * (after[f"{LOOK}_sum"] - before[f"{LOOK}_sum"]) / max(1.0, looks),
        "API requests/s": total(api_requests(server), before_api) / passed,
        "S3 requests/s": total(store_requests(store), before_store) / passed,
    }
    reactions = [react(shop, number % size, name) for number in range(edits)]
    figures |= {"reaction p50 ms": 1000 * statistics.median(reactions), "reaction max ms": 1000 * max(reactions)}
    child.stop()
    return figures


def react(shop: Shop, number: int, label: str) -> float:
    """Seconds from an edit of a policy to the status that is of that edit."""
    name = f"model-{number}"
    limit = 101 + int(label[-1]) + number
    edited = shop.cluster.merge(kinds.POLICY, shop.namespace, name, {"spec": {"historyLimit": limit}})
    began = time.monotonic()
    wanted = edited["metadata"]["generation"]
    wait_for(lambda: shop.get(kinds.POLICY, name).get("status", {}).get("observedGeneration") == wanted, seconds=120)
    return time.monotonic() - began


def _looks(figures: Mapping[str, float]) -> float:
    return figures[f"{LOOK}_count"]


def api_requests(server: ApiServer) -> Counter[str]:
    """What the API server has answered, by verb and resource; what it asks itself is of no concern."""
    with server.client() as client:
        request = client.param_serialize("GET", "/metrics", auth_settings=["BearerToken"])
        text = client.call_api(*request).response.data.decode()
    return _counted(
        text, "apiserver_request_total", lambda labels: f"{labels['verb']} {labels['resource']}", _is_of_an_operator
    )


def _is_of_an_operator(labels: Mapping[str, str]) -> bool:
    """The kinds that it works with; its leases, too, which the API server has of its own as well: one in 10 s."""
    known = {kind.plural for kind in WATCHED} | {"events", "pods", "leases"}
    return labels["resource"] in known


def count_requests(store: EmbeddedStore) -> None:
    """Have the store count what it is asked."""
    store._ports["metricsPort"] = free_port()
    store.restart()


def store_requests(store: EmbeddedStore) -> Counter[str]:
    """What the store has answered, by action."""
    with urllib.request.urlopen(f"http://127.0.0.1:{store._ports['metricsPort']}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return _counted(text, "SeaweedFS_s3_request_total", lambda labels: labels["type"], lambda labels: True)


def _counted(
    text: str, name: str, key: Callable[[Mapping[str, str]], str], wanted: Callable[[Mapping[str, str]], bool]
) -> Counter[str]:
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and wanted(sample.labels):
                found[key(sample.labels)] += int(sample.value)
    return found


def total(after: Counter[str], before: Counter[str]) -> int:
    return sum((after - before).values())


def _report(title: str, figures: Mapping[str, float], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({title: figures}, indent=2))
    else:
        print_table(title, ("What", "Figure"), [(name, f"{value:,.2f}") for name, value in figures.items()])


if __name__ == "__main__":
    main()
