"""A copy of the cluster's objects in memory, kept up to date, so that reading costs the API server nothing.

Each kind (and namespace, where they are listed) has a thread that lists, watches until the server ends the watch or
the connection breaks, and then lists again: there is one way to catch up, and every fault leads to it. What is in
memory may be late, never wrong for good. The client library's informer is not used: it retries without a pause, waits
forever on a connection that died silently, can't tell whether it has listed yet, and needs a kind to be installed.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import partial

from tunegate.kube.client import TIMEOUT_SECONDS, Cluster, Stream
from tunegate.kube.errors import ClusterError, MissingError
from tunegate.kube.kinds import Kind, Object, Objects

log = logging.getLogger(__name__)

RESYNC_SECONDS = 600.0
# On a quiet watch the API server sends a bookmark every one to two minutes.
IDLE_SECONDS = 180.0
# How soon to look again for a kind that isn't installed, and before believing that one was removed.
ABSENT_SECONDS = 60.0
FIRST_DELAY, LAST_DELAY = 1.0, 30.0
# A watch that lasted this long had started well.
SETTLED_SECONDS = 10.0
# So many in a row that did not are something for a person to look at.
MOST_BREAKS = 5

OnChange = Callable[[Kind, Object | None, Object | None], None]


class Watches:
    """The objects of `kinds`, each with a label selector ("" for all). Objects are shared: don't change them.

    namespaces: none means all. besides: where else to look for some kinds.
    index: the values by which an object is found without a search.
    with_managers: the kinds whose managedFields are kept; they are often the larger half of an object.
    """

    def __init__(
        self,
        cluster: Cluster,
        kinds: Mapping[Kind, str],
        namespaces: Collection[str] = (),
        *,
        besides: Mapping[Kind, Collection[str]] | None = None,
        index: Callable[[Kind, Object], Collection[str]] = lambda kind, obj: (),
        with_managers: Collection[Kind] = (),
        idle_seconds: float = IDLE_SECONDS,
        absent_seconds: float = ABSENT_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._stores = {kind: _Store(partial(index, kind)) for kind in kinds}
        self._listeners: list[OnChange] = []
        self._mirrors = [
            _Mirror(
                cluster,
                kind,
                namespace,
                selector,
                self._stores[kind],
                self._tell,
                keep_managers=kind in with_managers,
                idle_seconds=idle_seconds,
                absent_seconds=absent_seconds,
            )
            for kind, selector in kinds.items()
            for namespace in ({*namespaces, *(besides or {}).get(kind, ())} if namespaces else (None,))
        ]

    def on_change(self, listener: OnChange) -> None:
        """Call `listener(kind, old, new)` after each change, from several threads; register before `start`."""
        self._listeners.append(listener)

    def start(self) -> None:
        for mirror in self._mirrors:
            mirror.start()

    def stop(self) -> None:
        for mirror in self._mirrors:
            mirror.ask_to_stop()
        for mirror in self._mirrors:
            if mirror.is_alive():
                mirror.join(TIMEOUT_SECONDS)

    def synced(self) -> bool:
        """Whether everything was listed once, or is not installed."""
        return all(mirror.synced for mirror in self._mirrors)

    def installed(self, kind: Kind) -> bool:
        """Whether the kind was there when it was last looked for."""
        return any(mirror.installed for mirror in self._mirrors if mirror.kind == kind)

    def has_field(self, kind: Kind, *path: str) -> bool:
        """Whether the installed custom kind has this field; asked of the API server, and remembered for a while."""
        return self._cluster.has_field(kind, *path)

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        return self._stores[kind].get(namespace, name)

    def list(self, kind: Kind, namespace: str | None = None) -> Objects:
        """All, or those of a namespace."""
        return self._stores[kind].list(namespace)

    def find(self, kind: Kind, value: str, namespace: str | None = None) -> Objects:
        """Those that have this value in the index; it costs no more when there are many others."""
        return self._stores[kind].find(value, namespace)

    def _tell(self, kind: Kind, old: Object | None, new: Object | None) -> None:
        for listener in self._listeners:
            try:
                listener(kind, old, new)
            except Exception:
                log.exception("a listener failed")


class _Store:
    """Objects of one kind: by namespace and name, and by the values of the index."""

    def __init__(self, index: Callable[[Object], Collection[str]]) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Object]] = defaultdict(dict)
        self._by_value: dict[str, dict[str, dict[str, Object]]] = defaultdict(lambda: defaultdict(dict))

    def get(self, namespace: str, name: str) -> Object | None:
        with self._lock:
            return self._objects.get(namespace, {}).get(name)

    def list(self, namespace: str | None) -> Objects:
        with self._lock:
            return _objects_of(self._objects, namespace)

    def find(self, value: str, namespace: str | None) -> Objects:
        with self._lock:
            return _objects_of(self._by_value.get(value, {}), namespace)

    def names(self, namespace: str | None) -> set[tuple[str, str]]:
        with self._lock:
            return {
                (within, name)
                for within, objects in self._objects.items()
                if namespace in (None, within)
                for name in objects
            }

    def put(self, obj: Object) -> Object | None:
        """Returns what was there before."""
        namespace, name = _key(obj)
        with self._lock:
            old = self._drop(namespace, name)
            self._objects[namespace][name] = obj
            for value in self._index(obj):
                self._by_value[value][namespace][name] = obj
        return old

    def remove(self, namespace: str, name: str) -> Object | None:
        with self._lock:
            return self._drop(namespace, name)

    def _drop(self, namespace: str, name: str) -> Object | None:
        old = self._objects[namespace].pop(name, None)
        for value in self._index(old) if old else ():
            del self._by_value[value][namespace][name]
            if not self._by_value[value][namespace]:
                del self._by_value[value][namespace]
            if not self._by_value[value]:
                del self._by_value[value]
        if not self._objects[namespace]:
            del self._objects[namespace]
        return old


class _Mirror(threading.Thread):
    """Keeps a store equal to what the API server has of one kind, in one namespace or in all."""

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        namespace: str | None,
        selector: str,
        store: _Store,
        tell: OnChange,
        *,
        keep_managers: bool,
        idle_seconds: float,
        absent_seconds: float,
    ) -> None:
        super().__init__(name=f"watch-{kind.plural}", daemon=True)
        self.kind = kind
        self.synced = False
        self.installed = False
        self._cluster = cluster
        self._namespace = namespace
        self._selector = selector
        self._store = store
        self._tell = tell
        self._keep_managers = keep_managers
        self._idle_seconds = idle_seconds
        self._absent_seconds = absent_seconds
        self._stopping = threading.Event()
        self._stream: Stream | None = None
        self._failures = 0
        self._complaint = ""

    def ask_to_stop(self) -> None:
        self._stopping.set()
        if self._stream is not None:
            self._stream.close()

    def run(self) -> None:
        missed = 0
        while not self._stopping.is_set():
            try:
                self._follow()
                missed = 0
            except MissingError:
                missed += 1
                # An API server that is starting up may deny for a moment a kind that it has.
                if missed > 1 or not self.installed:
                    if self.installed or not self.synced:
                        log.info("%s is not installed; looking for it every %.0f s", self.kind, self._absent_seconds)
                    self.installed, self.synced = False, True
                    for namespace, name in self._store.names(self._namespace):
                        self._remove(namespace, name)
                self._stopping.wait(self._absent_seconds)
            except ClusterError as error:
                missed = 0
                self._complain(str(error))
                self._stopping.wait(self._next_delay())
            except Exception:
                log.exception("watching %s failed", self.kind)
                self._stopping.wait(self._next_delay())

    def _follow(self) -> None:
        """List and watch, until the watch ends, as it was asked to, or breaks off. Raises ClusterError."""
        since = self._list()
        seconds = RESYNC_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311 (so that not all list at the same time)
        started = time.monotonic()
        stream = self._cluster.watch(
            self.kind, self._namespace, self._selector, since, seconds=seconds, idle_seconds=self._idle_seconds
        )
        self._stream = stream
        if self._stopping.is_set():
            stream.close()
        try:
            for event, obj in stream:
                if event in ("ADDED", "MODIFIED"):
                    self._strip(obj)
                    self._put(obj)
                elif event == "DELETED":
                    self._remove(*_key(obj))
        except ClusterError as error:
            # The next thing is to list, and it is when that fails, too, that something is wrong.
            log.debug("watching %s: %s; listing again", self.kind, error)
            if self._failures >= MOST_BREAKS:
                self._complain(str(error))
        finally:
            self._stream = None
            if time.monotonic() - started > SETTLED_SECONDS:
                self._failures, self._complaint = 0, ""
        if time.monotonic() - started < SETTLED_SECONDS:
            self._stopping.wait(self._next_delay())  # it was not asked to end this soon

    def _list(self) -> str:
        objects, since = self._cluster.list_at(self.kind, self._namespace, self._selector, self._strip)
        gone = self._store.names(self._namespace) - {_key(obj) for obj in objects}
        for obj in objects:
            self._put(obj)
        for namespace, name in gone:
            self._remove(namespace, name)
        if not self.installed:
            log.info("watching %s", self.kind)
        self.synced = self.installed = True
        return since

    def _put(self, obj: Object) -> None:
        old = self._store.put(obj)
        if old is None or old["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            self._tell(self.kind, old, obj)

    def _remove(self, namespace: str, name: str) -> None:
        old = self._store.remove(namespace, name)
        if old is not None:
            self._tell(self.kind, old, None)

    def _strip(self, obj: Object) -> None:
        if not self._keep_managers:
            obj["metadata"].pop("managedFields", None)

    def _complain(self, message: str) -> None:
        """Say once why it does not work, not at every try."""
        if not self._stopping.is_set() and message != self._complaint:
            self._complaint = message
            log.warning("watching %s: %s", self.kind, message)

    def _next_delay(self) -> float:
        delay = min(LAST_DELAY, FIRST_DELAY * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)


def _objects_of(by_namespace: Mapping[str, Mapping[str, Object]], namespace: str | None) -> Objects:
    """All, or those of one namespace."""
    groups = by_namespace.values() if namespace is None else [by_namespace.get(namespace, {})]
    return [obj for group in groups for obj in group.values()]


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
