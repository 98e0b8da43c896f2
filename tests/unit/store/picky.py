"""A store in front of the real one that treats conditional puts as other stores do, on loopback."""

from __future__ import annotations

import http.client
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import botocore.exceptions

from tunegate.store.client import FORBID_OVERWRITE, connect, parse_uri

CONDITIONS = ("if-none-match", "if-match")
FORBIDS = dict(zip(("oss", "cos"), FORBID_OVERWRITE, strict=True))


@dataclass(frozen=True)
class Answer:
    """What a request is answered whose `METHOD path` fits `pattern`; or, with `cut`, so much of the store's own.

    trickle: the seconds after which each byte of the store's own is sent, for as long as somebody takes them.
    lost: the store does it, and its answer never comes. flipped: one bit of it is another one.
    """

    pattern: str
    status: int
    body: bytes = b""
    cut: int | None = None
    trickle: float = 0.0
    lost: bool = False
    flipped: bool = False


def error(pattern: str, status: int, code: str) -> Answer:
    """An error in S3's form."""
    return Answer(pattern, status, _error(code))


class PickyStore:
    """`way`: "oss" refuses conditions by 501 and honors x-oss-forbid-overwrite, "cos" x-cos-forbid-overwrite; "deaf"
    overwrites whatever is asked.

    `answers` are given, one after the other, to the requests that their pattern fits, instead of asking the store.
    `allowed` are the S3 actions that these credentials have a right to, all where it is None.
    `whole`: it sends whole files, whatever range is asked for. `slowly`: the seconds in which it reads a MiB of a body.
    `lister`: "v1" lists as S3 did at first, whatever it is asked, "deaf" lists from the beginning each time; both in
    pages of three.
    `refused` are methods, or parts of a query, that these credentials have no right to. `requests` are those that came.
    """

    def __init__(self, endpoint_url: str, way: str = "", refused: tuple[str, ...] = ()) -> None:
        self.way = way
        self.refused = refused
        self.requests: list[str] = []
        self.answers: list[Answer] = []
        self.allowed: frozenset[str] | None = None
        self.whole = False
        self.slowly = 0.0
        self.lister = ""
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.behind = endpoint_url.removeprefix("http://")
        self.client = connect(parse_uri("s3://any"), endpoint_url)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients may leave a body
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, path: str, body: bytes, headers: Any) -> tuple[int, str, str]:
        """Answer a put that has a condition: status, error code and ETag."""
        names = {name.lower() for name in headers}
        bucket, key = path.partition("?")[0].lstrip("/").split("/", 1)
        if self.way in FORBIDS and names & set(CONDITIONS):
            return 501, "NotImplemented", ""
        with self.lock:
            if FORBIDS.get(self.way) in names and self._is_there(bucket, key):
                return 409, "FileAlreadyExists", ""
            return 200, "", self.client.put_object(Bucket=bucket, Key=key, Body=body)["ETag"]

    def sign(self, path: str) -> str:
        """The path with a query that gets the whole object."""
        bucket, key = urllib.parse.unquote(path.partition("?")[0]).lstrip("/").split("/", 1)
        url: str = self.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key})
        return url.removeprefix(f"http://{self.behind}")

    def answer(self, request: str) -> Answer | None:
        """The next answer for `METHOD path`, which then is used up."""
        with self.lock:
            found = next((answer for answer in self.answers if re.search(answer.pattern, request)), None)
            if found:
                self.answers.remove(found)
            return found

    def refuses(self, method: str, path: str) -> bool:
        if self.allowed is not None and action_of(method, path) not in self.allowed:
            return True
        return any(what == method or what in path for what in self.refused)

    def _is_there(self, bucket: str, key: str) -> bool:
        try:
            self.client.head_object(Bucket=bucket, Key=key)
        except botocore.exceptions.ClientError:
            return False
        return True


def action_of(method: str, path: str) -> str:
    """The action that AWS asks for a right to."""
    query = path.partition("?")[2]
    if method == "GET" and "list-type" in query:
        return "s3:ListBucket"
    if method == "GET" and query.startswith("uploads"):
        return "s3:ListBucketMultipartUploads"
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"
    return {"GET": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject"}.get(method, method)


@contextmanager
def picky_store(endpoint_url: str, way: str = "", refused: tuple[str, ...] = ()) -> Iterator[PickyStore]:
    store = PickyStore(endpoint_url, way, refused)
    thread = threading.Thread(target=store.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        store.closing.set()
        store.server.shutdown()
        thread.join()
        store.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: PickyStore

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do(self) -> None:
        body = self._read_body(int(self.headers.get("Content-Length") or 0))
        names = {name.lower() for name in self.headers}
        self.store.requests.append(f"{self.command} {self.path}")
        if answer := self.store.answer(self.store.requests[-1]):
            if answer.cut is None and not (answer.trickle or answer.lost or answer.flipped):
                self._answer(answer.status, [], answer.body)
            else:
                self._pass_on(body, answer)
        elif self.store.lister and self.command == "GET" and "prefix=" in self.path:
            self._list()
        elif self.store.refuses(self.command, self.path):
            self._answer(403, [], _error("AccessDenied"))
        elif self.store.way and self.command == "PUT" and names & {*CONDITIONS, *FORBID_OVERWRITE}:
            status, code, etag = self.store.put(self.path, body, self.headers)
            self._answer(status, [("ETag", etag)] if etag else [], _error(code) if code else b"")
        else:
            self._pass_on(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do  # noqa: N815 - the names that http.server calls

    def _read_body(self, size: int) -> bytes:
        pieces = []
        while size:
            pieces.append(self.rfile.read(min(size, 1 << 20)))
            size -= len(pieces[-1])
            self.store.closing.wait(self.store.slowly)
        return b"".join(pieces)

    def _list(self) -> None:
        asked = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
        where = {"Bucket": self.path.partition("?")[0].strip("/"), "Prefix": asked["prefix"], "MaxKeys": 3}
        where |= {"Delimiter": asked["delimiter"]} if "delimiter" in asked else {}
        deaf = self.store.lister == "deaf"
        page = self.store.client.list_objects(**where, Marker="" if deaf else asked.get("marker", ""))
        rows = [
            f"<Contents><Key>{o['Key']}</Key><Size>{o['Size']}</Size><ETag>{o['ETag']}</ETag>"
            f"<LastModified>{o['LastModified']:%Y-%m-%dT%H:%M:%S.000Z}</LastModified></Contents>"
            for o in page.get("Contents", ())
        ]
        rows += [
            f"<CommonPrefixes><Prefix>{o['Prefix']}</Prefix></CommonPrefixes>" for o in page.get("CommonPrefixes", ())
        ]
        rows += [f"<NextContinuationToken>{len(self.store.requests)}</NextContinuationToken>"] if deaf else []
        rows += [f"<IsTruncated>{str(page['IsTruncated']).lower()}</IsTruncated>"]
        body = f"<ListBucketResult><Name>{where['Bucket']}</Name>{''.join(rows)}</ListBucketResult>".encode()
        self._answer(200, [("Date", self.date_time_string())], body)

    def _pass_on(self, body: bytes, answer_: Answer = Answer("", 0)) -> None:
        behind = http.client.HTTPConnection(self.store.behind)
        whole = self.store.whole and "Range" in self.headers  # which the signature covers
        path = self.store.sign(self.path) if whole else self.path
        behind.putrequest(self.command, path, skip_host=not whole, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect") and not whole:
                behind.putheader(name, value)
        behind.endheaders(body)
        answer = behind.getresponse()
        data = answer.read()
        kept = [pair for pair in answer.getheaders() if pair[0].lower() not in ("connection", "transfer-encoding")]
        behind.close()
        if answer_.flipped:
            data = bytes([data[0] ^ 1]) + data[1:]
        if not answer_.lost:
            self._answer(answer.status, kept, data[: answer_.cut], answer_.trickle)
        self.close_connection = answer_.lost or answer_.cut is not None

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, trickle: float = 0.0) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204 and "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if trickle:
            for byte in body:
                if self.store.closing.wait(trickle):
                    break
                self.wfile.write(bytes([byte]))
        elif self.command != "HEAD":
            self.wfile.write(body)


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
