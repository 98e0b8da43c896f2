"""A hub of models on loopback, as Hugging Face's client and ModelScope's ask theirs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.answering import listening

COMMIT = "5e" * 20


@dataclass
class Repository:
    """files: by path; weights are in LFS, behind a redirect. refusal: status and code of Hugging Face."""

    files: Mapping[str, bytes]
    revisions: tuple[str, ...] = ("main", "master", COMMIT)
    refusal: tuple[int, str] | None = None


@dataclass
class Hub:
    """url: of the server. asked: method, path and range of each request. cut: paths that end halfway, once each."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    cut: set[str] = field(default_factory=set)
    url: str = ""

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.asked]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@contextmanager
def hub(**repositories: Repository) -> Iterator[Hub]:
    """Each repository under shop/NAME."""
    running = Hub({f"shop/{name}": repository for name, repository in repositories.items()})

    class Handler(_Handler):
        of = running

    with listening(Handler) as running.url:
        yield running


class _Handler(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)  # with a host where the server is asked as a proxy
        path, query = unquote(parts.path), {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.of.asked.append((self.command, path, self.headers.get("Range", "")))
        if match := re.fullmatch(r"/api/models/(\w+/\w+)(?:/(revision|tree)/([\w.-]+))?", path):
            self._describe(*match.groups())
        elif match := re.fullmatch(r"/(\w+/\w+)/resolve/([\w.-]+)/(.+)", path):
            self._resolve(*match.groups())
        elif match := re.fullmatch(r"/lfs/(\w+/\w+)/(.+)", path):
            self._send(self.of.repositories[match[1]].files[match[2]], path)
        elif match := re.fullmatch(r"/api/v1/models/(\w+/\w+)/repo(/files)?", path):
            self._modelscope(match[1], query, bool(match[2]))
        else:
            self._json(404, {})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _repository(self, name: str, revision: str | None, unknown: int = 401) -> Repository | None:
        found = self.of.repositories.get(name)
        refusal = (unknown, "RepoNotFound") if found is None else found.refusal
        if found and not refusal and revision and revision not in found.revisions:
            refusal = (404, "RevisionNotFound")
        if refusal:
            self._json(refusal[0], {"error": "refused"}, {"X-Error-Code": refusal[1], "X-Error-Message": "refused"})
            return None
        return found

    def _describe(self, name: str, what: str | None, revision: str | None) -> None:
        if (found := self._repository(name, revision)) is None:
            return
        if what == "tree":
            self._json(200, [_entry(path, body) for path, body in found.files.items()])
        else:
            siblings = [{"rfilename": path} for path in found.files]
            self._json(200, {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if (found := self._repository(name, revision)) is None:
            return
        body = found.files[path]
        about = {"X-Repo-Commit": COMMIT, "ETag": f'"{_blob(body)}"'}
        if not path.endswith(".safetensors"):
            self._send(body, f"{name}/{path}", about)
            return
        about |= {"X-Linked-ETag": f'"{_sha256(body)}"', "X-Linked-Size": str(len(body))}
        elsewhere = "localhost" + self.headers["Host"].removeprefix("127.0.0.1")  # what the client takes for no hub
        self._json(302, {}, {**about, "Location": f"http://{elsewhere}/lfs/{name}/{path}"})

    def _modelscope(self, name: str, query: dict[str, str], is_listing: bool) -> None:
        if (found := self._repository(name, query["Revision"], unknown=404)) is None:
            return
        if not is_listing:
            self._send(found.files[query["FilePath"]], f"{name}/{query['FilePath']}")
            return
        files = [
            {"Path": path, "Type": "blob", "Size": len(body), "Sha256": _sha256(body)}
            | {"Revision": COMMIT if path == "config.json" else "0" * 40, "CommittedDate": int(path == "config.json")}
            for path, body in found.files.items()
        ]
        self._json(200, {"Code": 200, "Success": True, "Data": {"Files": files}})

    def _send(self, body: bytes, name: str, headers: Mapping[str, str] | None = None) -> None:
        """The file or the part of it that was asked for; half of that, where it is to be cut."""
        about = {"Accept-Ranges": "bytes", **(headers or {})}
        begin = 0
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin, end = int(match[1]), int(match[2] or len(body) - 1)
            about["Content-Range"] = f"bytes {begin}-{end}/{len(body)}"
            body = body[begin : end + 1]
        self.send_response(206 if match else 200)
        for key, value in {**about, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if name.rpartition("/")[2] in self.of.cut:
            self.of.cut.discard(name.rpartition("/")[2])
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def _json(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(path: str, body: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "oid": _blob(body), "size": len(body)}
    if path.endswith(".safetensors"):
        entry["lfs"] = {"oid": _sha256(body), "size": len(body), "pointerSize": 134}
    return entry


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _blob(body: bytes) -> str:
    """As git names it."""
    return hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
