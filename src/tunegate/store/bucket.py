"""Small documents and listings in a bucket, and the one promise that stores keep in different ways: not to overwrite.

S3, SeaweedFS and MinIO know `If-None-Match: *`; OSS answers 501 to it and knows `x-oss-forbid-overwrite: true`, COS
calls that `x-cos-forbid-overwrite`; some take any header and overwrite all the same. Which it is, an object that is
there already tells. Nothing here needs the right to delete.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import botocore.exceptions

from tunegate.api.errors import StoreError
from tunegate.store.bodies import Body
from tunegate.store.client import BROKEN, Location, explain_store_errors, is_missing, is_refused, status_of

PROBE = ".tunegate/overwrite-probe"
"""A document that is there for good, to try on whether a store refuses to overwrite it."""
_WAYS: tuple[dict[str, Any], ...] = ({"IfNoneMatch": "*"}, {"ForbidOverwrite": True})
_EXISTS = (409, 412)  # stores have many codes for it
_READS = 3
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One object of a listing; `key` is without the store's prefix."""

    key: str
    size: int
    etag: str


def in_pieces(body: bytes) -> io.BytesIO:
    """A body as urllib3 sends it piece by piece: as a whole, it would have to leave within the time for connecting."""
    return io.BytesIO(body)


class Bucket:
    """Small documents and listings under a store's prefix. Keys are relative to it; raises StoreError."""

    def __init__(self, client: Any, location: Location) -> None:
        self.client = client
        self.location = location
        self._way: dict[str, Any] | None = None
        self._finding_way = threading.Lock()

    def __repr__(self) -> str:
        return f"Bucket({self.location.uri})"

    def place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.location.bucket, "Key": self.location.prefix + key}

    def get(self, key: str) -> bytes | None:
        """The document, or None where there is none."""
        with explain_store_errors(self.location.uri):
            for left in reversed(range(_READS)):
                try:
                    answer = self.client.get_object(**self.place(key))
                except botocore.exceptions.ClientError as error:
                    if is_missing(error) or (is_refused(error) and not self._is_listed(key)):
                        return None
                    raise
                try:
                    if "ContentLength" not in answer:  # gateways may send in chunks what they pack or change
                        return bytes(answer["Body"].read())
                    with Body(answer["Body"], answer["ContentLength"], self.client.meta.endpoint_url) as body:
                        return body.read()
                except BROKEN:  # the client has asked again for what did not come at all; this was cut in the middle
                    if not left:
                        raise
        raise AssertionError("the last reading returns or raises")

    def _is_listed(self, key: str) -> bool:
        """Whether an object that can't be read is there: a missing one is forbidden, too, for who may not list all."""
        whole = self.location.prefix + key
        try:
            page = self.client.list_objects_v2(Bucket=self.location.bucket, Prefix=whole, MaxKeys=1)
        except botocore.exceptions.ClientError:
            return True
        return any(found["Key"] == whole for found in page.get("Contents", ()))

    def put(self, key: str, body: bytes) -> None:
        with explain_store_errors(self.location.uri):
            self.client.put_object(**self.place(key), Body=in_pieces(body))

    def put_new(self, key: str, body: bytes) -> bool:
        """Put unless there is one. False: there was.

        Where the store can't refuse to overwrite, two that put at the same moment may both get True; a warning
        says so, once.
        """
        way = self._condition()
        if not way and self.get(key) is not None:
            return False
        with explain_store_errors(self.location.uri):
            try:
                self.client.put_object(**self.place(key), Body=in_pieces(body), **way)
            except botocore.exceptions.ClientError as error:
                if status_of(error) not in _EXISTS:
                    raise
                # A put whose answer was lost refuses its own repetition.
                return bool(error.response["ResponseMetadata"].get("RetryAttempts")) and self.get(key) == body
        return True

    def _condition(self) -> dict[str, Any]:
        """What makes a put of this store refuse to overwrite, tried once on PROBE; empty when nothing does."""
        with self._finding_way, explain_store_errors(self.location.uri):
            if self._way is None:
                self.client.put_object(**self.place(PROBE), Body=b"")
                self._way = {}
                for way in _WAYS:
                    try:
                        self.client.put_object(**self.place(PROBE), Body=b"", **way)
                    except botocore.exceptions.ClientError as error:
                        if status_of(error) in _EXISTS:
                            self._way = way
                            break
                        if status_of(error) not in (400, 501):  # the header itself is refused
                            raise
                if not self._way:
                    _LOG.warning(
                        "%s can't refuse to overwrite, so let only one process publish to it at a time.",
                        self.location.uri,
                    )
        return self._way

    def delete(self, key: str) -> None:
        with explain_store_errors(self.location.uri):
            self.client.delete_object(**self.place(key))

    def tidy(self, *keys: str) -> None:
        """Remove what nobody needs any more; where that fails it stays, and the log says so."""
        for key in keys:
            try:
                self.delete(key)
            except StoreError as error:
                _LOG.warning("%s is not needed any more and stays in the store: %s", key, error)
                return

    def entries(self, prefix: str) -> list[Entry]:
        return [entry for page in self.pages(prefix) for entry in page]

    def pages(self, prefix: str, after: str = "") -> Iterator[list[Entry]]:
        """What is below `prefix`, sorted behind the key `after`; a request for each page, mostly of 1,000 objects."""
        start = {"StartAfter": self.location.prefix + after} if after else {}
        for page in self._pages(prefix, **start):
            yield [Entry(self._relative(o["Key"]), o["Size"], o["ETag"].strip('"')) for o in page.get("Contents", ())]

    def ages(self, prefix: str) -> dict[str, float]:
        """The seconds since each object below `prefix` was written, all by the store's clock."""
        found = {}
        for page in self._pages(prefix):
            now: datetime = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            found.update(
                {self._relative(o["Key"]): (now - o["LastModified"]).total_seconds() for o in page.get("Contents", ())}
            )
        return found

    def folders(self, prefix: str) -> list[str]:
        """The next path segments below `prefix`, which is empty or ends in '/'."""
        found = []
        for page in self._pages(prefix, Delimiter="/"):
            found += [self._relative(o["Prefix"])[len(prefix) :].rstrip("/") for o in page.get("CommonPrefixes", ())]
        return found

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        where = {"Bucket": self.location.bucket, "Prefix": self.location.prefix + prefix, **options}
        ask, first = self.client.list_objects_v2, ""
        with explain_store_errors(self.location.uri):
            while True:
                page = ask(**where)
                keys = [found["Key"] for found in page.get("Contents", ())]
                keys += [found["Prefix"] for found in page.get("CommonPrefixes", ())]
                if first and keys and min(keys) == first:
                    raise StoreError(
                        f"{self.location.uri} gives the same page of its listing again; look for a gateway before it "
                        "that drops continuation tokens."
                    )
                yield page
                if not page.get("IsTruncated") or not keys:
                    return
                first = min(keys)
                if token := page.get("NextContinuationToken"):
                    where["ContinuationToken"] = token
                else:  # older stores know the first version of this call, whatever they are asked
                    ask = self.client.list_objects
                    where.pop("StartAfter", "")
                    where["Marker"] = page.get("NextMarker") or max(keys)

    def _relative(self, key: str) -> str:
        return key[len(self.location.prefix) :]
