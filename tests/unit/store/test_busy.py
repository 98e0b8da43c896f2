"""A store that is busy is waited for by every call; what it refuses is told at once, and by whom."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import botocore.endpoint
import pytest
import trustme

from tests.unit.store.picky import Answer, PickyStore, error, picky_store
from tunegate.api.errors import CredentialsError, StoreError, UnavailableError, UsageError
from tunegate.api.feedback import Feedback, FeedbackRecord, Tally
from tunegate.api.versions import Producer, Release
from tunegate.feedback import FeedbackLog, VoteWriter
from tunegate.store import Store, bodies, client, transfer

NAME = "tea/run/checkpoint-1"
RELEASE, PRODUCER = Release(format="huggingface"), Producer(kind="test")


BUSY = [
    error("", 503, "SlowDown"),
    error("", 500, "InternalError"),
    Answer("", 429, b"<html>too many requests</html>"),
    error("", 400, "RequestTimeout"),
]


def test_every_call_waits_for_a_busy_store(fronted: Store, front: PickyStore, folder: Path, tmp_path: Path) -> None:
    fronted.publish(folder, NAME, release=RELEASE, producer=PRODUCER)
    calls: tuple[Callable[[], object], ...] = (
        lambda: fronted.fetch(NAME, tmp_path / "fetched"),
        lambda: fronted.verify(NAME),
        lambda: fronted.list(),
        lambda: fronted.get(f"{NAME}/manifest.json"),
        lambda: fronted.put("a", b"1"),
    )
    for call in calls:
        front.answers[:] = BUSY * 3
        call()
        assert not front.answers


def test_one_call_outlasts_thirty_refusals(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only pauses move on."""
    clock = [0.0]

    def pause(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=pause))
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(client, "random", SimpleNamespace(uniform=max))
    store.put("a", b"1")
    with picky_store(store.endpoint_url or "") as front:
        fronted = Store.open(store.uri, endpoint_url=front.url)
        front.answers[:] = [error("GET .*/a", 503, "SlowDown")] * 30

        assert fronted.get("a") == b"1"

        front.answers[:] = [error("GET .*/a", 503, "SlowDown")] * 40
        with pytest.raises(UnavailableError):
            fronted.get("a")


def test_every_call_of_publishing_waits(fronted: Store, front: PickyStore, folder: Path) -> None:
    requests = ("POST .*uploads", "PUT .*partNumber", "POST .*uploadId", "PUT .*manifest")
    front.answers[:] = [error(pattern, 503, "SlowDown") for pattern in requests * 6]

    fronted.publish(folder, NAME, release=RELEASE, producer=PRODUCER)

    assert not front.answers
    fronted.verify(NAME)


def test_a_body_that_was_damaged_on_the_way_is_sent_again(fronted: Store, front: PickyStore, folder: Path) -> None:
    front.answers[:] = [error("PUT .*partNumber", 400, "BadDigest")] * 2

    fronted.publish(folder, NAME, release=RELEASE, producer=PRODUCER)

    assert not front.answers


def test_a_store_that_stays_busy_is_told(
    fronted: Store, front: PickyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.05)
    front.answers[:] = [error("GET", 503, "SlowDown")] * 1000

    with pytest.raises(UnavailableError, match=f"at {front.url} failed at GetObject: SlowDown"):
        fronted.get("a")


def test_what_is_not_implemented_is_asked_once(fronted: Store, front: PickyStore) -> None:
    front.requests.clear()
    front.answers[:] = [error("PUT .*/a$", 501, "NotImplemented")] * 9

    with pytest.raises(StoreError, match="NotImplemented"):
        fronted.put("a", b"1")

    assert len(front.answers) == 8


def test_a_document_that_was_cut_is_read_again(fronted: Store, front: PickyStore, folder: Path) -> None:
    version = fronted.publish(folder, NAME, release=RELEASE, producer=PRODUCER)
    front.answers[:] = [Answer("GET .*manifest", 200, cut=20)] * 2

    assert fronted.resolve(NAME) == version
    assert not front.answers


@pytest.mark.parametrize("times", [1, 9])
def test_a_body_that_trickles_is_told(
    times: int, fronted: Store, front: PickyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = fronted.publish(folder, NAME, release=RELEASE, producer=PRODUCER)
    monkeypatch.setattr(bodies, "STALL_SECONDS", 0.05)
    if times > 1:  # else a busy machine may be as slow as a store that trickles
        monkeypatch.setattr(transfer, "_ATTEMPTS", 2)
    for pattern, read in (
        ("GET .*manifest", lambda: fronted.manifest(NAME)),
        ("GET .*safetensors", lambda: fronted.verify(version.uri)),
    ):
        front.answers[:] = [Answer(pattern, 206, trickle=0.02)] * times
        if times == 1:
            read()
        else:
            with pytest.raises(UnavailableError, match=f"at {front.url} hardly sends anything: fewer than 64 KiB"):
                read()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (error("", 403, "RequestTimeTooSkewed"), "says that the clock of this machine is wrong"),
        (error("", 400, "ExpiredToken"), "have expired .ExpiredToken.; get new ones, with their AWS_SESSION_TOKEN"),
        (error("", 301, "PermanentRedirect"), "is in another region or place than asked at .*; set AWS_DEFAULT_REGION"),
        (error("", 400, "AuthorizationHeaderMalformed"), "set AWS_DEFAULT_REGION"),
        (error("", 400, "KeyTooLongError"), "a name of more than 1,024 bytes"),
        (error("", 403, "SignatureDoesNotMatch"), "refuses the credentials"),
        (
            Answer("", 404, b"<html>nginx</html>"),
            "answers GetObject with 404 and not as S3 does; correct --endpoint-url",
        ),
        (Answer("", 403, b"<html>portal</html>"), "does not allow GetObject"),
        (Answer("", 413, b"<html>413 Request Entity Too Large</html>"), "refuses GetObject for its size .413.; let it"),
        (Answer("", 502, b"<html>Bad Gateway</html>"), "failed at GetObject: 502"),
    ],
)
def test_a_refusal_is_told_with_who_refused(
    answer: Answer, sentence: str, fronted: Store, front: PickyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.0)
    front.answers[:] = [answer] * 3

    with pytest.raises(StoreError, match=sentence) as caught:
        fronted.get("a")

    assert front.url in str(caught.value)
    assert isinstance(caught.value, CredentialsError) == (sentence.startswith(("have", "refuses the", "does not")))


@contextmanager
def https_server(certificate: trustme.LeafCert) -> Iterator[str]:
    class Silent(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that don't trust us leave
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"https://localhost:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_ones_own_ca_is_told_and_can_be_trusted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = trustme.CA()
    bundle = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    with https_server(ca.issue_cert("localhost")) as url:
        with pytest.raises(StoreError, match=f"certificate of {store.uri} at {url} is not trusted here; set AWS_CA_BU"):
            Store.open(store.uri, endpoint_url=url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
        with pytest.raises(StoreError, match=r"not as S3 does|501"):  # it was reached
            Store.open(store.uri, endpoint_url=url)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "gone.pem"))
        with pytest.raises(UsageError, match=r"There is no .*gone\.pem, which AWS_CA_BUNDLE names"):
            Store.open(store.uri, endpoint_url=url)


def rights() -> list[tuple[str, frozenset[str]]]:
    """The rows of the table in docs/security.md: a part, and the actions that it needs."""
    page = (Path(__file__).parents[3] / "docs/security.md").read_text()
    rows = [
        line.strip("|").split("|") for line in page.splitlines() if line.startswith("|") and "s3:ListBucket`" in line
    ]
    return [(part, frozenset(re.findall(r"s3:\w+", needs))) for part, needs, _ in rows]


def test_the_rights_that_the_docs_name_are_enough(
    store: Store, front: PickyStore, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (_, publishing), (_, reading), (_, writing) = rights()
    assert reading < publishing == writing

    front.allowed = publishing
    opened = Store.open(store.uri, endpoint_url=front.url)
    version = opened.publish(folder, NAME, release=RELEASE, producer=PRODUCER)
    opened.publish(folder, "tea/run/checkpoint-2", release=RELEASE, producer=PRODUCER)  # copied within the store
    assert "stay" in caplog.text
    front.allowed = reading
    opened = Store.open(store.uri, endpoint_url=front.url)
    opened.fetch(version.digest[7:15], tmp_path / "fetched")
    assert version in opened.list()
    front.allowed = writing
    now = datetime.now(UTC)
    said = Feedback(response_id="chatcmpl-1", verdict="up")
    record = FeedbackRecord(digest=version.digest, answered=now, received=now, feedback=said)
    opened = Store.open(store.uri, endpoint_url=front.url)
    assert VoteWriter(opened).write([record]) == ["counted"]
    assert FeedbackLog(opened).tally(version.digest) == Tally(up=1)
