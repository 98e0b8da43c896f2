from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from tunegate.api.errors import DataError
from tunegate.store import Store
from tunegate.store.client import connect, parse_uri
from tunegate.training.compat.unpack import unpack


def test_an_archive_in_a_bucket_is_unpacked(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "ds_config.json").write_text("{}")
    (tmp_path / "job.tar").write_text("no archive")
    with tarfile.open(tmp_path / "job.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ds_config.json", "ds_config.json")
    place = parse_uri(store.uri)
    for name in ("job.tar.gz", "job.tar"):
        client = connect(place, store.endpoint_url)
        client.upload_file(str(tmp_path / name), place.bucket, f"{place.prefix}{name}")

    unpack(f"{store.uri}/job.tar.gz", tmp_path / "work", store.endpoint_url)

    assert os.listdir(tmp_path / "work") == ["ds_config.json"]
    with pytest.raises(DataError, match=r"job\.tar can't be unpacked.*pack it with tar"):
        unpack(f"{store.uri}/job.tar", tmp_path / "work", store.endpoint_url)
