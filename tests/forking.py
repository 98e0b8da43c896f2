"""Programs that import torch, forked from one process that has imported it: that takes longer than most of them run.

Where `sys.executable` is `Forking.python`, the programs in FORKED become forks, and all others what they would be. Each
fork has a stand-in where the program would be: with its words and its environment, what it is told by signals is passed
on, and it ends as the fork does; a fork whose stand-in was killed is killed, too. Run as a program this module is the
process that forks. Linux only: it writes into its own command line, so that forks are found by theirs.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import inspect
import json
import os
import runpy
import secrets
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tunegate.garbage import lasting_imports
from tunegate.processes import PR_SET_PDEATHSIG

FORKED = (
    "tests.unit.training.forked",
    "tests.unit.training.staying",
    "torch.distributed.run",
    "tunegate",
    "tunegate.local.proxy",
    "tunegate.quickstart.base_models",
    "tunegate.serving.engines.program",
    "tunegate.training.launch.agent",
)
_IMPORTED = (
    "aiohttp.web",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # DeepSpeed does so when it starts
    "matplotlib.backends.backend_agg",  # for the picture of a run
    "matplotlib.figure",
    "torch.distributed.run",
    "transformers.cli.serve",
    "tunegate.evaluation.models.local",
    "tunegate.serving.app",
    "tunegate.serving.engines.drawing",
    "tunegate.training.loop.trainer",
)
_ROOM = 100_000  # bytes, for the words of a program, and for its environment
_PADDING = "TUNEGATE_TEST_PADDING"
_STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
words = sys.argv[1:]
begin = words.index("-m") if "-m" in words else 0
if words[:begin] not in ([], ["-u"]) or words[begin : begin + 1] != ["-m"] or words[begin + 1] not in {forked!r}:
    os.execv({python!r}, [{python!r}, *words])
passed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
with socket.socket(socket.AF_UNIX) as forking:
    forking.connect("\\0" + {address!r})
    asked = json.dumps([words, dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(forking, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    forking.sendall(asked)
    replies = forking.makefile()
    pid = int(replies.readline())
    for name in passed_on:
        signal.signal(name, lambda number, _: os.kill(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    status = int(replies.readline())
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@dataclass(frozen=True)
class Forking:
    """A process that forks programs; `python` is to be started instead of Python."""

    python: str

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Whoever starts `sys.executable` here gets forks."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "executable", self.python)
            yield


@contextmanager
def forking(folder: Path) -> Iterator[Forking]:
    """Run the process that forks; `folder` gets its log, `python`, and the store's program, looked for beside that."""
    if sys.platform != "linux":
        yield Forking(sys.executable)
        return
    address, python = f"tunegate-test-{secrets.token_hex(8)}", folder / "python"
    python.write_text(_STAND_IN.format(python=sys.executable, forked=FORKED, address=address))
    python.chmod(0o755)
    (folder / "weed").symlink_to(Path(sys.executable).with_name("weed"))
    words = [sys.executable, "-m", __name__, address, str(python), "x" * _ROOM]
    # Libraries read some of the environment as they are imported.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TORCHDYNAMO_DISABLE": "1", _PADDING: "x" * _ROOM}
    with (
        (folder / "forking.log").open("wb") as log,
        subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as server,
    ):
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", (folder / "forking.log").read_text()
        yield Forking(str(python))


def _serve(address: str, python: str) -> None:
    ready = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print as they are imported
    with lasting_imports():
        for name in _IMPORTED:
            importlib.import_module(name)
    inspect.stack()  # it looks through all modules once, and torch's rendezvous asks for it
    del sys.modules["torch.distributed.run"]  # it is run, and would be there twice
    threading.Thread(target=_end_with_input, daemon=True).start()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + address)
        listener.listen(64)
        print("ready", file=ready, flush=True)
        while True:
            stand_in, _ = listener.accept()
            if os.fork() == 0:
                _end_with_parent()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                _keep(stand_in, python)
            stand_in.close()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _end_with_input() -> None:
    os.read(0, 1)
    os._exit(0)


def _keep(stand_in: socket.socket, python: str) -> NoReturn:
    """Fork what a stand-in asks for, and tell it how that ends; or end it when the stand-in is no longer there."""
    size, descriptors, _, _ = socket.recv_fds(stand_in, 8, 3)
    asked = b""
    while len(asked) < int.from_bytes(size, "big"):
        asked += stand_in.recv(1 << 20)
    words, environment, folder = json.loads(asked)
    pid = os.fork()
    if pid == 0:
        _end_with_parent()
        stand_in.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.chdir(folder)
        _become(python, words, environment)
    for descriptor in descriptors:
        os.close(descriptor)
    stand_in.sendall(f"{pid}\n".encode())
    threading.Thread(target=_end_with_stand_in, args=(stand_in, pid), daemon=True).start()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        stand_in.sendall(f"{status}\n".encode())
    finally:
        os._exit(0)


def _end_with_stand_in(stand_in: socket.socket, pid: int) -> None:
    if not stand_in.recv(1):
        os.kill(pid, signal.SIGKILL)


def _become(python: str, words: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Run a program in this fork, which looks as if it had been started with these words and this environment."""
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    _write_over("arg", [python, *words])
    _write_over("env", [f"{name}={value}" for name, value in environment.items()])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    is_unbuffered, begin = words[0] == "-u" or "PYTHONUNBUFFERED" in environment, words.index("-m")
    if is_unbuffered:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    sys.executable, module = python, words[begin + 1]
    sys.argv = ["", *words[begin + 2 :]]
    status: Any = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined] - as Python does at its end
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status if isinstance(status, int) else 1 if status else 0)


def _write_over(area: str, lines: Sequence[str]) -> None:
    """Write what /proc shows of this process, where there is room for it: the areas lie on the stack."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = (int(fields[number - 3]) for number in {"arg": (48, 49), "env": (50, 51)}[area])
    text = b"".join(os.fsencode(line) + b"\0" for line in lines)
    assert len(text) < end - start, f"no room for {len(text)} bytes"
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


if __name__ == "__main__":
    from tests import forking as itself  # torch's rendezvous looks often for the module of each frame, among all

    itself._serve(*sys.argv[1:3])
