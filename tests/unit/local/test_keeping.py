"""A proxy and a store that are killed come up again where they were, and somebody says so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_for
from tunegate.api.errors import UsageError
from tunegate.local.keeping import LONGEST_SECONDS, STEADY_SECONDS, Backoff, Kept, Part, keep
from tunegate.local.platform import Proxy
from tunegate.local.state import Home
from tunegate.processes import Child, answers, free_port
from tunegate.promotion.snapshot import Event
from tunegate.store import EmbeddedStore, Store


@contextmanager
def kept(name: str, part: Part) -> Iterator[list[str]]:
    """What is said while `part` is looked after."""
    said: list[str] = []
    stop = threading.Event()

    def report(event: Event) -> None:
        said.append(event.reason)

    thread = threading.Thread(target=keep, args=([Kept(name, part)], stop, report))
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join()


def kill(child: Child | None, *, guard: bool = False) -> None:
    """Kill -9 of a program, or of its guard."""
    assert child
    (pid,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    os.kill(child.pid if guard else int(pid), signal.SIGKILL)


@pytest.mark.parametrize("guard", [False, True], ids=["the proxy", "its guard"])
def test_a_proxy_that_is_killed_listens_again_on_its_port(tmp_path: Path, guard: bool) -> None:
    port = free_port()
    with Proxy.start(Home(tmp_path), port) as proxy, kept("the proxy", proxy) as said:
        kill(proxy._child, guard=guard)
        wait_for(lambda: said[-1:] == ["StartedAgain"], what="the proxy to be started again")
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/_tunegate/route"), what="its answer")
        assert said[0] == "Ended"


def test_a_store_that_is_killed_has_everything_at_the_same_address(tmp_path: Path) -> None:
    with EmbeddedStore.start(tmp_path) as embedded, kept("the store", embedded) as said:
        store = Store.open(embedded.uri, endpoint_url=embedded.endpoint_url, **embedded.keys)
        store.put("a vote", b"up")
        kill(embedded._child)
        wait_for(lambda: said == ["Ended", "StartedAgain"], what="the store to be started again")
        wait_for(lambda: store.get("a vote") == b"up")
        store.put("another one", b"down")


class Stubborn:
    """A part that ends, and does not start again before the third try."""

    exit_code: int | None = 1
    tries = 0

    def restart(self) -> None:
        self.tries += 1
        if self.tries < 3:
            raise UsageError("The port is taken.")
        self.exit_code = None


def test_what_does_not_start_is_tried_again_and_each_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunegate.local.keeping.LONGEST_SECONDS", 0.01)
    with kept("it", Stubborn()) as said:
        wait_for(lambda: len(said) == 4)
    assert said == ["Ended", "NotStarted", "NotStarted", "StartedAgain"]


def test_what_ends_soon_waits_longer_each_time_and_what_lasted_does_not() -> None:
    backoff = Backoff()
    assert [backoff.pause(0) for _ in range(5)] == [0, 1, 2, 4, 8]
    assert [backoff.pause(0) for _ in range(5)][-1] == LONGEST_SECONDS
    assert backoff.pause(STEADY_SECONDS) == 0
