from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tunegate.api.codec import to_yaml
from tunegate.api.errors import UsageError
from tunegate.serving.auth import Admission, ApiKey, KeyFile, Keys, given_key, hash_of, new_key
from tunegate.serving.events import ApiError


def entry(key: str, name: str = "web", requests: int | None = None, concurrent: int | None = None) -> ApiKey:
    return ApiKey(name=name, sha256=hash_of(key), requests_per_minute=requests, concurrent=concurrent)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(*keys: ApiKey) -> Path:
        path = tmp_path / "keys.yaml"
        path.write_bytes(to_yaml(KeyFile(keys=keys)))
        return path

    return write


def test_keys_are_long_and_differ() -> None:
    keys = {new_key() for _ in range(100)}

    assert len(keys) == 100
    assert all(key.startswith("tg-") and len(key) == 46 for key in keys)


@pytest.mark.parametrize("header", ["Bearer tg-1", "bearer  tg-1", "tg-1", " tg-1 "])
def test_a_key_is_read_with_and_without_bearer(header: str) -> None:
    assert given_key(header) == "tg-1"


def test_any_key_of_the_file_may_ask(write: Callable[..., Path]) -> None:
    admission = Admission(Keys(write(entry("one", "web"), entry("two", "app"))), 9)

    for header, name in (("Bearer one", "web"), ("two", "app")):
        key = admission.identify(header)
        assert key is not None
        assert key.name == name
    for header in (None, "", "Bearer three", "Bearer", hash_of("one")):
        with pytest.raises(ApiError) as caught:
            admission.identify(header)
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_keys_change_without_a_restart(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys(write(entry("old")))
    write(entry("old"), entry("new"))
    assert keys.find("old")
    assert keys.find("new")
    write(entry("new"))
    assert keys.find("old") is None

    path = write(entry("new"))
    path.write_text("keys: [{name: web")
    with caplog.at_level(logging.WARNING):
        assert keys.find("new")
        path.unlink()
        assert keys.find("new")
    warned = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["the key file can't be used; the keys of before stay"] * 2


def test_a_mounted_secret_changes_by_its_link(tmp_path: Path) -> None:
    for name, key in (("first", "old"), ("second", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys.yaml").write_bytes(to_yaml(KeyFile(keys=(entry(key),))))
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    keys = Keys(tmp_path / "keys.yaml")
    assert keys.find("old")

    (tmp_path / "..new").symlink_to("second")
    os.replace(tmp_path / "..new", tmp_path / "..data")

    assert keys.find("old") is None
    assert keys.find("new")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "tunegate keys create NAME"),
        ("keys: [{name: a b, sha256: x}]", "name"),
        ("keys: [{name: web, sha256: tg-plain}]", "sha256"),
        ("keys: [{name: web, sha256: " + "a" * 64 + ", perMinute: 3}]", "perMinute"),
        ("keys: [{name: web, sha256: " + "a" * 64 + ", concurrent: 0}]", "concurrent"),
        ("[", "not a valid KeyFile"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused_at_the_start(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        Keys(path)


def test_a_key_may_ask_so_often_in_any_minute() -> None:
    at = [10.0]
    admission = Admission(None, 100, lambda: at[0])
    key, other = entry("one", "web", requests=2), entry("two", "app", requests=2)
    for at[0] in (10.0, 40.0):
        admission.enter(key)
        admission.leave(key)

    at[0] = 69.5
    with pytest.raises(ApiError, match="2 times a minute; ask again in 1 s") as caught:
        admission.enter(key)
    assert (caught.value.status, caught.value.retry_after, caught.value.reason) == (429, 1, "rate")
    admission.enter(other)
    at[0] = 70.0
    admission.enter(key)
    with pytest.raises(ApiError) as caught:
        admission.enter(key)
    assert caught.value.retry_after == 30


def test_a_key_may_have_so_many_requests_under_way_over_its_rotation() -> None:
    admission = Admission(None, 100)
    old, new = entry("one", concurrent=2), entry("two", concurrent=2)
    admission.enter(old)
    admission.enter(new)
    with pytest.raises(ApiError, match="2 requests under way") as caught:
        admission.enter(new)
    assert (caught.value.reason, caught.value.retry_after) == ("concurrent", 1)
    admission.leave(old)
    admission.enter(new)


def test_a_server_takes_no_more_than_its_capacity() -> None:
    admission = Admission(None, 2)
    admission.enter(None)
    admission.enter(None)
    with pytest.raises(ApiError, match="2 requests at a time") as caught:
        admission.enter(None)
    assert (caught.value.status, caught.value.reason) == (429, "capacity")
    admission.leave(None)
    admission.enter(None)
