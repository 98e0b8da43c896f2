"""A folder of small documents: of this machine, or of a bucket, for pods that may be killed."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tunegate.api.errors import UsageError
from tunegate.files import disk_errors_as, replace_file
from tunegate.store import Store
from tunegate.store.files import is_uri


class Folder(Protocol):
    """Each document is there whole, or not at all."""

    def get(self, name: str) -> bytes | None:
        """The document, or None where there is none."""

    def put(self, name: str, body: bytes) -> None:
        """In place of what was there. Raises UsageError for a disk, or StoreError, that won't have it."""


def open_folder(name: str, endpoint_url: str | None) -> Folder:
    """The folder of this name, or where it says so the one in a bucket: s3://BUCKET/PREFIX."""
    return Store.open(name, endpoint_url=endpoint_url) if is_uri(name) else _Disk(Path(name))


def open_file(name: str, endpoint_url: str | None) -> tuple[Folder, str]:
    """The folder of a file, named in the same way, and the file's name in it."""
    if is_uri(name):
        folder, _, file = name.rpartition("/")
        return open_folder(folder, endpoint_url), file
    return _Disk(Path(name).parent), Path(name).name


class _Disk:
    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> bytes | None:
        with disk_errors_as(UsageError, self._path, "name another folder."):
            return (self._path / name).read_bytes() if (self._path / name).exists() else None

    def put(self, name: str, body: bytes) -> None:
        with disk_errors_as(UsageError, self._path, "name another folder."):
            replace_file(self._path / name, body)
