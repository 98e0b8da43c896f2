"""Real programs, ended in every way in which they can end."""

from __future__ import annotations

import os
import signal
import socketserver
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.waiting import wait_for
from tunegate.api import environment
from tunegate.api.errors import ProcessError
from tunegate.processes import Child, answers, free_port, is_loopback, open_url, without_proxy_to_loopback

DEADLINE_SECONDS = 100.0

# Starts a grandchild that would outlive it, and writes who both are.
FAMILY = """
import os, subprocess, sys, time
grandchild = subprocess.Popen(["sleep", "600"])
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()} {grandchild.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""

# Holds a child as the platform does, and writes its own sentence when it is interrupted.
HOLDER = """
import sys, time
from pathlib import Path
from tunegate.processes import Child
folder = Path(sys.argv[1])
with Child.start("family", [sys.executable, "-c", sys.argv[2], str(folder / "pids")], log=folder / "family.log"):
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        while not (folder / "go on").exists():
            time.sleep(0.01)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for yet does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip() != "" and not state.stdout.startswith("Z")


def pids_in(file: Path) -> list[int]:
    """The child and the grandchild, once they run."""
    wait_for(file.exists)
    return [int(pid) for pid in file.read_text().split()]


def python(program: str, log: Path, *arguments: str) -> Child:
    return Child.start("program", [sys.executable, "-c", program, *arguments], log=log)


def ended(child: Child) -> int | None:
    """The exit code, once there is one."""
    wait_for(lambda: child.exit_code is not None)
    child.stop()
    return child.exit_code


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the family, in a group of its own as a shell would start it."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path), FAMILY]
    with subprocess.Popen(argv, start_new_session=True) as process:
        yield process
        process.kill()


def test_a_stopped_child_is_gone_with_all_that_it_started(tmp_path: Path) -> None:
    with python(FAMILY, tmp_path / "log", str(tmp_path / "pids")) as child:
        pids = pids_in(tmp_path / "pids")
        assert all(alive(pid) for pid in pids)
        assert child.exit_code is None

    assert child.exit_code == 128 + signal.SIGTERM
    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_stopping_twice_is_no_harm(tmp_path: Path) -> None:
    child = python("input()", tmp_path / "log")

    child.stop()
    child.stop()

    assert child.exit_code is not None


def test_a_child_may_end_in_its_own_way_when_it_is_stopped(tmp_path: Path) -> None:
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(600)
"""
    with python(program, tmp_path / "log") as child:
        child.wait_until(lambda: child.tail() == "ready", seconds=DEADLINE_SECONDS)

    assert child.exit_code == 7


@pytest.mark.parametrize("grace", ["set", "in the environment"])
def test_a_child_that_will_not_end_is_killed(grace: str, tmp_path: Path) -> None:
    program = f"""
import signal, time, pathlib
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(tmp_path / "ready")!r}).touch()
time.sleep(600)
"""
    seconds = "0.1" if grace == "set" else "600"
    impatient = f"import sys, tunegate.processes as p; p.GRACE_SECONDS = {seconds}; sys.exit(p._guard(sys.argv[1:]))"
    argv = [sys.executable, "-c", impatient, sys.executable, "-c", program]
    env = os.environ if grace == "set" else {**os.environ, environment.GRACE: "0.1"}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True, env=env) as guard:
        wait_for((tmp_path / "ready").exists)
        guard.communicate(timeout=DEADLINE_SECONDS)  # closes the pipe

    assert guard.returncode == 128 + signal.SIGKILL


def test_a_grace_that_is_no_number_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with Child.start("x", ["true"], log=tmp_path / "log", env={environment.GRACE: "soon"}) as child:
        assert ended(child) == 2
        assert "TUNEGATE_GRACE_SECONDS=soon is not a number of seconds" in child.tail()


def test_what_a_child_left_behind_ends_with_it(tmp_path: Path) -> None:
    program = FAMILY.replace("time.sleep(600)", "")
    with python(program, tmp_path / "log", str(tmp_path / "pids")) as child:
        _, grandchild = pids_in(tmp_path / "pids")
        assert ended(child) == 0

    wait_for(lambda: not alive(grandchild))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a guard adopt orphans")
@pytest.mark.parametrize("killed", [False, True], ids=["it ends", "it is killed"])
def test_what_a_child_left_in_another_session_ends_with_it(tmp_path: Path, killed: bool) -> None:
    program = FAMILY.replace('"600"]', '"600"], start_new_session=True').replace("600)", "600 if sys.argv[2:] else 0)")
    with python(program, tmp_path / "log", str(tmp_path / "pids"), *["stay"] * killed) as child:
        pid, grandchild = pids_in(tmp_path / "pids")
        if killed:
            os.kill(pid, signal.SIGKILL)
        ended(child)

        assert not alive(grandchild)


def test_a_child_that_holds_children_is_gone_with_them(tmp_path: Path) -> None:
    with python(HOLDER, tmp_path / "log", str(tmp_path), FAMILY):
        pids = pids_in(tmp_path / "pids")

    wait_for(lambda: not any(alive(pid) for pid in pids))


def test_when_its_holder_is_killed_the_whole_family_ends(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    pids = pids_in(tmp_path / "pids")

    holder.kill()

    wait_for(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_when_its_guard_is_killed_the_child_ends(tmp_path: Path) -> None:
    with python("import os, time; print(os.getpid(), flush=True); time.sleep(600)", tmp_path / "log") as child:
        wait_for(lambda: child.tail().isdecimal())
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: not alive(int(child.tail())))
        assert ended(child) == -signal.SIGKILL


def test_ctrl_c_hits_the_holder_alone(tmp_path: Path, holder: subprocess.Popen[bytes]) -> None:
    pids = pids_in(tmp_path / "pids")

    os.killpg(holder.pid, signal.SIGINT)

    wait_for((tmp_path / "interrupted").exists)
    assert all(alive(pid) for pid in pids)
    (tmp_path / "go on").touch()
    assert holder.wait(DEADLINE_SECONDS) == 0
    assert not any(alive(pid) for pid in pids)


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL),
    ],
    ids=["success", "failure", "killed"],
)
def test_exit_codes_are_those_of_the_program(tmp_path: Path, program: str, code: int) -> None:
    with python(program, tmp_path / "log") as child:
        assert ended(child) == code


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with (
        Child.start("store", ["no-such-program", "server"], log=tmp_path / "log") as child,
        pytest.raises(
            ProcessError, match="store ended with status 127: no-such-program can't be started: No such file"
        ),
    ):
        child.wait_until(lambda: False, seconds=DEADLINE_SECONDS)


def test_a_child_that_ends_early_is_quoted_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "new folder" / "log"
    with (
        python("print('port 80 is taken'); print('  '); raise SystemExit(1)", log) as child,
        pytest.raises(ProcessError, match="program ended with status 1: port 80 is taken") as error,
    ):
        child.wait_until(lambda: False, seconds=DEADLINE_SECONDS)

    assert str(log) in str(error.value)


def test_a_child_that_ends_without_a_word_is_not_given_those_of_its_predecessor(tmp_path: Path) -> None:
    with python("print('all went well')", tmp_path / "log") as first:
        ended(first)

    with (
        python("raise SystemExit(1)", tmp_path / "log") as second,
        pytest.raises(ProcessError, match="ended with status 1: it printed nothing"),
    ):
        second.wait_until(lambda: False, seconds=DEADLINE_SECONDS)
    assert "all went well" in (tmp_path / "log").read_text()


def test_a_child_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    with (
        python("import time; time.sleep(600)", tmp_path / "log") as child,
        pytest.raises(ProcessError, match="program was not ready after 0 s: it printed nothing"),
    ):
        child.wait_until(lambda: False, seconds=0.1)


def test_a_child_that_was_ready_may_have_ended(tmp_path: Path) -> None:
    with python("", tmp_path / "log") as child:
        ended(child)
        child.wait_until(lambda: True, seconds=DEADLINE_SECONDS)


def test_environment_is_added_to_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")
    program = "import os; print(os.environ['OURS'], os.environ['THEIRS'])"
    with Child.start("child", [sys.executable, "-c", program], log=tmp_path / "log", env={"THEIRS": "2"}) as child:
        assert ended(child) == 0

    assert child.tail() == "1 2"


class _Status(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Rude(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(100)
        self.request.sendall(b"220 this is no web server\r\n")


def url_of(server: socketserver.TCPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


@pytest.fixture(params=[_Status, _Rude])
def server(request: pytest.FixtureRequest) -> Iterator[socketserver.TCPServer]:
    kind = HTTPServer if request.param is _Status else socketserver.TCPServer
    with kind(("127.0.0.1", 0), request.param) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("server", [_Status], indirect=True)
@pytest.mark.parametrize(("status", "expected"), [(200, True), (204, True), (404, False), (503, False)])
def test_answers_says_whether_there_is_a_2xx(server: socketserver.TCPServer, status: int, expected: bool) -> None:
    assert answers(f"{url_of(server)}/{status}") is expected


@pytest.mark.parametrize("server", [_Status], indirect=True)
def test_loopback_is_asked_directly(server: socketserver.TCPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)

    assert answers(f"{url_of(server)}/200")


@pytest.mark.parametrize("server", [_Rude], indirect=True)
def test_something_else_on_the_port_does_not_answer(server: socketserver.TCPServer) -> None:
    assert not answers(url_of(server))


def test_nobody_on_the_port_does_not_answer() -> None:
    assert not answers(f"http://127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8333", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80/x", True),
        ("https://localhost", True),
        ("http://store.localhost:1", True),
        ("http://10.0.0.1", False),
        ("https://s3.amazonaws.com", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("nonsense", False),
    ],
)
def test_loopback_is_told_from_other_machines(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "corp.example, 10.0.0.0/8"}, "corp.example,10.0.0.0/8,127.0.0.1,localhost,::1"),
        ({"no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1,localhost,::1"),
        ({"no_proxy": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": " * "}, "*"),
    ],
    ids=["none", "a company's", "both", "a part", "all"],
)
def test_children_use_no_proxy_to_loopback(given: dict[str, str], value: str) -> None:
    assert without_proxy_to_loopback(given) == {"NO_PROXY": value, "no_proxy": value}


def test_child_reaches_loopback_past_a_proxy_that_is_dead(
    tmp_path: Path, dead_proxy: None, web_proxy: list[str]
) -> None:
    program = f"import urllib.request; print(urllib.request.urlopen('{web_proxy[0]}').status)"
    with Child.start("child", [sys.executable, "-c", program], log=tmp_path / "log") as child:
        wait_for(lambda: child.exit_code is not None)
        assert child.tail() == "200"


def test_loopback_is_asked_directly_and_others_by_the_proxy(
    web_proxy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = web_proxy[0]
    monkeypatch.setenv("http_proxy", url)

    with open_url("http://elsewhere.invalid/path", seconds=5):
        pass
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with open_url(f"{url}/mine", seconds=5):
        pass

    assert web_proxy[1:] == ["http://elsewhere.invalid/path", "/mine"]
    assert answers(url)
