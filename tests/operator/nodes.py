"""A node whose pods are processes: they run the containers that operator and chart describe, as they are.

Only where things are differs: the folders that a pod mounts are folders of the test, and each pod has an address of its
own on loopback, where its Service would lead.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any

from tests.chart.rendering import pick, render
from tests.kserve import environment_of
from tests.operator.running import Shop
from tunegate.kube.errors import ClusterError
from tunegate.processes import Child, answers
from tunegate_operator import kinds

Object = dict[str, Any]


class Node:
    """Runs the engines that versions share, the servers of versions, and evaluations, until it is closed.

    secrets: what Secrets hold, by name. A pod that ended stays ended: what became of it is for the test to look at.
    """

    def __init__(self, shop: Shop, endpoint_url: str, secrets: Mapping[str, dict[str, str]]) -> None:
        self._shop, self._secrets = shop, dict(secrets)
        chart = render({"store": {"uri": shop.store.uri, "endpointUrl": endpoint_url}})
        (self._runtime,) = pick(chart, "ClusterServingRuntime")["spec"]["containers"]
        self._initializer = pick(chart, "ClusterStorageContainer")["spec"]["container"]
        self._pods: dict[str, Child] = {}
        self._hosts: dict[str, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="node")
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        for pod in self._pods.values():
            pod.stop()

    def url_of(self, name: str, port: int) -> str:
        """Where the pod of this name answers."""
        return f"http://{self._hosts[self._service(name)]}:{port}"

    def _service(self, name: str) -> str:
        return f"{name}.{self._shop.namespace}.svc"

    def _run(self) -> None:
        while not self._stop.wait(0.5):
            with contextlib.suppress(ClusterError):
                self._once()

    def _once(self) -> None:
        hands = self._shop.hands
        for engine in hands.listed(kinds.DEPLOYMENT):
            pod = engine["spec"]["template"]["spec"]
            (brings,), (container,) = pod["initContainers"], pod["containers"]
            if self._is_ready(engine["metadata"]["name"], brings, container) and not engine.get("status"):
                hands.make_available(engine)
        for server in hands.listed(kinds.INFERENCE_SERVICE):
            model = server["spec"]["predictor"]["model"]
            brings = {**self._initializer, "args": [model["storageUri"], "/mnt/models"]}
            container = {**self._runtime, "env": [*self._runtime["env"], *model["env"]]}
            if self._is_ready(server["metadata"]["name"], brings, container):
                hands.deploy(server)
        for job in hands.listed(kinds.JOB):
            (container,) = job["spec"]["template"]["spec"]["containers"]
            if self._run_once(job["metadata"]["name"], container) and not job.get("status"):
                hands.complete(job)

    def _is_ready(self, name: str, brings: Object, container: Object) -> bool:
        """Whether the container's probe succeeds; it is started as soon as its initializer has done its work."""
        if not self._run_once(f"{name}/initializer", {**brings, "args": ["initialize", *brings["args"]]}):
            return False
        if name not in self._pods:
            self._hosts[self._service(name)] = f"127.0.1.{len(self._hosts) + 1}"
            self._pods[name] = self._start(name, container)
        probe = container["readinessProbe"]["httpGet"]
        return answers(self.url_of(name, probe["port"]) + probe["path"])

    def _run_once(self, name: str, container: Object) -> bool:
        """Whether what is to run once has ended well."""
        if name not in self._pods:
            self._pods[name] = self._start(name, container)
        return self._pods[name].exit_code == 0

    def _start(self, name: str, container: Object) -> Child:
        pod = name.partition("/")[0]
        folder = self._shop.folder / "pods" / pod
        (folder / "dev").mkdir(parents=True, exist_ok=True)
        places = {**self._hosts, "0.0.0.0": self._hosts.get(self._service(pod), "")}  # noqa: S104
        places |= {f"/{each}": str(folder / each) for each in ("mnt/models", "tmp", "cache", "dev/termination-log")}
        inside = re.compile("|".join(map(re.escape, places)))

        def here(text: str) -> str:
            return inside.sub(lambda found: places[found[0]], text)

        words = [sys.executable, "-m", "tunegate", *map(here, container["args"])]
        env = {key: here(value) for key, value in environment_of(container, self._secrets).items()}
        return Child.start(name, words, log=folder / f"{container['name']}.log", env=env)
