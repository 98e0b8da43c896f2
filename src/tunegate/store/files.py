"""A file or folder in a bucket that is no version, brought to a folder of the cache.

Nothing vouches for its bytes but the store's listing: sizes and ETags name what is wanted, and are looked at again
when everything is here. Other bytes under the same keys lie beside the old ones, which somebody may be reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from tunegate.api.errors import NotFoundError, StoreError, UsageError
from tunegate.files import disk_errors_as, partial_folder, put_in_place
from tunegate.store.bucket import Bucket, Entry
from tunegate.store.client import Location, connect, explain_store_errors, parse_uri
from tunegate.store.fetching import DISK_REMEDY
from tunegate.store.transfer import ByteCounter, Download, Progress, Transfers

_SCHEMES = ("s3://", "oss://")


def is_uri(text: str) -> bool:
    return text.startswith(_SCHEMES)


def fetch_plain(uri: str, cache: Path, *, endpoint_url: str | None = None, progress: Progress | None = None) -> Path:
    """The file or folder at `s3://bucket/path` or `oss://bucket/path`, below `cache`: complete, or not there at all.

    What is here and unchanged there is not fetched again; what an interrupted fetch completed is kept.
    Raises UsageError for another URI, NotFoundError where nothing is, StoreError when the store or the disk fails.
    """
    place = parse_uri(uri)
    bucket = Bucket(connect(place, endpoint_url), Location(place.scheme, place.bucket, ""))
    key = place.prefix.rstrip("/")
    if not key:
        raise UsageError(f"{uri} is a whole bucket; name a file or a folder in it.")
    found = _listing(bucket, key, uri)
    name = hashlib.sha256(msgspec.json.encode([endpoint_url, uri.rstrip("/"), found])).hexdigest()[:32]
    into = cache.absolute() / "plain" / name
    with disk_errors_as(StoreError, into, DISK_REMEDY), partial_folder(into) as partial:
        if not into.is_dir():
            _download(bucket, key, found, partial, progress)
            if _listing(bucket, key, uri) != found:
                raise StoreError(f"{uri} changed while it was fetched; fetch it when nothing writes to it.")
            put_in_place(partial, into)
    return into / PurePosixPath(key).name


def _listing(bucket: Bucket, key: str, uri: str) -> list[Entry]:
    """The object at `key`, or those of the folder; what stands for an empty folder is left out."""
    entries = [entry for entry in bucket.entries(key) if not entry.key.endswith("/")]
    found = [entry for entry in entries if entry.key == key] or [
        entry for entry in entries if entry.key.startswith(f"{key}/")
    ]
    if not found:
        raise NotFoundError(f"There is nothing at {uri}; list the bucket and correct the name.")
    folders = {str(parent) for entry in found for parent in PurePosixPath(entry.key).parents}
    for entry in found:
        if entry.key in folders or not all(part not in ("", ".", "..") for part in entry.key.split("/")):
            raise StoreError(f"{entry.key} in {bucket.location.uri} can't be a file's path; rename that object.")
    return found


def _download(bucket: Bucket, key: str, found: Sequence[Entry], folder: Path, progress: Progress | None) -> None:
    """Bring the objects to `folder`, below the name of the file or folder that was asked for."""
    parent = len(PurePosixPath(key).parent.parts)

    def get(entry: Entry) -> None:
        target = folder.joinpath(*PurePosixPath(entry.key).parts[parent:])
        if target.is_file():
            counter.add(entry.size)
            return
        # Only what is complete has the name: parts of a file are written in any order.
        half = target.with_name(f"{target.name}.partial")
        transfers.download(Download(entry.key, entry.size, half))
        half.rename(target)

    counter = ByteCounter(sum(entry.size for entry in found), progress)
    with explain_store_errors(bucket.location.uri), Transfers(bucket, counter) as transfers:
        transfers.for_each(get, sorted(found, key=lambda entry: -entry.size))
