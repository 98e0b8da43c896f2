"""A store that is away for a while is waited for, and one that stays away is told of."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores import kill, start_again
from tunegate.api.errors import CredentialsError, UnavailableError
from tunegate.store import EmbeddedStore, Store
from tunegate.store.patience import patiently


def test_a_store_that_is_started_again_answers_what_was_asked_while_it_was_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedStore.start(tmp_path / "store") as mortal, ExitStack() as stack:
        store = Store.open(mortal.uri, endpoint_url=mortal.endpoint_url, **mortal.keys)
        store.put("a", b"kept")
        kill(mortal)
        tries = []

        def attempt() -> bytes | None:
            tries.append(1)
            if len(tries) == 2:
                stack.enter_context(start_again(mortal))
            return store.get("a")

        with caplog.at_level(logging.WARNING, "tunegate.store.patience"):
            assert patiently(60, attempt) == b"kept"
    assert caplog.messages[0].startswith("waiting for the store for up to 60 s more: s3://tunegate can't be reached")


def test_a_store_that_stays_away_is_told_of_with_how_long_it_was_waited_for() -> None:
    def attempt() -> None:
        raise UnavailableError("It is away.")

    with pytest.raises(UnavailableError, match=r"It is away\. It was waited for 1 s\.") as caught:
        patiently(1, attempt)
    assert caught.value.exit_code == 75


def test_what_waiting_would_not_change_is_told_at_once() -> None:
    asked = []

    def attempt() -> None:
        asked.append(1)
        raise CredentialsError("They are refused.")

    with pytest.raises(CredentialsError):
        patiently(600, attempt)
    assert asked == [1]
