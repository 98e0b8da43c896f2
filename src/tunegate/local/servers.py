"""One server process for each version that is to be served, restarted when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tunegate.api.digest import short
from tunegate.api.versions import ModelVersion
from tunegate.processes import Child, answers, free_port
from tunegate.promotion.snapshot import ServerState

MAX_STARTS = 3  # a server that ended this often without ever being ready will not come up


@dataclass
class _Server:
    child: Child
    url: str
    starts: int = 1
    was_ready: bool = False


@dataclass
class Servers:
    """`start` starts the server of a version on a port."""

    start: Callable[[ModelVersion, int], Child]
    _servers: dict[str, _Server] = field(default_factory=dict)
    _stopping: list[threading.Thread] = field(default_factory=list)

    def ensure(self, wanted: Sequence[ModelVersion]) -> None:
        """Start what is missing, restart what ended, stop what is no longer wanted."""
        names = {version.digest for version in wanted}
        for digest in [digest for digest in self._servers if digest not in names]:
            self._stop(self._servers.pop(digest))
        for version in wanted:
            server = self._servers.get(version.digest)
            if server is None:
                self._servers[version.digest] = self._start(version)
            elif server.child.exit_code is not None and (server.was_ready or server.starts < MAX_STARTS):
                server.child.stop()
                starts = 1 if server.was_ready else server.starts + 1
                self._servers[version.digest] = self._start(version, starts)

    def states(self) -> Mapping[str, ServerState]:
        """What each server is like now, by digest."""
        states = {}
        for digest, server in self._servers.items():
            if (code := server.child.exit_code) is not None:
                message = f"the server of {short(digest)} ended with status {code}: {server.child.tail()}"
                gave_up = not server.was_ready and server.starts >= MAX_STARTS
                states[digest] = ServerState(failed=gave_up, message=message)
            else:
                ready = answers(f"{server.url}/v2/health/ready")
                server.was_ready |= ready
                states[digest] = ServerState(ready=ready)
        return states

    def urls(self) -> Mapping[str, str]:
        return {digest: server.url for digest, server in self._servers.items()}

    def close(self) -> None:
        """Stop all servers at the same time and wait for them."""
        self.ensure(())
        for thread in self._stopping:
            thread.join()

    def _start(self, version: ModelVersion, starts: int = 1) -> _Server:
        port = free_port()
        return _Server(self.start(version, port), f"http://127.0.0.1:{port}", starts)

    def _stop(self, server: _Server) -> None:
        # A server finishes its answers before it ends; the loop must not wait for that.
        thread = threading.Thread(target=server.child.stop, name=f"stop {server.child.name}")
        thread.start()
        self._stopping = [*(stopping for stopping in self._stopping if stopping.is_alive()), thread]
