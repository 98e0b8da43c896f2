"""Where a request comes from: a client's own word on it counts for nothing."""

from __future__ import annotations

import pytest

from tunegate.serving.addresses import Hops

GATEWAY, CLIENT, OTHER = "10.1.2.3", "203.0.113.7", "198.51.100.9"


def client(peer: str | None, *forwarded: str, hops: Hops) -> str | None:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return hops.client({"type": "http", "client": (peer, 1) if peer else None, "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        (CLIENT, (), CLIENT),
        (CLIENT, (OTHER,), CLIENT),
        (GATEWAY, (CLIENT,), CLIENT),
        (GATEWAY, (f"{OTHER}, {CLIENT}",), CLIENT),
        (GATEWAY, (OTHER, CLIENT), CLIENT),
        (GATEWAY, (f"{CLIENT}, 10.9.9.9",), CLIENT),
        (GATEWAY, (), GATEWAY),
        (GATEWAY, ("unknown",), GATEWAY),
        (GATEWAY, (f"{OTHER}, unknown, 10.9.9.9",), "10.9.9.9"),
        (GATEWAY, ("2001:DB8::1",), "2001:db8::1"),
        (None, (CLIENT,), None),
    ],
)
def test_the_last_one_that_nobody_trusts_asks(peer: str | None, forwarded: tuple[str, ...], found: str | None) -> None:
    assert client(peer, *forwarded, hops=Hops(("10.0.0.0/8",))) == found


def test_this_machine_is_trusted_unless_somebody_says_otherwise() -> None:
    assert client("127.0.0.1", CLIENT, hops=Hops()) == CLIENT
    assert client(GATEWAY, CLIENT, hops=Hops()) == GATEWAY
    assert client("127.0.0.1", CLIENT, hops=Hops((GATEWAY,))) == "127.0.0.1"
