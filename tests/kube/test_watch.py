"""The copy in memory keeps up with a real API server, whatever happens to the connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import ApiClient

from tests.apiserver import ApiServer, new_api_server
from tests.waiting import wait_for
from tunegate.kube.client import Cluster
from tunegate.kube.errors import ExpiredError, UnreachableError
from tunegate.kube.kinds import LEASE, SERVICE, Kind, Object
from tunegate.kube.watch import Watches

TEAM = "tests.tunegate.io/team"
Change = tuple[str | None, str | None]


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


pytestmark = pytest.mark.usefixtures("no_threads_left")


def test_changes_arrive(cluster: Cluster, namespace: str) -> None:
    cluster.apply(_lease(namespace, "early", holder="a"))
    with _watching(cluster, namespace) as (watches, changes):
        assert _holders(watches, namespace) == {"early": "a"}
        cluster.apply(_lease(namespace, "early", holder="b"))
        cluster.apply(_lease(namespace, "late", holder="c"))
        wait_for(lambda: _holders(watches, namespace) == {"early": "b", "late": "c"})
        cluster.delete(LEASE, namespace, "early")
        wait_for(lambda: _holders(watches, namespace) == {"late": "c"})
        wait_for(lambda: changes == [(None, "a"), ("a", "b"), (None, "c"), ("b", None)])
        assert watches.get(LEASE, namespace, "early") is None


def test_objects_are_found_by_what_indexes_them(cluster: Cluster, api_server: ApiServer, namespace: str) -> None:
    other = api_server.new_namespace()
    for within, name, labels in (
        (namespace, "one", {TEAM: "shop"}),
        (namespace, "two", {TEAM: "shop"}),
        (namespace, "three", {TEAM: "help"}),
        (other, "four", {TEAM: "shop"}),
    ):
        cluster.apply(_lease(within, name, labels=labels))
    with _watching(cluster, namespace, other) as (watches, _):

        def names(team: str, within: str | None = None) -> set[str]:
            return {each["metadata"]["name"] for each in watches.find(LEASE, team, within)}

        assert set(_holders(watches, namespace)) == {"one", "two", "three"}
        assert names("shop", namespace) == {"one", "two"}
        assert names("shop") == {"one", "two", "four"}
        cluster.apply(_lease(namespace, "one", labels={TEAM: "help"}))
        wait_for(lambda: names("help", namespace) == {"one", "three"})
        assert names("shop", namespace) == {"two"}
        assert names("nobody") == set()


def test_only_what_the_selector_asks_for_is_kept(cluster: Cluster, namespace: str) -> None:
    cluster.apply(_lease(namespace, "ours", labels={"a": "b"}))
    cluster.apply(_lease(namespace, "theirs"))
    with _watching(cluster, namespace, selector="a=b") as (watches, _):
        assert set(_holders(watches, namespace)) == {"ours"}
        cluster.apply(_lease(namespace, "ours"))
        wait_for(lambda: _holders(watches, namespace) == {})


def test_who_owns_a_field_is_dropped_unless_it_is_wanted(cluster: Cluster, namespace: str) -> None:
    def managed(watches: Watches, kind: Kind) -> list[bool]:
        return ["managedFields" in each["metadata"] for each in watches.list(kind, namespace)]

    watches = Watches(cluster, {LEASE: "", SERVICE: ""}, [namespace], with_managers=[SERVICE])
    with _running(watches):
        cluster.apply(_lease(namespace, "lease"))
        cluster.apply(_service(namespace))
        wait_for(lambda: managed(watches, LEASE) == [False] and managed(watches, SERVICE) == [True])


def test_a_listener_that_fails_stops_nobody(cluster: Cluster, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    watches = Watches(cluster, {LEASE: ""}, [namespace])
    watches.on_change(_fail)
    with _running(watches):
        cluster.apply(_lease(namespace, "one"))
        wait_for(lambda: _holders(watches, namespace))
    assert "a listener failed" in caplog.text


def test_a_kind_that_is_installed_later_is_picked_up(
    cluster: Cluster, api_server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    thing = Kind("tests.tunegate.io", "v1", "latethings", "LateThing")
    watches = Watches(cluster, {thing: ""}, absent_seconds=0.2)
    with _running(watches):
        assert not watches.installed(thing)
        assert watches.list(thing) == []
        api_server.install_crds([_crd(tmp_path, thing)])
        wait_for(lambda: watches.installed(thing))
        api_server.kubectl("create", "-f", "-", stdin=yaml.safe_dump(_thing(thing, namespace)))
        wait_for(lambda: watches.get(thing, namespace, "one"))
        api_server.kubectl("delete", "crd", f"{thing.plural}.{thing.group}", "--wait=false")
        wait_for(lambda: not watches.installed(thing))
        assert watches.list(thing) == []


def test_a_refused_kind_is_named_and_never_counts_as_synced(
    api_server: ApiServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with api_server.client_as(namespace, "nobody") as client:
        watches = Watches(Cluster(client, manager="tests"), {SERVICE: ""}, [namespace])
        watches.start()
        wait_for(lambda: 'cannot list resource "services"' in caplog.text)
        assert not watches.synced()
        watches.stop()


def test_what_happened_after_kill_9_of_the_api_server_is_caught_up_with(own_server: ApiServer) -> None:
    namespace = own_server.new_namespace()
    with own_server.client() as client:
        cluster, cut_off = Cluster(client, manager="tests"), _CutOff(client, manager="tests")
        cluster.apply(_lease(namespace, "one", holder="a"))
        cluster.apply(_lease(namespace, "two", holder="a"))
        with _watching(cut_off, namespace) as (watches, changes):
            cut_off.away = True
            own_server.kill()
            own_server.restart()
            cluster.apply(_lease(namespace, "one", holder="b"))
            cluster.delete(LEASE, namespace, "two")
            assert _holders(watches, namespace) == {"one": "a", "two": "a"}
            cut_off.away = False
            wait_for(lambda: _holders(watches, namespace) == {"one": "b"})
            wait_for(lambda: changes[2:] == [("a", "b"), ("a", None)])
            cluster.apply(_lease(namespace, "one", holder="c"))
            wait_for(lambda: _holders(watches, namespace) == {"one": "c"})


def test_a_connection_that_died_silently_is_noticed(own_server: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    namespace = own_server.new_namespace()
    with own_server.client() as client:
        cluster = Cluster(client, manager="tests", timeout=1)
        watches = Watches(cluster, {LEASE: ""}, [namespace], idle_seconds=1)
        with _running(watches):
            caplog.clear()
            with own_server.paused():
                wait_for(lambda: "can't be reached" in caplog.text)
            cluster.apply(_lease(namespace, "one", holder="a"))
            wait_for(lambda: _holders(watches, namespace) == {"one": "a"})


def test_a_quiet_watch_is_listed_again_without_a_warning(
    client: ApiClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Some API servers send nothing at all on a watch without changes; then nothing tells it from a broken one."""
    listing = _Listing(client, manager="tests")
    watches = Watches(listing, {LEASE: ""}, [namespace], idle_seconds=0.3)
    with _running(watches):
        wait_for(lambda: listing.times > 2)
        listing.apply(_lease(namespace, "one", holder="a"))
        wait_for(lambda: _holders(watches, namespace) == {"one": "a"})
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_history_that_the_server_forgot_is_listed_again(own_server: ApiServer) -> None:
    """A resource version that is compacted away, as after a long time without a connection."""
    namespace = own_server.new_namespace()
    with own_server.client() as client:
        cluster = Cluster(client, manager="tests")
        forgetful = _Forgetful(client, manager="tests")
        cluster.apply(_lease(namespace, "one", holder="a"))
        forgetful.since = "1"
        own_server.compact()
        own_server.kill()  # the API server has a memory of its own, which starts with what etcd knows
        own_server.restart()
        watches = Watches(forgetful, {LEASE: ""}, [namespace])
        with _running(watches):
            cluster.apply(_lease(namespace, "one", holder="b"))
            wait_for(lambda: forgetful.expired and _holders(watches, namespace) == {"one": "b"})


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """One that may be killed."""
    with new_api_server(tmp_path_factory.mktemp("api")) as server:
        yield server


class _CutOff(Cluster):
    """Does not reach the server while `away`."""

    away = False

    def list_at(self, *arguments: Any) -> Any:
        if self.away:
            raise UnreachableError("cut off")
        return super().list_at(*arguments)


class _Listing(Cluster):
    """Counts how often it was asked for everything."""

    times = 0

    def list_at(self, *args: Any, **kwargs: Any) -> Any:
        self.times += 1
        return super().list_at(*args, **kwargs)


class _Forgetful(Cluster):
    """Watches once from a resource version that the server does not know any more."""

    since = ""
    expired = False

    def watch(self, kind, namespace, label_selector, since, **rest):  # type: ignore[no-untyped-def]
        since, self.since = self.since or since, ""
        stream = super().watch(kind, namespace, label_selector, since, **rest)
        events = iter(stream)

        def noticed():  # type: ignore[no-untyped-def]
            try:
                yield from events
            except ExpiredError:
                self.expired = True
                raise

        return _Renamed(noticed(), stream.close)


class _Renamed:
    def __init__(self, events: Iterator[tuple[str, Object]], close: Callable[[], None]) -> None:
        self._events, self.close = events, close

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        return self._events


@contextmanager
def _watching(cluster: Cluster, *namespaces: str, selector: str = "") -> Iterator[tuple[Watches, Sequence[Change]]]:
    """Watches leases; gives the copy, and a growing list of (old, new) holders."""
    changes: list[Change] = []
    watches = Watches(cluster, {LEASE: selector}, namespaces, index=_team)
    watches.on_change(lambda kind, old, new: changes.append((_holder(old), _holder(new))))
    with _running(watches):
        yield watches, changes


@contextmanager
def _running(watches: Watches) -> Iterator[None]:
    watches.start()
    try:
        wait_for(watches.synced, what="the first lists")
        yield
    finally:
        watches.stop()


def _team(kind: Kind, lease: Object) -> list[str]:
    return [team for team in (lease["metadata"].get("labels", {}).get(TEAM),) if team]


def _holders(watches: Watches, namespace: str) -> dict[str, str | None]:
    return {each["metadata"]["name"]: _holder(each) for each in watches.list(LEASE, namespace)}


def _holder(lease: Object | None) -> str | None:
    return lease["spec"].get("holderIdentity") if lease else None


def _lease(namespace: str, name: str, *, holder: str = "a", labels: dict[str, str] | None = None) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    spec = {"holderIdentity": holder}
    return {"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata, "spec": spec}


def _service(namespace: str) -> Object:
    metadata = {"name": "web", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}}


def _thing(kind: Kind, namespace: str) -> Object:
    metadata = {"name": "one", "namespace": namespace}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def _crd(folder: Path, kind: Kind) -> Path:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": {"plural": kind.plural, "kind": kind.kind},
            "versions": [{"name": kind.version, "served": True, "storage": True, "schema": schema}],
        },
    }
    path = folder / "crd.yaml"
    path.write_text(yaml.safe_dump(crd))
    return path


def _fail(kind: Kind, old: Object | None, new: Object | None) -> None:
    raise ValueError("on purpose")
