"""The operator as users run it, among real parts: a Kubernetes API, a model store, Prometheus.

What kubelets, KServe, gateways and evaluation pods would do is done by `Hands`, in a thread: they write status, and
results into the store, and nothing else. Any of it can be told to stop. What they do is what those do who are not here:
pods come up one by one, a Deployment has a generation of its own, and whatever reaches its template replaces its pods.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry, start_http_server

from tests.apiserver import ApiServer
from tests.builders import make_evaluation
from tests.kserve import PRESETS, Deployment, defaulted, engine_service, engine_status, pods_of
from tests.waiting import wait_for
from tunegate.api.feedback import Feedback, FeedbackRecord, Verdict
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.feedback import ResponseIds, VoteWriter
from tunegate.kube.client import Cluster
from tunegate.kube.errors import ClusterError
from tunegate.kube.kinds import Kind
from tunegate.processes import Child, answers, free_port
from tunegate.serving.metrics import Metrics
from tunegate.store import Store
from tunegate.store.evaluations import save
from tunegate_operator import kinds
from tunegate_operator.types import object_name, server_name

Object = dict[str, Any]
POLICY_NAME = "shop"
FINALIZER = "serving.kserve.io/llmisvc-finalizer"
_IDS = ResponseIds(bytes(32), "shop")


def policy_spec(initial: str, **changes: Any) -> Object:
    spec = {
        "model": "shop",
        "initialVersion": initial,
        "suites": ["quality"],
        "gates": [{"suite": "quality", "metric": "score", "min": 0.5}],
        "steps": [{"weight": 10, "minVerdicts": 5}, {"weight": 50, "minVerdicts": 10}],
        "feedback": {"alpha": 0.05, "margin": 0.25, "minVerdicts": 5},
        "bakingSeconds": 3,
        "traffic": {"gateway": {"name": "public"}, "hostnames": ["shop.example"]},
    }
    return {key: value for key, value in (spec | changes).items() if value is not None}


def publish(store: Store, folder: Path, run: str, model: str = "shop", step: int = 10) -> ModelVersion:
    """A version with a few bytes for weights."""
    source = folder / f"{model}-{run}-{step}"
    source.mkdir(parents=True)
    (source / "model.safetensors").write_bytes(f"{model} {run} {step}".encode())
    release, producer = Release(format="huggingface"), Producer(kind="test", run=run, step=step)
    return store.publish(source, f"{model}/{run}/checkpoint-{step}", release=release, producer=producer)


class Hands:
    """What the rest of the cluster does. `scores` by version name; versions without one leave no result."""

    def __init__(self, cluster: Cluster, namespace: str, store: Store) -> None:
        self.cluster, self.namespace, self.store = cluster, namespace, store
        self.scores: dict[str, float] = {}
        self.versions: dict[str, ModelVersion] = {}
        self.serve = self.route = self.evaluate = True
        # How many pods of each engine may be up, and the presets that there are.
        self.engine_pods, self.presets = 99, set(PRESETS)
        self.deployments: dict[str, Deployment] = {}  # by the uid of the InferenceService
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hands")
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def knows(self, version: ModelVersion, score: float | None = 0.9) -> ModelVersion:
        self.versions[version.digest[7:19]] = version
        if score is not None:
            self.scores[version.name] = score
        return version

    def status(self, obj: Object, status: Object) -> None:
        """Write a status as its controller would."""
        metadata = {key: obj["metadata"][key] for key in ("name", "namespace")}
        body = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, "status": status}
        path = f"{kinds.kind_of(obj).path(self.namespace, metadata['name'])}/status"
        query = {"fieldManager": "somebody", "force": "true"}
        self.cluster._json("PATCH", path, body, query=query, content_type="application/apply-patch+yaml")

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            with contextlib.suppress(ClusterError):
                self._once()

    def _once(self) -> None:
        for isvc in self.listed(kinds.INFERENCE_SERVICE) if self.serve else ():
            self.deploy(isvc)
        for engine in self.listed(kinds.LLM_INFERENCE_SERVICE) if self.serve else ():
            self.run_engine(engine)
        for deployment in self.listed(kinds.DEPLOYMENT) if self.serve else ():
            if "tunegate.io/base" in deployment["metadata"]["labels"] and not deployment.get("status", {}):
                self.make_available(deployment)
        for route in self.listed(kinds.HTTP_ROUTE) if self.route else ():
            parents, generation = route.get("status", {}).get("parents", ()), route["metadata"]["generation"]
            if not parents or parents[-1]["conditions"][0]["observedGeneration"] != generation:
                self.accept(route)
        for job in self.listed(kinds.JOB) if self.evaluate else ():
            if not job.get("status", {}).get("conditions"):
                self._end(job)

    def listed(self, kind: Kind) -> list[Object]:
        found = self.cluster.list(kind, self.namespace)
        return [{**obj, "apiVersion": kind.api_version, "kind": kind.kind} for obj in found]

    def deploy(self, isvc: Object) -> None:
        """What KServe and a kubelet do for a server at a time: one more of its pods is ready, if one is missing."""
        before, uid = isvc.get("status", {}), isvc["metadata"]["uid"]
        if uid not in self.deployments:
            self.deployments[uid] = Deployment.of(isvc)
            self.deployments[uid].up = before.get("modelStatus", {}).get("copies", {}).get("totalCopies", 0)
        deployment = self.deployments[uid]
        deployment.follow(isvc)
        status = deployment.status(_now(), before)
        if status != before:
            self.status(isvc, status)
        elif deployment.up < deployment.replicas:
            deployment.up += 1

    def make_available(self, deployment: Object) -> None:
        """What the Deployment's controller says when its one pod is ready."""
        ready = {"type": "Available", "status": "True", "lastTransitionTime": _now()}
        self.status(deployment, {"replicas": 1, "availableReplicas": 1, "readyReplicas": 1, "conditions": [ready]})

    def run_engine(self, engine: Object) -> None:
        """What KServe and kubelets do for an LLMInferenceService: one more pod is up each time, until it has all.

        It is written as a whole, with a finalizer, before anything is made of it; nothing collects what it leaves.
        """
        metadata, path = (
            engine["metadata"],
            kinds.LLM_INFERENCE_SERVICE.path(self.namespace, engine["metadata"]["name"]),
        )
        service = engine_service(engine, tls=True)
        if "deletionTimestamp" in metadata:
            self.cluster.delete(kinds.SERVICE, self.namespace, service["metadata"]["name"])
            metadata.pop("finalizers", None)
        elif FINALIZER in metadata.get("finalizers", ()):
            before = engine.get("status", {})
            up = before.get("workloads", {}).get("primary", {}).get("readyReplicas", 0) * pods_of(engine)
            most = min(self.engine_pods, engine["spec"]["replicas"] * pods_of(engine))
            status = engine_status(engine, self.presets, min(up + pods_of(engine), most), _now())
            if status != before:
                self.cluster.apply(service)
                self.status(engine, status)
            return
        else:
            metadata["finalizers"] = [FINALIZER]
        metadata.pop("managedFields", None)
        self.cluster._json("PUT", path, defaulted(engine), query={"fieldManager": "manager"})

    @property
    def replaced(self) -> int:
        """How often all pods of a server were replaced."""
        return sum(deployment.replaced for deployment in self.deployments.values())

    def accept(self, route: Object, resolved: str = "True") -> None:
        conditions = [
            {
                "type": kind,
                "status": status,
                "reason": kind,
                "message": "",
                "observedGeneration": route["metadata"]["generation"],
                "lastTransitionTime": _now(),
            }
            for kind, status in (("Accepted", "True"), ("ResolvedRefs", resolved))
        ]
        named = route["spec"]["parentRefs"]
        # Entries of gateways that are named no more stay, as Envoy Gateway and Traefik leave them.
        left = [entry for entry in route.get("status", {}).get("parents", ()) if entry["parentRef"] not in named]
        controller = {"controllerName": "example.test/gateway", "conditions": conditions}
        self.status(route, {"parents": [*left, *({"parentRef": ref, **controller} for ref in named)]})

    def _end(self, job: Object) -> None:
        version = self.versions.get(job["metadata"]["labels"]["tunegate.io/version"])
        if version is None:
            return
        if version.name in self.scores:
            save(self.store, make_evaluation(version, score=self.scores[version.name]))
            self.complete(job)
        else:
            why = _condition("Failed", reason="BackoffLimitExceeded", message="Job has reached its backoff limit")
            conditions = [_condition("FailureTarget"), why]
            self.status(job, {"startTime": _now(), "failed": 2, "conditions": conditions})

    def complete(self, job: Object) -> None:
        """What the Job's controller says when all of its pods have done their work."""
        ends = [_condition("SuccessCriteriaMet"), _condition("Complete")]
        pods = job["spec"].get("completions", 1)
        is_indexed = job["spec"].get("completionMode") == "Indexed"
        indexes = {"completedIndexes": f"0-{pods - 1}"} if is_indexed else {}
        ended = {"completionTime": _now(), "succeeded": pods, "conditions": ends}
        self.status(job, {"startTime": _now(), **ended, **indexes})


class Shop:
    """One namespace with a policy, and everything around it that a test may hurt."""

    def __init__(self, server: ApiServer, cluster: Cluster, namespace: str, store: Store, folder: Path) -> None:
        self.server, self.cluster, self.namespace, self.store, self.folder = server, cluster, namespace, store, folder
        self.prometheus_url: str | None = None
        self.metrics_ports: dict[str, int] = {}  # by the operator's name
        self.hands = Hands(cluster, namespace, store)
        self.base = self.hands.knows(publish(store, folder, "base", step=0))
        self.votes: dict[str, Metrics] = {}
        self.log: VoteWriter = VoteWriter(store)
        self._logging = threading.Lock()
        self._registries: dict[str, CollectorRegistry] = {}
        self._operators: list[Child] = []
        self._stack = contextlib.ExitStack()
        self._stack.callback(self.hands.close)

    def close(self) -> None:
        for operator in self._operators:
            operator.stop()
        self._stack.close()

    def publish(self, run: str, score: float | None = 0.9) -> ModelVersion:
        version = publish(self.store, self.folder, run)
        return self.hands.knows(version, score)

    def start_policy(self, **changes: Any) -> None:
        metadata = {"name": POLICY_NAME, "namespace": self.namespace}
        spec = policy_spec(self.base.uri, **changes)
        self.cluster.apply(
            {"apiVersion": "tunegate.io/v1alpha1", "kind": "PromotionPolicy", "metadata": metadata, "spec": spec}
        )

    def start_prometheus(self, program: str, *versions: ModelVersion) -> None:
        """A real Prometheus that scrapes a real /metrics of each version's server, every second."""
        self._targets: list[Object] = []
        for version in versions:
            self.show(version)
        scrape = {"job_name": "predictors", "file_sd_configs": [{"files": [str(self._targets_file)]}]}
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
        file, port = self.folder / "prometheus.yml", free_port()
        file.write_text(yaml.safe_dump(config))
        words = [f"--config.file={file}", f"--storage.tsdb.path={self.folder / 'tsdb'}"]
        words += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        child = Child.start("prometheus", [program, *words], log=self.folder / "prometheus.log")
        self.prometheus = child
        self._stack.callback(child.stop)
        self.prometheus_url = f"http://127.0.0.1:{port}"
        child.wait_until(lambda: answers(f"{self.prometheus_url}/-/ready"), seconds=120)

    def show(self, version: ModelVersion) -> None:
        """Have Prometheus scrape a server of this version, too, from now on."""
        labels = {"namespace": self.namespace, "pod": f"pod-{len(self._targets)}"}
        self._targets.append({"targets": [self._serve_metrics(version)], "labels": labels})
        new = self._targets_file.with_suffix(".new")
        new.write_text(json.dumps(self._targets))
        new.rename(self._targets_file)

    @property
    def _targets_file(self) -> Path:
        return self.folder / "targets.json"

    def _serve_metrics(self, version: ModelVersion) -> str:
        registry = CollectorRegistry()
        self.votes[version.digest] = Metrics(version.digest, "shop", registry)
        server, thread = start_http_server(0, "127.0.0.1", registry)

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._stack.callback(close)
        return f"127.0.0.1:{server.server_port}"

    def vote(
        self, version: ModelVersion, *, up: int = 0, down: int = 0, log: bool = True, metrics: bool = True
    ) -> None:
        """As a server takes votes: into the log in the store, then into its metrics."""
        verdicts: list[Verdict] = ["up"] * up + ["down"] * down
        now = datetime.now(UTC)
        said = [Feedback(response_id=_IDS.issue(version.digest, now), verdict=verdict) for verdict in verdicts]
        if log:
            with self._logging:
                self.log.write(
                    [FeedbackRecord(digest=version.digest, answered=now, received=now, feedback=each) for each in said]
                )
        for verdict in verdicts if metrics else ():
            self.votes[version.digest].judged(version.digest, verdict)

    def start_operator(
        self, name: str = "operator-0", kubeconfig: Path | None = None, *words: str, scan_seconds: float = 1
    ) -> Child:
        """One replica; it runs until the test ends or kills it."""
        port = self.metrics_ports[name] = free_port()
        arguments = ["--namespace", self.namespace, "--evaluation-image", "tunegate/trainer:0.1.0", *words]
        arguments += ["--metrics-port", str(port), "--metrics-host", "127.0.0.1"]
        arguments += ["--scan-seconds", str(scan_seconds), "--lease-namespace", self.namespace]
        if self.prometheus_url:
            arguments += ["--prometheus-url", self.prometheus_url]
        env = {
            "KUBECONFIG": str(kubeconfig or self.server.kubeconfig),
            "KUBERNETES_SERVICE_HOST": "",
            "TUNEGATE_STORE": self.store.uri,
            "POD_NAME": name,
        }
        child = Child.start(
            name, [sys.executable, "-m", "tunegate_operator", *arguments], log=self.folder / f"{name}.log", env=env
        )
        self._operators.append(child)
        return child

    def kill_operator(self, name: str) -> None:
        """Kill -9, as when its node dies: no lease is given back."""
        mine = {f"POD_NAME={name}".encode(), f"TUNEGATE_STORE={self.store.uri}".encode()}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if words[1:3] == [b"-m", b"tunegate_operator"]:
                    around = set((process / "environ").read_bytes().split(b"\0"))
                    if mine <= around:
                        os.kill(int(process.name), signal.SIGKILL)
        operator = next(each for each in self._operators if each.name == name)
        wait_for(lambda: operator.exit_code is not None, what=f"{name} to be gone")

    # looking
    def get(self, kind: Kind, name: str) -> Object:
        found = self.cluster.get(kind, self.namespace, name)
        assert found is not None, f"there is no {kind.kind} {name}"
        return found

    def promotion(self, version: ModelVersion) -> Object | None:
        return self.cluster.get(kinds.PROMOTION, self.namespace, object_name(version))

    def phase(self, version: ModelVersion) -> str:
        found = self.promotion(version)
        return str(found.get("status", {}).get("phase", "")) if found else ""

    def until(self, version: ModelVersion, *phases: str) -> Object:
        wait_for(lambda: self.phase(version) in phases, seconds=300, what=f"{version.name} to be {phases}")
        found = self.promotion(version)
        assert found is not None
        return found

    def until_serving(self) -> None:
        wait_for(lambda: self.policy_phase() == "Serving", what="the policy to serve")

    def policy_phase(self) -> str:
        found = self.cluster.get(kinds.POLICY, self.namespace, POLICY_NAME)
        return str((found or {}).get("status", {}).get("phase", ""))

    def weights(self) -> Mapping[str, int]:
        route = self.get(kinds.HTTP_ROUTE, POLICY_NAME)
        refs = route["spec"]["rules"][0]["backendRefs"]
        return {ref["name"].removesuffix("-predictor"): ref["weight"] for ref in refs}

    def server_of(self, version: ModelVersion) -> str:
        return server_name(POLICY_NAME, version.digest)

    def condition(self, kind: Kind, name: str, about: str) -> Object:
        found = self.cluster.get(kind, self.namespace, name) or {}
        conditions = found.get("status", {}).get("conditions", ())
        return next((dict(each) for each in conditions if each["type"] == about), {})

    def until_condition(self, about: str, reason: str, kind: Kind = kinds.POLICY, name: str = POLICY_NAME) -> Object:
        def found() -> bool:
            return bool(self.condition(kind, name, about).get("reason") == reason)

        wait_for(found, what=f"{about} to be {reason}, not {self.condition(kind, name, about)}")
        return self.condition(kind, name, about)

    def events(self) -> list[tuple[str, str]]:
        return [(each["reason"], each["note"]) for each in self.cluster.list(kinds.EVENT, self.namespace)]


@contextlib.contextmanager
def open_shop(server: ApiServer, cluster: Cluster, namespace: str, store: Store, folder: Path) -> Iterator[Shop]:
    shop = Shop(server, cluster, namespace, store, folder)
    try:
        yield shop
    finally:
        shop.close()


def keep_voting(shop: Shop, votes: Callable[[], None]) -> Callable[[], None]:
    """Vote twice a second in a thread until the returned function is called."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.5):
            votes()

    thread = threading.Thread(target=run, name="voters")
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()

    return end


def _condition(kind: str, reason: str = "", message: str = "") -> Object:
    now = _now()
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastProbeTime": now,
        "lastTransitionTime": now,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


__all__ = ["POLICY_NAME", "Hands", "Shop", "keep_voting", "open_shop", "policy_spec", "publish"]
