"""Which of several replicas acts: the one that holds a Lease.

Our own and not the client library's election, which can't be stopped, never gives the lease back, waits without a
limit for an answer, and measures with the wall clock. Here only this machine's monotonic clock counts: another's lease
is over when the Lease object has not changed for as long as its holder asked for, counted from when we first saw it so.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tunegate.kube.client import Cluster, micro_time
from tunegate.kube.errors import ClusterError, ConflictError
from tunegate.kube.kinds import LEASE, Object

log = logging.getLogger(__name__)

DURATION_SECONDS = 15
# A request that was begun in time and takes TIMEOUT_SECONDS must still end before the lease does.
RENEW_WITHIN_SECONDS = 10.0
TIMEOUT_SECONDS = 4.0
RETRY_SECONDS = 2.0


class Election:
    """Takes the lease and keeps it, in a thread of its own.

    cluster: one whose requests end within TIMEOUT_SECONDS.
    name: of the Lease. identity: who we are, unlike any other process.
    on_started: called once, when the lease is ours; must return soon, since nothing is renewed meanwhile.
    on_lost: called once, when it is another's or can't be renewed; nothing may be done in the cluster from then on.
    now: the time to write down for people.
    duration: seconds; all other times are shortened with it.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        *,
        on_started: Callable[[], None],
        on_lost: Callable[[], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        duration: int = DURATION_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._on_started = on_started
        self._on_lost = on_lost
        self._now = now
        self._duration = duration
        self._scale = duration / DURATION_SECONDS
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._held: Object | None = None  # the Lease as we wrote it last
        self._seen = ("", 0.0)  # the resource version of another's, and when we saw it first

    def start(self) -> None:
        self._thread.start()

    def release(self) -> None:
        """Stop renewing, and let another replica begin at once. Call it when no more work is under way."""
        self._stopping.set()
        self._thread.join()
        if self._held is not None:
            try:
                self._write(self._held, holder="")
            except ClusterError as error:
                log.warning("the lease was not released, it runs out by itself: %s", error)
            self._held = None

    def _run(self) -> None:
        while self._held is None:
            if self._pause():
                return
            self._held = self._try_to_acquire()
        log.info("leading as %s", self._identity)
        self._on_started()
        renewed = time.monotonic()
        while not self._pause():
            began = time.monotonic()
            if self._renew():
                renewed = began
            elif self._held is None or time.monotonic() - renewed > RENEW_WITHIN_SECONDS * self._scale:
                self._held = None
                log.critical("the lease is lost")
                self._on_lost()
                return

    def _pause(self) -> bool:
        """Whether it should stop; the jitter keeps replicas from asking in step."""
        return self._stopping.wait(RETRY_SECONDS * self._scale * random.uniform(0.5, 1.0))  # noqa: S311

    def _try_to_acquire(self) -> Object | None:
        try:
            lease = self._cluster.get(LEASE, self._namespace, self._name)
            if lease is None:
                return self._cluster.create(self._lease(holder=self._identity, transitions=0))
            spec, found = lease.get("spec", {}), lease["metadata"]["resourceVersion"]
            if spec.get("holderIdentity"):
                version, since = self._seen
                if version != found:
                    self._seen = found, time.monotonic()
                    return None
                if time.monotonic() - since <= spec.get("leaseDurationSeconds", self._duration):
                    return None
            return self._write(lease, holder=self._identity)
        except ConflictError:
            return None  # another was quicker
        except ClusterError as error:
            log.warning("the lease can't be taken: %s", error)
            return None

    def _renew(self) -> bool:
        assert self._held is not None
        try:
            self._held = self._write(self._held, holder=self._identity)
        except ConflictError:
            # Another wrote to the Lease, or an answer to us was lost: is it still ours?
            with contextlib.suppress(ClusterError):
                lease = self._cluster.get(LEASE, self._namespace, self._name)
                ours = lease is not None and lease.get("spec", {}).get("holderIdentity") == self._identity
                self._held = lease if ours else None
            return False
        except ClusterError as error:
            log.warning("the lease was not renewed: %s", error)
            return False
        return True

    def _write(self, lease: Object, *, holder: str) -> Object:
        """Change exactly the Lease that was read; another that was written meanwhile is a ConflictError."""
        spec = lease.get("spec", {})
        changed = self._lease(holder=holder, transitions=spec.get("leaseTransitions", 0))
        changed["metadata"]["resourceVersion"] = lease["metadata"]["resourceVersion"]
        if holder == spec.get("holderIdentity"):
            changed["spec"]["acquireTime"] = spec.get("acquireTime", changed["spec"]["acquireTime"])
        elif holder:
            changed["spec"]["leaseTransitions"] += 1
        return self._cluster.apply(changed)

    def _lease(self, *, holder: str, transitions: int) -> Object:
        now = micro_time(self._now())
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": self._duration,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
