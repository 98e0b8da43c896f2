from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

import tunegate.store.client as client_module
from tests.answering import listening
from tests.unit.store.picky import PickyStore, error
from tunegate.api.errors import CredentialsError, StoreError, UnavailableError, UsageError
from tunegate.api.versions import Producer, Release
from tunegate.processes import free_port
from tunegate.store import EmbeddedStore, Store
from tunegate.store.client import Location, connect, explain_store_errors, parse_uri


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("s3://models", Location("s3", "models", "")),
        ("s3://models/", Location("s3", "models", "")),
        ("s3://models/team/a", Location("s3", "models", "team/a/")),
        ("oss://models/team/", Location("oss", "models", "team/")),
    ],
)
def test_uri_names_bucket_and_prefix(uri: str, location: Location) -> None:
    assert parse_uri(uri) == location
    assert location.uri == uri.rstrip("/")


@pytest.mark.parametrize(
    "uri", ["models", "s3://", "s3://A_b", "http://models", "s3://models/../x", "s3://models/a//b"]
)
def test_another_uri_is_a_usage_error(uri: str) -> None:
    with pytest.raises(UsageError, match="write s3://BUCKET"):
        Store.open(uri)


@pytest.mark.usefixtures("store")
def test_missing_bucket_is_told_with_the_command_that_creates_it(embedded_store: EmbeddedStore) -> None:
    with pytest.raises(
        StoreError,
        match=r"bucket nowhere does not exist at http://127.0.0.1:\d+; create it with: aws s3 mb s3://nowhere",
    ):
        Store.open("s3://nowhere", endpoint_url=embedded_store.endpoint_url)


@pytest.mark.parametrize(
    ("variable", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong" * 8), ("AWS_ACCESS_KEY_ID", "unknown" * 3)]
)
def test_wrong_credentials_are_told_and_not_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(CredentialsError, match=r"refuses the credentials .*; check AWS_ACCESS_KEY_ID") as caught:
        Store.open(store.uri, endpoint_url=store.endpoint_url)
    assert value not in str(caught.value)


def test_missing_credentials_are_told(embedded_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(CredentialsError, match="no credentials for s3://tunegate; set AWS_ACCESS_KEY_ID"):
        Store.open(embedded_store.uri, endpoint_url=embedded_store.endpoint_url)


def test_port_where_nobody_listens_is_told(store: Store) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnavailableError, match=f"can't be reached at {endpoint}; check that the store runs"):
        Store.open(store.uri, endpoint_url=endpoint)


@pytest.mark.parametrize(
    ("status", "code", "later"),
    [
        (503, "SlowDown", True),
        (500, "InternalError", True),
        (404, "NoSuchUpload", True),  # ended in the middle of an upload, it forgot that
        (501, "NotImplemented", False),
        (403, "AccessDenied", False),
        (404, "NoSuchBucket", False),
    ],
)
def test_what_may_work_later_is_told_from_what_is_refused(status: int, code: str, later: bool) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(StoreError) as caught, explain_store_errors("s3://models"):
        raise ClientError(answer, "UploadPart")
    assert isinstance(caught.value, UnavailableError) == later


def test_answer_that_is_not_s3s_is_told() -> None:
    answer = {"ResponseMetadata": {"HTTPStatusCode": 405}}
    with (
        pytest.raises(
            StoreError, match=r"STS answers AssumeRoleWithWebIdentity with 405 .no reason given.; check AWS_ROLE_ARN"
        ),
        explain_store_errors("s3://m"),
    ):
        raise ClientError(answer, "AssumeRoleWithWebIdentity")


def test_endpoint_that_is_no_url_is_a_usage_error(store: Store) -> None:
    with pytest.raises(UsageError, match="is not an endpoint"):
        Store.open(store.uri, endpoint_url="localhost:1")


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("scheme", "endpoint", "url"),
    [
        ("s3", "http://127.0.0.1:9", "http://127.0.0.1:9/models/key"),
        ("oss", "https://s3.oss.example.com", "https://models.s3.oss.example.com/key"),
    ],
)
def test_oss_is_addressed_by_virtual_host_and_other_endpoints_by_path(scheme: str, endpoint: str, url: str) -> None:
    client = connect(Location(scheme, "models", ""), endpoint)
    signed = client.generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "key"})
    assert signed.startswith(f"{url}?")


@pytest.mark.parametrize("path", ["tunegate", "s3"])
def test_endpoint_with_a_path_is_told(path: str, store: Store) -> None:
    """The bucket's name, say, which belongs into the URI."""
    endpoint = f"{store.endpoint_url}/{path}"
    with pytest.raises(
        StoreError, match=f"at {endpoint} answers ListObjectsV2 with NoSuch.*; take /{path} off --endpo"
    ):
        Store.open(store.uri, endpoint_url=endpoint)


def test_https_where_no_tls_is_spoken_is_told(store: Store) -> None:
    endpoint = (store.endpoint_url or "").replace("http:", "https:")
    with pytest.raises(StoreError, match=f"at {endpoint} speaks no TLS; write http:// in --endpoint-url"):
        Store.open(store.uri, endpoint_url=endpoint)


def test_credentials_are_in_no_repr(store: Store, embedded_store: EmbeddedStore) -> None:
    secret = embedded_store.environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in repr(embedded_store) + repr(store) + repr(vars(store))


@pytest.mark.usefixtures("dead_proxy")
def test_store_on_loopback_is_reached_past_a_proxy(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Store.open(store.uri, endpoint_url=store.endpoint_url).put_new("a", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint_url or "")
    assert Store.open(store.uri).get("a") == b"1"


def test_store_elsewhere_is_asked_by_the_proxy(
    store: Store, web_proxy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", web_proxy[0])
    monkeypatch.delenv("NO_PROXY", raising=False)
    client = connect(parse_uri("s3://models"), "http://store.invalid")
    client.get_object(Bucket="models", Key="a")
    assert web_proxy[1:] == ["http://store.invalid/models/a"]


def set_web_identity(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod's role instead of keys."""
    (folder / "token").write_text("a-token")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tunegate")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(folder / "token"))


def test_a_role_is_assumed_at_an_sts_of_ones_own(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Sts(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            keys = "".join(f"<{tag}>{value}</{tag}>" for tag, value in given.items())
            result = (
                f"<AssumeRoleWithWebIdentityResult><Credentials>{keys}</Credentials></AssumeRoleWithWebIdentityResult>"
            )
            body = f"<AssumeRoleWithWebIdentityResponse>{result}</AssumeRoleWithWebIdentityResponse>".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    given = {
        "AccessKeyId": "ASIA",
        "SecretAccessKey": "secret",
        "SessionToken": "of-the-role",
        "Expiration": "2099-01-01T00:00:00Z",
    }
    set_web_identity(tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(store.endpoint_url))
    with listening(Sts) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        # SeaweedFS knows no temporary keys; that they came there, and not to STS, is what counts here
        with pytest.raises(CredentialsError, match=f"at {store.endpoint_url} refuses the credentials"):
            Store.open(store.uri)
    assert len(asked) == 1
    assert b"a-token" in asked[0]


@pytest.mark.parametrize("named", [True, False])
def test_a_role_is_assumed_at_sts_and_not_at_the_store(
    named: bool, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class CompanyProxy(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, format: str, *args: object) -> None:
            pass

    set_web_identity(tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", str(store.endpoint_url))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "regional")
    with listening(CompanyProxy) as url:
        monkeypatch.setenv("HTTPS_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(StoreError, match=f"can't be reached by the proxy {url}; check"):
            Store.at(store.uri, endpoint_url=store.endpoint_url if named else None).get("a")
    assert {place.partition(":")[0] for place in asked} == {"sts.eu-north-1.amazonaws.com"}


def test_credentials_in_a_file_are_read_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mounted Secret changes, while the program runs."""
    keys = [os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    file = tmp_path / "credentials"

    def write(secret: str) -> None:
        file.write_text(f"[default]\naws_access_key_id = {keys[0]}\naws_secret_access_key = {secret}\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setattr(client_module, "_REREAD_SECONDS", -1)  # at each call
    write("of-yesterday")
    opened = Store.at(store.uri, endpoint_url=store.endpoint_url)
    with pytest.raises(CredentialsError, match="refuses the credentials"):
        opened.get("a")
    write(keys[1])
    assert opened.put_new("a", b"1")


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId"])
def test_keys_that_end_within_a_transfer_are_read_again_at_once(
    code: str, store: Store, front: PickyStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only after some minutes, where a file has them; of others it is told that they have ended."""
    file = tmp_path / "credentials"
    key, secret = (os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    file.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    release, producer = Release(format="huggingface"), Producer(kind="test")
    fixed = Store.open(store.uri, endpoint_url=front.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    rotated = Store.open(store.uri, endpoint_url=front.url)

    front.answers[:] = [error("PUT .*partNumber=2", 400, code), error("GET .*safetensors", 400, code)]
    rotated.publish(folder, "tea/run/checkpoint-1", release=release, producer=producer)
    rotated.verify("tea/run/checkpoint-1")
    assert not front.answers

    front.answers[:] = [error("GET .*safetensors", 400, code)] * 2
    with pytest.raises(CredentialsError, match=code):
        rotated.verify("tea/run/checkpoint-1")
    front.answers[:] = [error("GET .*safetensors", 400, code)]
    with pytest.raises(CredentialsError, match=code):
        fixed.verify("tea/run/checkpoint-1")
