"""One replica acts at a time, whatever their clocks say and however one of them ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from kubernetes.client import ApiClient

from tests.apiserver import ApiServer
from tests.waiting import wait_for
from tunegate.kube.client import Cluster
from tunegate.kube.kinds import LEASE
from tunegate.kube.lease import DURATION_SECONDS, RENEW_WITHIN_SECONDS, TIMEOUT_SECONDS, Election

DURATION = 2
NAME = "replicas"


class Replica:
    """An election, and what it said."""

    def __init__(self, client: ApiClient, namespace: str, identity: str, ahead: timedelta = timedelta()) -> None:
        self.leads = False
        self.was_lost = False
        self.began = 0.0
        self._election = Election(
            Cluster(client, manager="tests", timeout=0.4),
            namespace,
            NAME,
            identity,
            on_started=self._start,
            on_lost=self._lose,
            now=lambda: datetime.now(UTC) + ahead,
            duration=DURATION,
        )
        self._election.start()

    def stop(self) -> None:
        self._election.release()
        self.leads = False

    def _start(self) -> None:
        self.began = time.monotonic()
        self.leads = True

    def _lose(self) -> None:
        self.leads, self.was_lost = False, True


Start = Callable[..., Replica]


@pytest.fixture
def replica(client: ApiClient, namespace: str) -> Iterator[Start]:
    before = set(threading.enumerate())
    started: list[Replica] = []

    def start(identity: str, **more: timedelta) -> Replica:
        started.append(Replica(client, namespace, identity, **more))
        return started[-1]

    yield start
    for each in started:
        each.stop()
    assert set(threading.enumerate()) <= before


def test_one_leads_and_the_other_follows_when_it_is_released(replica: Start, cluster: Cluster, namespace: str) -> None:
    first = replica("a")
    wait_for(lambda: first.leads)
    second = replica("b")
    renewed = _version(cluster, namespace)
    wait_for(lambda: _version(cluster, namespace) != renewed, what="the lease to be renewed")
    assert not second.leads
    first.stop()
    wait_for(lambda: second.leads)
    lease = cluster.get(LEASE, namespace, NAME)
    assert lease
    assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("b", 1)


def test_a_released_lease_names_nobody(replica: Start, cluster: Cluster, namespace: str) -> None:
    first = replica("a")
    wait_for(lambda: first.leads)
    first.stop()
    lease = cluster.get(LEASE, namespace, NAME)
    assert lease
    assert not lease["spec"]["holderIdentity"]


@pytest.mark.parametrize("hours", [-24, 24])
def test_a_wrong_clock_neither_gives_nor_takes_the_lease(
    replica: Start, cluster: Cluster, namespace: str, hours: int
) -> None:
    first = replica("a", ahead=timedelta(hours=hours))
    wait_for(lambda: first.leads)
    second = replica("b")
    seen = {_version(cluster, namespace)}
    while len(seen) < 25:  # renewals: far longer than the lease lasts
        seen.add(_version(cluster, namespace))
        assert not second.leads
    first.stop()
    wait_for(lambda: second.leads)
    assert not first.was_lost


def test_a_lease_whose_holder_is_gone_is_taken_when_it_is_over(
    replica: Start, cluster: Cluster, namespace: str
) -> None:
    lease = {"holderIdentity": "gone", "leaseDurationSeconds": DURATION, "renewTime": "2999-01-01T00:00:00.000000Z"}
    metadata = {"name": NAME, "namespace": namespace}
    cluster.create({"apiVersion": LEASE.api_version, "kind": "Lease", "metadata": metadata, "spec": lease})
    began = time.monotonic()
    second = replica("b")
    wait_for(lambda: second.leads)
    assert second.began - began > DURATION


def test_a_lease_that_is_taken_away_is_lost(replica: Start, cluster: Cluster, namespace: str) -> None:
    first = replica("a")
    wait_for(lambda: first.leads)
    lease = cluster.get(LEASE, namespace, NAME)
    assert lease
    cluster.apply(
        {
            "apiVersion": LEASE.api_version,
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": lease["spec"] | {"holderIdentity": "thief"},
        }
    )
    wait_for(lambda: first.was_lost)


def test_a_leader_that_can_not_renew_stops_while_nobody_else_can_lead(replica: Start, api_server: ApiServer) -> None:
    first = replica("a")
    wait_for(lambda: first.leads)
    with api_server.paused():
        wait_for(lambda: first.was_lost)
    second = replica("b")
    wait_for(lambda: second.leads)


def test_a_last_try_to_renew_ends_before_the_lease_does() -> None:
    assert RENEW_WITHIN_SECONDS + TIMEOUT_SECONDS < DURATION_SECONDS


def test_of_many_that_start_together_one_leads(replica: Start) -> None:
    several = [replica(f"replica-{number}") for number in range(5)]
    wait_for(lambda: any(each.leads for each in several))
    for _ in range(4):
        leaders = [each for each in several if each.leads]
        assert len(leaders) == 1
        leaders[0].stop()
        several.remove(leaders[0])
        wait_for(lambda: any(each.leads for each in several))


def _version(cluster: Cluster, namespace: str) -> str:
    lease = cluster.get(LEASE, namespace, NAME)
    assert lease
    return str(lease["metadata"]["resourceVersion"])
