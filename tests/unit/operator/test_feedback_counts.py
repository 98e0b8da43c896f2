"""Counting verdicts from what Prometheus answers: exact over restarts, never an old one, and never a guess."""

from __future__ import annotations

import contextlib
import http.server
import re
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.builders import at, make_version
from tunegate.api.digest import short
from tunegate.api.feedback import Tally, Verdicts, step_tag
from tunegate.promotion.counting import Counted
from tunegate.promotion.sample_ratio import mismatch
from tunegate_operator.conditions import Problem
from tunegate_operator.feedback_counts import Counts, Series, count, read_counts

NEW, OLD = make_version("run-1").digest, make_version("base").digest
ASKED = Counted("shop-run-1", NEW, OLD, at(0))
SINCE = at(0).timestamp()
LONG_BEFORE = -100_000.0
Values = list[tuple[float, float | str]]


def series(
    digest: str,
    verdict: str,
    values: Values,
    created: float | None = LONG_BEFORE,
    pod: str = "a",
    instance: str = "a:1",
    step: str = "",
) -> list[Series]:
    """A counter and when it began, with times in seconds after the canary's start; without the latter if it is None."""
    labels = {"model_version": short(digest), "verdict": verdict, "pod": pod, "instance": instance}
    labels |= {"step": step} if step else {}  # Prometheus leaves empty ones out
    found = [Series({"__name__": "tunegate_feedback_total", **labels}, [(SINCE + t, str(v)) for t, v in values])]
    if created is not None:
        began = [(SINCE + time, str(SINCE + created)) for time, _ in values]
        found.append(Series({"__name__": "tunegate_feedback_created", **labels}, began))
    return found


def verdicts(**counts: int) -> Verdicts:
    """On answers that were given in no step."""
    tally = Tally(**counts)
    return {None: tally} if tally.n else {}


def zeros(*digests: str) -> list[Series]:
    return [one for digest in digests for verdict in ("up", "down") for one in series(digest, verdict, [(1, 0)])]


def downs(values: Values, created: float | None = LONG_BEFORE, **labels: str) -> list[Series]:
    return series(NEW, "down", values, created, **labels)


@pytest.mark.parametrize(
    ("found", "grown", "is_whole"),
    [
        pytest.param(downs([(10, 0), (20, 3), (30, 5)]), 5, True, id="nothing before it was first seen"),
        pytest.param(downs([(20, 3), (30, 5)], created=5), 5, True, id="its server began since then: all of it counts"),
        pytest.param(downs([(-10, 7), (10, 7), (20, 9)]), 2, True, id="there before: only what came since"),
        pytest.param(downs([(10, 4), (20, 1), (30, 2)], created=5), 6, True, id="a restart begins at 0 again"),
        pytest.param(downs([(-10, 7), (20, 3)]), 3, True, id="a restart across the beginning"),
        pytest.param(downs([(-20, 1), (-10, 7)]), 0, True, id="nothing since"),
        pytest.param(downs([]), 0, True, id="no samples"),
        pytest.param(downs([(60, 520), (120, 521)]), 1, False, id="its history was lost"),
        pytest.param(downs([(60, 520), (120, 521)], created=None), 1, False, id="lost, and nobody says since when"),
        pytest.param(downs([(900, 50), (960, 52)], created=5), 2, False, id="began since then, and was seen too late"),
        pytest.param(downs([(15, 2), (40, 5)], created=-10), 5, True, id="began just before, seen just after"),
        pytest.param(downs([(20, 2), (40, 5)], created=-60), 3, True, id="began before, first scraped after"),
    ],
)
def test_only_what_came_since_the_beginning_counts(found: list[Series], grown: float, is_whole: bool) -> None:
    counts = count([*zeros(NEW, OLD), *found], ASKED)
    assert counts == Counts({NEW: verdicts(down=round(grown)), OLD: {}}, is_whole)


def test_a_restart_is_seen_also_where_the_count_is_larger_than_before() -> None:
    first, second = downs([(-10, 2), (10, 3)]), downs([(40, 5)], created=20)
    both = [Series(one.metric, one.values + other.values) for one, other in zip(first, second, strict=True)]
    counts = count([*zeros(NEW, OLD), *both], ASKED)
    assert isinstance(counts, Counts)
    assert counts.tallies[NEW] == verdicts(down=6)


def test_where_the_history_of_one_version_is_lost_the_other_is_counted_from_there_too() -> None:
    """The candidate's servers began with the canary, so all of their verdicts are known, and are of another time."""
    stable = series(OLD, "down", [(600, 300), (700, 310)]) + series(OLD, "up", [(600, 9700), (700, 9720)])
    candidate = downs([(20, 0), (500, 10), (600, 12), (700, 17)], created=5)
    ups = series(NEW, "up", [(20, 0), (500, 30), (600, 40), (700, 45)], created=5)
    counts = count([*stable, *candidate, *ups], ASKED)
    assert counts == Counts({NEW: verdicts(up=5, down=5), OLD: verdicts(up=20, down=10)}, is_whole=False)


def test_verdicts_of_all_servers_of_a_version_are_added() -> None:
    found = [
        *zeros(NEW, OLD),
        *downs([(5, 2)], created=2, pod="b"),
        *downs([(5, 3)], created=2, pod="c"),
        *series(OLD, "up", [(5, 4)], created=2, pod="d"),
    ]
    assert count(found, ASKED) == Counts({NEW: verdicts(down=5), OLD: verdicts(up=4)})


def test_verdicts_are_told_apart_by_step_in_each_pod() -> None:
    first, second = step_tag("shop-run-1", 0), step_tag("shop-run-1", 1)
    found = [
        *zeros(NEW, OLD),
        *downs([(5, 2)], created=2, step=first),
        *downs([(5, 0), (9, 3)], created=2, step=second),
        *downs([(9, 4)], created=2, step=second, pod="b"),
        *series(OLD, "up", [(5, 6)], created=2, step=first),
        *series(OLD, "down", [(5, 1)], created=2),
    ]
    ours, theirs = {0: Tally(down=2), 1: Tally(down=7)}, {0: Tally(up=6), None: Tally(down=1)}
    assert count(found, ASKED) == Counts({NEW: ours, OLD: theirs})


def questions(digest: str, values: Values, step: str = "", created: float | None = 2) -> list[Series]:
    found = series(digest, "", values, created, step=step)
    for one in found:
        one.metric["__name__"] = one.metric["__name__"].replace("feedback", "questions")
        del one.metric["verdict"]
    return found


STEP = step_tag("shop-run-1", 1)
LOOKED_AT = ASKED._replace(step=1, step_since=at(100))


def test_the_split_of_a_step_is_told_with_what_its_counts_may_lag_behind() -> None:
    found = [
        *zeros(NEW, OLD),
        *questions(NEW, [(5, 0)]),
        *questions(OLD, [(5, 9), (400, 9)]),
        *questions(NEW, [(105, 1), (205, 10), (275, 20), (400, 33)], STEP, created=101),
        *questions(OLD, [(105, 9), (205, 100), (275, 180), (390, 297)], STEP, created=102),
        *questions(OLD, [(50, 70), (400, 70)], step_tag("shop-run-1", 0)),
    ]
    counts = count(found, LOOKED_AT)
    assert isinstance(counts, Counts)
    # From 165 or 230 seconds to 335 or 400.
    assert counts.splits == ((10, 288), (32, 80), (32, 288))


def scraped(digest: str, rate: float, until: int, offset: int) -> list[Series]:
    """What a query with a point every 5 seconds has of a pod that is scraped every 30."""
    scrapes = [(time, time - (time - offset) % 30) for time in range(100, until + 1, 5)]
    values: Values = [(time, round(rate * (seen - 100))) for time, seen in scrapes if seen > 100]
    return questions(digest, values, STEP, created=100)


@pytest.mark.parametrize("offset", [0, 5, 15, 25])
@pytest.mark.parametrize(("rate", "weight"), [(20, 50), (400, 50), (400, 10)])
def test_pods_that_are_scraped_one_after_the_other_are_no_other_split(rate: float, weight: int, offset: int) -> None:
    known = [*zeros(NEW, OLD), *questions(NEW, [(5, 0)]), *questions(OLD, [(5, 0)])]
    for until in range(105, 900, 60):
        candidate = scraped(NEW, rate * weight / 100, until, offset)
        stable = scraped(OLD, rate * (100 - weight) / 100, until, 0)
        counts = count([*known, *candidate, *stable], LOOKED_AT)
        assert isinstance(counts, Counts)
        assert mismatch(counts.splits, weight) == ""


def test_another_split_is_found_although_pods_are_scraped_one_after_the_other() -> None:
    known = [*zeros(NEW, OLD), *questions(NEW, [(5, 0)]), *questions(OLD, [(5, 0)])]
    counts = count([*known, *scraped(NEW, 6, 900, 25), *scraped(OLD, 14, 900, 0)], LOOKED_AT)
    assert isinstance(counts, Counts)
    assert "(30 %) went to the candidate, where 20 % were asked for" in mismatch(counts.splits, 20)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        pytest.param(ASKED, questions(OLD, [(400, 9)], STEP), id="no weight is observed"),
        pytest.param(LOOKED_AT, questions(OLD, [(105, 1), (210, 50)], STEP), id="too young a step"),
        pytest.param(LOOKED_AT, questions(OLD, [(500, 800), (900, 900)], STEP, created=-900), id="a lost beginning"),
    ],
)
def test_a_split_that_is_not_known_is_none(asked: Counted, found: list[Series]) -> None:
    known = [*zeros(NEW, OLD), *questions(NEW, [(5, 0)]), *questions(OLD, [(5, 0)])]
    counts = count([*known, *found], asked)
    assert isinstance(counts, Counts)
    assert counts.splits == ()


def test_a_version_whose_server_counts_no_questions_has_no_split() -> None:
    found = [*zeros(NEW, OLD), *questions(NEW, [(5, 0)]), *questions(NEW, [(105, 1), (400, 300)], STEP)]
    counts = count(found, LOOKED_AT)
    assert isinstance(counts, Counts)
    assert counts.splits == ()


def test_a_version_that_gets_nothing_is_told_apart_from_one_that_does_not_count() -> None:
    known = [*zeros(NEW, OLD), *questions(NEW, [(5, 0)]), *questions(OLD, [(5, 0)])]
    counts = count([*known, *questions(OLD, [(105, 1), (230, 150), (335, 250), (400, 300)], STEP, 101)], LOOKED_AT)
    assert isinstance(counts, Counts)
    assert counts.splits == ((0, 299), (0, 100), (0, 299))


def test_only_the_steps_of_this_promotion_are_asked_for() -> None:
    asked = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(urllib.parse.unquote(request.path))
        body(told(zeros(NEW, OLD)))(request)

    with prometheus(answer) as url:
        assert isinstance(ask(url), Counts)
    (pattern,) = re.findall(r'step=~"([^"]*)"', asked[0].replace("+", " "))
    tags = [step_tag("shop-run-1", 0), step_tag("shop-run-1", 20), "", step_tag("shop-run-2", 0)]
    assert [bool(re.fullmatch(pattern.replace(" ", "+"), tag)) for tag in tags] == [True, True, True, False]


def test_a_pod_that_is_scraped_under_two_addresses_counts_once() -> None:
    twice = [*downs([(5, 2)], created=2), *downs([(5, 3)], created=2, instance="a:2")]
    counts = count([*zeros(NEW, OLD), *twice], ASKED)
    assert counts == Counts({NEW: verdicts(down=3), OLD: {}})


def test_without_pods_names_servers_are_told_apart_by_their_addresses() -> None:
    two = [*downs([(5, 2)], created=2, pod=""), *downs([(5, 3)], created=2, pod="", instance="b:1")]
    counts = count([*zeros(NEW, OLD), *two], ASKED)
    assert counts == Counts({NEW: verdicts(down=5), OLD: {}})


@pytest.mark.parametrize(
    "found",
    [
        pytest.param([], id="empty"),
        pytest.param(zeros(NEW), id="no series of the stable"),
        pytest.param(zeros(OLD), id="no series of the candidate"),
        pytest.param([*zeros(NEW, OLD), *downs([(5, "NaN")])], id="not a number"),
        pytest.param([*zeros(NEW, OLD), *downs([(5, "+Inf")])], id="infinite"),
        pytest.param([*zeros(NEW, OLD), *downs([(5, "many")])], id="a word"),
        pytest.param([*zeros(NEW, OLD), *downs([(5, -1)])], id="less than nothing"),
        pytest.param([*zeros(NEW, OLD), Series({"__name__": "up"}, [(SINCE, "1")])], id="another series"),
        pytest.param([*zeros(NEW, OLD), Series({}, [(SINCE, "1")])], id="no labels"),
    ],
)
def test_counts_that_are_missing_are_a_problem_and_never_zero(found: list[Series]) -> None:
    problem = count(found, ASKED)
    assert isinstance(problem, Problem)
    assert problem.reason == "NoFeedbackCounts"
    assert "PodMonitor" in problem.message


Handler = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def prometheus(answer: Handler, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Something that answers in place of Prometheus."""

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def body(content: bytes, status: int = 200) -> Handler:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def raw(content: bytes) -> Handler:
    return lambda request: void(request.wfile.write(content))


def void(value: object) -> None:
    pass


def told(found: list[Series], **more: Any) -> bytes:
    data = {"resultType": "matrix", "result": msgspec.to_builtins(found)}
    return msgspec.json.encode({"status": "success", "data": data, **more})


def ask(url: str, credentials: Path | None = None) -> Counts | Problem:
    return read_counts(url, "shop", ASKED, at(60), credentials)


ANSWERS = [
    pytest.param(body(b""), "PrometheusUnreachable", id="empty"),
    pytest.param(body(b"<html>hello</html>"), "PrometheusUnreachable", id="a page"),
    pytest.param(body(b"\xff\xfe"), "PrometheusUnreachable", id="no text"),
    pytest.param(body(b"null"), "PrometheusUnreachable", id="null"),
    pytest.param(body(b"[]"), "PrometheusUnreachable", id="a list"),
    pytest.param(body(b'{"status":"success"}'), "PrometheusUnreachable", id="no data"),
    pytest.param(body(b'{"status":"success","data":null}'), "PrometheusUnreachable", id="data is null"),
    pytest.param(body(b'{"data":{"resultType":"vector","result":[]}}'), "PrometheusUnreachable", id="a vector"),
    pytest.param(body(b'{"data":{"resultType":"matrix","result":null}}'), "PrometheusUnreachable", id="no result"),
    pytest.param(
        body(b'{"data":{"resultType":"matrix","result":[{"metric":{},"values":[[1]]}]}}'),
        "PrometheusUnreachable",
        id="half a sample",
    ),
    pytest.param(
        body(b'{"data":{"resultType":"matrix","result":[{"metric":{},"values":null}]}}'),
        "PrometheusUnreachable",
        id="no samples",
    ),
    pytest.param(body(b"[" * 100_000), "PrometheusUnreachable", id="deep"),
    pytest.param(body(b'{"status":"error","error":"too many"}', 422), "PrometheusUnreachable", id="refuses the query"),
    pytest.param(body(b"", 500), "PrometheusUnreachable", id="broken"),
    pytest.param(body(b"who are you", 401), "PrometheusRefused", id="unauthorized"),
    pytest.param(body(b"not you", 403), "PrometheusRefused", id="forbidden"),
    pytest.param(body(told([])), "NoFeedbackCounts", id="no series"),
    pytest.param(body(told(zeros(NEW, OLD), warnings=["store b is away"])), "NoFeedbackCounts", id="in part"),
    pytest.param(raw(b"hello\r\n\r\n"), "PrometheusUnreachable", id="no HTTP"),
    pytest.param(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), "PrometheusUnreachable", id="broken off"),
    pytest.param(raw(b""), "PrometheusUnreachable", id="nothing"),
    pytest.param(
        raw(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/hosts\r\n\r\n"), "PrometheusUnreachable", id="elsewhere"
    ),
]


@pytest.mark.parametrize(("answer", "reason"), ANSWERS)
def test_whatever_is_answered_is_a_problem_with_a_name(answer: Handler, reason: str) -> None:
    with prometheus(answer) as url:
        problem = ask(url)
    assert isinstance(problem, Problem)
    assert problem.reason == reason
    assert problem.about == "FeedbackReadable"


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://no.such.host.invalid", "prometheus:9090", "http://[", ""]
)
def test_a_server_that_is_not_there_is_a_problem_with_a_name(url: str) -> None:
    problem = ask(url)
    assert isinstance(problem, Problem)
    assert problem.reason == "PrometheusUnreachable"
    assert "--prometheus-url" in problem.message


@pytest.mark.parametrize(
    ("files", "header"),
    [
        pytest.param({"token": "abc\n"}, "Bearer abc", id="a token"),
        pytest.param({"username": "shop", "password": "p:w"}, "Basic c2hvcDpwOnc=", id="a password"),
        pytest.param({}, None, id="neither"),
    ],
)
def test_the_operator_says_who_it_is(files: dict[str, str], header: str | None, tmp_path: Path) -> None:
    seen = []

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("Authorization"))
        body(told(zeros(NEW, OLD)))(request)

    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with prometheus(answer) as url:
        assert ask(url, tmp_path) == Counts({NEW: {}, OLD: {}})
        (tmp_path / "token").write_text("replaced")
        ask(url, tmp_path)
    assert seen == [header, "Bearer replaced"]


def test_a_token_does_not_follow_to_another_server(tmp_path: Path) -> None:
    seen = []

    def elsewhere(request: http.server.BaseHTTPRequestHandler) -> None:
        seen.append(request.headers.get("Authorization"))
        body(told(zeros(NEW, OLD)))(request)

    (tmp_path / "token").write_text("abc")
    with prometheus(elsewhere) as other:
        moved = raw(f"HTTP/1.1 302 Found\r\nLocation: {other}/\r\nContent-Length: 0\r\n\r\n".encode())
        with prometheus(moved) as url:
            assert isinstance(ask(url, tmp_path), Counts)
    assert seen == [None]


def test_a_ca_of_ones_own_is_believed_where_it_is_given(tmp_path: Path) -> None:
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    made = [*words.split(), "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    subprocess.run(["openssl", *made], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate", tmp_path / "key")
    with prometheus(body(told(zeros(NEW, OLD))), context) as url:
        problem = ask(url, tmp_path)
        assert isinstance(problem, Problem)
        assert "certificate" in problem.message
        (tmp_path / "ca.crt").write_text((tmp_path / "certificate").read_text())
        assert isinstance(ask(url, tmp_path), Counts)
        (tmp_path / "ca.crt").write_text("no certificate")
        assert isinstance(ask(url, tmp_path), Problem)
