"""One process of the operator, from its start to the signal that ends it: who is started when, and stopped how.

Every replica keeps its copy of the cluster warm; only the one that holds the lease reconciles policies.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from tunegate import logs
from tunegate.api.labels import MANAGED_BY, MODEL
from tunegate.kube import lease
from tunegate.kube.client import Cluster, connect
from tunegate.kube.kinds import Kind, Object
from tunegate.kube.lease import Election
from tunegate.kube.watch import Watches
from tunegate.kube.workqueue import Loop
from tunegate_operator import __version__
from tunegate_operator.config import Config
from tunegate_operator.index import found_by
from tunegate_operator.kinds import (
    DEPLOYMENT,
    GATEWAY,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    JOB,
    LLM_INFERENCE_SERVICE,
    MODEL_VERSION,
    POLICY,
    PROMOTION,
    PYTORCH_JOB,
    SERVICE,
    TRAIN_JOB,
    WORKLOAD,
    operator_cluster,
)
from tunegate_operator.metrics import Endpoint, Metrics
from tunegate_operator.reconcile import Reconciler
from tunegate_operator.types import MANAGER

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

_OURS = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())
# What is kept in memory, by label selector.
WATCHED = {
    POLICY: "",
    PROMOTION: "",
    MODEL_VERSION: "",
    JOB: _OURS,
    SERVICE: _OURS,
    INFERENCE_SERVICE: _OURS,
    LLM_INFERENCE_SERVICE: _OURS,
    DEPLOYMENT: _OURS,
    HTTP_ROUTE: _OURS,
    GATEWAY: "",
    PYTORCH_JOB: MODEL,
    TRAIN_JOB: MODEL,
    WORKLOAD: "",
}
# What people change by hand; who did is said in a condition.
WITH_MANAGERS = (SERVICE, DEPLOYMENT, INFERENCE_SERVICE, LLM_INFERENCE_SERVICE, HTTP_ROUTE)
_STORE_SECONDS = 5.0


@dataclass(frozen=True)
class Joined:
    """A copy of the cluster, and what reconciles policies whenever it changes."""

    watches: Watches
    reconciler: Reconciler
    loop: Loop

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Fill the copy, and keep it up to date."""
        self.watches.start()
        try:
            yield
        finally:
            self.watches.stop()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Watch the store and reconcile policies; in the end finish what is under way. Needs a whole copy."""
        stop = threading.Event()
        store = self.reconciler.start(stop)
        self.loop.start(self.reconciler.reconcile)
        try:
            yield
        finally:
            self.loop.stop()
            stop.set()
            self.reconciler.wake()
            store.join(_STORE_SECONDS)


def join(config: Config, cluster: Cluster, metrics: Metrics) -> Joined:
    """The parts, none of which does anything yet."""
    watches = Watches(
        cluster,
        WATCHED,
        config.namespaces,
        besides={GATEWAY: config.gateway_namespaces},
        index=found_by,
        with_managers=WITH_MANAGERS,
    )
    loop = Loop(observe=metrics.reconciled, noun="policy")
    metrics.queue_depth.set_function(loop.depth)
    reconciler = Reconciler(config, cluster, watches, metrics, cluster.now, loop.add)

    def enqueue(kind: Kind, old: Object | None, new: Object | None) -> None:
        for key in {key for obj in (old, new) if obj for key in reconciler.keys_for(kind, obj)}:
            loop.add(key)

    watches.on_change(enqueue)
    return Joined(watches, reconciler, loop)


def run(config: Config) -> None:
    """Work until SIGTERM or SIGINT; then finish what is under way, and hand over the lease."""
    logs.configure(config.log_level.upper())
    stop = _Signals()
    metrics = Metrics()
    with ExitStack() as parts:
        client = parts.enter_context(connect(f"{MANAGER}/{__version__}", remedy="set KUBECONFIG, or run in a pod"))
        joined = join(config, operator_cluster(client), metrics)
        is_alive, is_synced = joined.loop.is_alive, joined.watches.synced
        endpoint = Endpoint(metrics, config.metrics_host, config.metrics_port, alive=is_alive, ready=is_synced)
        parts.callback(endpoint.close)
        parts.enter_context(joined.watching())
        log.info("started", extra={"metrics_port": endpoint.port})
        while not is_synced():
            if stop.wait(0.1):
                return
        leads = threading.Event()
        if config.lease_namespace:
            parts.callback(_elect(config, client, leads).release)
        else:
            leads.set()
        while not leads.is_set():
            if stop.wait(0.1):
                return
        metrics.leader.set(1)
        with joined.working():
            stop.wait()
            log.info("stopping")


class _Signals:
    """SIGTERM and SIGINT. A queue and no Event: only its `put` may be called while the same thread is in `wait`."""

    def __init__(self) -> None:
        self._came: SimpleQueue[int] = SimpleQueue()
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda number, frame: self._came.put(number))

    def wait(self, seconds: float | None = None) -> bool:
        """Whether one came within this time; with no time given, wait for it."""
        try:
            self._came.get(timeout=seconds)
        except Empty:
            return False
        return True


def _elect(config: Config, client: ApiClient, leads: threading.Event) -> Election:
    """Take part in the election from now on; `leads` is set when it is won."""
    assert config.lease_namespace
    election = Election(
        operator_cluster(client, timeout=lease.TIMEOUT_SECONDS),
        config.lease_namespace,
        MANAGER,
        # Unique, so that two processes on one machine, or one after the other, are never taken for one.
        f"{socket.gethostname()}_{uuid.uuid4()}",
        on_started=leads.set,
        # Another replica may act by now, so nothing is finished. Kubernetes starts us again.
        on_lost=lambda: os._exit(1),
    )
    election.start()
    return election
