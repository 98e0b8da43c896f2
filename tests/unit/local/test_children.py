"""Servers and evaluations of the local platform, with small programs in the place of the heavy ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.builders import make_evaluation, make_version
from tests.waiting import wait_for
from tunegate.api.evaluation import Evaluation
from tunegate.api.versions import ModelVersion
from tunegate.local.evaluations import Evaluations
from tunegate.local.servers import MAX_STARTS, Servers
from tunegate.processes import Child
from tunegate.promotion.snapshot import EvaluationJob, Event

SERVE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
ONE, TWO = make_version("run-1", created=1), make_version("run-2", created=2)


@pytest.fixture
def programs() -> dict[str, str]:
    """What the server of each digest runs; a test may change it."""
    return {ONE.digest: SERVE, TWO.digest: SERVE}


@pytest.fixture
def servers(tmp_path: Path, programs: dict[str, str]) -> Iterator[Servers]:
    def start(version: ModelVersion, port: int) -> Child:
        argv = [sys.executable, "-c", programs[version.digest], str(port)]
        return Child.start(version.name, argv, log=tmp_path / "server.log")

    servers = Servers(start)
    yield servers
    servers.close()


def is_ready(servers: Servers, version: ModelVersion) -> bool:
    return servers.states()[version.digest].ready


def test_wanted_servers_come_up_and_unwanted_ones_go(servers: Servers) -> None:
    servers.ensure([ONE, TWO])
    wait_for(lambda: is_ready(servers, ONE) and is_ready(servers, TWO))
    servers.ensure([TWO])
    assert set(servers.urls()) == {TWO.digest}
    wait_for(lambda: is_ready(servers, TWO))


def test_asking_for_the_same_servers_again_changes_nothing(servers: Servers) -> None:
    servers.ensure([ONE])
    before = servers.urls()
    servers.ensure([ONE])
    assert servers.urls() == before


def test_a_server_that_served_is_started_again_when_it_ends(servers: Servers) -> None:
    said: list[Event] = []
    servers.say = said.append
    servers.ensure([ONE])
    wait_for(lambda: is_ready(servers, ONE))
    url = servers.urls()[ONE.digest]
    servers._servers[ONE.digest].child.stop()
    servers.ensure([ONE])
    wait_for(lambda: is_ready(servers, ONE))
    assert servers.urls()[ONE.digest] != url
    (event,) = said
    assert event.message.endswith("; it is started again at once.")


def test_the_stable_versions_server_is_tried_on_where_a_candidates_is_given_up(
    servers: Servers, programs: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunegate.local.keeping.LONGEST_SECONDS", 0.01)
    programs[ONE.digest] = "raise SystemExit(1)"

    def has_failed() -> bool:
        servers.ensure([ONE])
        return servers.states()[ONE.digest].failed

    wait_for(has_failed)
    programs[ONE.digest] = SERVE
    servers.ensure([ONE])

    def is_up() -> bool:
        servers.ensure([ONE])
        return is_ready(servers, ONE)

    wait_for(is_up)
    assert not servers.states()[ONE.digest].failed


def test_a_server_that_never_comes_up_is_given_up_with_its_last_words(
    servers: Servers, programs: dict[str, str]
) -> None:
    programs[ONE.digest] = "print('no such model'); raise SystemExit(1)"

    def has_failed() -> bool:
        servers.ensure([ONE])
        return servers.states()[ONE.digest].failed

    wait_for(has_failed)
    assert "no such model" in servers.states()[ONE.digest].message
    assert servers._servers[ONE.digest].starts == MAX_STARTS


class Bench:
    """A place where evaluations put their results; `program` is what an evaluation runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = "import pathlib, sys; [pathlib.Path(p).touch() for p in sys.argv[1:]]"
        self.started: list[tuple[str, tuple[str, ...]]] = []
        self.said: list[str] = []
        self.evaluations = Evaluations(self.start, self.find, say=lambda event: self.said.append(event.message))

    def start(self, version: ModelVersion, suites: Sequence[str]) -> Child:
        self.started.append((version.digest, tuple(suites)))
        paths = [str(self.path(version.digest, suite)) for suite in suites]
        argv = [sys.executable, "-c", self.program, *paths]
        return Child.start("evaluation", argv, log=self.folder / "evaluation.log")

    def find(self, digest: str, suite: str) -> Evaluation | None:
        return make_evaluation(ONE, suite, score=1.0) if self.path(digest, suite).exists() else None

    def path(self, digest: str, suite: str) -> Path:
        return self.folder / f"{digest[7:15]}-{suite}"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.evaluations.close()


def test_one_child_measures_all_missing_suites_of_the_most_urgent_version(bench: Bench) -> None:
    jobs = [EvaluationJob(TWO, "a"), EvaluationJob(ONE, "a"), EvaluationJob(TWO, "b")]
    bench.evaluations.ensure(jobs)
    bench.evaluations.ensure(jobs)
    assert bench.started == [(TWO.digest, ("a", "b"))]
    keys = [(TWO.digest, "a"), (TWO.digest, "b")]
    wait_for(lambda: all(state.result for state in bench.evaluations.states(keys).values()))


def test_results_of_an_earlier_platform_are_found(bench: Bench) -> None:
    bench.path(ONE.digest, "a").touch()
    assert bench.evaluations.states([(ONE.digest, "a")])[ONE.digest, "a"].result
    assert not bench.started


def test_a_failed_evaluation_is_counted_with_its_last_words(bench: Bench) -> None:
    bench.program = "raise SystemExit('rubbish in the suite')"
    key = (ONE.digest, "a")
    bench.evaluations.ensure([EvaluationJob(ONE, "a")])
    wait_for(lambda: bench.evaluations.states([key])[key].failures == 1)
    assert "rubbish in the suite" in bench.evaluations.states([key])[key].message
    bench.evaluations.ensure([EvaluationJob(ONE, "a")])
    wait_for(lambda: bench.evaluations.states([key])[key].failures == 2)
    assert bench.said == ["evaluation ended with status 1: rubbish in the suite"] * 2
