"""GET requests as a tool makes them: within a time, of a size, and to no address that they shall not reach.

A name is resolved here and its addresses are checked as they are connected to, so that neither a redirect nor a DNS
server leads into one's own network.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from tunegate.api.errors import ToolError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MOST_BYTES = 1 << 20
_NAT64, _6TO4 = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16")


@dataclass(frozen=True)
class Page:
    """What a server answered. kind: its content type; location: where a redirect leads."""

    status: int
    kind: str
    body: bytes
    charset: str = "utf-8"
    location: str = ""

    @property
    def text(self) -> str:
        try:
            return self.body.decode(self.charset, "replace")
        except LookupError:  # a charset of the server's own
            return self.body.decode(errors="replace")


class NotAllowed(Exception):  # noqa: N818 - what it says of an address
    """An address that must not be connected to."""


class TooLargeError(ToolError):
    """A page of more than MOST_BYTES."""


async def get(
    url: URL,
    *,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    is_allowed: Callable[[Address], bool] = lambda address: True,
    trust_env: bool = False,
) -> Page:
    """One GET, of no redirect. is_allowed: whether an address may be connected to. trust_env: use the proxy that the
    environment names, which then resolves names itself.

    Raises OSError or aiohttp.ClientError when nothing answers, TimeoutError, NotAllowed for an address, TooLargeError.
    """
    if (literal := _literal(url.host or "")) and not is_allowed(literal):
        raise NotAllowed(str(literal))
    connector = aiohttp.TCPConnector(resolver=_Resolver(is_allowed), force_close=True)
    limit = aiohttp.ClientTimeout(total=seconds)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=limit, trust_env=trust_env) as session,
        session.get(url, allow_redirects=False, headers=headers) as answer,
    ):
        body = await answer.content.read(MOST_BYTES + 1)
        while not answer.content.at_eof() and len(body) <= MOST_BYTES:
            body += await answer.content.read(MOST_BYTES + 1 - len(body))
        if len(body) > MOST_BYTES:
            raise TooLargeError(f"The page is larger than {MOST_BYTES >> 20} MiB; ask for a smaller one.")
        location = answer.headers.get("Location", "") if 300 <= answer.status < 400 else ""
        return Page(answer.status, answer.content_type, body, answer.charset or "utf-8", location)


def is_public(address: Address) -> bool:
    """Whether an address is of the internet at large; those that stand for an IPv4 address are as that one."""
    inner = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        elif address in _6TO4:
            inner = address.sixtofour
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class _Resolver(AbstractResolver):
    """The system's resolver, but for addresses that are not allowed."""

    def __init__(self, is_allowed: Callable[[Address], bool]) -> None:
        self._inner, self._is_allowed = aiohttp.ThreadedResolver(), is_allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = [each for each in found if self._is_allowed(ipaddress.ip_address(each["host"].partition("%")[0]))]
        if not allowed:
            raise NotAllowed(found[0]["host"])
        return allowed

    async def close(self) -> None:
        await self._inner.close()
