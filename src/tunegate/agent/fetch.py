"""HTTP GET by an allow-list: what a model asks for is read where an operator has listed it, and nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from yarl import URL

from tunegate.agent import web
from tunegate.agent.tools import Source, Tool
from tunegate.api.environment import HTTP_ALLOW
from tunegate.api.errors import ToolError, UsageError
from tunegate.knowledge.markup import read_html

SECONDS = 10.0
_REDIRECTS = 3
_TEXT = ("application/json", "application/xml", "application/yaml", "application/javascript")


@dataclass(frozen=True)
class Allowed:
    """What may be asked: URLs that begin as one of `prefixes`, and which private addresses those may lead to."""

    prefixes: tuple[URL, ...]
    networks: tuple[web.Network, ...] = ()

    @classmethod
    def read(cls, entries: Sequence[str]) -> Allowed:
        """From URL prefixes and networks such as 10.0.0.0/8. Raises UsageError for an entry that is neither."""
        prefixes, networks = [], []
        for entry in filter(None, map(str.strip, entries)):
            try:
                if "://" in entry:
                    prefixes.append(_prefix(entry))
                else:
                    networks.append(ipaddress.ip_network(entry))
            except ValueError:
                raise UsageError(
                    f"{entry!r} can't be allowed; write a URL such as https://example.com/help/, or a network such as "
                    f"10.0.0.0/8 whose addresses it may have ({HTTP_ALLOW})."
                ) from None
        if not prefixes:
            raise UsageError(
                f"No URL is allowed, so the tool http can ask nothing; name some in --http-allow or {HTTP_ALLOW}."
            )
        listed = [ipaddress.ip_network(host) for it in prefixes if _is_address(host := it.host or "")]
        return cls(tuple(prefixes), (*networks, *listed))

    def has(self, url: URL) -> bool:
        """Whether a URL begins as one that is listed, with the same scheme, host and port."""
        is_plain = not (url.user or url.password or ".." in url.path.split("/"))  # %2F hides them from yarl
        path = f"{url.path}/"
        return is_plain and any(url.origin() == it.origin() and path.startswith(it.path) for it in self.prefixes)

    def has_address(self, address: web.Address) -> bool:
        """Whether an address is public, or in a network that is listed."""
        return web.is_public(address) or any(address in network for network in self.networks)


def tool(allowed: Allowed) -> Tool:
    """Reads pages of an allow-list."""
    listed = ", ".join(str(prefix) for prefix in allowed.prefixes)

    async def call(given: str) -> tuple[Source, ...]:
        url = _url(given)
        for _ in range(_REDIRECTS + 1):
            if not allowed.has(url):
                raise ToolError(f"{_short(url)} is not allowed; ask for a page below one of: {listed}.")
            page = await _get(url, allowed)
            if not page.location:
                return (await asyncio.to_thread(_source, url, page),)  # a MiB of HTML takes a second
            url = _url(str(url.join(URL(page.location))))
        raise ToolError(f"{_short(url)} leads on and on; ask for another page.")

    return Tool(
        ("HTTP GET", "网页读取"),
        (f"reads a page below one of: {listed}", f"读取以下网址开头的网页：{listed}"),
        call,
        seconds=SECONDS * 2,
        key="http",
        takes=("url", "the URL of the page", "网页的URL"),
    )


async def _get(url: URL, allowed: Allowed) -> web.Page:
    """The page. Raises ToolError for what is none, in the model's words."""
    try:
        page = await web.get(url, seconds=SECONDS, is_allowed=allowed.has_address)
    except web.NotAllowed as error:
        raise ToolError(
            f"{_short(url)} leads to {error}, an address that is not public; who runs this can list its network."
        ) from None
    except TimeoutError:
        raise ToolError(f"{_short(url)} did not answer within {SECONDS:g} seconds; ask for another page.") from None
    except (OSError, aiohttp.ClientError, ValueError):
        raise ToolError(f"{_short(url)} can't be reached; ask for another page.") from None
    if page.status >= 400:
        raise ToolError(f"{_short(url)} answers with status {page.status}; ask for another page.")
    if not (
        page.location or page.kind.startswith("text/") or page.kind in _TEXT or page.kind.endswith(("+json", "+xml"))
    ):
        raise ToolError(f"{_short(url)} is {page.kind}, not text; ask for a page of text.")
    return page


def _source(url: URL, page: web.Page) -> Source:
    """A page's text; of HTML, what a reader sees."""
    if page.kind not in ("text/html", "application/xhtml+xml"):
        return Source(str(url), page.text.strip(), str(url))
    document = read_html(page.text, str(url), str(url))
    parts = [part for section in document.sections for part in (*section.headings[-1:], section.head, section.text)]
    return Source(document.title, "\n".join(filter(None, parts)), str(url))


def _url(given: str) -> URL:
    try:
        url: URL = URL(given.strip().strip("<>\"'"))
        if url.scheme in ("http", "https") and url.host and "\\" not in given:
            return url
    except ValueError:
        pass
    raise ToolError(f"{given[:80]!r} is no URL of a page; write one that begins with http:// or https://.")


def _prefix(entry: str) -> URL:
    url: URL = URL(entry)
    if url.scheme not in ("http", "https") or not url.host or url.query_string or url.user:
        raise ValueError(entry)
    return URL(entry if url.path.endswith("/") else f"{entry}/")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _short(url: URL) -> str:
    return str(url)[:200]
