"""One value for a sha256, and every spelling of it."""

from __future__ import annotations

import hashlib

import pytest

from tunegate.api.digest import Digest, beginning, short
from tunegate.api.errors import UsageError

HEX = hashlib.sha256(b"tea").hexdigest()


def test_every_spelling_is_of_the_same_digest() -> None:
    digest = Digest.parse(f"sha256:{HEX}")

    assert str(digest) == f"sha256:{HEX}"
    assert (digest.hex, digest.pinned, short(str(digest))) == (HEX, f"sha256-{HEX}", HEX[:12])
    assert digest == Digest.of_bytes(b"tea") == Digest.of_raw(digest.raw)
    assert len(digest.raw) == 32


@pytest.mark.parametrize("text", ["", HEX, HEX[:12], f"sha256:{HEX[:-1]}", f"sha256:{HEX.upper()}", f"sha256:{HEX}\n"])
def test_anything_else_is_refused_with_where_to_find_one(text: str) -> None:
    with pytest.raises(UsageError, match="tunegate models list"):
        Digest.parse(text)


def test_a_person_may_give_the_beginning() -> None:
    assert beginning(HEX[:8]) == beginning(f"sha256:{HEX[:8]}") == HEX[:8]
    assert beginning(HEX[:7]) is None
    assert beginning("tea/run/checkpoint-1") is None
