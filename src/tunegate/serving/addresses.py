"""Who asks, by address: that of the connection or, where it comes from a proxy that is trusted, the one that it names.

X-Forwarded-For grows at its end, by the address that each proxy saw. From there back, the first address of nobody who
is trusted is the client's; what stands before it, the client may have written.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

from tunegate.api.errors import UsageError

LOOPBACK = ("127.0.0.0/8", "::1/128")


class Hops:
    """The proxies that are trusted, as networks. Raises UsageError for what is none."""

    def __init__(self, networks: Sequence[str] = LOOPBACK) -> None:
        try:
            self._networks = [ipaddress.ip_network(network) for network in networks]
        except ValueError as error:
            raise UsageError(f"--trusted-proxy: {error}; write it as 10.0.0.0/8 or 10.1.2.3.") from None
        self._client = lru_cache(4096)(self._find)

    def client(self, scope: Scope) -> str | None:
        """The address of who asks; None where the connection has none."""
        peer = scope.get("client")
        return self._client(peer[0], ",".join(Headers(scope=scope).getlist("x-forwarded-for"))) if peer else None

    def _find(self, peer: str, forwarded: str) -> str:
        found = peer
        for hop in (peer, *reversed(forwarded.split(","))):
            try:
                address = ipaddress.ip_address(hop.strip())
            except ValueError:  # nobody whom we trust writes that
                break
            found = str(address)
            if not any(address in network for network in self._networks):
                break
        return found
