"""A copy of a store in this process: what is read of it thousands of times takes seconds, not minutes."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError

from tunegate.store import Store
from tunegate.store.client import parse_uri


class Copy:
    """As much of an S3 client as reading needs. objects: the bodies by key below `prefix`; a test may change them."""

    def __init__(self, prefix: str, objects: Mapping[str, bytes]) -> None:
        self.prefix, self.objects = prefix, dict(objects)
        self.meta = SimpleNamespace(endpoint_url="http://127.0.0.1")

    def get_object(self, *, Bucket: str, Key: str, Range: str = "bytes=0-") -> dict[str, Any]:  # noqa: N803
        body = self.objects.get(Key.removeprefix(self.prefix))
        if body is None:
            raise ClientError({"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "Get")
        first, _, last = Range.removeprefix("bytes=").partition("-")
        part = body[int(first) : int(last) + 1 if last else None]
        return {"Body": io.BytesIO(part), "ContentLength": len(part), "ContentRange": f"bytes {first}-/{len(body)}"}

    def list_objects_v2(self, *, Bucket: str, Prefix: str, Delimiter: str = "") -> dict[str, Any]:  # noqa: N803
        found = {self.prefix + key: body for key, body in self.objects.items()}
        found = {key: body for key, body in found.items() if key.startswith(Prefix)}
        rests = [key.removeprefix(Prefix) for key in found]
        folders = {rest.partition("/")[0] for rest in rests if "/" in rest}
        return {
            "Contents": [{"Key": key, "Size": len(body), "ETag": f'"{hash(body)}"'} for key, body in found.items()],
            "CommonPrefixes": [{"Prefix": f"{Prefix}{folder}/"} for folder in folders],
        }


def copied(store: Store) -> tuple[Store, dict[str, bytes]]:
    """A store that reads what `store` holds now, and the bodies by key: what is changed in them is what it reads."""
    location = parse_uri(store.uri)
    client = Copy(location.prefix, {key: store.get(key) or b"" for key in store.keys("")})
    return Store(client, location, None, threading.Event()), client.objects
