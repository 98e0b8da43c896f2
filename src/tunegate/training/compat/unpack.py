"""Unpack an archive from a bucket, before a job begins that was packed for another platform.

Run as `python -m tunegate.training.compat.unpack URI FOLDER` in a pod.
"""

from __future__ import annotations

import os
import sys
import tarfile
from pathlib import Path

from tunegate.api import environment
from tunegate.api.errors import DataError, TunegateError
from tunegate.files import default_cache
from tunegate.store.files import fetch_plain


def unpack(uri: str, folder: Path, endpoint_url: str | None) -> None:
    """Raises StoreError when it can't be fetched, DataError when it is no archive or reaches beyond `folder`."""
    archive = fetch_plain(uri, default_cache(), endpoint_url=endpoint_url)
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    except tarfile.TarError as error:
        why = str(error).splitlines()[0].rstrip(":")
        raise DataError(f"{uri} can't be unpacked: {why}; pack it with tar -czf.") from None


if __name__ == "__main__":
    try:
        unpack(sys.argv[1], Path(sys.argv[2]), os.environ.get(environment.ENDPOINT_URL))
    except TunegateError as error:
        sys.exit(f"tunegate: {error}")
