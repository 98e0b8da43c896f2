"""How soon the operator reacts, and what it costs to keep it running, against a real API server and a real store.

Nobody trains or serves here: a PyTorchJob only says that it is Running, and a thread does what KServe, the gateway and
the Jobs' pods would. Prometheus is real. The clocks:

  checkpoint -> Job   from the moment publishing begins (a version of some bytes) to the watch event of its first Job,
                      with the store scanned as by default
  decision -> weight  from the time in the Promotion's history at which it begins to roll back to the watch event of the
                      HTTPRoute without the candidate
  votes -> weight     from the last of 60 dislikes to that same event: scraping and Prometheus included
  crowd               many ended Promotions and a few that are Paused: memory, CPU time over a while in which nothing
                      happens, and how long looks at policies take then, which all find nothing to write

    python -m benchmarks.promotion_operator [--rounds 20] [--policies 100 --promotions 1000 --idle-seconds 60]

From the root of the repository, with what the tests need: KUBEBUILDER_ASSETS, TUNEGATE_TEST_CRDS, prometheus on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from prometheus_client.parser import text_string_to_metric_families

from tests.apiserver import OWN_CRDS, ApiServer, find_assets, foreign_crds_folder, wait_for
from tests.builders import make_evaluation
from tests.operator.running import Shop, open_shop, policy_spec, publish
from tunegate.api.promotion import Decision, PromotionStatus, Transition
from tunegate.api.versions import ModelVersion
from tunegate.cli.options import print_table
from tunegate.kube.client import Cluster
from tunegate.kube.kinds import Kind, Object
from tunegate.kube.watch import Watches
from tunegate.store import EmbeddedStore, Store
from tunegate_operator import kinds, manifests
from tunegate_operator.kinds import operator_cluster
from tunegate_operator.types import object_name, to_plain, to_summary

SCAN_SECONDS = 30.0  # the default of --scan-seconds
ACTIVE = 3  # policies of the crowd with a Promotion under way
LOOK = "tunegate_operator_reconcile_seconds"


@click.command(help=__doc__.split("\n")[0])
@click.option("--rounds", default=20, show_default=True, help="Checkpoints, each of them rolled back; 0 leaves it out.")
@click.option("--policies", default=100, show_default=True)
@click.option("--promotions", default=1000, show_default=True, help="Of all policies together; 0 leaves the crowd out.")
@click.option("--idle-seconds", default=60, show_default=True)
@click.option("--json", "as_json", is_flag=True)
@click.option("--keep", is_flag=True, help="Say the operator's process after the crowd came, and wait for Enter.")
def main(rounds: int, policies: int, promotions: int, idle_seconds: int, as_json: bool, keep: bool) -> None:
    figures: dict[str, dict[str, float]] = {}
    with open_cluster() as (server, cluster, running, folder):
        store = Store.open(running.uri, endpoint_url=running.endpoint_url)
        if rounds:
            with _shop(server, cluster, store, folder / "reaction") as shop:
                figures |= _reaction(shop, rounds)
        if promotions:
            with _shop(server, cluster, store, folder / "crowd") as shop:
                _make_crowd(shop, policies, promotions)
                figures["crowd"] = _idle(shop, idle_seconds, promotions, keep)
    _report(figures, as_json)


@contextmanager
def open_cluster() -> Iterator[tuple[ApiServer, Cluster, EmbeddedStore, Path]]:
    """An API server and a store, and a folder for more."""
    assets = find_assets()
    if assets is None:
        raise click.UsageError("needs a folder with etcd, kube-apiserver and kubectl in KUBEBUILDER_ASSETS")
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStore.start(Path(scratch, "store")) as running:
        os.environ.update(running.environment)
        server = ApiServer.start(assets, new_folder(Path(scratch, "api")))
        try:
            server.install_crds([OWN_CRDS, foreign_crds_folder()])
            with server.client() as client:
                yield server, operator_cluster(client), running, Path(scratch)
        finally:
            server.stop()


@contextmanager
def _shop(server: ApiServer, cluster: Cluster, store: Store, folder: Path) -> Iterator[Shop]:
    within = Store.open(f"{store.uri}/{folder.name}", endpoint_url=store.endpoint_url)
    with open_shop(server, cluster, server.new_namespace(), within, new_folder(folder)) as shop:
        yield shop


def new_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


class Seen:
    """When the objects of a namespace were first seen to be so; the clock is the one everybody has."""

    def __init__(self, cluster: Cluster, namespace: str, *kinds_: Kind) -> None:
        self._watches = Watches(cluster, dict.fromkeys(kinds_, ""), [namespace])
        self._watches.on_change(self._changed)
        self._waiting: list[tuple[Kind, Callable[[Object], bool], list[float]]] = []

    def __enter__(self) -> Seen:
        self._watches.start()
        wait_for(self._watches.synced)
        return self

    def __exit__(self, *about: object) -> None:
        self._watches.stop()

    def first(self, kind: Kind, is_so: Callable[[Object], bool]) -> Callable[[], float]:
        """A function that waits for such an object, and returns the time at which it came."""
        times: list[float] = []
        self._waiting.append((kind, is_so, times))

        def wait() -> float:
            wait_for(lambda: times, seconds=120, what=f"the {kind.kind}")
            return times[0]

        return wait

    def _changed(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        now = time.time()
        for wanted, is_so, times in self._waiting:
            if new is not None and kind == wanted and is_so(new):
                times.append(now)


@dataclass(frozen=True)
class Round:
    job: float
    weight: float
    votes: float


def _reaction(shop: Shop, rounds: int) -> dict[str, dict[str, float]]:
    _train(shop)
    shop.start_prometheus(_prometheus(), shop.base)
    shop.start_policy(steps=[{"weight": 50, "minVerdicts": 5}])
    shop.start_operator(scan_seconds=SCAN_SECONDS)
    shop.until_serving()
    with connect_to(shop.server) as cluster, Seen(cluster, shop.namespace, kinds.JOB, kinds.HTTP_ROUTE) as seen:
        done = [_round(shop, seen, number) for number in range(rounds)]
    return {
        "checkpoint -> Job": _percentiles([each.job for each in done]),
        "decision -> weight": _percentiles([each.weight for each in done]),
        "votes -> weight": _percentiles([each.votes for each in done]),
    }


def _prometheus() -> str:
    program = shutil.which("prometheus")
    if program is None:
        raise click.UsageError("needs prometheus on the PATH")
    return program


@contextmanager
def connect_to(server: ApiServer) -> Iterator[Cluster]:
    """A connection of our own, with room for watches."""
    with server.client() as client:
        yield operator_cluster(client)


def _train(shop: Shop) -> None:
    """A training job of the shop's model that has only just begun."""
    labels = {"tunegate.io/model": "shop", "tunegate.io/run": "run-0"}
    container = {"name": "pytorch", "image": "tunegate/trainer:0.1.0"}
    master = {"replicas": 1, "template": {"spec": {"containers": [container]}}}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "training", "namespace": shop.namespace, "labels": labels},
        "spec": {"pytorchReplicaSpecs": {"Master": master}},
    }
    shop.cluster.apply(job)
    shop.hands.status(job, {"conditions": [{"type": "Running", "status": "True"}], "replicaStatuses": {}})


def _round(shop: Shop, seen: Seen, number: int) -> Round:
    """A checkpoint comes, is shown, is disliked, and gone again."""
    # Not in step with anything that happens every second.
    time.sleep(number * 0.37 % 1)
    # The version's digest is known once it is published, and its first Job may come before we know it.
    jobs: list[tuple[float, str]] = []
    seen.first(kinds.JOB, lambda job: bool(jobs.append((time.time(), job["metadata"]["name"]))))
    began = time.time()
    version = shop.publish(f"run-{number}")
    wanted = f"evaluate-{version.digest[7:19]}-quality"
    wait_for(lambda: any(name == wanted for _, name in jobs), what="the evaluation Job")
    shop.show(version)
    shop.until(version, "Paused")
    candidate = f"{shop.server_of(version)}-predictor"
    wait_for(lambda: shop.weights().get(shop.server_of(version)) == 50)
    gone = seen.first(
        kinds.HTTP_ROUTE,
        lambda route: candidate not in [ref["name"] for ref in route["spec"]["rules"][0]["backendRefs"]],
    )
    shop.vote(shop.base, up=60)
    shop.vote(version, down=60)
    voted = time.time()
    ended = shop.until(version, "RolledBack", "Succeeded")
    assert ended["status"]["phase"] == "RolledBack", ended["status"]
    history = {step["phase"]: datetime.fromisoformat(step["time"]).timestamp() for step in ended["status"]["history"]}
    first = next(when for when, name in jobs if name == wanted)
    return Round(job=first - began, weight=gone() - history["RollingBack"], votes=gone() - voted)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    """Of few measurements the p95 is all but the longest one."""
    in_order = sorted(seconds)
    p95 = in_order[max(0, -(-95 * len(in_order) // 100) - 1)]
    return {"p50": statistics.median(in_order), "p95": p95, "max": in_order[-1], "n": len(in_order)}


def _make_crowd(shop: Shop, policies: int, promotions: int) -> None:
    """Policies that serve, each with its own model and its share of ended promotions; a few have one under way."""
    shop.hands.close()  # it would be busy all the time with so many objects
    per_policy = promotions // policies
    for number in range(policies):
        model = f"model-{number}"
        versions = [publish(shop.store, shop.folder, f"run-{n}", model=model, step=n) for n in range(per_policy + 1)]
        traffic = {"gateway": {"name": "public"}, "hostnames": [f"{model}.example"]}
        spec = policy_spec(
            versions[0].uri, model=model, historyLimit=promotions, steps=[{"weight": 50}], traffic=traffic
        )
        metadata = {"name": model, "namespace": shop.namespace}
        shop.cluster.apply(
            {"apiVersion": "tunegate.io/v1alpha1", "kind": "PromotionPolicy", "metadata": metadata, "spec": spec}
        )
        for n, version in enumerate(versions):
            is_active = number < ACTIVE and n == per_policy
            _record(shop, model, version)
            if n:
                _attempt(shop, model, version, versions[0], is_active)


def _record(shop: Shop, policy: str, version: ModelVersion) -> None:
    _write(shop, evaluated_record(shop.namespace, policy, version))


def _attempt(shop: Shop, policy: str, version: ModelVersion, stable: ModelVersion, is_active: bool) -> None:
    _write(shop, ended_attempt(shop.namespace, policy, version, stable, is_active=is_active))


def evaluated_record(namespace: str, policy: str, version: ModelVersion) -> Object:
    """The ModelVersion of one that was measured."""
    summary = to_plain(to_summary(make_evaluation(version, score=0.9)))
    status = {"phase": "Evaluated", "evaluations": [summary], "conditions": []}
    return {**manifests.model_version(namespace, policy, version, None), "status": status}


def ended_attempt(
    namespace: str, policy: str, version: ModelVersion, stable: ModelVersion, *, is_active: bool = False
) -> Object:
    """The Promotion of one that was rejected, or is under way."""
    now = datetime.now(UTC)
    ended = Decision(outcome="Rejected", reason="GateFailed", message="score 0.4 is below 0.5", time=now)
    path = ("Verifying", "Evaluating", "Progressing" if is_active else "Rejected")
    history = tuple(
        Transition(phase=phase, time=now + timedelta(seconds=n), reason=phase, message=f"{phase} of {version.name}")
        for n, phase in enumerate(path)
    )
    found = PromotionStatus(phase=path[-1], stable=stable, history=history, decision=None if is_active else ended)
    status = {**to_plain(found), "candidate": to_plain(version), "conditions": []}
    return {**manifests.promotion(namespace, policy, object_name(version), version), "status": status}


def _write(shop: Shop, obj: Object) -> None:
    shop.cluster.apply({name: value for name, value in obj.items() if name != "status"})
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace")}
    body = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, "status": obj["status"]}
    shop.cluster.apply(body, status=True)


def _idle(shop: Shop, seconds: int, promotions: int, keep: bool) -> dict[str, float]:
    operator = "operator-0"
    shop.start_prometheus(_prometheus())  # asked for those that are Paused, it knows nothing
    started = time.monotonic()
    shop.start_operator(operator, None, "--log-level", "info", scan_seconds=SCAN_SECONDS)
    read = OperatorMetrics(shop.metrics_ports[operator])
    wait_for(read.answers, seconds=60, what="the operator")
    serve_all(shop)
    wait_for(lambda: _is_settled(shop), seconds=300, what="everything to be served")
    settled = time.monotonic() - started
    wait_for(lambda: read.is_quiet(), seconds=300, what="the operator to have nothing to write")
    if keep:
        click.prompt("The crowd is there", default="")
    before, began = read(), time.monotonic()
    time.sleep(seconds)
    after, passed = read(), time.monotonic() - began
    looks = after[f"{LOOK}_count"] - before[f"{LOOK}_count"]
    return {
        "promotions": float(promotions),
        "settled s": settled,
        "resident MiB": after["process_resident_memory_bytes"] / 2**20,
        "CPU %": 100 * (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / passed,
        "looks": looks,
        "looks that failed": after[f"{LOOK}_count error"] - before[f"{LOOK}_count error"],
        "look ms": 1000 * (after[f"{LOOK}_sum"] - before[f"{LOOK}_sum"]) / max(1, looks),
        "look p95 below ms": 1000 * read.p95(before, after),
        "scan ms": 1000
        * (after["tunegate_operator_store_scan_seconds_sum"] - before["tunegate_operator_store_scan_seconds_sum"])
        / max(
            1,
            after["tunegate_operator_store_scan_seconds_count"] - before["tunegate_operator_store_scan_seconds_count"],
        ),
    }


def serve_all(shop: Shop) -> None:
    """Be KServe and the gateway until everybody serves, in a few passes instead of all the time."""

    def once() -> bool:
        for isvc in shop.cluster.list(kinds.INFERENCE_SERVICE, shop.namespace):
            shop.hands.deploy(isvc)
        for route in shop.cluster.list(kinds.HTTP_ROUTE, shop.namespace):
            parents = route.get("status", {}).get("parents", ())
            if not parents or parents[0]["conditions"][0]["observedGeneration"] != route["metadata"]["generation"]:
                shop.hands.accept(route)
        return _is_settled(shop)

    wait_for(once, seconds=3600, what="everything to be served")


def _is_settled(shop: Shop) -> bool:
    policies = shop.cluster.list(kinds.POLICY, shop.namespace)
    phases = [each.get("status", {}).get("phase") for each in policies]
    active = [
        each.get("status", {}).get("phase")
        for each in shop.cluster.list(kinds.PROMOTION, shop.namespace)
        if each.get("status", {}).get("phase") in ("Progressing", "Paused")
    ]
    return set(phases) <= {"Serving", "Promoting"} and set(active) <= {"Paused"}


class OperatorMetrics:
    """The operator's own figures, by name; a histogram's buckets by name and bound."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._last: dict[str, float] = {}

    def __call__(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=30) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        found: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            bound = f"<={sample.labels['le']}" if "le" in sample.labels else ""
            if sample.labels.get("result") == "error":
                found[sample.name + bound + " error"] = sample.value
            else:
                found[sample.name + bound] = sample.value
        return found

    def answers(self) -> bool:
        try:
            self()
        except OSError:
            return False
        return True

    def is_ready(self) -> bool:
        """Whether its copy of the cluster is whole."""
        try:
            with urllib.request.urlopen(f"{self._url}/readyz", timeout=30):
                return True
        except OSError:  # an answer other than 200 is one
            return False

    def is_quiet(self) -> bool:
        """Whether it has worked on nothing for ten seconds but what comes again and again."""
        time.sleep(10)
        now = self()
        before, self._last = self._last, now
        return bool(before) and now[f"{LOOK}_count"] - before[f"{LOOK}_count"] < 10 * ACTIVE

    def p95(self, before: dict[str, float], after: dict[str, float]) -> float:
        """The bound of the bucket that the 95th of a hundred looks falls into."""
        prefix = f"{LOOK}_bucket<="
        counts = {
            float(name.removeprefix(prefix)): after[name] - before[name]
            for name in after
            if name.startswith(prefix) and not name.endswith(" error")
        }
        wanted = 0.95 * counts[float("inf")]
        return next(bound for bound, count in sorted(counts.items()) if count >= wanted)


def _report(figures: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    rows = [
        (name, *(f"{found[each]:.2f}" for each in ("p50", "p95", "max")), int(found["n"]))
        for name, found in figures.items()
        if "p95" in found
    ]
    if rows:
        print_table("Reaction, seconds", ("What", "p50", "p95", "max", "N"), rows)
    if crowd := figures.get("crowd"):
        print_table("A crowd", ("What", "Figure"), [(name, f"{value:.1f}") for name, value in crowd.items()])


if __name__ == "__main__":
    main()
