"""Child processes that never outlive us.

A guard (this module run as a program) stands between us and each child: it starts the child in a process group of
its own and ends that group when told to, or when the pipe from us closes, which the kernel does for us even on
kill -9. That works the same on Linux and macOS, for programs that are not ours, too. On Linux the guard also ends
what the child started in other sessions, as torchrun does with its workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import ipaddress
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tunegate.api import environment
from tunegate.api.errors import ProcessError

GRACE_SECONDS = 10.0  # unless the variable environment.GRACE says otherwise
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


class Child:
    """A running program and its log file. Close it, or use it in a `with`; a closed child is gone."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, log_start: int) -> None:
        self.name = name
        self.log = log
        self._process = process
        self._log_start = log_start  # what comes before is of those who used the log earlier

    @classmethod
    def start(cls, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Child:
        """Start `argv` with `env` added to ours, its output appended to `log`.

        A program that does not exist is a child that ends with status 127 and says so in its log.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                [sys.executable, "-m", "tunegate.processes", *argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=without_proxy_to_loopback({**os.environ, **(env or {})}),
                start_new_session=True,
            )
        return cls(name, process, log, log_start)

    @property
    def pid(self) -> int:
        """Of the guard, whose child the program is."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait for `ready`. Raises ProcessError with the end of the log when the child ends or time runs out."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.exit_code is not None:
                raise ProcessError(f"{self.name} ended with status {self.exit_code}: {self.tail()} (log: {self.log})")
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready after {seconds:.0f} s: {self.tail()} (log: {self.log})")
            time.sleep(0.05)

    def tail(self) -> str:
        """The last line of its output that says something."""
        output = self.log.read_bytes()[self._log_start :] if self.log.exists() else b""
        lines = output.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it printed nothing"

    def stop(self) -> None:
        """End the child and everything it started; returns when it is gone."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A loopback TCP port that the kernel gives to nobody who doesn't ask for it, for a minute.

    A connection that has ended keeps its port that long (TIME_WAIT): who takes any port, or connects from one, gets
    another. Servers that name this one listen on it all the same, as they do when they start again.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = int(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()
        return port


def is_loopback(url: str) -> bool:
    """Whether `url` leads to this machine. What does is asked without the proxy that the environment may name."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def open_url(request: str | urllib.request.Request, *, seconds: float, context: ssl.SSLContext | None = None) -> Any:
    """urllib's answer to a request; a proxy in the environment is for other machines. Raises OSError."""
    url = request if isinstance(request, str) else request.full_url
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    return opener.open(request, timeout=seconds)


def without_proxy_to_loopback(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` for a child: whatever proxy it names is not for loopback, whichever library reads it."""
    known = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    names = [name for name in (part.strip() for part in known.split(",")) if name]
    # In a longer list "*" is no word of urllib and curl.
    value = "*" if "*" in names else ",".join([*names, *(name for name in _LOOPBACK if name not in names)])
    return {**environ, "NO_PROXY": value, "no_proxy": value}


def answers(url: str) -> bool:
    """Whether a GET of `url`, which is on loopback, gives a 2xx answer now."""
    try:
        with open_url(url, seconds=2):
            return True
    except (OSError, http.client.HTTPException):
        return False


def _guard(argv: list[str]) -> int:
    """Run `argv` until it ends, or until standard input closes."""
    given = os.environ.get(environment.GRACE) or GRACE_SECONDS
    try:
        grace = float(given)
    except ValueError:
        print(f"{environment.GRACE}={given} is not a number of seconds; write it as 60", flush=True)
        return 2
    end_with_us = None
    if sys.platform == "linux":
        control = ctypes.CDLL(None).prctl
        control(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what our child leaves behind, in any session, becomes our child
        end_with_us = partial(control, PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # should somebody kill us
    try:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=end_with_us)
    except OSError as error:
        print(f"{argv[0]} can't be started: {error.strerror}", flush=True)
        return 127
    # Ctrl-C and friends are for the process that holds the pipe; it decides when we end.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    threading.Thread(target=_end_with_pipe, args=(child, grace), daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # whatever it left behind
    _end_orphans(grace)
    return code if code >= 0 else 128 - code


def _end_with_pipe(child: subprocess.Popen[bytes], grace: float) -> None:
    while os.read(0, 1024):
        pass
    _signal_group(child.pid, signal.SIGTERM)
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        _signal_group(child.pid, signal.SIGKILL)


def _signal_group(pid: int, name: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, name)


def _end_orphans(grace: float) -> None:
    """End the processes that are our children now, and wait for them; they get the same grace as our child."""
    deadline = time.monotonic() + grace
    terminated: set[int] = set()
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return
        late = time.monotonic() > deadline
        for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
            if late or pid not in terminated:
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                terminated.add(pid)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
