from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec
import pytest

from tunegate.api.errors import StoreError
from tunegate.api.versions import MANIFEST
from tunegate.store import Store, claims
from tunegate.store.bucket import Bucket
from tunegate.store.claims import Claim, ClaimRecord, Owner, claimed, shared
from tunegate.store.transfer import Finished

NAME = "tea/run/checkpoint-1"
FOLDER = f".tunegate/publishing/{NAME}/"
LEFT = f"{FOLDER}left.json"
DONE = Finished(size=3, sha256="ab", etag="cd")
ELSEWHERE = Owner(host="elsewhere", pid=1, process="x", claim="y")


@pytest.fixture
def bucket(store: Store) -> Bucket:
    return store._bucket


def leave(bucket: Bucket, owner: Owner | None, over: tuple[str, ...] = ()) -> None:
    bucket.put(LEFT, msgspec.json.encode(ClaimRecord(owner=owner, files={"a": DONE}, over=over)))


def keys(bucket: Bucket) -> list[str]:
    return [entry.key for entry in bucket.entries(FOLDER)]


@contextmanager
def held(bucket: Bucket) -> Iterator[Claim]:
    """A claim whose renewals the test makes by itself."""
    claim = claims._try_to_claim(bucket, NAME)
    assert claim is not None
    claim._ended.set()
    try:
        yield claim
    finally:
        claims._LIVE.discard(claim._owner.claim)


def test_claim_of_a_dead_process_is_taken_over_with_what_it_finished(bucket: Bucket) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave(bucket, Owner(host=claims._host(), pid=gone.pid, process="x", claim="y"))
    with claimed(bucket, NAME) as claim:
        assert claim.finished == {"a": DONE}
    assert not keys(bucket)


def test_claim_of_another_host_is_waited_for_until_it_is_stale(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(bucket, ELSEWHERE)
    assert claims._try_to_claim(bucket, NAME) is None
    assert keys(bucket) == [LEFT]
    monkeypatch.setattr(claims, "STALE_SECONDS", 0.0)
    with held(bucket) as claim:
        claim.end(published=True)
    assert not keys(bucket)


def test_second_publisher_waits_for_the_first(bucket: Bucket) -> None:
    order: list[str] = []

    def second() -> None:
        with claimed(bucket, NAME):
            order.append("second")

    with claimed(bucket, NAME):
        thread = threading.Thread(target=second)
        thread.start()
        assert claims._try_to_claim(bucket, NAME) is None
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_who_publishes_waits_for_all_who_have_a_share_and_takes_over_what_they_finished(bucket: Bucket) -> None:
    with shared(bucket, NAME) as one, shared(bucket, NAME) as other:
        assert one
        assert other
        one.note("a", DONE)
        other.note("b", DONE)
        assert claims._try_to_claim(bucket, NAME) is None
    with claimed(bucket, NAME) as claim:
        assert claim.finished == {"a": DONE, "b": DONE}
        with shared(bucket, NAME) as late:
            assert late is None
    assert not keys(bucket)


def test_who_stood_still_with_a_share_until_it_was_taken_over_sends_no_more(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shared(bucket, NAME) as sleeper:
        assert sleeper
        with monkeypatch.context() as stale:
            stale.setattr(claims, "STALE_SECONDS", 0.0)
            publisher = claims._try_to_claim(bucket, NAME)
        assert publisher is not None
        with pytest.raises(StoreError, match="another publisher took over"):
            sleeper.confirm()
        publisher.end(published=True)
    assert not keys(bucket)


@pytest.mark.parametrize("files", [{}, {"a": DONE}], ids=["nothing", "a file"])
def test_failed_publish_leaves_what_it_finished(bucket: Bucket, files: dict[str, Finished]) -> None:
    def fail(claim: Claim) -> None:
        for path, file in files.items():
            claim.note(path, file)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), claimed(bucket, NAME) as claim:
        fail(claim)
    assert bool(keys(bucket)) == bool(files)
    with claimed(bucket, NAME) as claim:
        assert claim.finished == files
    assert not keys(bucket)


def test_publisher_that_was_taken_over_is_told_and_leaves_the_claim(bucket: Bucket) -> None:
    with claimed(bucket, NAME) as claim:
        leave(bucket, ELSEWHERE, over=(claim._key,))
        with pytest.raises(StoreError, match="another publisher took over"):
            claim.confirm()
    assert b"elsewhere" in (bucket.get(LEFT) or b"")


def test_publisher_that_stood_still_until_another_had_published_is_told(bucket: Bucket) -> None:
    """The other one is done and its claims are gone; the manifest is what is left to see."""
    with held(bucket) as claim:
        bucket.put(f"{NAME}/{MANIFEST}", b"{}")
        with pytest.raises(StoreError, match="another publisher took over"):
            claim.confirm()


def test_claim_that_somebody_removed_is_lost(bucket: Bucket) -> None:
    with held(bucket) as claim:
        bucket.delete(claim._key)
        with pytest.raises(StoreError, match="another publisher took over"):
            claim.confirm()
    assert not keys(bucket)


def test_one_who_wakes_while_it_is_taken_over_makes_the_other_give_way(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(bucket) as sleeper:
        with monkeypatch.context() as stale:
            stale.setattr(claims, "STALE_SECONDS", 0.0)
            other = Claim(bucket, NAME, claims._list_claims(bucket, NAME))
        sleeper._save(sleeper._owner)  # it wakes after the other announced, and before the other looked again
        assert not other.is_alone()
        other.withdraw()
        sleeper.confirm()  # nothing is left of the other


def test_failed_one_that_took_over_still_tells_the_one_before(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(bucket) as sleeper:
        with monkeypatch.context() as stale:
            stale.setattr(claims, "STALE_SECONDS", 0.0)
            other = claims._try_to_claim(bucket, NAME)
        assert other is not None
        other.end(published=False)
        with pytest.raises(StoreError, match="another publisher took over"):
            sleeper.confirm()


def test_those_who_announce_at_once_never_both_hold(bucket: Bucket) -> None:
    found = claims._list_claims(bucket, NAME)
    both = [Claim(bucket, NAME, found) for _ in range(2)]
    assert [claim.is_alone() for claim in both] == [False, False]
    for claim in both:
        claim.withdraw()
    assert not keys(bucket)


def test_one_of_many_holds_at_a_time(bucket: Bucket) -> None:
    inside: list[int] = []

    def publish(number: int) -> None:
        with claimed(bucket, NAME) as claim:
            inside.append(number)
            claim.confirm()  # takes a while, in which the others try
            assert inside == [number]
            inside.clear()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(publish, range(6)))
    assert not keys(bucket)


def test_claim_is_renewed_while_it_is_held(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    with claimed(bucket, NAME) as claim:
        claim.note("a", DONE)
        while b"cd" not in (bucket.get(claim._key) or b""):
            claim.require()
