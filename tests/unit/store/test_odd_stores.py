"""Stores and gateways that answer in ways of their own: the call is done all the same, or refused by name."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from tests.unit.store.picky import Answer, PickyStore, error, picky_store
from tunegate.api.errors import StoreError, UnavailableError
from tunegate.api.versions import ModelVersion, Producer, Release
from tunegate.store import Store, client, transfer
from tunegate.store.client import parse_uri

NAME, OTHER = "tea/run/checkpoint-1", "tea/run/checkpoint-2"
HTML = b"<html><body>Welcome</body></html>"


def publish(store: Store, folder: Path, name: str = NAME) -> ModelVersion:
    return store.publish(folder, name, release=Release(format="huggingface"), producer=Producer(kind="test"))


@pytest.mark.parametrize("status", [301, 308])
def test_a_redirect_without_a_region_is_told(status: int, fronted: Store, front: PickyStore) -> None:
    """botocore asks for the region by HeadBucket, whose answer is a redirect, too."""
    front.answers[:] = [error("", status, "PermanentRedirect" if status == 301 else "")] * 400

    with pytest.raises(StoreError, match=r"is in another region or place than asked at .*; set AWS_DEFAULT_REGION"):
        fronted.get("a")


def test_an_answer_that_is_not_of_s3_is_never_taken_for_success(
    fronted: Store, front: PickyStore, folder: Path
) -> None:
    refused = f"at {front.url} answers .* with 200 and not as S3 does; correct --endpoint-url"
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("GET .*list-type", lambda: fronted.list()),
        ("GET .*list-type", lambda: Store.open(fronted.uri, endpoint_url=front.url)),
        ("PUT .*/a$", lambda: fronted.put("a", b"1")),
        ("PUT .*partNumber", lambda: publish(fronted, folder)),
        ("POST .*uploads", lambda: publish(fronted, folder)),
        ("POST .*uploadId", lambda: publish(fronted, folder)),
    )
    for pattern, call in calls:
        front.answers[:] = [Answer(pattern, 200, HTML)] * 9
        with pytest.raises(StoreError, match=refused):
            call()


@pytest.mark.parametrize("request_", ["POST .*uploadId", "PUT .*checkpoint-2.*safetensors"])
def test_an_error_after_200_is_waited_for(request_: str, fronted: Store, front: PickyStore, folder: Path) -> None:
    """S3 says 200 before it has joined parts or copied, and what went wrong afterwards."""
    if "PUT" in request_:
        publish(fronted, folder)
    front.answers[:] = [error(request_, 200, "InternalError"), error(request_, 200, "SlowDown")]

    publish(fronted, folder, OTHER)

    assert not front.answers
    fronted.verify(OTHER)


def test_parts_that_are_copied_are_waited_for(
    fronted: Store, front: PickyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(fronted, folder)
    monkeypatch.setattr(transfer, "_COPY_PART", 5 << 20)
    front.answers[:] = [error("PUT .*partNumber", status, "SlowDown") for status in (503, 200, 503)]

    publish(fronted, folder, OTHER)

    assert not front.answers
    fronted.verify(OTHER)


def test_a_copy_has_no_more_parts_than_s3_allows(
    fronted: Store, front: PickyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(fronted, folder)
    monkeypatch.setattr(transfer, "_COPY_PART", 1 << 20)
    monkeypatch.setattr(transfer, "_MAX_PARTS", 2)
    front.requests.clear()

    publish(fronted, folder, OTHER)

    assert len([line for line in front.requests if "partNumber" in line]) == 2


def test_an_upload_whose_end_was_answered_to_nobody_is_complete(
    fronted: Store, front: PickyStore, folder: Path
) -> None:
    front.answers[:] = [Answer("POST .*uploadId", 200, lost=True), error("POST .*uploadId", 404, "NoSuchUpload")]

    publish(fronted, folder)

    assert not front.answers
    assert len([line for line in front.requests if "partNumber" in line]) == 2
    fronted.verify(NAME)


def test_a_file_that_was_damaged_on_the_way_is_read_again(
    fronted: Store, front: PickyStore, folder: Path, tmp_path: Path
) -> None:
    publish(fronted, folder)
    front.answers[:] = [Answer("GET .*safetensors", 206, flipped=True)]

    fronted.fetch(NAME, tmp_path / "out")

    assert not front.answers
    there = (tmp_path / "out/model.safetensors").read_bytes()
    assert hashlib.sha256(there).digest() == hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()


def test_a_store_that_hangs_up_is_asked_as_long_as_a_busy_one(fronted: Store, front: PickyStore) -> None:
    fronted.put("a", b"1")
    front.answers[:] = [Answer("", 0, lost=True)] * 9

    assert fronted.get("a") == b"1"
    assert fronted.keys("a") == ["a"]
    fronted.put("a", b"2")


def test_a_missing_document_may_be_called_forbidden(fronted: Store, front: PickyStore) -> None:
    """As S3 does where the right to list is for some prefixes only."""
    front.answers[:] = [error("GET .*/a$", 403, "AccessDenied")] * 2
    assert fronted.get("a") is None
    fronted.put("a", b"1")
    with pytest.raises(StoreError, match="does not allow GetObject"):
        fronted.get("a")


@pytest.mark.parametrize("lister", ["v1", "deaf"])
def test_listings_of_older_stores_end_and_are_whole(lister: str, fronted: Store, front: PickyStore) -> None:
    """ "v1" knows nothing of continuation tokens, "deaf" gives new ones and begins anew each time."""
    keys = [f"d/{number}" for number in range(7)]
    for key in keys:
        fronted.put(key, b"")
    front.lister = lister

    if lister == "deaf":
        with pytest.raises(StoreError, match=r"gives the same page of its listing again; .* a gateway"):
            fronted.keys("d/")
        return
    assert fronted.keys("d/") == keys
    assert fronted.folders("") == ["d"]
    assert list(fronted.ages("d/")) == keys


def test_names_of_all_kinds_travel(store: Store, tmp_path: Path) -> None:
    names = ["a b.txt", "a+b.txt", "100%25.txt", "模型 权重.txt", "a&b=c?d#e;f.txt", "~(')!*@$,:.txt", "[x]{y}|^`.txt"]
    (tmp_path / "model/子 folder+1").mkdir(parents=True)
    for name in names:
        (tmp_path / "model/子 folder+1" / name).write_text(name)

    publish(store, tmp_path / "model")
    publish(store, tmp_path / "model", OTHER)  # copied within the store

    out = store.fetch(OTHER, tmp_path / "out") / "子 folder+1"
    assert {path.name: path.read_text() for path in out.iterdir()} == {name: name for name in names}


def test_a_slash_behind_the_endpoint_is_nothing(store: Store) -> None:
    Store.open(store.uri, endpoint_url=f"{store.endpoint_url}/").put("a", b"1")

    assert store.get("a") == b"1"


def test_a_whole_version_comes_over_tls(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    with picky_store(store.endpoint_url or "") as front:
        front.server.socket = context.wrap_socket(front.server.socket, server_side=True)
        opened = Store.open(store.uri, endpoint_url=front.url.replace("http://127.0.0.1", "https://localhost"))
        publish(opened, folder)
        front.answers[:] = [Answer("GET .*safetensors", 206, cut=3 << 20), error("GET .*safet", 503, "SlowDown")]
        out = opened.fetch(NAME, tmp_path / "out")

    assert (out / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_part_may_take_longer_than_a_connection(
    fronted: Store, front: PickyStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """urllib3 lets the time for connecting hold for sending a body, too."""
    monkeypatch.setattr(client, "_CONNECT_SECONDS", 0.5)
    front.slowly = 0.1  # 11 MiB in pieces of 1 MiB: twice as long as a connection may take
    fronted = Store.open(fronted.uri, endpoint_url=front.url)
    large = (folder / "model.safetensors").read_bytes()

    fronted.put("large", large)  # no attempt would end in that time
    publish(fronted, folder)

    assert fronted.get("large") == large


def test_who_gives_the_role_is_told(
    store: Store, tmp_path: Path, front: PickyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("a token")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", front.url)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))

    def refused(sentence: str, kind: type[StoreError] = StoreError) -> None:
        with pytest.raises(kind, match=sentence) as caught:
            Store.open(store.uri, endpoint_url=store.endpoint_url)
        assert "AWS_ENDPOINT_URL)" not in str(caught.value)

    front.answers[:] = [Answer("POST /$", 405, HTML)] * 9
    refused(
        "no role for .*: STS answers .* with 405 .*; check AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ENDPOINT_"
    )
    for status, page in ((404, b"<!doctype html><p>no XML"), (200, HTML), (200, b"")):
        front.answers[:] = [Answer("POST /$", status, page)] * 9
        refused(
            f"no role for .*: STS answers AssumeRoleWithWebIdentity with {status} .no reason given.; check AWS_ROLE"
        )
    front.answers[:] = [Answer("POST /$", 503, b"<!doctype html><p>no XML")] * 9
    refused("no role for .*: STS answers .* with 503", UnavailableError)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    refused("no role for .*: STS can't be reached at http://127.0.0.1:9; check AWS_ENDPOINT_URL_STS", UnavailableError)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/no/token")
    refused("no role for .*: there is no /no/token, which AWS_WEB_IDENTITY_TOKEN_FILE names")


def test_oss_and_cos_are_asked_by_host_and_others_by_path() -> None:
    def url(uri: str, endpoint: str) -> str:
        made = client.connect(parse_uri(uri), endpoint, aws_access_key_id="a", aws_secret_access_key="b")
        return str(made.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "a"})).split("?")[0]

    assert url("oss://models", "https://s3.oss-cn-hangzhou.aliyuncs.com").startswith("https://models.s3.oss-cn-hangz")
    assert url("s3://models", "https://cos.ap-beijing.myqcloud.com").startswith("https://models.cos.ap-beijing.myq")
    assert url("s3://models", "https://minio.example").startswith("https://minio.example/models/")
