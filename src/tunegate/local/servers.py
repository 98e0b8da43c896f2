"""One server process for each version that is to be served, started again when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunegate.api.digest import short
from tunegate.api.versions import ModelVersion
from tunegate.local.keeping import Backoff, when
from tunegate.processes import Child, answers, free_port
from tunegate.promotion.snapshot import Event, ServerState

MAX_STARTS = 3  # a candidate whose server ended this often without ever being ready is given up


@dataclass
class _Server:
    """starts: in a row that came to nothing, with the present one."""

    child: Child
    url: str
    starts: int = 1
    was_ready: bool = False
    began: float = field(default_factory=time.monotonic)
    due: float | None = None
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def has_failed(self) -> bool:
        ended = self.child.exit_code is not None
        return not self.was_ready and self.starts - (not ended) >= MAX_STARTS


@dataclass
class Servers:
    """`start` starts the server of a version on a port; `say` hears of each that ended and is started again."""

    start: Callable[[ModelVersion, int], Child]
    say: Callable[[Event], None] = lambda event: None
    _servers: dict[str, _Server] = field(default_factory=dict)
    _stopping: list[threading.Thread] = field(default_factory=list)

    def ensure(self, wanted: Sequence[ModelVersion]) -> None:
        """Start what is missing, start again what ended, stop what is no longer wanted."""
        names = {version.digest for version in wanted}
        for digest in [digest for digest in self._servers if digest not in names]:
            self._stop(self._servers.pop(digest))
        for version in wanted:
            server = self._servers.get(version.digest)
            if server is None:
                port = free_port()
                self._servers[version.digest] = _Server(self.start(version, port), _url(port))
            elif server.child.exit_code is not None:
                self._start_again(version, server)

    def _start_again(self, version: ModelVersion, server: _Server) -> None:
        now = time.monotonic()
        if server.due is None:
            pause = server.backoff.pause(now - server.began)
            server.due = now + pause
            self.say(Event("", "Ended", f"{_ending(version.digest, server)}; it is started again {when(pause)}."))
        if now >= server.due:
            server.child.stop()
            port, starts = free_port(), 1 if server.was_ready else server.starts + 1
            self._servers[version.digest] = _Server(
                self.start(version, port), _url(port), starts, backoff=server.backoff
            )

    def states(self) -> Mapping[str, ServerState]:
        """What each server is like now, by digest."""
        states = {}
        for digest, server in self._servers.items():
            if server.child.exit_code is not None:
                states[digest] = ServerState(failed=server.has_failed, message=_ending(digest, server))
            else:
                ready = answers(f"{server.url}/v2/health/ready")
                server.was_ready |= ready
                states[digest] = ServerState(ready=ready, failed=server.has_failed)
        return states

    def urls(self) -> Mapping[str, str]:
        return {digest: server.url for digest, server in self._servers.items()}

    def close(self) -> None:
        """Stop all servers at the same time and wait for them."""
        self.ensure(())
        for thread in self._stopping:
            thread.join()

    def _stop(self, server: _Server) -> None:
        # A server finishes its answers before it ends; the loop must not wait for that.
        thread = threading.Thread(target=server.child.stop, name=f"stop {server.child.name}")
        thread.start()
        self._stopping = [*(stopping for stopping in self._stopping if stopping.is_alive()), thread]


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def _ending(digest: str, server: _Server) -> str:
    return f"the server of {short(digest)} ended with status {server.child.exit_code}: {server.child.tail()}"
