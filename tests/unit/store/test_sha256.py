from __future__ import annotations

import hashlib
import io
import os

import pytest

from tunegate.store import sha256
from tunegate.store.sha256 import Hashed, Hasher, Sha256, hash_file

KIB = 1 << 10


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    if sha256._LIBCRYPTO is None:
        pytest.skip("this Python's hashlib has no libcrypto of its own, so files are read as a whole")
    monkeypatch.setattr(sha256, "SEGMENT", 64 * KIB)
    monkeypatch.setattr(sha256, "_CHUNK", 32 * KIB)


@pytest.mark.parametrize("size", [0, 1, 64 * KIB, 64 * KIB + 1, 128 * KIB, 300 * KIB + 7])
def test_segments_lead_to_the_sha256_of_the_whole(size: int) -> None:
    body = os.urandom(size)

    hashed = hash_file(io.BytesIO(body), size)

    assert hashed.sha256 == hashlib.sha256(body).hexdigest()
    segments = hashed.segments(size)
    assert bool(segments) == (size > 64 * KIB)
    for segment in reversed(segments):
        digest = Sha256(segment.before, segment.start)
        digest.update(memoryview(bytearray(body))[segment.start : segment.end])
        assert segment.after == (digest.state() if segment.end < size else digest.hexdigest())
    assert [segment.start for segment in segments[1:]] == [segment.end for segment in segments[:-1]]


def test_lengths_of_more_than_32_bits_are_counted() -> None:
    """sha256 ends with the number of bits; a segment far behind has to know how many there were."""
    done = 5 << 30
    state = hash_file(io.BytesIO(bytes(128 * KIB)), 128 * KIB).states[0]
    near, far = Sha256(state, 64 * KIB), Sha256(state, done)
    for digest in (near, far):
        digest.update(b"the end")

    padding = b"\x80" + bytes(64 - 8 - 1 - len(b"the end"))
    by_hand = Sha256(state, 64 * KIB)
    by_hand.update(b"the end" + padding + ((done + 7) * 8).to_bytes(8, "big"))
    assert by_hand.state() == far.hexdigest() != near.hexdigest()


def test_states_that_do_not_fit_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = hash_file(io.BytesIO(bytes(200 * KIB)), 200 * KIB)

    assert len(hashed.segments(200 * KIB)) == 4
    assert hashed.segments(300 * KIB) == ()
    assert Hashed(hashed.sha256).segments(200 * KIB) == ()
    monkeypatch.setattr(sha256, "_LIBCRYPTO", None)
    assert hashed.segments(200 * KIB) == ()
    hasher = Hasher(200 * KIB)
    hasher.update(bytes(200 * KIB))
    assert hasher.hashed() == Hashed(hashed.sha256)
