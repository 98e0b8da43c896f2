from __future__ import annotations

import subprocess
import sys
import threading

import msgspec
import pytest

from tunegate.api.errors import StoreError
from tunegate.store import Store, claims
from tunegate.store.claims import Claim, ClaimRecord, Finished, Owner, claimed
from tunegate.store.client import Bucket

NAME = "tea/run/checkpoint-1"
KEY = f".tunegate/publishing/{NAME}.json"
DONE = Finished(size=3, sha256="ab", etag="cd")


@pytest.fixture
def bucket(store: Store) -> Bucket:
    return store._bucket


def leave(bucket: Bucket, owner: Owner | None) -> None:
    bucket.put(KEY, msgspec.json.encode(ClaimRecord(owner=owner, files={"a": DONE})))


def test_claim_of_a_dead_process_is_taken_over_with_what_it_finished(bucket: Bucket) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    leave(bucket, Owner(host=claims._host(), pid=gone.pid, process="x", claim="y"))
    with claimed(bucket, NAME) as claim:
        assert claim.finished == {"a": DONE}
    assert bucket.get(KEY) is None


def test_claim_of_another_host_is_waited_for_until_it_is_stale(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(bucket, Owner(host="elsewhere", pid=1, process="x", claim="y"))
    assert claims._take(bucket, NAME) is None
    monkeypatch.setattr(claims, "STALE_SECONDS", 0.0)
    claim = claims._take(bucket, NAME)
    assert claim is not None
    claim.end(published=True)


def test_second_publisher_waits_for_the_first(bucket: Bucket) -> None:
    order: list[str] = []

    def second() -> None:
        with claimed(bucket, NAME):
            order.append("second")

    with claimed(bucket, NAME):
        thread = threading.Thread(target=second)
        thread.start()
        assert claims._take(bucket, NAME) is None
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


@pytest.mark.parametrize("files", [{}, {"a": DONE}], ids=["nothing", "a file"])
def test_failed_publish_leaves_what_it_finished(bucket: Bucket, files: dict[str, Finished]) -> None:
    def fail(claim: Claim) -> None:
        for path, file in files.items():
            claim.note(path, file)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), claimed(bucket, NAME) as claim:
        fail(claim)
    assert (bucket.get(KEY) is not None) == bool(files)
    with claimed(bucket, NAME) as claim:
        assert claim.finished == files
    assert bucket.get(KEY) is None


def test_publisher_that_was_taken_over_is_told_and_leaves_the_claim(bucket: Bucket) -> None:
    with claimed(bucket, NAME) as claim:
        leave(bucket, Owner(host="elsewhere", pid=1, process="x", claim="y"))
        with pytest.raises(StoreError, match="another publisher took over"):
            claim.confirm()
    assert b"elsewhere" in (bucket.get(KEY) or b"")


def test_claim_is_renewed_while_it_is_held(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEW_SECONDS", 0.01)
    with claimed(bucket, NAME) as claim:
        claim.note("a", DONE)
        while b"cd" not in (bucket.get(KEY) or b""):
            claim.require()
