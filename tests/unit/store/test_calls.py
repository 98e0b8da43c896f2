"""Every call to a store beside every answer that is not the one hoped for: waited for, or told with who gave it."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.store.picky import Answer, PickyStore, error
from tunegate.api.errors import CredentialsError, StoreError
from tunegate.api.versions import Producer, Release
from tunegate.store import Store, client, transfer

from .conftest import MIB

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Call:
    """A request by METHOD path, and what of a store sends it."""

    pattern: str
    make: Callable[[Store, Path], object]


def publish(store: Store, folder: Path, model: str = "") -> str:
    name = f"{model or f'model-{next(_NUMBERS)}'}/run/checkpoint-{next(_NUMBERS)}"
    store.publish(folder, name, release=Release(format="huggingface"), producer=Producer(kind="test"))
    return name


CALLS = {
    "list": Call("GET .*list-type", lambda store, _: store.keys("tea/")),
    "get": Call("GET .*/a$", lambda store, _: store.get("a")),
    "ranged get": Call("GET .*safetensors", lambda store, _: store.verify("tea/run/checkpoint-0")),
    "put": Call("PUT .*/b$", lambda store, _: store.put("b", b"2")),
    "put of what is new": Call("PUT .*/new", lambda store, _: store.put_new(f"new-{next(_NUMBERS)}", b"3")),
    "delete": Call("DELETE .*/b$", lambda store, _: store.delete("b")),
    "list of uploads": Call("GET .*[?&]uploads", publish),
    "create of an upload": Call("POST .*[?&]uploads", publish),
    "part": Call("PUT .*partNumber", publish),
    "complete": Call("POST .*uploadId", publish),
    "copy": Call("PUT .*tea/.*safetensors$", lambda store, folder: publish(store, folder, "tea")),
    "copy of a part": Call("PUT .*tea/.*partNumber", lambda store, folder: publish(store, folder, "tea")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One to publish, of one file in two parts."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(bytes(5 * MIB + 1))
    return tmp_path / "model"


@pytest.fixture
def ready(fronted: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Store:
    """A store that holds what the calls ask for."""
    monkeypatch.setattr(transfer, "PART", 5 * MIB)
    monkeypatch.setattr(
        transfer, "_COPY_PART", 5 * MIB if request.node.callspec.params["name"] == "copy of a part" else 1 << 30
    )
    fronted.put("a", b"1")
    fronted.publish(
        folder, "tea/run/checkpoint-0", release=Release(format="huggingface"), producer=Producer(kind="test")
    )
    return fronted


@pytest.mark.parametrize("name", CALLS)
def test_what_may_pass_is_waited_for(name: str, ready: Store, front: PickyStore, folder: Path) -> None:
    call = CALLS[name]
    front.answers[:] = [
        Answer(call.pattern, 429, b"<html>too many requests</html>"),
        error(call.pattern, 503, "SlowDown"),
        error(call.pattern, 500, "InternalError"),
        error(call.pattern, 400, "RequestTimeout"),
        error(call.pattern, 400, "BadDigest"),
        Answer(call.pattern, 502, b"<html>Bad Gateway</html>"),
        Answer(call.pattern, 503, b"<html>no server is ready</html>"),
        Answer(call.pattern, 200, cut=0, lost=True),
    ]

    call.make(ready, folder)

    assert not front.answers


TOLD: dict[str, tuple[Answer, str, type[StoreError]]] = {
    "expired": (error("", 400, "ExpiredToken"), "have expired", CredentialsError),
    "clock": (error("", 403, "RequestTimeTooSkewed"), "clock of this machine", StoreError),
    "region": (error("", 400, "AuthorizationHeaderMalformed"), "set AWS_DEFAULT_REGION", StoreError),
    "portal": (Answer("", 403, b"<html>portal</html>"), "does not allow", CredentialsError),
    "no store": (Answer("", 404, b"<html>nginx</html>"), "not as S3 does; correct --endpoint-url", StoreError),
    "page": (Answer("", 200, b"<html>Welcome</html>"), "with 200 and not as S3 does", StoreError),
    "busy": (error("", 503, "SlowDown"), "SlowDown", StoreError),
    "never": (error("", 501, "NotImplemented"), "NotImplemented", StoreError),
}


NOT_TOLD = {
    "list of uploads": ["portal", "page", "never"],  # only to tidy up
}


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_pass_is_told_with_who_answered(
    name: str, ready: Store, front: PickyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.0)
    call, passed = CALLS[name], []
    for what, (answer, sentence, kind) in TOLD.items():
        front.answers[:] = [Answer(call.pattern, answer.status, answer.body)] * 20
        refusal = raised(lambda: call.make(ready, folder))
        if refusal is None:
            passed.append(what)
        else:
            assert sentence in str(refusal), what
            assert front.url in str(refusal), what
            assert isinstance(refusal, kind), what
    assert passed == NOT_TOLD.get(name, [])
    gc.collect()  # a connection that was left open is told here, not in another test


def raised(make: Callable[[], object]) -> StoreError | None:
    try:
        make()
    except StoreError as error:
        return error
    return None
