"""The way to S3: where the store is, how to sign in, and what its errors mean to a person.

Nothing here knows of versions; credentials never leave botocore and appear in no message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, cast

import boto3
import botocore.exceptions
import botocore.loaders
import botocore.session
import urllib3.exceptions
from botocore.config import Config
from botocore.utils import parse_timestamp

from tunegate.api.errors import CredentialsError, StoreError, UnavailableError, UsageError
from tunegate.processes import is_loopback

CONNECTIONS = 32
FORBID_OVERWRITE = "x-oss-forbid-overwrite"
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
_NOT_ALLOWED = {"AccessDenied", "403", "MethodNotAllowed"}
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
    with explain_store_errors(location.uri):
        try:
            session = boto3.session.Session(botocore_session=_session(), **keys)
            client = session.client("s3", endpoint_url=endpoint_url, config=config)
            if is_loopback(client.meta.endpoint_url):  # the environment may have named it, so it is known only now
                direct = config.merge(Config(proxies={}))
                client = session.client("s3", endpoint_url=endpoint_url, config=direct)
        except ValueError as error:
            raise UsageError(f"{endpoint_url!r} is not an endpoint; write http://HOST:PORT or https://HOST.") from error
    client.meta.events.register("before-parameter-build.s3.PutObject", _take_forbid_overwrite)
    client.meta.events.register("before-call.s3.PutObject", _send_forbid_overwrite)
    return client


def _take_forbid_overwrite(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Accept ForbidOverwrite=True beside botocore's own parameters of a put."""
    context[FORBID_OVERWRITE] = params.pop("ForbidOverwrite", False)


def _send_forbid_overwrite(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if context.get(FORBID_OVERWRITE):
        params["headers"][FORBID_OVERWRITE] = "true"


def _session() -> Any:
    """botocore's session, reading times in a listing the quick way: dateutil takes a third of a listing's time."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _definitions(session.get_config_variable("data_path")))
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    return session


@cache
def _definitions(path: str | None) -> Any:
    """What botocore knows of S3, for all clients: reading it takes three quarters of making one."""
    return botocore.loaders.create_loader(path)


def _time(value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return cast(datetime, parse_timestamp(value))


def check(client: Any, location: Location) -> None:
    """Ask the endpoint for the bucket. Raises StoreError that says what is wrong: address, credentials or bucket."""
    with explain_store_errors(location.uri):
        client.list_objects_v2(Bucket=location.bucket, Prefix=location.prefix, MaxKeys=1)


def code_of(error: botocore.exceptions.ClientError) -> str:
    """What S3 calls this error; its HTTP status where the answer was not S3's XML."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error))


def status_of(error: botocore.exceptions.ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: botocore.exceptions.ClientError) -> bool:
    return code_of(error) in _MISSING


def is_refused(error: botocore.exceptions.ClientError) -> bool:
    """Whether the credentials lack the right, or the store has no such operation."""
    return code_of(error) in _NOT_ALLOWED or status_of(error) == 501


def is_failure(error: botocore.exceptions.ClientError) -> bool:
    """Whether the store failed, not the request; what it does not implement (501) it never will."""
    return status_of(error) >= 500 and status_of(error) != 501


@contextmanager
def explain_store_errors(where: str) -> Iterator[None]:
    """Turn what botocore raises into one StoreError that names the remedy; `where` is the URI that was asked for."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _explain_answer(where, error) from error
    except botocore.exceptions.NoCredentialsError as error:
        raise CredentialsError(
            f"no credentials for {where}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile in "
            "~/.aws/credentials."
        ) from error
    except botocore.exceptions.PartialCredentialsError as error:
        raise CredentialsError(f"the credentials for {where} are incomplete; set both halves of the key.") from error
    except BROKEN as error:
        url = getattr(error, "kwargs", {}).get("endpoint_url")
        at = f" at {'/'.join(url.split('/')[:3])}" if url else ""
        raise UnavailableError(
            f"{where} can't be reached{at}; check that the store runs and that --endpoint-url "
            "(AWS_ENDPOINT_URL) is right."
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise StoreError(f"{where} can't be used: {error}".rstrip(".") + ".") from error


def _explain_answer(where: str, error: botocore.exceptions.ClientError) -> StoreError:
    code, bucket = code_of(error), where.split("/")[2]
    if code == "NoSuchBucket":
        return StoreError(f"bucket {bucket} does not exist; create it with: aws s3 mb s3://{bucket}")
    if code in _SIGN_IN:
        return CredentialsError(
            f"{where} refuses the credentials ({code}); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if code in _NOT_ALLOWED:
        return CredentialsError(
            f"{where} does not allow {error.operation_name} to these credentials; ask for that permission."
        )
    message = error.response.get("Error", {}).get("Message") or "no reason given"
    # The store failed, not the request: also when it was ended in the middle of an upload and forgot it.
    failed = is_failure(error) or code in {"InvalidPart", "NoSuchUpload", "SlowDown"}
    return (UnavailableError if failed else StoreError)(
        f"{where} failed at {error.operation_name}: {code}: {message.rstrip('.')}; look into the store's log."
    )
