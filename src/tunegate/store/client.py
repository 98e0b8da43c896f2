"""The way to S3: where the store is, how to sign in, and what its errors mean to a person.

Nothing here knows of versions; credentials never leave botocore and appear in no message.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
import botocore.loaders
import botocore.parsers
import botocore.session
import urllib3.exceptions
from botocore.config import Config
from botocore.credentials import CredentialProvider, RefreshableCredentials
from botocore.hooks import HierarchicalEmitter
from botocore.utils import parse_timestamp

from tunegate.api import environment
from tunegate.api.errors import CredentialsError, StoreError, UnavailableError, UsageError
from tunegate.processes import is_loopback

CONNECTIONS = 32
_CONNECT_SECONDS = 5.0
_BY_HOST = (".aliyuncs.com", ".myqcloud.com", ".volces.com")
"""Stores that know a bucket by its host name only; of others' endpoints a path is what all know."""
FORBID_OVERWRITE = ("x-oss-forbid-overwrite", "x-cos-forbid-overwrite")
"""What Alibaba Cloud's OSS and Tencent Cloud's COS call it; each ignores the other's."""
PATIENCE_SECONDS = 60.0
"""How long a call goes on with a store that says that it is busy or failed."""
_URI = re.compile(r"(?P<scheme>s3|oss)://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_REREAD_SECONDS = 300
_ADVISORY_SECONDS = 900  # before credentials expire botocore asks for new ones
_UNREACHED_ATTEMPTS = 3  # where nobody answers, asking on only keeps a person from the reason
_LONGEST_PAUSE = 2.0  # seconds: one call is made some thirty times before patience ends
_REFUSED_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId"}
_EXPIRED_KEYS = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_LATER = {"SlowDown", "Throttling", "TooManyRequests", "RequestTimeout", "BadDigest"}
"""Refusals of 4xx that say nothing against the request: too many of them, or its body came late or damaged."""


class BrokenBodyError(ConnectionError):
    """A body ended early; `url` is who sent it."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(reason)
        self.kwargs = {"endpoint_url": url}


class StalledBodyError(BrokenBodyError):
    """A body came so slowly that it might never end."""


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
UNREACHED = botocore.exceptions.ConnectionError
"""Of these, what is raised where there was no connection at all."""
_NOT_ALLOWED = {"AccessDenied", "403", "MethodNotAllowed"}
_ENDPOINT = "--endpoint-url (AWS_ENDPOINT_URL)"
_LOG = logging.getLogger(__name__)


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


def connect(location: Location, endpoint_url: str | None, ending: threading.Event | None = None, **keys: str) -> Any:
    """An S3 client for the location, safe to share between threads.

    ending: once it is set, no call waits for a busy store any more. `keys` are for boto3's session where its own ways
    of finding credentials won't do.
    Raises UsageError or StoreError when no such client can be made.
    """
    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=60,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": 1},  # _pause says what is tried again
        s3={"payload_signing_enabled": False},
        # Bodies are covered by what transfer.py sends along; botocore's own would be computed a second time.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with explain_store_errors(location.uri):
        try:
            found = _session()
            _check_certificates(found.get_config_variable("ca_bundle"))
            if _would_send_token_to_store():
                found.set_config_variable("ignore_configured_endpoint_urls", True)
                endpoint_url = (
                    endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ[environment.ENDPOINT_URL]
                )
            session = boto3.session.Session(botocore_session=found, **keys)
            # Where the environment or a profile names the endpoint, only a client knows it.
            url = endpoint_url or session.client("s3", config=config).meta.endpoint_url
            fitting = config.merge(_fitting(url, location, found.get_scoped_config()))
            client = session.client("s3", endpoint_url=endpoint_url, config=fitting)
        except ValueError as error:
            raise UsageError(f"{endpoint_url!r} is not an endpoint; write http://HOST:PORT or https://HOST.") from error
    client.meta.events.register("before-parameter-build.s3.PutObject", _take_forbid_overwrite)
    client.meta.events.register("before-call.s3.PutObject", _send_forbid_overwrite)
    client.meta.events.register_first(
        "needs-retry.s3", partial(_pause, ending or threading.Event(), session.get_credentials())
    )
    client.meta.events.register("after-call.s3", partial(_require_answer_of_s3, location.uri))
    return client


def _fitting(url: str, location: Location, profile: Mapping[str, Any]) -> Config:
    """How this endpoint is spoken to: with a bucket in the path or the host, past proxies where it is on loopback."""
    host = urlsplit(url).hostname or ""
    own = (profile.get("s3") or {}).get("addressing_style")
    by_host = location.scheme == "oss" or host.endswith(_BY_HOST)
    usual = "virtual" if by_host else "auto" if ".amazonaws.com" in host else "path"
    style = {"addressing_style": own or usual, "payload_signing_enabled": False}
    return Config(s3=style, **({"proxies": {}} if is_loopback(url) else {}))


def _require_answer_of_s3(uri: str, http_response: Any, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Raises StoreError for a page of HTML, or nothing, with 200: a gateway's, and no word that anything was done."""
    said = parsed.keys() | parsed.get("CopyObjectResult", {}).keys() | parsed.get("CopyPartResult", {}).keys()
    is_page = model.name == "DeleteObject" and http_response.content.lstrip()[:9].lower().startswith(_PAGE)
    if http_response.status_code < 300 and (is_page or not _SAID.get(model.name, said) & said):
        http_response.raw.close()  # nobody reads on in what was to be a file
        host = parsed["ResponseMetadata"].get("Endpoint", "")
        raise _foreign(f"{uri} at {host}", model.name, http_response.status_code)


def _require_answer_of_sts(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Raises ClientError for a page of HTML, or nothing: botocore's own error would not say that it is STS's answer."""
    status = response_dict["status_code"]
    if b"Response" in response_dict["body"]:  # AssumeRole...Response or ErrorResponse
        return
    if status < 500:
        raise botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": status}}, operation_model.name)
    response_dict["body"] = b""  # so botocore asks again


_SAID = {
    "ListObjectsV2": {"Name", "IsTruncated", "Contents", "KeyCount"},
    "ListObjects": {"Name", "IsTruncated", "Contents"},
    "GetObject": {"ETag"},
    "PutObject": {"ETag"},
    "UploadPart": {"ETag"},
    "CreateMultipartUpload": {"UploadId"},
    "CompleteMultipartUpload": {"ETag"},
    "CopyObject": {"ETag"},
    "UploadPartCopy": {"ETag"},
}
"""What a store says of a call that it did, one of these at least."""

_PAGE = (b"<html", b"<!doctype")  # a store says nothing of what it deleted


def _check_certificates(bundle: str | None) -> None:
    """Raises UsageError for a file that isn't there, which botocore would call a broken connection."""
    bundle = bundle or os.environ.get("REQUESTS_CA_BUNDLE")
    if bundle and not os.path.exists(bundle):
        raise UsageError(
            f"There is no {bundle}, which AWS_CA_BUNDLE names; correct the path of your CA's certificates."
        )


def _would_send_token_to_store() -> bool:
    """Whether the store's endpoint is set for all services, and so for STS, at which a pod's role is assumed."""
    names = {"AWS_WEB_IDENTITY_TOKEN_FILE", environment.ENDPOINT_URL}
    return names <= os.environ.keys() and "AWS_ENDPOINT_URL_STS" not in os.environ


class _FileCredentials(RefreshableCredentials):  # type: ignore[misc]
    """What a file says, which may be said otherwise at any time."""

    def expire(self) -> None:
        """Have them read again for the next request."""
        self._expiry_time = datetime.now(UTC)


class _CredentialsFile(CredentialProvider):  # type: ignore[misc]
    """The credentials in a file, as botocore reads them, but again every few minutes: a mounted Secret rotates."""

    METHOD = "rotated-credentials-file"

    def __init__(self, provider: Any) -> None:
        super().__init__()
        self._provider = provider

    def load(self) -> _FileCredentials | None:
        read = self._read()
        if read is None:
            return None
        found = _FileCredentials.create_from_metadata(read, refresh_using=self._read, method=self.METHOD)
        return cast(_FileCredentials, found)

    def _read(self) -> dict[str, str] | None:
        found = self._provider.load()
        if found is None:
            return None
        expires = datetime.now(UTC) + timedelta(seconds=_REREAD_SECONDS + _ADVISORY_SECONDS)
        keys = {"access_key": found.access_key, "secret_key": found.secret_key, "token": found.token}
        return {**keys, "expiry_time": expires.isoformat()}


def _take_forbid_overwrite(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    """Accept ForbidOverwrite=True beside botocore's own parameters of a put."""
    context["tunegate_forbid_overwrite"] = params.pop("ForbidOverwrite", False)


def _send_forbid_overwrite(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if context.get("tunegate_forbid_overwrite"):
        params["headers"].update(dict.fromkeys(FORBID_OVERWRITE, "true"))


def _pause(
    ending: threading.Event,
    credentials: Any,
    attempts: int,
    response: Any,
    caught_exception: Exception | None,
    endpoint: Any,
    request_dict: Any,
    operation: Any,
    **_: Any,
) -> float | None:
    """The seconds after which a call is made again; None when what came is its answer.

    A store that is busy or hangs up is asked for PATIENCE_SECONDS, at growing intervals, of which a random part
    spreads many clients; one that is not reached, _UNREACHED_ATTEMPTS times; one that refuses keys of a file, once with
    those that are there now.
    """
    context, says = request_dict["context"], ""
    if operation.name == "HeadBucket":  # botocore's own, to learn a region; it would follow its redirects for ever
        context.setdefault("s3_redirect", {})["redirected"] = True
    if response is not None:
        response[1].setdefault("ResponseMetadata", {})["Endpoint"] = endpoint.host
    seconds: float = random.uniform(0.5, 1) * min(_LONGEST_PAUSE, 0.25 * 2**attempts)  # noqa: S311 - no secret
    if caught_exception is not None:
        if not isinstance(caught_exception, BROKEN) or _is_untrusted(caught_exception):
            return None
        if isinstance(caught_exception, UNREACHED):
            return seconds if attempts < _UNREACHED_ATTEMPTS else None
        says = "breaks off"
    else:
        # S3 may say 200 before it has done its work; the answer that was read has the status that it means.
        status = int(response[1]["ResponseMetadata"].get("HTTPStatusCode", response[0].status_code))
        code = str(response[1].get("Error", {}).get("Code", ""))
        if (
            code in _REFUSED_KEYS | _EXPIRED_KEYS
            and isinstance(credentials, _FileCredentials)
            and not context.get("tunegate_read_again")
        ):
            context["tunegate_read_again"] = True
            credentials.expire()
            return 0.0
        if may_pass(status, code):
            says = f"answers {code or status}"
    began: float = context.setdefault("tunegate_began", time.monotonic())
    if not says or ending.is_set() or time.monotonic() + seconds - began > PATIENCE_SECONDS:
        return None
    if attempts == 1:
        _LOG.info("%s %s: it is asked again for up to %d s", endpoint.host, says, PATIENCE_SECONDS)
    return seconds


def may_pass(status: int, code: str) -> bool:
    """Whether an answer says that the same request may work later; what is not implemented (501) never will."""
    return (status >= 500 and status != 501) or status == 429 or code in _LATER


def _session() -> Any:
    """botocore's session, reading times in a listing the quick way: dateutil takes a third of a listing's time."""
    session = botocore.session.Session(event_hooks=copy(_handlers()), include_builtin_handlers=False)
    session.register_component("data_loader", _definitions(session.get_config_variable("data_path")))
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    session.register("before-parse.sts", _require_answer_of_sts)
    providers = session.get_component("credential_provider")
    file = providers.get_provider("shared-credentials-file")
    providers.insert_before("shared-credentials-file", _CredentialsFile(file))
    return session


@cache
def _handlers() -> HierarchicalEmitter:
    """What botocore itself does at its events, for all sessions: registering it takes most of making one."""
    handlers = HierarchicalEmitter()
    botocore.session.Session(event_hooks=handlers)
    return handlers


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
    """Whether a store says that there is no such object; who answers 404 in another form is no store."""
    return code_of(error) == "NoSuchKey"


def is_refused(error: botocore.exceptions.ClientError) -> bool:
    """Whether the credentials lack the right, or the store has no such operation."""
    return code_of(error) in _NOT_ALLOWED or status_of(error) == 501


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
        if _is_of_sts(error):
            raise UnavailableError(
                f"no role for {where}: STS can't be reached{_at(error)}; check AWS_ENDPOINT_URL_STS, and that the way "
                "there is open."
            ) from error
        if _is_untrusted(error):
            raise StoreError(
                f"the certificate of {where}{_at(error)} is not trusted here; set AWS_CA_BUNDLE to a PEM file with "
                "that of the CA which signed it."
            ) from error
        if isinstance(error, botocore.exceptions.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
            raise StoreError(f"{where}{_at(error)} speaks no TLS; write http:// in {_ENDPOINT}.") from error
        if isinstance(error, StalledBodyError):
            raise UnavailableError(
                f"{where}{_at(error)} hardly sends anything: {error}; look at the network, and at proxies on the way."
            ) from error
        raise UnavailableError(
            f"{where} can't be reached{_at(error)}; check that the store runs and that {_ENDPOINT} is right."
        ) from error
    except botocore.parsers.ResponseParserError as error:
        raise _foreign(where, "a call", 200) from error
    except FileNotFoundError as error:
        if not error.filename or error.filename != os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
            raise
        raise CredentialsError(
            f"no role for {where}: there is no {error.filename}, which AWS_WEB_IDENTITY_TOKEN_FILE names; mount it."
        ) from error
    except botocore.exceptions.BotoCoreError as error:
        raise StoreError(f"{where} can't be used: {error}".rstrip(".") + ".") from error


def _at(error: Exception) -> str:
    given = getattr(error, "kwargs", {})
    if proxy := given.get("proxy_url"):  # botocore has taken its password out
        return f" by the proxy {proxy}"
    url = given.get("endpoint_url")
    return f" at {'/'.join(url.split('/')[:3])}" if url else ""


def _is_of_sts(error: Exception) -> bool:
    """Whether it is not the store that was not reached, but who gives a pod its role there."""
    host = (urlsplit(getattr(error, "kwargs", {}).get("endpoint_url") or "").netloc) or "none"
    own = urlsplit(os.environ.get("AWS_ENDPOINT_URL_STS", "")).netloc
    return "AWS_ROLE_ARN" in os.environ and (host == own or host.startswith("sts."))


def _foreign(where: str, operation: str, status: int | str) -> StoreError:
    foreign = f"{where} answers {operation} with {status} and not as S3 does"
    return StoreError(f"{foreign}; correct {_ENDPOINT}, or what stands before the store.")


def _is_untrusted(error: Exception) -> bool:
    """Whether it is for the certificate, and not for the network, that no connection was made."""
    return isinstance(error, botocore.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def _explain_answer(where: str, error: botocore.exceptions.ClientError) -> StoreError:
    code, operation = code_of(error), error.operation_name
    host: str = error.response.get("ResponseMetadata", {}).get("Endpoint", "")
    at = f" at {host}" if host else ""
    if operation.startswith("AssumeRole"):
        said = error.response.get("Error", {}).get("Message") or "no reason given"
        return (UnavailableError if may_pass(status_of(error), code) else CredentialsError)(
            f"no role for {where}: STS answers {operation} with {code} ({said.rstrip('.')}); check AWS_ROLE_ARN, "
            "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ENDPOINT_URL_STS."
        )
    if refusal := _explain_refusal(code, operation, where, at):
        return refusal
    message = error.response.get("Error", {}).get("Message") or "no reason given"
    # The store failed, not the request: also when it was ended in the middle of an upload and forgot it.
    failed = may_pass(status_of(error), code) or code in {"InvalidPart", "NoSuchUpload"}
    return (UnavailableError if failed else StoreError)(
        f"{where}{at} failed at {operation}: {code}: {message.rstrip('.')}; look into the store's log."
    )


def _explain_refusal(code: str, operation: str, where: str, at: str) -> StoreError | None:
    """What `code` means to a person; a status is the code of what is not S3's XML. None for what isn't known."""
    bucket = where.split("/")[2]
    path = urlsplit(at.removeprefix(" at ")).path.strip("/")
    match code:
        case "NoSuchBucket" | "NoSuchKey" if path:
            said = f"{where}{at} answers {operation} with {code}"
            return StoreError(f"{said}; take /{path} off {_ENDPOINT} unless the store is below it.")
        case "NoSuchBucket":
            return StoreError(f"bucket {bucket} does not exist{at}; create it with: aws s3 mb s3://{bucket}")
        case _ if code in _REFUSED_KEYS:
            keys = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            return CredentialsError(f"{where}{at} refuses the credentials ({code}); {keys}.")
        case _ if code in _EXPIRED_KEYS:
            ended = f"the temporary credentials for {where}{at} have expired ({code})"
            return CredentialsError(f"{ended}; get new ones, with their AWS_SESSION_TOKEN.")
        case "AccessDenied" | "403" | "MethodNotAllowed":
            refused = f"{where}{at} does not allow {operation} to these credentials"
            return CredentialsError(f"{refused}; ask for that permission.")
        case "RequestTimeTooSkewed" | "RequestExpired":
            wrong = f"{where}{at} says that the clock of this machine is wrong ({code})"
            return StoreError(f"{wrong}; set it, for instance by NTP.")
        case "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "301" | "302" | "307" | "308":
            moved = f"bucket {bucket} is in another region or place than asked{at} ({code})"
            return StoreError(f"{moved}; set AWS_DEFAULT_REGION to its region, or correct {_ENDPOINT}.")
        case "KeyTooLongError":
            long = f"{where}{at} refuses a name of more than 1,024 bytes"
            return StoreError(f"{long}; shorten the names of files or folders.")
        case "413":
            large = f"what stands before {where}{at} refuses {operation} for its size (413)"
            return StoreError(f"{large}; let it pass bodies of 16 MiB.")
        case _ if code.isdecimal() and code.startswith("4") and code != "429":
            return _foreign(f"{where}{at}", operation, code)
    return None
