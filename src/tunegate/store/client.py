"""The way to S3: where the store is, how to sign in, and what its errors mean to a person.

Nothing here knows of versions; credentials never leave botocore and appear in no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import boto3
import botocore.exceptions
import botocore.session
import urllib3.exceptions
from botocore.config import Config
from botocore.utils import parse_timestamp

from tunegate.api.errors import StoreError, UnavailableError, UsageError

CONNECTIONS = 32
_URI = re.compile(r"(?P<scheme>s3|oss)://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_MISSING = {"404", "NoSuchKey", "NotFound"}
BROKEN = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.ResponseStreamingError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)
"""What a lost connection raises, at whatever moment it was lost."""
_SIGN_IN = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "InvalidClientTokenId"}


@dataclass(frozen=True)
class Location:
    """A bucket and the prefix in it under which everything of a store lies; the prefix is empty or ends in '/'."""

    scheme: str
    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """As the user wrote it, without a slash at the end."""
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")


def parse_uri(uri: str) -> Location:
    """Read `s3://bucket[/prefix]` or `oss://bucket[/prefix]`. Raises UsageError for anything else."""
    match = _URI.fullmatch(uri)
    prefix = (match["prefix"] or "").strip("/") if match else ""
    if match is None or not all(part not in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise UsageError(f"{uri!r} is not a store; write s3://BUCKET, s3://BUCKET/PREFIX or oss://BUCKET.")
    return Location(match["scheme"], match["bucket"], f"{prefix}/" if prefix else "")


def connect(location: Location, endpoint_url: str | None, **keys: str) -> Any:
    """An S3 client for the location, safe to share between threads.

    oss:// is Alibaba Cloud's S3 interface, which only knows virtual-hosted addresses; other endpoints of one's own
    are reached by path. `keys` are for boto3's session where its own ways of finding credentials won't do.
    Raises UsageError or StoreError when no such client can be made.
    """
    addressing = "virtual" if location.scheme == "oss" else "path" if endpoint_url else "auto"
    config = Config(
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 3},
        s3={"addressing_style": addressing, "payload_signing_enabled": False},
        # Bodies are covered by what transfer.py sends along; botocore's own would be computed a second time.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with explained(location.uri):
        try:
            session = boto3.session.Session(botocore_session=_session(), **keys)
            return session.client("s3", endpoint_url=endpoint_url, config=config)
        except ValueError as error:
            raise UsageError(f"{endpoint_url!r} is not an endpoint; write http://HOST:PORT or https://HOST.") from error


def _session() -> Any:
    """botocore's session, reading times in a listing the quick way: dateutil takes a third of a listing's time."""
    session = botocore.session.get_session()
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return session


def _time(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return cast(datetime, parse_timestamp(value))


def check(client: Any, location: Location) -> None:
    """Ask the endpoint for the bucket. Raises StoreError that says what is wrong: address, credentials or bucket."""
    with explained(location.uri):
        client.list_objects_v2(Bucket=location.bucket, Prefix=location.prefix, MaxKeys=1)


@dataclass(frozen=True)
class Entry:
    """One object of a listing; `key` is without the store's prefix."""

    key: str
    size: int
    etag: str


class Bucket:
    """Small documents and listings under a store's prefix. Keys are relative to it; raises StoreError."""

    def __init__(self, client: Any, location: Location) -> None:
        self.client = client
        self.location = location

    def __repr__(self) -> str:
        return f"Bucket({self.location.uri})"

    def place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + key}

    def get(self, key: str) -> bytes | None:
        with explained(self.location.uri):
            try:
                return bytes(self.client.get_object(**self.place(key))["Body"].read())
            except botocore.exceptions.ClientError as error:
                if is_missing(error):
                    return None
                raise

    def put(self, key: str, body: bytes) -> None:
        with explained(self.location.uri):
            self.client.put_object(**self.place(key), Body=body)

    def put_new(self, key: str, body: bytes) -> bool:
        """Put unless there is one. False: there was."""
        return self.put_if(key, body, IfNoneMatch="*") is not None

    def put_if(self, key: str, body: bytes, **condition: str) -> str | None:
        """Put when the condition holds (IfNoneMatch="*" or IfMatch=ETag); returns the new ETag, or None."""
        with explained(self.location.uri):
            try:
                return str(self.client.put_object(**self.place(key), Body=body, **condition)["ETag"])
            except botocore.exceptions.ClientError as error:
                if not (is_precondition(error) or is_missing(error)):
                    raise
                if error.response["ResponseMetadata"].get("RetryAttempts"):
                    return self._own_etag(key, body)
                return None

    def _own_etag(self, key: str, body: bytes) -> str | None:
        """The ETag if the document is ours after all: a put whose answer was lost refuses its own repetition."""
        answer = self.client.get_object(**self.place(key))
        return str(answer["ETag"]) if answer["Body"].read() == body else None

    def delete(self, key: str) -> None:
        with explained(self.location.uri):
            self.client.delete_object(**self.place(key))

    def entries(self, prefix: str) -> list[Entry]:
        found = []
        for page in self._pages(prefix):
            found += [
                Entry(self._relative(o["Key"]), o["Size"], o["ETag"].strip('"')) for o in page.get("Contents", ())
            ]
        return found

    def folders(self, prefix: str) -> list[str]:
        """The next path segments below `prefix`, which is empty or ends in '/'."""
        found = []
        for page in self._pages(prefix, Delimiter="/"):
            found += [self._relative(o["Prefix"])[len(prefix) :].rstrip("/") for o in page.get("CommonPrefixes", ())]
        return found

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        with explained(self.location.uri):
            lister = self.client.get_paginator("list_objects_v2")
            yield from lister.paginate(Bucket=self.location.bucket, Prefix=self.location.prefix + prefix, **options)

    def _relative(self, key: str) -> str:
        return key[len(self.location.prefix) :]


def is_missing(error: botocore.exceptions.ClientError) -> bool:
    return error.response["Error"]["Code"] in _MISSING


def is_precondition(error: botocore.exceptions.ClientError) -> bool:
    """Whether a conditional put was refused because the condition does not hold (or is being decided elsewhere)."""
    return error.response["Error"]["Code"] in {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn what botocore raises into one StoreError that names the remedy; `where` is the URI that was asked for."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise (UnavailableError if _may_pass(error) else StoreError)(_explain_answer(where, error)) from error
    except botocore.exceptions.NoCredentialsError as error:
        raise StoreError(
            f"no credentials for {where}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile in "
            "~/.aws/credentials."
        ) from error
    except botocore.exceptions.PartialCredentialsError as error:
        raise StoreError(f"the credentials for {where} are incomplete; set both halves of the key.") from error
    except BROKEN as error:
        raise UnavailableError(
            f"{where} can't be reached{_at(error)}; check that the store runs and that --endpoint-url "
            "(AWS_ENDPOINT_URL) is right."
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise StoreError(f"{where} can't be used: {error}".rstrip(".") + ".") from error


def _may_pass(error: botocore.exceptions.ClientError) -> bool:
    """Whether the store failed, not the request: also when it was ended in the middle of an upload and forgot it."""
    is_failure = error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
    return is_failure or error.response["Error"]["Code"] in {"InvalidPart", "NoSuchUpload", "SlowDown"}


def _explain_answer(where: str, error: botocore.exceptions.ClientError) -> str:
    answer = error.response["Error"]
    code, bucket = answer["Code"], where.split("/")[2]
    if code == "NoSuchBucket":
        return f"bucket {bucket} does not exist; create it with: aws s3 mb s3://{bucket}"
    if code in _SIGN_IN:
        return f"{where} refuses the credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
    if code in ("AccessDenied", "403", "MethodNotAllowed"):
        return f"{where} does not allow {error.operation_name} to these credentials; ask for that permission."
    message = answer.get("Message") or "no reason given"
    return f"{where} failed at {error.operation_name}: {code}: {message.rstrip('.')}; look into the store's log."


def _at(error: Exception) -> str:
    url = getattr(error, "kwargs", {}).get("endpoint_url")
    return " at " + "/".join(url.split("/")[:3]) if url else ""
